"""What wandb was given, read back from the run's own record."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_runs import Run
from tests.support.wandb_record import records


@pytest.fixture(scope="module")
def recorded(run: Run) -> dict[str, list[Any]]:
    [path] = (run.output / "wandb").glob("offline-run-*/*.wandb")
    found: dict[str, list[Any]] = {}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        found.setdefault(kind, []).append(getattr(record, kind))
    return found


@pytest.fixture(scope="module")
def history(recorded: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Every value logged, by key; parts of a value have a key such as ``test/heat_maps.count``."""
    values: dict[str, list[Any]] = {}
    for row in recorded["history"]:
        for item in row.item:
            values.setdefault(item.key or ".".join(item.nested_key), []).append(json.loads(item.value_json))
    return values


@pytest.fixture(scope="module")
def files(run: Run) -> Path:
    [folder] = (run.output / "wandb").glob("offline-run-*/files")
    return folder


def test_config_is_recorded(recorded: dict[str, list[Any]], run: Run) -> None:
    settings = {}
    for record in (*recorded["config"], *(one.config for one in recorded["run"])):
        for update in record.update:
            settings[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
    assert settings["model"]["lr"] == run.cfg.model.lr
    assert settings["data"]["size"] == 64


def test_curves_are_recorded(history: dict[str, list[Any]], run: Run) -> None:
    assert len(history["val/f1_macro"]) >= run.cfg.trainer.max_epochs
    assert len(history["train/loss"]) == run.cfg.trainer.max_epochs


def test_metrics_are_recorded(history: dict[str, list[Any]], run: Run) -> None:
    assert history["test/acc"][-1] == pytest.approx(run.metrics["test/acc"])


def test_confusion_matrix_is_recorded(history: dict[str, list[Any]], files: Path, run: Run) -> None:
    [path] = history["test/confusion_matrix_table.path"]
    counts = {(actual, predicted): count for actual, predicted, count in json.loads((files / path).read_text())["data"]}
    evaluation = run.objects["evaluation"]
    for i, actual in enumerate(evaluation.classes):
        for j, predicted in enumerate(evaluation.classes):
            assert counts[actual, predicted] == evaluation.confusion[i, j]


def test_gradcam_images_are_recorded(history: dict[str, list[Any]], files: Path) -> None:
    [names] = history["test/heat_maps.filenames"]
    assert history["test/heat_maps.count"] == [len(names)]
    assert len(names) > 0
    assert all((files / name).stat().st_size > 100 for name in names)


def test_bundle_is_an_artifact(recorded: dict[str, list[Any]], run: Run) -> None:
    [artifact] = [artifact for artifact in recorded["artifact"] if artifact.type == "model"]
    assert artifact.name == "phantom_mri"
    assert json.loads(artifact.metadata)["version"] == run.objects["bundle"].version
    assert {entry.path for entry in artifact.manifest.contents} >= {"bundle.json", "model.onnx", "MODEL_CARD.md"}
