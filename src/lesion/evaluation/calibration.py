"""The fit of a calibration on images that were not used for training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion.core.errors import DataError
from lesion.evaluation.metrics import check_inputs
from lesion.evaluation.probabilities import Calibration, Floats, Ints, log_softmax

TEMPERATURE_RANGE = (0.05, 20.0)
TEMPERATURE_PRIOR = 0.5  # standard deviation of log T before any image was seen
BIAS_PRIOR = 0.5  # standard deviation of each class's bias around the one that the training's weights explain


def fit_calibration(
    logits: Floats, labels: Ints, classes: Sequence[str], training_weights: Sequence[float] | None = None
) -> Calibration:
    """Fit a calibration on ``(M, C)`` logits and ``(M,)`` labels of the calibration split.

    Without images nothing is changed but by the training's weights, and a note says so. Logits and labels that do not
    fit together are a DataError.

    ``training_weights`` are the C weights that the classes had in training, by the loss or by how often they were
    drawn, relative to their shares in the data. A network trained with them gives each class odds that are too large
    by its weight; a bias takes that back, and the images correct it (Alexandari, Kundaje and Shrikumar, 2020,
    "bias-corrected temperature scaling").
    """
    bias = None if training_weights is None else expected_bias(training_weights)
    if not len(labels):
        missing = ("There were no calibration images: the probabilities are not calibrated.",)
        return Calibration(bias=None if bias is None else tuple(bias.tolist()), notes=missing)
    check_inputs(logits, labels, classes)
    notes = []
    if bias is None:
        temperature, fitted = fit_temperature(logits, labels), None
    else:
        temperature, fitted_bias = fit_temperature_and_bias(logits, labels, bias)
        fitted = tuple(fitted_bias.tolist())
    if is_separated(logits, labels):
        notes.append(
            f"All {len(labels)} calibration images were classified correctly, so they tell little about the "
            "confidence of wrong answers: the temperature rests on Laplace's rule of succession."
        )
    low, high = TEMPERATURE_RANGE
    if temperature < low * 1.01 or temperature > high / 1.01:
        notes.append(f"The temperature stopped at the end of its range ({low}–{high}): do not trust the probabilities.")
    return Calibration(temperature, fitted, images=len(labels), notes=tuple(notes))


def expected_bias(weights: Sequence[float]) -> NDArray[np.float64]:
    """Return the bias, ``(C,)`` with mean 0, that takes back the weights that the classes had in training.

    A class of weight 0 taught nothing; its odds are left as they are.
    """
    values = np.asarray(weights, np.float64)
    bias = -np.log(np.where(values > 0, values, 1.0))
    return np.where(values > 0, bias - bias[values > 0].mean(), 0.0)


def is_separated(logits: Floats, labels: ArrayLike) -> bool:
    """Return whether every image is classified correctly; then the NLL has no minimum over the temperature."""
    return bool((np.asarray(logits).argmax(axis=-1) == np.asarray(labels)).all())


def fit_temperature(logits: Floats, labels: ArrayLike) -> float:
    """Find the most probable temperature (Guo et al., ICML 2017, "temperature scaling"), with a prior.

    Few images say little: before any of them, log T is taken to be normal around 0 with standard deviation ½, which
    keeps the temperature of eight images near 1 and does not move that of thousands.

    If no image is misclassified, the likelihood grows as the temperature falls. The targets are then smoothed by
    Laplace's rule of succession, as Platt (1999) does: ``n`` correct answers out of ``n`` support a confidence of about
    ``(n + 1) / (n + 2)`` and no more.

    The logits, ``(N, C)``, are of images that were not used for training; the result is within ``TEMPERATURE_RANGE``.
    Without images, with logits that are not finite or shapes that do not fit together, raise a DataError.
    """
    from scipy.optimize import minimize_scalar

    logits, targets = _targets(logits, labels)

    def loss(log_temperature: float) -> float:
        likelihood = (targets * log_softmax(logits, float(np.exp(log_temperature)))).sum()
        return float(log_temperature**2 / (2 * TEMPERATURE_PRIOR**2) - likelihood)

    low, high = np.log(TEMPERATURE_RANGE)
    optimum = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(optimum.x))


def fit_temperature_and_bias(
    logits: Floats, labels: ArrayLike, expected: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Find the most probable temperature and bias, ``(C,)``, around an expected bias; see :func:`fit_temperature`."""
    from scipy.optimize import minimize

    logits, targets = _targets(logits, labels)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_temperature, change = parameters[0], parameters[1:]
        temperature = float(np.exp(log_temperature))
        log_probabilities = log_softmax(logits, temperature, expected + change)
        residual = np.exp(log_probabilities) - targets
        value = log_temperature**2 / TEMPERATURE_PRIOR**2 + np.square(change).sum() / BIAS_PRIOR**2
        slope_temperature = -(residual * logits).sum() / temperature + log_temperature / TEMPERATURE_PRIOR**2
        slope_bias = residual.sum(axis=0) + change / BIAS_PRIOR**2
        return float(value / 2 - (targets * log_probabilities).sum()), np.r_[slope_temperature, slope_bias]

    bounds = [tuple(np.log(TEMPERATURE_RANGE)), *[(None, None)] * len(expected)]
    optimum = minimize(loss, np.zeros(1 + len(expected)), jac=True, method="L-BFGS-B", bounds=bounds)
    bias = expected + optimum.x[1:]
    return float(np.exp(optimum.x[0])), bias - bias.mean()


def _targets(logits: Floats, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check logits and labels, and return them as ``(N, C)`` logits and target probabilities."""
    logits, labels = np.array(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[1] < 2 or not len(labels):
        raise DataError(
            f"A temperature cannot be fitted on logits of shape {logits.shape} and labels of shape {labels.shape}: it "
            "needs (N, C) and (N,), with at least one image and two classes. Give the calibration split some images."
        )
    if not np.isfinite(logits).all():
        raise DataError(
            "The logits to calibrate contain NaN or infinity: the training diverged. Lower the learning rate."
        )
    count, classes = logits.shape
    smoothing = 1 / (count + 2) if is_separated(logits, labels) else 0.0
    targets = np.full(logits.shape, smoothing / (classes - 1))
    targets[np.arange(count), labels] = 1 - smoothing
    return np.asarray(logits), targets
