"""The Lightning module that fine-tunes a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lesion.core.errors import ConfigError
from lesion.core.validation import check_seed
from lesion.data.datamodule import UNLABELED
from lesion.model.backbones import check_backbone
from lesion.model.bundle_facts import InterpolationFacts, ModelFacts
from lesion.model.network import check_normalization
from lesion.model.weights import create_network

Stage = Literal["val", "test"]
Batch = tuple[Tensor, Tensor]
METRICS = {  # what a training measures in each epoch, and which of its values is the best one
    "train/loss": "min",
    "val/loss": "min",
    "val/acc": "max",
    "val/f1_macro": "max",
}
_NORMALIZATION: tuple[Literal["mean", "std"], ...] = ("mean", "std")
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda value: value > 0, "above 0, such as 1e-3"),
    "backbone_lr_factor": (lambda value: value >= 0, "of 0 or more"),
    "weight_decay": (lambda value: value >= 0, "of 0 or more"),
    "scheduler_warmup": (lambda value: 0 <= value < 1, "from 0 to below 1: a share of all steps"),
    "label_smoothing": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "drop_rate": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "mixup": (lambda value: value >= 0, "of 0 or more"),
    "cutmix": (lambda value: value >= 0, "of 0 or more"),
}


class ImageClassifier(LightningModule):
    """A timm backbone that is fine-tuned to classify images.

    Batches are (B, 3, S, S) uint8 images and (B,) int64 class indices. The ``FineTuning`` callback selects the layers
    that are trained.

    Args:
        classes: The classes in the order of the outputs.
        backbone: A timm model name.
        weights: ``hub``, ``none`` or the path of a ``.safetensors`` file.
        pad_type: See ``create_network``.
        drop_rate: Dropout before the classifier.
        optimizer: The name of a timm optimizer.
        lr: The highest learning rate of the classifier.
        backbone_lr_factor: The backbone's learning rate as a share of ``lr``.
        weight_decay: Weight decay; none for biases and normalization.
        scheduler: The name of a timm schedule, such as ``cosine``; None for a constant rate.
        scheduler_warmup: Share of all steps in which the rate rises linearly.
        label_smoothing: Share of the target spread over all classes.
        class_weights: ``balanced`` weights the classes so that all count equally; or a weight per class; or None.
        mixup: Strength (alpha) of mixup (Zhang et al. 2018); 0 for none.
        cutmix: Strength (alpha) of CutMix (Yun et al. 2019); 0 for none.
        seed: Seed of an epoch's random numbers in the main process: dropout and mixup.
        size: Side in pixels of the images, for backbones that are built for one size; None for the backbone's own.
        mean: The mean of each channel of pixels in [0, 1], by which they are normalized; None for the backbone's own.
        std: Their deviation; None for the backbone's own.

    Raises:
        ConfigError: A setting is out of its range, or the weights cannot be loaded.
    """

    class_weights: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        *,
        backbone: str = "mobilenetv2_100",
        weights: str = "hub",
        pad_type: str | None = None,
        drop_rate: float = 0.2,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        backbone_lr_factor: float = 0.1,
        weight_decay: float = 0.05,
        scheduler: str | None = "cosine",
        scheduler_warmup: float = 0.1,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        seed: int = 0,
        size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        count = len(classes)
        if count < 2:
            raise ConfigError(f"A classifier needs at least 2 classes, not {count}.")
        check_settings(self.hparams)
        self.network, self.weights, self.backbone_kwargs = create_network(
            backbone, count, str(weights), drop_rate=drop_rate, pad_type=pad_type, size=size, mean=mean, std=std
        )
        self.network.to(memory_format=torch.channels_last)
        initial_weights = torch.tensor(_initial_class_weights(class_weights, count), dtype=torch.float32)
        self.register_buffer("class_weights", initial_weights, persistent=False)
        self.mixing = _mixing(mixup, cutmix, count)
        self.interpolation: InterpolationFacts | None = None  # set after a training whose weights were interpolated
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(count, average="micro", ignore_index=UNLABELED),
                "f1_macro": MulticlassF1Score(count, average="macro", ignore_index=UNLABELED),
            }
        )
        # Lightning's own mean over several processes rounds their numbers of images.
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric(nan_strategy="disable") for stage in ("val", "test")})
        self.metrics = nn.ModuleDict({f"{stage}_metrics": metrics.clone(f"{stage}/") for stage in ("val", "test")})

    def facts(self) -> ModelFacts:
        """Return what rebuilds the network, and the origin of its weights, for ``bundle.json``."""
        return {
            "backbone": self.hparams["backbone"],
            "model_kwargs": self.backbone_kwargs,
            "mean": self.network.mean.flatten().tolist(),
            "std": self.network.std.flatten().tolist(),
            "weights": asdict(self.weights),
            "interpolation": self.interpolation,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) logits of (B, 3, S, S) uint8 images."""
        return self.network.logits(_pixels(images))

    def on_fit_start(self) -> None:
        """Weight the classes by their number of training images, if ``class_weights`` is ``balanced``."""
        if self.hparams["class_weights"] == "balanced":
            counts = self.trainer.datamodule.class_counts().tolist()  # type: ignore[attr-defined]
            self.class_weights.copy_(torch.tensor(balanced_weights(counts)))

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, so that a run resumed here draws the same random numbers as an uninterrupted one."""
        entropy = [self.hparams["seed"], self.current_epoch, self.global_rank]  # each process drops out other values
        state = np.random.SeedSequence(entropy).generate_state(2)
        torch.manual_seed(int(state[0]))
        np.random.seed(int(state[1]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images, labels = batch
        pixels, targets = _pixels(images), labels
        if self.mixing is not None and len(images) % 2 == 0:  # timm mixes images pairwise
            pixels, targets = self.mixing(pixels, labels)
        loss = functional.cross_entropy(
            self.network.logits(pixels),
            targets,
            weight=self.class_weights,
            label_smoothing=self.hparams["label_smoothing"],
        )
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images), sync_dist=True
        )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one validation batch."""
        self._measure("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one test batch."""
        self._measure("test", batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the logits of one batch."""
        logits: Tensor = self(batch[0] if isinstance(batch, tuple | list) else batch)
        return logits.float()

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own type is a union of a dozen shapes
        """Build timm's optimizer with one rate for the head and a lower one for the backbone, and its schedule."""
        settings = self.hparams
        optimizer = create_optimizer_v2(
            _parameter_groups(self.network, settings["lr"], settings["backbone_lr_factor"], settings["weight_decay"]),
            opt=settings["optimizer"],
            lr=settings["lr"],
            weight_decay=0.0,
        )
        if settings["scheduler"] is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=settings["scheduler"],
            num_epochs=steps,
            warmup_epochs=round(settings["scheduler_warmup"] * steps),
            warmup_prefix=True,
            warmup_lr=settings["lr"] * 1e-2,
            step_on_epochs=True,  # an "epoch" is a step here: timm's own per-step mode needs whole epochs of equal size
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Set the rate of timm's schedule for the current step."""
        assert isinstance(scheduler, Scheduler)
        scheduler.step(self.global_step)

    def _measure(self, stage: Stage, batch: Batch) -> None:
        images, labels = batch
        logits = self(images)
        collection = self.metrics[f"{stage}_metrics"]
        assert isinstance(collection, MetricCollection)
        collection.update(logits, labels)
        labeled = labels != UNLABELED
        mean_loss = self.losses[f"{stage}_loss"]
        assert isinstance(mean_loss, MeanMetric)
        mean_loss.update(functional.cross_entropy(logits[labeled], labels[labeled], reduction="none"))
        self.log(f"{stage}/loss", mean_loss, on_epoch=True, prog_bar=True, batch_size=len(images))
        self.log_dict(collection, on_epoch=True, prog_bar=True, batch_size=len(images))


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """Return N / (C · n_c) for each class, the weights that make every class count equally; absent classes get 0."""
    total, classes = sum(counts), len(counts)
    return [total / (classes * count) if count else 0.0 for count in counts]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse arguments of :class:`ImageClassifier` that no data are needed to judge; those left out are its defaults.

    A number that is out of its range, and a name that timm does not know, is a ConfigError.
    """
    for name, (fits, words) in _RANGES.items():
        value = settings.get(name)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
        if name in settings and not (abs(number) < np.inf and fits(number)):
            raise ConfigError(f"model.{name}={value} must be a number {words}.")
    check_seed("model.seed", settings.get("seed", 0))
    check_backbone(settings.get("backbone", "mobilenetv2_100"))
    for name in _NORMALIZATION:
        if settings.get(name) is not None:
            check_normalization(name, settings[name])
    _check_schedule(settings.get("optimizer", "adamw"), settings.get("scheduler", "cosine"))


def _initial_class_weights(weights: object, count: int) -> list[float]:
    """Check ``class_weights`` and return the initial ones: balanced ones need the data."""
    if weights is None or weights == "balanced":
        return [1.0] * count
    values = list(weights) if isinstance(weights, list | tuple) else []
    if len(values) != count or not all(isinstance(value, int | float) and 0 <= value < np.inf for value in values):
        raise ConfigError(
            f"model.class_weights={weights} must be balanced, null, or a list of {count} numbers, one per class, each "
            "0 or more."
        )
    return values


def _check_schedule(optimizer: str, scheduler: str | None) -> None:
    """Try timm's optimizer and schedule on one number: which names exist depends on its version."""
    try:
        trial = create_optimizer_v2([nn.Parameter(torch.zeros(1))], opt=optimizer, lr=1e-3)
    except Exception as error:
        raise ConfigError(
            f"model.optimizer={optimizer} cannot be used: {error}. Give the name of a timm optimizer: adamw, sgd …"
        ) from error
    if scheduler is None:
        return
    try:
        schedule = None if "plateau" in scheduler else create_scheduler_v2(trial, sched=scheduler)[0]  # needs a metric
    except Exception as error:
        raise ConfigError(f"model.scheduler={scheduler} cannot be used: {error}.") from error
    if schedule is None:
        raise ConfigError(
            f"model.scheduler={scheduler} is not a schedule by steps. Give the name of one of timm's (cosine, tanh, "
            "step, poly …), or null for a constant rate."
        )


def _pixels(images: Tensor) -> Tensor:
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def _mixing(mixup: float, cutmix: float, classes: int) -> Mixup | None:
    if not mixup and not cutmix:
        return None
    return Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=0.0, num_classes=classes)


def _parameter_groups(network: nn.Module, lr: float, factor: float, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters by rate and by decay. Frozen ones are included: without gradients they are skipped."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("classifier."), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": lr if head else lr * factor, "weight_decay": weight_decay if decays else 0.0}
        for (head, decays), parameters in groups.items()
    ]
