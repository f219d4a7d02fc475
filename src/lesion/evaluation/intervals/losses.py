"""Intervals of mean losses: log-loss and Brier score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion.evaluation.intervals.estimates import ALPHA, MIN_GROUPS, Estimate, Sample
from lesion.evaluation.intervals.proportions import share
from lesion.evaluation.probabilities import Floats, Ints


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of N images."""

    loss: NDArray[np.float64]  # ``(N,)``, all above 0
    if_wrong: NDArray[np.float64]  # ``(N,)`` what an image would cost on average if its label were another class
    # ``(N,)`` the same, averaged with the probabilities that the model gives to the other classes
    if_wrong_expected: NDArray[np.float64]


def log_losses(probabilities: Floats, labels: Ints) -> Losses:
    """Return the log-losses of probabilities, ``(N, C)``, and labels, ``(N,)``."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), float(np.finfo(np.float32).tiny)))
    others = _others(probabilities)
    return Losses(-logs[np.arange(len(labels)), labels], *(-(weights * logs).sum(axis=1) for weights in others))


def brier_losses(probabilities: Floats, labels: Ints) -> Losses:
    """Return the Brier scores of probabilities, ``(N, C)``, and labels, ``(N,)``."""
    values = probabilities.astype(np.float64)
    squares = np.square(values).sum(axis=1) + 1
    others = _others(values)
    labeled = squares - 2 * values[np.arange(len(labels)), labels]
    return Losses(labeled, *(squares - 2 * (weights * values).sum(axis=1) for weights in others))


def mean_loss(sample: Sample, losses: Losses, correct: NDArray[np.bool_], confidence: Floats) -> Estimate:
    """Return the mean loss with an interval.

    A mean of losses hangs on few errors, and a sample without them cannot show what they cost. So the upper limit is
    the larger one of two: that of the mean's logarithm by its variance among groups; and that of as many errors as the
    interval of the error rate allows, each at the mean cost of the sample's errors and two imagined ones, an image that
    is wrong at random and one where the model expects it. The lower limit is formed likewise.

    Args:
        sample: The groups of the N images.
        losses: Their losses.
        correct: ``(N,)`` whether an image is classified correctly.
        confidence: ``(N,)`` probability of the predicted class.
    """
    from scipy.stats import t

    weight = sample.weight
    total = weight.sum()
    value = float((weight * losses.loss).sum() / total)
    influence = sample.sums(losses.loss - value) / total
    groups = len(influence)
    if groups < MIN_GROUPS:
        return Estimate(value, influence=influence)
    deviation = np.sqrt(np.square(influence).sum() * groups / (groups - 1))
    reach = float(np.exp(t.ppf(1 - ALPHA / 2, groups - 1) * deviation / value)) if value else 1.0
    errors = share(sample, ~correct, np.ones_like(correct))
    cost = _cost_of_an_error(weight, losses, correct, confidence)
    low = min(value / reach, value - (errors.value - errors.low) * cost)
    high = max(value * reach, value + (errors.high - errors.value) * cost)
    return Estimate(value, max(low, 0.0), high, influence)


def _cost_of_an_error(weight: Floats, losses: Losses, correct: NDArray[np.bool_], confidence: Floats) -> float:
    """Return how much more an error costs than a correct answer."""
    doubt = weight * (1 - confidence) + 1e-9
    imagined = [np.average(losses.if_wrong, weights=weight), np.average(losses.if_wrong_expected, weights=doubt)]
    wrong = float(np.mean([*losses.loss[~correct], *imagined]))
    right = float(np.average(losses.loss[correct], weights=weight[correct])) if correct.any() else 0.0
    return max(wrong - right, 0.0)


def _others(probabilities: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two weightings ``(N, C)`` of the classes that are not predicted: equal, and by their probabilities."""
    others = np.ones(probabilities.shape)
    others[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = 0
    expected = others * probabilities + 1e-12 * others
    return others / others.sum(axis=1, keepdims=True), expected / expected.sum(axis=1, keepdims=True)
