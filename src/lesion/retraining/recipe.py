"""The config of a retraining: the champion's own recipe on other data, from the champion's weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion.model.bundle import Bundle
from lesion.retraining.jobs import JobError, RetrainRequest

# A bundle's config names what is called when it is instantiated: only what Lesion's own recipes are made of is allowed.
_TARGETS = frozenset(
    {
        "lesion.data.datamodule.DataModule",
        "lesion.data.transforms.augmentation",
        "lesion.model.classifier.ImageClassifier",
        "lesion.model.finetune.FineTuning",
        "lesion.training.hardware.best_precision",
        "lesion.training.progress.Throughput",
        "lightning.pytorch.Trainer",
    }
)
_CALLBACK = re.compile(r"lightning\.pytorch\.callbacks\.[A-Z][A-Za-z]+")
_LEARNING_RATE_FACTOR = 0.25  # of the champion's own
_REQUIRED_SECTIONS = ("data", "model", "finetune", "trainer", "callbacks")
_SECTIONS = (*_REQUIRED_SECTIONS, "explain", "evaluation", "seed", "optimized_metric", "name")


@dataclass(frozen=True)
class RunPaths:
    """Where a retraining reads and writes."""

    manifest: Path
    images: Path  # the folder that the manifest's paths are relative to
    output: Path
    cache: Path


def recipe(
    champion: Bundle,
    request: RetrainRequest,
    paths: RunPaths,
    trainer: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    interpolation_steps: int | None = None,
) -> dict[str, Any]:
    """Return what ``configs/train.yaml`` would compose to, resolved, for one retraining.

    The settings of this machine, ``trainer``, override the champion's ``trainer`` section. ``evaluation`` is today's
    ``configs/evaluation``: a champion of an earlier version may lack some of its settings. With
    ``interpolation_steps``, the challenger's weights are the best of so many on the way from the champion's.

    Raises:
        JobError: The bundle does not hold the config that it was trained with (``recipe_missing``), or the config
            would call something that is not part of a recipe (``recipe_refused``).
    """
    config = _champion_config(champion, paths.output)
    config["data"] |= {"manifest": str(paths.manifest), "root": str(paths.images), "cache_dir": str(paths.cache)}
    config["data"] |= {"csv": None, "group_pattern": None, "split": "grouped"}
    if request.batch_size:
        config["data"]["batch_size"] = request.batch_size
    # The name of the bundle's file does not tell which padding its weights were trained with.
    pad_type = champion.facts["model"].get("model_kwargs", {}).get("pad_type", "")
    config["model"] |= {"weights": str(champion.weights), "pad_type": pad_type}
    if rate := request.learning_rate or _reduced_rate(config["model"]):
        config["model"]["lr"] = rate
    config["finetune"] |= {"warmup_epochs": 0}  # the head is trained already
    config["trainer"] |= {"max_epochs": request.epochs, "default_root_dir": str(paths.output)} | dict(trainer)
    champion_values = {key: value for key, value in config.get("evaluation", {}).items() if key in evaluation}
    config["evaluation"] = {**evaluation, **champion_values, "folder_split": False, "folds": 0}
    for name in ("progress", "progress_file"):  # no terminal shows a bar; a retrained champion has our progress file
        config["callbacks"].pop(name, None)
    _check_targets(config)
    config["callbacks"]["progress_file"] = {
        "_target_": "lesion.training.progress.ProgressFile",
        "path": str(paths.output / "progress.json"),
    }
    logger = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(paths.output)}
    config["logger"] = {"csv": logger | {"name": "", "version": "csv"}}
    config["paths"] = {"output": str(paths.output), "cache": str(paths.cache)}
    return config | {"parent": champion.version, "resume": None, "interpolation_steps": interpolation_steps}


def default_settings(champion: Bundle) -> dict[str, Any]:
    """Return the ``batch_size`` and ``learning_rate`` that a retraining uses if none are chosen.

    A value that the champion's config lacks is None.
    """
    config = champion.facts.get("config")
    sections = config if isinstance(config, dict) else {}
    data, model = (sections.get(name) or {} for name in ("data", "model"))
    return {"batch_size": data.get("batch_size"), "learning_rate": _reduced_rate(model)}


def planned_facts(
    champion: Mapping[str, Any], trainer: Mapping[str, Any], interpolation_steps: int | None
) -> dict[str, Any]:
    """Return the facts of a champion's bundle with the settings that a worker gives to its retrainings."""
    config = dict(champion.get("config") or {})
    config["trainer"] = {**(config.get("trainer") or {}), **trainer}
    return {**champion, "config": config | {"interpolation_steps": interpolation_steps}}


def _champion_config(champion: Bundle, output: Path) -> dict[str, Any]:
    """Copy the sections of the champion's config that a retraining keeps, with the paths of its run's folder moved."""
    config = champion.facts.get("config")
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in _REQUIRED_SECTIONS):
        raise JobError(
            f"The model {champion.version} does not hold the config that it was trained with, so it cannot be "
            "retrained: it was made by an older version of Lesion. Train a new model (lesion train) and promote it.",
            code="recipe_missing",
        )
    old_output = str(config.get("paths", {}).get("output") or "")
    return {name: _moved(config[name], old_output, str(output)) for name in _SECTIONS if name in config}


def _reduced_rate(model: Mapping[str, Any]) -> float | None:
    return _LEARNING_RATE_FACTOR * float(model.get("lr") or 0) or None


def _moved(value: Any, old: str, new: str) -> Any:  # noqa: ANN401 - JSON
    """Copy a config; paths in the folder ``old`` become paths in ``new``."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and old and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value


def _check_targets(value: Any) -> None:  # noqa: ANN401 - JSON
    """Refuse a config that would call anything else, or take values from the environment."""
    if isinstance(value, dict):
        target = value.get("_target_")
        if target is not None and target not in _TARGETS and not _CALLBACK.fullmatch(str(target)):
            raise JobError(
                f"The champion's config would call {str(target)[:100]!r}, which is not part of a recipe. "
                "Train a model without it and promote that one.",
                code="recipe_refused",
            )
        for item in value.values():
            _check_targets(item)
    elif isinstance(value, list):
        for item in value:
            _check_targets(item)
    elif isinstance(value, str) and "${" in value:
        raise JobError(f"The champion's config has an open reference: {value[:100]!r}.", code="recipe_refused")
