"""The config of a retraining: the champion's own recipe on other data, from the champion's weights."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesion.model.bundle import Bundle
from lesion.retraining.jobs import JobError, RetrainRequest

# A bundle's config says what is called when it is instantiated: nothing but what a recipe of Lesion's is made of.
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
_LEARNING_RATE = 0.25  # of the champion's own
_CALLBACK = re.compile(r"lightning\.pytorch\.callbacks\.[A-Z][A-Za-z]+")
_KEPT = (
    "data",
    "model",
    "finetune",
    "trainer",
    "callbacks",
    "explain",
    "evaluation",
    "seed",
    "optimized_metric",
    "name",
)


def recipe(
    champion: Bundle,
    request: RetrainRequest,
    manifest: Path,
    root: Path,
    output: Path,
    cache: Path,
    trainer: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what ``configs/train.yaml`` would compose to, resolved, for one retraining.

    Args:
        champion: The bundle whose config and weights it starts from.
        request: What was chosen for it.
        manifest: The snapshot's manifest.
        root: The folder that the manifest's paths are relative to.
        output: The run's folder.
        cache: Where decoded images are kept.
        trainer: Settings of this machine, laid over the champion's ``trainer`` section.
        evaluation: What ``configs/evaluation`` says today: a champion of an earlier version may lack some of it.

    Raises:
        JobError: The bundle says not how it was trained (``recipe_missing``), or would call what is no part of a
            recipe (``recipe_refused``).
    """
    config = champion.facts.get("config")
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in _KEPT[:5]):
        raise JobError(
            f"The model {champion.version} does not say how it was trained, so it cannot be retrained: it was made by "
            "an older version of Lesion. Train a model anew (scripts/train.py) and promote it.",
            code="recipe_missing",
        )
    old = str(config.get("paths", {}).get("output") or "")
    made = {key: _moved(config[key], old, str(output)) for key in _KEPT if key in config}
    data, epochs = made["data"], request.epochs
    data |= {"manifest": str(manifest), "root": str(root), "csv": None, "group_pattern": None, "split": "grouped"}
    data |= {"cache_dir": str(cache)} | ({"batch_size": request.batch_size} if request.batch_size else {})
    made["model"] |= {
        "weights": str(champion.weights),
        # The bundle's file is not named after the weights that the first training started from; this says it instead.
        "pad_type": champion.facts["model"].get("model_kwargs", {}).get("pad_type", ""),
    }
    rate = request.learning_rate or _gentle_rate(made["model"])
    made["model"] |= {"lr": rate} if rate else {}
    made["finetune"] |= {"warmup_epochs": 0}  # the head has learned already
    made["trainer"] |= {"max_epochs": epochs, "default_root_dir": str(output)} | dict(trainer)
    kept = {key: value for key, value in made.get("evaluation", {}).items() if key in evaluation}
    made["evaluation"] = {**evaluation, **kept, "folder_split": False}
    for name in ("progress", "progress_file"):  # nobody watches a bar; a champion that was retrained has our file
        made["callbacks"].pop(name, None)
    _check_targets(made)
    made["callbacks"]["progress_file"] = {
        "_target_": "lesion.training.progress.ProgressFile",
        "path": str(output / "progress.json"),
    }
    made["logger"] = {"csv": _logger(output)}
    made |= {"parent": champion.version, "resume": None}
    made["paths"] = {"output": str(output), "cache": str(cache)}
    return made


def own_settings(champion: Bundle) -> dict[str, Any]:
    """Return the ``batch_size`` and ``learning_rate`` that a retraining takes unless others are chosen.

    What the champion does not say is None.
    """
    config = champion.facts.get("config")
    sections = config if isinstance(config, dict) else {}
    data, model = (sections.get(name) or {} for name in ("data", "model"))
    return {"batch_size": data.get("batch_size"), "learning_rate": _gentle_rate(model) or None}


def _gentle_rate(model: Mapping[str, Any]) -> float:
    return _LEARNING_RATE * float(model.get("lr") or 0)


def _moved(value: Any, old: str, new: str) -> Any:  # noqa: ANN401 - JSON
    """Copy a config with the paths of its run's folder led to another one."""
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and old and (value == old or value.startswith(f"{old}/")):
        return new + value[len(old) :]
    return value


def _check_targets(value: Any) -> None:  # noqa: ANN401 - JSON
    """Refuse a config that would call anything else, or be filled in from the environment."""
    if isinstance(value, dict):
        target = value.get("_target_")
        if target is not None and target not in _TARGETS and not _CALLBACK.fullmatch(str(target)):
            raise JobError(
                f"The champion's config would call {str(target)[:100]!r}, which is no part of a recipe. "
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


def _logger(output: Path) -> dict[str, Any]:
    target = "lightning.pytorch.loggers.CSVLogger"
    return {"_target_": target, "save_dir": str(output), "name": "", "version": "csv"}
