"""The choice of how far to go from the initial weights to the trained ones, on the validation split alone.

A retraining starts from the champion's weights. Weights between those and the trained ones often keep what the champion
knew and have most of what was learned (WiSE-FT; Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ConfigError
from lesion.core.text import format_count
from lesion.data.datamodule import DataModule, ManifestDataset
from lesion.evaluation.findings import LOWER_IS_BETTER
from lesion.evaluation.metrics import compute_metrics
from lesion.evaluation.probabilities import softmax
from lesion.model.bundle_facts import InterpolationFacts
from lesion.model.classifier import ImageClassifier
from lesion.model.inference import dataset_logits
from lesion.training.interpolation.weight_states import State, copy_state, interpolate_states

logger = logging.getLogger(__name__)

_DIGITS = 6  # of the values that are recorded


@dataclass(frozen=True)
class ShareScore:
    """How good the weights at one place between the initial and the trained ones are."""

    share: float  # 0: the initial weights; 1: the trained ones
    value: float  # of the metric on the validation split
    loss: float  # the mean negative log-likelihood there
    changed_answers: int  # validation images whose answer differs from that of the initial weights


class WeightInterpolation:
    """Replaces the weights of a trained model by the best ones between its initial weights and its trained ones.

    Create it before the training: it copies the initial weights. A training that is resumed starts from the same
    initial weights, so that it chooses the same share.

    Args:
        steps: The shares are 1/steps, 2/steps, … 1.
        metric: The key of a validation metric, such as ``val/f1_macro``; it is computed without calibration.
        model: The model with its initial weights.
        datamodule: The data, of which only the validation split is used.

    Raises:
        ConfigError: The metric is not defined on the validation split, or the initial weights have no classifier for
            the model's classes.
    """

    def __init__(self, steps: int, metric: str, model: ImageClassifier, datamodule: DataModule) -> None:
        if not model.weights.head:
            raise ConfigError(
                f"interpolation_steps={steps} needs initial weights that classify these classes already, such as those "
                f"of a bundle. {model.weights.sentence()} Give model.weights=<a bundle's model.safetensors>, or "
                "interpolation_steps=null."
            )
        self._shares = [step / steps for step in range(steps + 1)]  # from the initial weights on
        self._metric = metric
        self._classes = datamodule.classes
        self._start = copy_state(model.network)
        self._check_metric(datamodule.dataset("val").labels)

    def apply(self, model: ImageClassifier, datamodule: DataModule) -> InterpolationFacts:
        """Give the model the best weights, and return how they were chosen."""
        end = copy_state(model.network)
        validation = datamodule.dataset("val")
        outputs = [self._logits(model, end, share, validation) for share in self._shares]
        changed = [int((logits.argmax(axis=1) != outputs[0].argmax(axis=1)).sum()) for logits in outputs]
        measured = [self._measure(logits, validation.labels) for logits in outputs]
        scores = [
            ShareScore(share, *both, answers)
            for share, both, answers in zip(self._shares, measured, changed, strict=True)
        ]
        chosen = choose_share(scores, lower_is_better=self._metric.removeprefix("val/") in LOWER_IS_BETTER)
        model.network.load_state_dict(interpolate_states(self._start, end, chosen.share))
        logger.info(
            "The weights are %.0f %% of the way from the initial to the trained ones: %s=%.4f there, %.4f at the "
            "start, %.4f at the end; %s changed.",
            100 * chosen.share, self._metric, chosen.value, scores[0].value, scores[-1].value,
            format_count(chosen.changed_answers, "answer"),
        )  # fmt: skip
        return {
            "share": chosen.share,
            "metric": self._metric,
            "values": [round(score.value, _DIGITS) for score in scores],
            "changed_answers": [score.changed_answers for score in scores],
        }

    def _logits(
        self, model: ImageClassifier, end: State, share: float, dataset: ManifestDataset
    ) -> NDArray[np.float32]:
        model.network.load_state_dict(interpolate_states(self._start, end, share))
        return dataset_logits(model.network, dataset)

    def _measure(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
        """Return the metric, NaN if it is not defined, and the loss."""
        metrics = compute_metrics(softmax(logits), labels, self._classes, "val")
        return metrics.get(self._metric, float("nan")), metrics["val/nll"]

    def _check_metric(self, labels: NDArray[np.int64]) -> None:
        """Refuse, before the training, a metric that even right answers to the validation images would not have."""
        right = np.where(labels[:, None] == np.arange(len(self._classes)), 9.0, 0.0).astype(np.float32)
        if not np.isfinite(self._measure(right, labels)[0]):
            raise ConfigError(
                f"optimized_metric={self._metric} cannot choose between weights: there is no such metric of the "
                f"{format_count(len(labels), 'validation image')}. Choose another one, such as val/f1_macro, or set "
                "interpolation_steps=null."
            )


def choose_share(scores: Sequence[ShareScore], lower_is_better: bool = False) -> ShareScore:
    """Return the best share above 0; of equally good ones that of the lowest loss, then of the fewest changed answers.

    On few validation images many shares have the same accuracy or F1; the loss still tells them apart. The initial
    weights themselves are not chosen, even if they are the best: a challenger that is the champion cannot be proved
    better, and trying so would spend error budget of the gate.
    """
    sign = 1 if lower_is_better else -1
    candidates = [score for score in scores if score.share > 0]
    return min(candidates, key=lambda score: (sign * score.value, score.loss, score.changed_answers, score.share))
