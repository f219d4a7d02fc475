"""From a network's logits to calibrated probabilities; needs only NumPy, since the server does it too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import ConfigError
from lesion.core.text import join_names

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


def softmax(logits: Floats, temperature: float = 1.0, bias: Floats | None = None) -> NDArray[np.float32]:
    """Turn logits, ``(..., C)``, into probabilities of that shape; a temperature above 1 makes them less certain.

    They are computed in float64, so that a row's sum differs from 1 by less than 1e-7.
    """
    return np.exp(log_softmax(logits, temperature, bias)).astype(np.float32)


def log_softmax(logits: Floats, temperature: float = 1.0, bias: Floats | None = None) -> NDArray[np.float64]:
    """Return the logarithm of ``softmax`` without underflow, ``(..., C)`` to ``(..., C)``.

    The ``bias``, ``(C,)``, is added to the logits after their division by the temperature.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    if bias is not None:
        scaled = scaled + np.asarray(bias, dtype=np.float64)
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that hold: softmax(logits / temperature + bias)."""

    temperature: float = 1.0
    bias: tuple[float, ...] | None = None  # per class; None adds nothing
    # The shares of the classes where the probabilities hold; None for those of the data that it was fitted on.
    prevalence: tuple[float, ...] | None = None
    images: int = 0  # how many images it was fitted on
    notes: tuple[str, ...] = ()  # sentences about what limits it

    def probabilities(self, logits: Floats) -> NDArray[np.float32]:
        """Return calibrated probabilities, ``(..., C)``, of logits of that shape."""
        return softmax(logits, self.temperature, None if self.bias is None else np.array(self.bias))

    def for_prevalence(self, here: Sequence[float], there: Sequence[float]) -> "Calibration":
        """Return the calibration for images among which the classes have other shares.

        Each class's odds change by the ratio of its shares there and here (Saerens, Latinne and Decaestecker, 2002).
        That is right if images of a class look the same in both places.

        Args:
            here: C shares of the classes in the data of this calibration, all above 0.
            there: C shares of the classes where the model is used, all above 0.
        """
        change = np.log(np.asarray(there, np.float64)) - np.log(np.asarray(here, np.float64))
        bias = change if self.bias is None else np.array(self.bias) + change
        shares = tuple(float(share) for share in np.asarray(there) / np.sum(there))
        return replace(self, bias=tuple(float(value) for value in bias), prevalence=shares)


def parse_prevalence(value: object, classes: Sequence[str]) -> tuple[float, ...] | None:
    """Return the share of each class that ``evaluation.prevalence`` states; None if it states nothing.

    ``value`` is None, ``equal``, or a mapping of every class to a positive share; shares are divided by their sum.
    Anything else is a ConfigError.
    """
    if value is None:
        return None
    if value == "equal":
        return (1 / len(classes),) * len(classes)
    shares = dict(value) if isinstance(value, Mapping) else {}
    numbers = [shares.get(name) for name in classes]
    if len(shares) != len(classes) or not all(_is_positive(number) for number in numbers):
        raise ConfigError(
            f"evaluation.prevalence={value} must be null, equal, or a positive share of each class: "
            f"{join_names(classes)}."
        )
    total = sum(float(number) for number in numbers if number is not None)
    return tuple(float(number) / total for number in numbers if number is not None)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def brier_per_image(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """Return the squared distance to the one-hot label, summed over classes, ``(N,)`` in [0, 2] (Brier, 1950)."""
    difference = np.array(probabilities, dtype=np.float64)
    difference[np.arange(len(labels)), labels] -= 1
    return np.asarray(np.square(difference).sum(axis=1))
