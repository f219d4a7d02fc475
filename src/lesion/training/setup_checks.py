"""What is checked before a training starts: each setting that would otherwise fail late, or in silence."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from lesion.core.errors import ConfigError
from lesion.core.validation import check_seed
from lesion.data.datamodule import DataModule
from lesion.evaluation.metrics import DEFINITIONS
from lesion.explanation.methods import check_method
from lesion.model.classifier import METRICS, check_settings
from lesion.training.process_group import process_count
from lesion.training.tracking import quiet_wandb

_TRACKED = METRICS | {"train/images_per_second": "max", "train/seconds_left": "min"}
_EXTRAS = {"wandb": "train"}  # the extra of lesion that installs a logger's package
_OWN = ("lesion.", "lightning.")


def check_config(cfg: DictConfig) -> None:
    """Refuse settings that would fail only after the data were read, or after the training, with a ConfigError."""
    check_seed("seed", cfg.seed)
    if not isinstance(cfg.name, str) or not cfg.name:
        raise ConfigError(f"name={cfg.name!r} is not a text: put it in quotes in the config, such as name: '2024_01'.")
    if "::" in str(cfg.paths.output):
        raise ConfigError(
            f"hydra.run.dir={cfg.paths.output} contains '::', which Lightning would read as two addresses: the "
            "checkpoints would be written elsewhere. Choose another folder."
        )
    _check_numbers(cfg)
    if not OmegaConf.is_list(cfg.explain.methods) or not len(cfg.explain.methods):
        raise ConfigError(f"explain.methods={cfg.explain.methods} must be a list of at least one: [gradcam].")
    for method in cfg.explain.methods:
        check_method(str(method))
    check_settings({str(key): value for key, value in cfg.model.items()})
    _check_optimized_metric(OmegaConf.select(cfg, "optimized_metric"))
    _check_interpolation(OmegaConf.select(cfg, "interpolation_steps"), OmegaConf.select(cfg, "optimized_metric"))
    _check_monitors(_sections(cfg, "callbacks"))
    count = process_count(trainer_settings(cfg))
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if count > 1 and hydra is not None and hydra.mode == RunMode.MULTIRUN:
        raise ConfigError(
            f"A sweep (-m) trains its runs one after another, each in one process, not in {count}: set "
            "trainer.devices=1 and trainer.strategy=auto, or start the runs one by one."
        )


def trainer_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the ``trainer`` section as a plain mapping."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    return settings


def check_batches(datamodule: DataModule, processes: int) -> None:
    """Refuse training images that do not fill a batch of at least two images in each process."""
    images = len(datamodule.manifest.split("train"))
    if images < 2 * processes:
        each = "" if processes == 1 else f" for each of {processes} processes"
        raise ConfigError(
            f"There are {images} training images, and a training needs 2 or more{each}: add images, or give the "
            "training a larger share (data.fractions)."
        )


def create_loggers(cfg: DictConfig) -> list[Logger]:
    """Make the loggers of a run; one whose package is not installed is a ConfigError."""
    loggers = []
    for name, section in _sections(cfg, "logger").items():
        try:
            loggers.append(instantiate(section))
        except (InstantiationException, ImportError) as error:
            missing = next((each for each in _causes(error) if isinstance(each, ImportError)), None)
            if missing is None:
                raise
            raise ConfigError(_missing_package(name, str(section["_target_"]), missing)) from error
        quiet_wandb(loggers[-1])
    return loggers


def _check_numbers(cfg: DictConfig) -> None:
    least = {
        "trainer.max_epochs": 1,
        "trainer.log_every_n_steps": 1,
        "explain.road_images": 0,
        "explain.placed_images": 0,
        "explain.errors": 0,
        "explain.examples": 0,
        "evaluation.repeats": 1,
    }
    if OmegaConf.select(cfg, "evaluation.folds") is not None:
        least["evaluation.folds"] = 0
    if OmegaConf.select(cfg, "evaluation.folder_split_epochs") is not None:
        least["evaluation.folder_split_epochs"] = 1
    for setting, minimum in least.items():
        value = OmegaConf.select(cfg, setting)
        if value is None and setting == "trainer.log_every_n_steps":  # Lightning's own
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ConfigError(f"{setting}={value} must be a whole number, {minimum} or more.")


def _check_optimized_metric(metric: object) -> None:
    """Refuse a metric for ranking that no run has."""
    known = [f"{split}/{name}" for split in ("val", "test") for name in DEFINITIONS]
    per_class = re.fullmatch(r"(val|test)/\w+/.+", str(metric))  # its classes are known only with the data
    if metric is not None and metric not in known and not per_class:
        raise ConfigError(f"optimized_metric={metric} does not exist. {_nearest(str(metric), known)}")


def _check_interpolation(steps: object, metric: object) -> None:
    """Refuse to choose weights between the initial and the trained ones by anything but a validation metric."""
    if steps is None:
        return
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        raise ConfigError(f"interpolation_steps={steps} must be null or a whole number, 2 or more, such as 10.")
    if not str(metric).startswith("val/"):
        raise ConfigError(
            f"interpolation_steps={steps} chooses weights by optimized_metric={metric}, which must then be a metric of "
            "the validation split: val/f1_macro."
        )


def _check_monitors(callbacks: Mapping[str, Any]) -> None:
    """Refuse a callback that watches a metric that nothing logs, or takes its worst value for the best."""
    if any(not str(section.get("_target_", "")).startswith(_OWN) for section in callbacks.values()):
        return  # a callback of the user's own may log metrics of its own
    for name, section in callbacks.items():
        monitor, mode = section.get("monitor"), section.get("mode", "min")
        if monitor is None:
            continue
        if monitor not in _TRACKED:
            raise ConfigError(
                f"callbacks.{name}.monitor={monitor}: no such metric is logged. {_nearest(monitor, list(_TRACKED))}"
            )
        if mode != _TRACKED[monitor]:
            better = "higher" if _TRACKED[monitor] == "max" else "lower"
            raise ConfigError(
                f"callbacks.{name}.monitor={monitor} is better when it is {better}, but callbacks.{name}.mode={mode}: "
                f"set callbacks.{name}.mode={_TRACKED[monitor]}."
            )


def _sections(cfg: DictConfig, group: str) -> dict[str, Any]:
    """Return the sections of a group that are not switched off with null."""
    return {str(name): section for name, section in (cfg.get(group) or {}).items() if section}


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(str(name), known, n=1)
    return f"{f'Did you mean {close[0]}? ' if close else ''}Known: {', '.join(known)}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing_package(name: str, target: str, error: ImportError) -> str:
    """Return the sentence about a logger whose package is missing."""
    guess = target.rpartition(".")[2].removesuffix("Logger").lower()
    package = error.name or guess
    extra = _EXTRAS.get(package)
    install = f"pip install 'lesion[{extra}]'" if extra else f"pip install {package}"
    return (
        f"logger.{name} needs the package {package}, which is not installed: {install}. Or log without it: logger=csv "
        "or logger=none."
    )
