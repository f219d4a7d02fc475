"""Shared fixtures: a small phantom dataset, one real training run on it, and the real data where there is any."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.support.training_runs import PHANTOMS, SHARED, TINY, Run, compose_config

os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"


# Fixtures that train a model or start a server: whatever uses one is slow.
SLOW_FIXTURES = {"run", "bundle_path", "server", "lamp_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, mark what is slow, and put the files with the most slow tests first.

    With several processes the files are handed out in this order, so that no process is left alone with a long one.
    """
    reason = "needs the real data and weights: set LESION_SHARED to the folder that has data/ and weights/"
    slow_tests = Counter[Path]()
    for item in items:
        if item.get_closest_marker("real") and not SHARED:
            item.add_marker(pytest.mark.skip(reason=reason))
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        slow_tests[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: -slow_tests[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; only for tests marked ``real``."""
    return Path(SHARED)


@pytest.fixture(scope="session")
def real_weights(shared: Path) -> Path:
    return shared / "weights" / "mobilenetv2_100.tf2ptq_in1k_dequant.safetensors"


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where generated data and the cache live during the session."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny_config(data_dir: Path) -> Callable[..., DictConfig]:
    """Compose a tiny run's config for an output folder, with further overrides; of phantoms unless they say other."""

    def make(output: Path, *overrides: str) -> DictConfig:
        experiment = () if any(item.startswith("experiment=") for item in overrides) else PHANTOMS
        return compose_config(output, *experiment, *TINY, f"paths.data={data_dir}", *overrides)

    return make


@pytest.fixture(scope="session")
def run(tiny_config: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One real run of the whole training path on tiny phantoms, shared by the session. Do not change its files."""
    from lesion.training.run import train

    cfg = tiny_config(tmp_path_factory.mktemp("run"), "logger=default")
    return Run(cfg, *train(cfg))


@pytest.fixture(scope="session")
def bundle_path(run: Run) -> Path:
    """A bundle as ``scripts/train.py`` writes it. Do not change its files."""
    return run.bundle_path
