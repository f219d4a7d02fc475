"""Shared fixtures: a small phantom dataset, one real training run on it, and the real data where there is any."""

import atexit
import gc
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import DictConfig
from xdist.scheduler import LoadFileScheduling

from tests.support.paths import REPOSITORY
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.training_runs import PHANTOMS, SHARED, TINY, Run, RunFolder, compose_config

os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"


WHOLLY_SLOW = re.compile(r"^pytestmark = \[?pytest\.mark\.slow", re.MULTILINE)
# Fixtures that train a model or start a server: whatever uses one is slow.
SLOW_FIXTURES = {"run", "run_folder", "bundle_path", "server", "lamp_server"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files in which every test is slow when slow tests are left out: it takes 2 s."""
    left_out = "not slow" in str(config.getoption("markexpr")) and collection_path.suffix == ".py"
    return True if left_out and WHOLLY_SLOW.search(collection_path.read_text("utf-8")) else None


@cache
def needs_run(file: str) -> bool:
    """Return whether a file, relative to the repository, has tests that use the fixture ``run``."""
    return bool(re.search(r"\brun: Run\b", (REPOSITORY / file).read_text("utf-8")))


class FileGroups(LoadFileScheduling):  # type: ignore[misc]
    """Each file runs in one process, and all files that need the objects of a training run in the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "run" if needs_run(file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileGroups | None:
    """Choose the process of each test when tests run in several processes."""
    return FileGroups(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, mark slow tests, and choose the order of the files.

    The files with the most slow tests come first, then those with the most tests, so that no process is left alone with
    a long one.
    """
    reason = "needs the real data and weights: set LESION_SHARED to the folder that has data/ and weights/"
    tests, slow_tests = Counter[Path](), Counter[Path]()
    for item in items:
        if item.get_closest_marker("real") and not SHARED:
            item.add_marker(pytest.mark.skip(reason=reason))
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        tests[item.path] += 1
        slow_tests[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (-slow_tests[item.path], -tests[item.path]))


def pytest_collection_finish() -> None:
    """What was imported stays: Python need not look through it each time that it collects garbage.

    pytest adds its handlers to each logger that keeps its records to itself, six times a test. Those of Streamlit and
    PyTorch hand them on instead, and pytest sees them as before.
    """
    gc.freeze()
    if "PYTEST_XDIST_WORKER" not in os.environ:  # whose complaints nobody sees, and which ends 3 s earlier
        atexit.register(gc.unfreeze)  # at the end everything is taken apart: some modules complain otherwise
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith(("streamlit.", "torch.")) and isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 64 MiB, which a test can fill."""
    with small_disk(tmp_path / "disk", 64) as mounted:
        yield mounted


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; only for tests marked ``real``."""
    return Path(SHARED)


@pytest.fixture(scope="session")
def real_weights(shared: Path) -> Path:
    return shared / "weights" / "mobilenetv2_100.tf2ptq_in1k_dequant.safetensors"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def state_home(shared_folder: Path) -> Iterator[None]:
    """What commands keep in the user's home goes to a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(shared_folder / "state"))
        yield


@pytest.fixture(scope="session")
def data_dir(shared_folder: Path) -> Path:
    """Where generated data and the cache are during the session."""
    return shared_folder / "data"


@pytest.fixture(scope="session")
def tiny_config(data_dir: Path) -> Callable[..., DictConfig]:
    """Compose a tiny run's config for an output folder, with further overrides; of phantoms unless they say other."""

    def make(output: Path, *overrides: str) -> DictConfig:
        experiment = () if any(item.startswith("experiment=") for item in overrides) else PHANTOMS
        return compose_config(output, *experiment, *TINY, f"paths.data={data_dir}", *overrides)

    return make


@pytest.fixture(scope="session")
def run(tiny_config: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One real run of the whole training path on tiny phantoms, made by this process. Do not change its files.

    Only tests that need the objects of a run use it: each process that runs one trains.
    """
    from lesion.training.run import train

    cfg = tiny_config(tmp_path_factory.mktemp("run"), "logger=default")
    return Run(Path(cfg.paths.output), cfg, *train(cfg))


@pytest.fixture(scope="session")
def run_folder(tiny_config: Callable[..., DictConfig], shared_folder: Path) -> RunFolder:
    """The files of one such run, which the first process that needs them makes for all. Do not change them."""
    from lesion.training.run import train

    folder, made = shared_folder / "run", shared_folder / "run_made"
    with FileLock(shared_folder / "run.lock"):
        if not made.exists():
            train(tiny_config(folder, "logger=default"))
            made.touch()
    return RunFolder(folder)


@pytest.fixture(scope="session")
def bundle_path(run_folder: RunFolder) -> Path:
    """A bundle as ``lesion train`` writes it. Do not change its files."""
    return run_folder.bundle_path
