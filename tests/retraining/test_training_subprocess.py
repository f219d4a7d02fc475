"""The training process: its recipe, and how it ends, goes on and is ended."""

import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lesion.model.bundle import Bundle
from lesion.retraining.jobs import JobError, RetrainRequest
from lesion.retraining.leases import LeaseLost
from lesion.retraining.recipe import RunPaths, recipe
from lesion.retraining.training_subprocess import Progress, TrainingProcess
from tests.support.bundles.registry_bundles import sealed
from tests.support.servers.serving import eventually
from tests.support.training_subprocess import CONFIG, OLD, STAND_IN

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make a recipe from a champion with this config."""

    def made(config: object = CONFIG, epochs: int = 4, **facts: Any) -> dict[str, Any]:
        champion = Bundle.open(sealed(tmp_path / "champion", config=config, **facts))
        root, cache = tmp_path / "files", tmp_path / "pixels"
        return recipe(
            champion,
            RetrainRequest(epochs=epochs, batch_size=8, learning_rate=0.01),
            RunPaths(tmp_path / "manifest.parquet", root, tmp_path / "run", cache),
            {"devices": 1},
            {"replicates": 1000, "folder_split": False, "new": 2},
        )

    return made


def test_recipe_is_the_champions_on_other_data_from_its_weights(
    make: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    made = make()
    assert made["data"]["manifest"] == str(tmp_path / "manifest.parquet")
    assert made["data"]["root"] == str(tmp_path / "files")
    assert (made["data"]["csv"], made["data"]["batch_size"]) == (None, 8)
    assert made["data"]["augmentation"]["rotation"] == 10
    assert made["model"]["weights"] == str(tmp_path / "champion" / "model.safetensors")
    assert made["model"]["lr"] == 0.01
    assert made["finetune"] == CONFIG["finetune"] | {"warmup_epochs": 0}
    assert (made["trainer"]["max_epochs"], made["trainer"]["devices"]) == (4, 1)
    assert made["callbacks"]["checkpoint"]["dirpath"] == str(tmp_path / "run" / "checkpoints")
    assert made["callbacks"]["progress_file"]["path"] == str(tmp_path / "run" / "progress.json")
    assert "progress" not in made["callbacks"]
    assert list(made["logger"]) == ["csv"]
    assert made["evaluation"] == {"replicates": 10, "folder_split": False, "folds": 0, "new": 2}
    assert made["parent"] == Bundle.open(tmp_path / "champion").version
    assert OLD not in json.dumps(made)


def test_recipe_keeps_the_padding_that_the_weights_were_made_for(make: Callable[..., dict[str, Any]]) -> None:
    model = {"backbone": "mobilenetv2_100", "mean": [0.5] * 3, "std": [0.5] * 3, "model_kwargs": {"pad_type": "same"}}
    assert make(model=model)["model"]["pad_type"] == "same"


def test_recipe_of_a_retrained_champion_can_be_used_again(make: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = make()
    champion = Bundle.open(sealed(tmp_path / "second", config=first))
    paths = RunPaths(tmp_path / "manifest.parquet", tmp_path / "files", tmp_path / "other", tmp_path / "pixels")
    again = recipe(champion, RetrainRequest(), paths, {}, {})
    assert again["callbacks"]["progress_file"]["path"] == str(tmp_path / "other" / "progress.json")


@pytest.mark.parametrize(
    "section",
    [
        {"callbacks": {"bad": {"_target_": "os.system", "command": "touch /tmp/x"}}},
        {"callbacks": {"bad": {"_target_": "lightning.pytorch.callbacks.os.system"}}},
        {"trainer": CONFIG["trainer"] | {"plugins": [{"_target_": "builtins.eval"}]}},
        {"data": CONFIG["data"] | {"name": "${oc.env:AWS_SECRET_ACCESS_KEY}"}},
    ],
)
def test_recipe_calls_nothing_else(make: Callable[..., dict[str, Any]], section: dict[str, Any]) -> None:
    with pytest.raises(JobError) as caught:
        make(CONFIG | section)
    assert caught.value.code == "recipe_refused"


def test_a_champion_without_a_recipe_cannot_be_retrained(make: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(JobError, match="Train a new model") as caught:
        make(None)
    assert caught.value.code == "recipe_missing"


@pytest.fixture
def training(
    make: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainingProcess]:
    """Make a training whose script does as it is told."""

    def made(**orders: Any) -> TrainingProcess:
        bundle = sealed(tmp_path / "made")
        monkeypatch.setenv("LESION_STAND_IN", json.dumps({"bundle": str(bundle)} | orders))
        config = make() | {"paths": {"output": str(tmp_path / "job" / "run")}}
        return TrainingProcess(tmp_path / "job", config, [sys.executable, str(STAND_IN)], nice=1, grace_s=1.0)

    return made


def starts(training: TrainingProcess) -> list[tuple[int, int]]:
    """Of each start its process's id, and how many epochs were done; a file that is there may not be written yet."""
    record = training.output / "starts.txt"
    lines = record.read_text().splitlines() if record.is_file() else []
    return [(int(pid), int(done)) for pid, done in map(str.split, lines)]


def test_training_runs_once_and_says_how_far_it_is(training: Callable[..., TrainingProcess]) -> None:
    seen: list[Progress] = []
    process = training(epoch_s=0.4)
    bundle = process.run(seen.append)
    assert Bundle.open(bundle).name == "made"
    assert {one.epoch for one in seen} & {1, 2, 3}
    assert process.progress().epoch == 4
    assert process.progress().metrics[-1] == {"epoch": 4, "val/acc": 0.4}
    assert process.run(seen.append) == bundle  # it is done
    assert len(starts(process)) == 1


def test_a_killed_training_goes_on_from_its_last_checkpoint(training: Callable[..., TrainingProcess]) -> None:
    process = training(dies_once_after=2)
    process.run(lambda progress: None)
    assert [done for _, done in starts(process)] == [0, 2]


def test_a_training_that_is_killed_again_and_again_fails(training: Callable[..., TrainingProcess]) -> None:
    process = training(dies_before=2)
    with pytest.raises(JobError, match="killed 3 times in a row by signal 9, after 1 epochs") as caught:
        process.run(lambda progress: None)
    assert caught.value.code == "training_killed"
    assert [done for _, done in starts(process)] == [0, 1, 1]


def test_a_training_that_fails_says_why(training: Callable[..., TrainingProcess]) -> None:
    with pytest.raises(JobError, match=r"exit status 2\). error \(config_invalid\): No such backbone\.$") as caught:
        training(say="Traceback\nerror (config_invalid): No such backbone.", status=2).run(lambda progress: None)
    assert caught.value.code == "training_failed"


def test_what_stops_the_job_ends_the_process(training: Callable[..., TrainingProcess]) -> None:
    process = training(epoch_s=60)

    def stop(progress: Progress) -> None:
        if starts(process):
            raise LeaseLost

    with pytest.raises(LeaseLost):
        process.run(stop)
    assert not psutil.pid_exists(starts(process)[0][0])


def test_a_training_ends_with_its_worker_however_that_went(
    training: Callable[..., TrainingProcess], tmp_path: Path
) -> None:
    process = training(epoch_s=60)
    code = "import pickle, sys\ntraining = pickle.load(open(sys.argv[1], 'rb'))\ntraining.run(lambda progress: None)\n"
    (tmp_path / "training.pickle").write_bytes(pickle.dumps(process))
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "training.pickle")])
    eventually(lambda: starts(process))
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    pid = starts(process)[0][0]
    eventually(lambda: not psutil.pid_exists(pid), 5)


def test_two_trainings_never_share_a_folder(training: Callable[..., TrainingProcess]) -> None:
    """One that a worker left behind is waited for; whoever waits may be told to stop meanwhile."""
    process = training()
    process.folder.mkdir()
    with (process.folder / "train.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited = []

        def report_progress(progress: Progress) -> None:
            waited.append(time.monotonic())
            if len(waited) == 2:
                raise LeaseLost

        with pytest.raises(LeaseLost):
            process.run(report_progress)
    assert not (process.output / "starts.txt").exists()
    process.run(lambda progress: None)
    assert len(starts(process)) == 1
