"""The fine-tuning of a model: on a run's own split, on the split that came with the data, and on folds."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig, open_dict

from lesion.data.datamodule import DataModule
from lesion.model.classifier import ImageClassifier
from lesion.model.finetune import FineTuning
from lesion.training import tracking
from lesion.training.finite_loss import FiniteLoss
from lesion.training.interpolation.share_choice import WeightInterpolation
from lesion.training.process_group import process_count, strategy
from lesion.training.resuming import MovedRun, check_checkpoint
from lesion.training.setup_checks import check_batches, create_loggers, trainer_settings

logger = logging.getLogger(__name__)


def fit(cfg: DictConfig, datamodule: DataModule) -> tuple[ImageClassifier, Trainer]:
    """Fine-tune a model and load the best checkpoint's weights; return it in evaluation mode, and the trainer.

    With ``interpolation_steps``, the weights are then the best ones between the initial and those of the checkpoint. A
    setting, or a checkpoint to resume from, that cannot be used is a ConfigError.
    """
    seed_everything(cfg.seed, workers=True, verbose=False)
    size = datamodule.preprocessing.size
    check_batches(datamodule, process_count(trainer_settings(cfg)))
    model: ImageClassifier = instantiate(cfg.model, classes=list(datamodule.classes), size=size, _convert_="all")
    model.network.check(size)
    if cfg.resume is not None:
        check_checkpoint(Path(cfg.resume), model, cfg.trainer.max_epochs)
    logger.info(model.weights.sentence())
    steps = cfg.get("interpolation_steps")
    interpolation = WeightInterpolation(steps, cfg.optimized_metric, model, datamodule) if steps else None
    trainer = create_trainer(cfg, model, datamodule)
    tracking.log_config(trainer.loggers, cfg)
    try:
        trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.resume, weights_only=True)
    except SystemExit as ended:
        if ended.code == 1 and trainer.interrupted:  # Lightning's reaction to Ctrl-C
            raise KeyboardInterrupt from None
        raise
    best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""  # type: ignore[attr-defined]
    if best:
        model.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    if interpolation is not None and trainer.is_global_zero:  # only one of several processes evaluates
        model.interpolation = interpolation.apply(model, datamodule)
    return model.eval(), trainer


def create_trainer(cfg: DictConfig, model: ImageClassifier, datamodule: DataModule) -> Trainer:
    """Make Lightning's trainer for a model and its data from the ``trainer``, ``callbacks`` and ``logger`` sections."""
    settings, loggers = trainer_settings(cfg), create_loggers(cfg)
    processes = process_count(settings)
    callbacks = [instantiate(section) for section in (cfg.get("callbacks") or {}).values() if section]
    if not loggers:  # it refuses to run without one
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    finetuning: FineTuning = instantiate(cfg.finetune)
    alone = processes == 1 and settings.get("strategy", "auto") == "auto"
    all_trained = alone or (finetuning.trains_all and model.network.uses_all_parameters(datamodule.preprocessing.size))
    trainer: Trainer = instantiate(
        cfg.trainer,
        callbacks=[*callbacks, finetuning, MovedRun(), FiniteLoss()],
        logger=loggers,
        strategy=strategy(settings, all_trained),
        use_distributed_sampler=False,  # the data module shares out the images itself
        log_every_n_steps=min(cfg.trainer.get("log_every_n_steps") or 50, datamodule.train_batches(processes)),
        _convert_="all",
    )
    return trainer


def fit_folder_split(cfg: DictConfig, other: DataModule, output: Path) -> ImageClassifier:
    """Train again with the same settings on the split that came with the data, to show how inflated its score is.

    ``evaluation.folder_split_epochs`` may set fewer epochs. ``other`` has the run's images under that split; ``output``
    is the run's folder, and that of this training is inside it.
    """
    logger.info("Training again on the split that came with the data, for comparison.")
    return fit(_nested(cfg, output / "folder_split", cfg.evaluation.folder_split_epochs), other)[0]


def fit_folds(cfg: DictConfig, folds: Sequence[DataModule], output: Path) -> list[ImageClassifier]:
    """Train once with the same settings for each fold, in folders inside ``output``, the run's."""
    models = []
    for number, fold in enumerate(folds, start=1):
        logger.info("Training %d of %d for the cross-validation.", number, len(folds))
        models.append(fit(_nested(cfg, output / "folds" / str(number)), fold)[0])
    return models


def _nested(cfg: DictConfig, output: Path, epochs: int | None = None) -> DictConfig:
    """Return the config of a training inside a run: in its own folder, logged there alone, from the beginning."""
    nested = cfg.copy()
    nested.paths.output = str(output)
    csv = (cfg.get("logger") or {}).get("csv")
    with open_dict(nested):
        nested.logger = {"csv": csv} if csv else {}
    nested.resume = None
    nested.trainer.max_epochs = epochs or cfg.trainer.max_epochs
    return nested
