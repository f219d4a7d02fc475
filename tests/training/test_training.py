"""The whole path of a run, and everything it leaves behind."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from lesion.core.errors import ConfigError
from lesion.data.manifest import Manifest
from lesion.evaluation.rendering import literal_markdown
from lesion.model.bundle import Bundle
from lesion.model.classifier import ImageClassifier
from lesion.model.predictor import Prediction, Predictor
from lesion.training.fitting import fit
from lesion.training.progress import clock
from lesion.training.provenance import git_commit
from lesion.training.resuming import check_checkpoint
from lesion.training.run import train
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import eventually
from tests.support.training_runs import PHANTOMS, TINY, Run, compose_config


def test_run_leaves_everything(run: Run) -> None:
    for name in ("manifest.parquet", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "csv/metrics.csv"):
        assert (run.output / name).is_file(), name
    for name in ("metrics.json", "report.html"):
        assert (run.output / name).is_file()
        assert (run.bundle_path / "report" / name).is_file()
    history = pd.read_csv(run.output / "csv" / "metrics.csv")
    assert history["val/f1_macro"].notna().sum() == run.cfg.trainer.max_epochs
    assert (history["train/images_per_second"].dropna() > 0).all()


def test_what_leaves_the_machine_names_no_file_of_it(run: Run) -> None:
    """The report beside the bundle has the paths of its images; the bundle and wandb have hashes in their place."""
    manifest = run.objects["datamodule"].manifest
    shown = [path for path in manifest.table["path"] if path in (run.output / "report.html").read_text("utf-8")]
    assert shown
    hashes = dict(zip(manifest.table["path"], manifest.table["sha256"], strict=True))
    report = (run.bundle_path / "report" / "report.html").read_text("utf-8")
    assert all(f"image {hashes[path][:12]}" in report for path in shown)
    away = [
        file for file in (*run.bundle_path.rglob("*"), *(run.output / "wandb").rglob("files/**/*")) if file.is_file()
    ]
    assert len(away) > 8
    for file in away:
        content = file.read_bytes()
        assert not [path for path in manifest.table["path"] if path.encode() in content], file
    ours, theirs = (
        json.loads((folder / "metrics.json").read_text()) for folder in (run.output, run.bundle_path / "report")
    )
    assert ours.pop("data") == theirs.pop("data") | {"refused": [], "conflicts": []}
    assert ours == theirs


def test_metrics_file_agrees_with_what_was_returned(run: Run) -> None:
    kept = json.loads((run.output / "metrics.json").read_text())
    assert set(kept["curves"]["roc"]) == set(kept["curves"]["pr"]) == set(kept["classes"])
    assert sum(row["images"] for row in kept["curves"]["reliability"]["after"]) == kept["images"]
    written = kept["metrics"]
    assert written["test/acc"] == run.metrics["test/acc"]
    assert written["test/acc_low"] <= written["test/acc"] <= written["test/acc_high"]
    assert written["val/f1_macro"] == run.metrics["val/f1_macro"]


def test_bundle_answers_as_the_evaluation_did(run: Run) -> None:
    """The same images through the server's own path give the probabilities that the metrics were computed from."""
    evaluation = run.objects["evaluation"]
    predictor = Predictor.load(run.bundle_path, precision="f32")
    root = Manifest.load(run.output / "manifest.parquet").root
    predictions = predictor.predict([(root / path).read_bytes() for path in evaluation.paths])
    for prediction, expected in zip(predictions, evaluation.probabilities, strict=True):
        assert isinstance(prediction, Prediction)
        assert list(prediction.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-4)


def test_bundle_says_what_it_is(run: Run) -> None:
    bundle = Bundle.open(run.bundle_path)
    manifest = run.objects["datamodule"].manifest
    assert bundle.facts["data"]["fingerprint"] == manifest.fingerprint
    assert bundle.facts["model"]["weights"]["source"] == "none"
    assert bundle.facts["calibration"]["images"] == len(manifest.split("calibration"))
    assert bundle.calibration.temperature == run.objects["evaluation"].calibration.temperature
    card = (run.bundle_path / "MODEL_CARD.md").read_text()
    assert "RANDOM INITIAL WEIGHTS" in card
    assert manifest.fingerprint[:12] in card
    assert all(f"| {literal_markdown(name)} |" in card for name in manifest.classes)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("glioma", "glioma"),
        ("a|b\n# c", r"a\|b # c"),
        ("<img src=x onerror=y> & *[x](y)*", r"&lt;img src=x onerror=y&gt; &amp; \*\[x\](y)\*"),
        ("no_tumor `x` \\", r"no\_tumor \`x\` \\"),
    ],
)
def test_names_stand_in_the_card_as_they_are(name: str, shown: str) -> None:
    assert literal_markdown(name) == shown


def test_no_patient_stands_on_two_sides(run: Run) -> None:
    table = run.objects["datamodule"].manifest.table
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert table.groupby("group")["split"].nunique().max() == 1


def test_initial_weights_are_said_aloud(
    tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(tiny_config(tmp_path, "+trainer.limit_train_batches=1", "trainer.max_epochs=1"), run.objects["datamodule"])
    assert "RANDOM INITIAL WEIGHTS" in caplog.text


def test_missing_checkpoint_is_refused(tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, f"resume={tmp_path}/none.ckpt")
    with pytest.raises(ConfigError, match=r"none\.ckpt.*does not exist"):
        fit(cfg, run.objects["datamodule"])


def not_whole(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path, content: bytes) -> None:
    path.write_bytes(b"")


def weights_alone(path: Path, content: bytes) -> None:
    torch.save({"state_dict": torch.load(path, weights_only=True)["state_dict"]}, path)


def code(path: Path, content: bytes) -> None:
    torch.save({"state_dict": print}, path)


@pytest.mark.parametrize("change", [not_whole, empty, weights_alone, code])
def test_what_is_no_whole_checkpoint_is_refused(
    tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    last = Path(shutil.copy(run.output / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt"))
    change(last, last.read_bytes())
    with pytest.raises(ConfigError, match=r"last\.ckpt' is not a checkpoint .*, or it is not whole"):
        fit(tiny_config(tmp_path, f"resume={last}"), run.objects["datamodule"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.max_epochs=1", "has 2 finished epochs, more than trainer.max_epochs=1"),
        ("model.backbone=resnet18", "its backbone is mobilenetv2_035, this run's is resnet18"),
        ("model.optimizer=adamw", "its optimizer is sgd, this run's is adamw"),
        ("model.scheduler=null", "its scheduler is cosine, this run's is None"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path, override: str, words: str
) -> None:
    cfg = tiny_config(tmp_path, f"resume={run.output}/checkpoints/last.ckpt", override)
    with pytest.raises(ConfigError, match=re.escape(words)):
        fit(cfg, run.objects["datamodule"])


def test_a_checkpoint_of_other_classes_is_refused(run: Run) -> None:
    classes = ["aaa", *run.objects["datamodule"].classes[1:]]
    other = ImageClassifier(classes, backbone="mobilenetv2_035", weights="none")
    with pytest.raises(ConfigError, match=r"its classes are glioma, .*, this run's are aaa, "):
        check_checkpoint(run.output / "checkpoints" / "last.ckpt", other, None)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("explain.methods=[foo]", "no explanation method 'foo'"),
        ("explain.methods=[]", "explain.methods=[] must be a list of at least one"),
        ("explain.road_images=-1", "explain.road_images=-1 must be a whole number, 0 or more"),
        ("evaluation.prevalence=natural", "evaluation.prevalence=natural must be null, equal, or a positive share"),
        ("seed=-1", "seed=-1 must be a whole number from 0"),
    ],
)
def test_what_would_fail_after_the_training_is_refused_before_it(
    tiny_config: Callable[..., DictConfig], tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        train(tiny_config(tmp_path, override))
    assert not list(tmp_path.iterdir())  # not even the data was read


def test_a_training_that_is_stopped_says_how_to_go_on(data_dir: Path, run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "scripts/train.py", *PHANTOMS, *TINY, f"paths.data={data_dir}"]
    command += [f"paths.outputs={tmp_path}", "trainer.max_epochs=500"]
    with (tmp_path / "log").open("w") as log:
        # A suite that a shell started in the background ignores Ctrl-C, and its children would too.
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        eventually(lambda: list(tmp_path.glob("*/*/checkpoints/last.ckpt")), seconds=120)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    [last] = tmp_path.glob("*/*/checkpoints/last.ckpt")
    words = (tmp_path / "log").read_text()
    assert words.splitlines()[-1] == f"stopped; continue with resume={last}"
    assert "Traceback" not in words


def test_a_run_that_was_moved_goes_on_with_its_best_checkpoint(
    tiny_config: Callable[..., DictConfig], run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.output / "checkpoints", tmp_path / "checkpoints")
    _, trainer = fit(tiny_config(tmp_path, f"resume={tmp_path}/checkpoints/last.ckpt"), run.objects["datamodule"])
    before, moved = run.objects["trainer"].checkpoint_callback, trainer.checkpoint_callback
    assert isinstance(moved, ModelCheckpoint)
    assert before.best_model_path == str(run.output / "checkpoints" / "best.ckpt")
    assert moved.best_model_path == str(tmp_path / "checkpoints" / "best.ckpt")
    assert moved.best_model_score == before.best_model_score
    assert moved.best_k_models == {moved.best_model_path: before.best_model_score}


def test_git_commit_outside_a_checkout_is_empty(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05"), (float("nan"), "–")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.slow
def test_a_cross_validation_tests_every_image_once(tmp_path: Path, data_dir: Path) -> None:
    """Two folds: three trainings, of which the first is the bundle; the report and the metrics have all of them."""
    overrides = [*PHANTOMS, *TINY, f"paths.data={data_dir}", "trainer.max_epochs=1", "explain.road_images=0"]
    cfg = compose_config(tmp_path, *overrides, "evaluation.folds=2")
    metrics, objects = train(cfg)
    kept = json.loads((tmp_path / "metrics.json").read_text())["cross_validation"]
    folds = objects["datamodule"].folds(2)
    tested = [path for fold in folds for path in fold.manifest.split("test")["path"]]
    assert sorted(tested) == sorted(objects["datamodule"].manifest.used()["path"])
    assert kept["test_images"] == [len(fold.manifest.split("test")) for fold in folds]
    for fold in folds:
        groups = [set(fold.manifest.split(name)["group"]) for name in ("train", "val", "calibration", "test")]
        assert sum(map(len, groups)) == len(set.union(*groups))
    accuracies = [scores["acc"] for scores in kept["scores"]]
    assert metrics["folds/acc"] == pytest.approx(sum(accuracies) / 2)
    assert (tmp_path / "folds" / "2" / "checkpoints" / "best.ckpt").is_file()
    report = (tmp_path / "report.html").read_text()
    assert "Trained 2 times, each time without another fold of 2" in report
    assert f"<td>{accuracies[1]:.3f}</td>" in report
