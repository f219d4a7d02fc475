"""Two processes that train one model: the same result as one, and what they are told apart by."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lesion.core.commands import lesion_command
from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.data.manifest import Manifest
from lesion.data.samplers import EpochSampler, ShareSampler
from lesion.model.bundle import Bundle
from lesion.retraining.jobs import RetrainRequest
from lesion.retraining.recipe import RunPaths, recipe
from lesion.retraining.training_subprocess import TrainingProcess
from lesion.training import process_group
from lesion.training.process_group import process_count, strategy
from tests.support.images.pictures import write_classes
from tests.support.paths import REPOSITORY
from tests.support.training_runs import TINY, RunFolder

NEEDS_TWO_CORES = pytest.mark.skipif(available_cores() < 2, reason="needs two processor cores")
# Without batch statistics, dropout and augmentation, a batch of 8 is two batches of 4. A network of few layers
# amplifies differences less.
COMPARABLE = (
    "data=image_folder", "data.fractions={train: 0.6, val: 0.14, calibration: 0.1, test: 0.16}",
    "augmentation@data.augmentation=none", "finetune=scratch", "finetune.freeze_batch_norm=true",
    "model.backbone=test_efficientnet", "model.weights=none", "model.optimizer=sgd", "model.drop_rate=0",
    "model.backbone_lr_factor=1", "model.lr=2e-2",
)  # fmt: skip
# Relative and absolute, for float32 sums in another order.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 2e-6


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the same training by one process and by two, of which one gets an image less for validation."""
    folder = tmp_path_factory.mktemp("processes")
    write_classes(folder / "data", {"a": 23, "b": 21, "c": 22})
    for count, batch in ((1, 8), (2, 4)):
        settings = [
            f"data.root={folder}/data",
            "data.cache_dir=null",
            f"hydra.run.dir={folder / str(count)}",
            f"trainer.devices={count}",
        ]
        settings += [f"data.batch_size={batch}", f"trainer.strategy={'ddp' if count == 2 else 'auto'}"]
        command = [sys.executable, "scripts/train.py", *TINY, *COMPARABLE, *settings]
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
        assert result.returncode == 0, result.stderr
        (folder / f"{count}.log").write_text(result.stderr)
    return folder / "1", folder / "2"


@pytest.mark.slow
@NEEDS_TWO_CORES
class TestTwoProcesses:
    def test_weights_are_those_of_one(self, one_and_two: tuple[Path, Path]) -> None:
        one, two = (
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in one_and_two
        )
        assert one.keys() == two.keys()
        biases = [tensor for name, tensor in one.items() if name.endswith("bn1.bias")]  # 0 before the training
        assert max(float(bias.abs().max()) for bias in biases) > 10 * WEIGHT_TOLERANCE
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=WEIGHT_TOLERANCE)

    def test_losses_and_metrics_of_each_epoch_are_those_of_one(self, one_and_two: tuple[Path, Path]) -> None:
        one, two = (pd.read_csv(folder / "csv" / "metrics.csv") for folder in one_and_two)
        names = ("train/loss", "val/loss", "val/acc", "val/f1_macro")
        for name in names:
            first, second = one[name].dropna(), two[name].dropna()
            assert len(first) == 2
            np.testing.assert_allclose(second, first, rtol=LOSS_TOLERANCE, err_msg=name)
        assert one["train/loss"].dropna().iloc[0] != one["train/loss"].dropna().iloc[1]

    def test_no_image_is_measured_twice(self, one_and_two: tuple[Path, Path]) -> None:
        manifest = Manifest.load(one_and_two[0] / "manifest.parquet")
        assert len(manifest.split("val")) % 2 == 1
        one, two = (json.loads((folder / "metrics.json").read_text()) for folder in one_and_two)
        assert one["images"] == two["images"] == len(manifest.split("test"))
        for name in ("test/acc", "test/nll", "test/ece", "val/f1_macro"):
            assert two["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-3), name

    def test_only_the_first_process_writes_files(self, one_and_two: tuple[Path, Path]) -> None:
        one, two = (
            {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in one_and_two
        )
        assert one == two
        assert Bundle.open(one_and_two[1] / "bundle").classes == Bundle.open(one_and_two[0] / "bundle").classes

    def test_only_the_first_process_logs(self, one_and_two: tuple[Path, Path]) -> None:
        for folder in one_and_two:
            log = folder.with_name(f"{folder.name}.log").read_text()
            assert log.count("epoch 1/2") == 1
            assert "Warning" not in log


@pytest.mark.slow
@pytest.mark.long
@NEEDS_TWO_CORES
def test_a_retraining_runs_in_two_processes(run_folder: RunFolder, tmp_path: Path) -> None:
    """With frozen layers at first: the recipe of the champion, with the settings of this machine."""
    champion, folder = Bundle.open(run_folder.bundle_path), tmp_path / "job"
    paths = RunPaths(run_folder.output / "manifest.parquet", run_folder.manifest.root, folder / "run", tmp_path / "px")
    evaluation = dict(OmegaConf.load(REPOSITORY / "configs" / "evaluation" / "default.yaml").items())
    machine = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    config = recipe(champion, RetrainRequest(epochs=2, batch_size=4), paths, machine, evaluation)
    config["finetune"] |= {"warmup_epochs": 1, "unfreeze_last": 20}
    seen: list[int] = []
    process = TrainingProcess(folder, config, lesion_command("train"), nice=0)
    bundle = Bundle.open(process.run(lambda progress: seen.append(progress.epoch)))
    assert bundle.facts["lineage"]["parent"] == champion.version
    assert bundle.classes == champion.classes
    assert process.progress().epoch == 2
    assert "[rank" not in (folder / "train.log").read_text()
    assert not list((folder / "run").glob("*process*"))


@pytest.mark.slow
@pytest.mark.long
@NEEDS_TWO_CORES
def test_a_loss_that_is_not_finite_ends_both_processes(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"a": 23, "b": 21, "c": 22})
    settings = [f"data.root={tmp_path}/data", "data.cache_dir=null", f"hydra.run.dir={tmp_path}/run"]
    settings += ["trainer.devices=2", "model.lr=1e30", "data.batch_size=4"]
    command = [sys.executable, "scripts/train.py", *TINY, *COMPARABLE, *settings]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error (loss_not_finite): The loss is ")
    assert result.stderr.count("error (") == 1
    assert "Traceback" not in result.stderr
    assert "a/" in result.stderr


def test_two_shares_are_one_process_batches() -> None:
    whole = list(EpochSampler(23, 5, lambda: 2))
    shares = [list(EpochSampler(23, 5, lambda: 2, None, 2, number)) for number in (0, 1)]
    assert [len(share) for share in shares] == [11, 11]
    for start in range(0, 8, 4):  # batches of 4 in each process are batches of 8
        together = {pair for share in shares for pair in share[start : start + 4]}
        assert together == set(whole[2 * start : 2 * start + 8])


@pytest.mark.parametrize(("size", "count"), [(10, 2), (11, 2), (1, 2), (7, 3)])
def test_shares_measure_each_row_once_and_are_equally_long(size: int, count: int) -> None:
    shares = [list(ShareSampler(size, count, number)) for number in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(row for share in shares for row in share if row is not None) == list(range(size))


@pytest.mark.parametrize(
    ("gpus", "settings", "count"),
    [
        (0, {}, 1),
        (0, {"devices": "auto"}, 1),
        (0, {"accelerator": "cpu", "devices": 2}, 2),
        (0, {"accelerator": "cpu", "devices": "2", "num_nodes": 3}, 6),
        (4, {"devices": -1}, 4),
        (4, {"devices": "auto", "num_nodes": 2}, 8),
        (4, {"accelerator": "gpu", "devices": [1, 3]}, 2),
        (4, {"accelerator": "gpu", "devices": "0,1,2"}, 3),
        (4, {"accelerator": "cpu"}, 1),
        (0, {"accelerator": "tpu", "devices": 8}, 8),
    ],
)
def test_processes_are_counted(
    monkeypatch: pytest.MonkeyPatch, gpus: int, settings: dict[str, Any], count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(process_group, "available_cores", lambda: 4)
    assert process_count(settings) == count


@pytest.mark.parametrize(
    ("gpus", "settings", "words"),
    [
        (0, {"devices": 5}, "trainer.devices=5 processes are more than the 4 processor cores here"),
        (0, {"devices": 0}, "trainer.devices=0: on a CPU this is the number of processes, 1 or more"),
        (0, {"accelerator": "cpu", "devices": -1}, "trainer.devices=-1: on a CPU"),
        (0, {"accelerator": "cpu", "devices": [0, 1]}, "on a CPU this is the number of processes"),
        (0, {"devices": "two"}, "trainer.devices=two"),
        (0, {"accelerator": "gpu"}, "torch sees no GPU here. Use trainer.accelerator=cpu"),
        (1, {"devices": 2}, "trainer.devices=2 cannot be used: there is 1 GPU here"),
        (2, {"accelerator": "gpu", "devices": [0, 2]}, "there are 2 GPUs here"),
        (2, {"devices": 0}, "trainer.devices=0 cannot be used"),
        (0, {"num_nodes": 0}, "trainer.num_nodes=0 must be a whole number of machines"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: int, settings: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(process_group, "available_cores", lambda: 4)
    with pytest.raises(ConfigError) as refused:
        process_count(settings)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "auto"),
        ({"devices": 2}, "ddp_find_unused_parameters_true"),
        ({"devices": 2, "num_nodes": 2}, "ddp_find_unused_parameters_true"),
        ({"strategy": "ddp"}, "ddp_find_unused_parameters_true"),
        ({"strategy": "ddp_spawn", "devices": 2}, "ddp_spawn_find_unused_parameters_true"),
        ({"strategy": "fsdp", "devices": 2}, "fsdp"),
    ],
)
def test_the_strategy_bears_frozen_layers(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], name: str) -> None:
    monkeypatch.setattr(process_group, "available_cores", lambda: 4)
    assert strategy({"accelerator": "cpu"} | settings, all_trained=False) == name
    plain = name.removesuffix("_find_unused_parameters_true")
    assert strategy({"accelerator": "cpu"} | settings, all_trained=True) == plain
