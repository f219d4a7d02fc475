"""Every preset composes, every ``_target_`` exists, and its keys fit the signature."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

import lesion
from lesion.core import commands
from lesion.retraining.stages import RetrainSettings
from tests.support.paths import REPOSITORY
from tests.support.training_runs import compose_config

CONFIGS = REPOSITORY / "configs"
GROUPS = ("data", "augmentation", "model", "finetune", "trainer", "callbacks", "logger", "explain", "evaluation")
OVERRIDES = sorted(
    f"{'augmentation@data.augmentation' if group == 'augmentation' else group}={path.stem}"
    for group in (*GROUPS, "experiment")
    for path in (CONFIGS / group).glob("*.yaml")
)
# What the code adds when it instantiates: see lesion.training.run.fit.
ADDED: dict[str, dict[str, Any]] = {"lesion.model.classifier.ImageClassifier": {"classes": []}}


def targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("override", OVERRIDES)
def test_preset_composes_and_its_targets_take_its_keys(override: str, tmp_path: Path) -> None:
    cfg = compose_config(tmp_path, "data.root=somewhere", override)
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    found = list(targets(settings))
    assert len(found) >= 6
    for node in found:
        target = get_object(node["_target_"])
        arguments = {key: value for key, value in node.items() if not key.startswith("_")}
        inspect.signature(target).bind(**arguments, **ADDED.get(node["_target_"], {}))


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_experiments_hold_differences_only(path: Path, tmp_path: Path) -> None:
    """A value that an experiment sets differs from what its own choice of groups gives without it."""
    raw: Any = OmegaConf.to_container(OmegaConf.load(path))
    choices = []
    for default in raw.pop("defaults"):
        [(key, value)] = default.items()
        choices.append(f"{key.removeprefix('override ').lstrip('/')}={value}")
    plain = compose_config(tmp_path, "data.root=somewhere", *choices)
    for key, value in flatten(raw):
        assert OmegaConf.select(plain, key) != value, f"{path.name} repeats the default {key}={value}"


def flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_mri_is_never_stood_on_its_head(tmp_path: Path) -> None:
    for experiment in ("phantom_mri", "brain_tumor_mri"):
        augmentation = compose_config(tmp_path, f"experiment={experiment}").data.augmentation
        assert "vertical_flip" not in augmentation


def test_the_package_holds_the_configs_of_the_checkout() -> None:
    def files(folder: Path) -> dict[Path, bytes]:
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.yaml")}

    assert files(commands.CONFIGS) == files(CONFIGS) != {}
    assert Path(lesion.__file__).parent / "configs" == commands.CONFIGS


def test_a_worker_s_configs_are_the_defaults() -> None:
    settings = instantiate(OmegaConf.load(CONFIGS / "retrain" / "default.yaml"))
    assert settings == RetrainSettings()
    assert settings.command == commands.lesion_command("train")
    other = RetrainSettings(script="scripts/other.py").command
    assert other == [sys.executable, str(Path.cwd() / "scripts" / "other.py")]


def test_a_server_s_configs_are_the_defaults() -> None:
    from serve.launch import serve
    from serve.settings import AccessSettings, ServerSettings, TraceSettings

    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIGS / "serve.yaml"))  # type: ignore[assignment]
    for section in (ServerSettings, AccessSettings, TraceSettings):
        assert section.from_config(config[section.section]) == section()
    own = {name: value for name, value in config.items() if name not in ("defaults", "hydra")}
    inspect.signature(serve).bind(**own, storage=None, intake=None)
