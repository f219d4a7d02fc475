"""How far the pooled features of an image are from those of a network's training images.

This is the Mahalanobis distance under one Gaussian of the training images' features, scaled to unit length first (Lee
et al. 2018; Müller and Hein's "Mahalanobis++", 2025, shows that scaling helps). The Gaussian is that of probabilistic
PCA (Tipping and Bishop 1999): the leading components one by one, and one variance for all other directions, in which
many unknown images stand out.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

COMPONENTS = 64
_IMAGES_PER_COMPONENT = 4  # with fewer images, there are fewer components
MIN_VARIANCE = 1e-9  # of unit features: a direction that never varied in training must not divide by zero

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class FeatureDistance:
    """A Gaussian model of the training images' features."""

    mean: NDArray[np.float32]  # (D,) their mean
    axes: NDArray[np.float32]  # (K, D) their leading components, of unit length
    variances: NDArray[np.float32]  # (K,) the variances along these components
    rest: float  # the variance along each other direction

    @classmethod
    def fit(cls, training: Floats) -> Self:
        """Fit the training images' features, (N, D), finite and of two images or more."""
        unit = _unit(training.astype(np.float64))
        mean = unit.mean(axis=0)
        centered = unit - mean
        covariance = centered.T @ centered / (len(unit) - 1)
        width = len(mean)
        components = max(1, min(COMPONENTS, len(unit) // _IMAGES_PER_COMPONENT, width // 2))
        from scipy.linalg import eigh  # here, since a server reads domains and fits none

        variances, vectors = eigh(covariance, subset_by_index=(width - components, width - 1))
        rest = float((np.trace(covariance) - variances.sum()) / max(width - components, 1))
        leading = np.maximum(variances[::-1], MIN_VARIANCE).astype(np.float32)
        axes = np.ascontiguousarray(vectors[:, ::-1].T, dtype=np.float32)
        return cls(mean.astype(np.float32), axes, leading, max(rest, MIN_VARIANCE))

    def __call__(self, features: Floats) -> NDArray[np.float32]:
        """Return the distances of features, (B, D), as (B,)."""
        offset = _unit(features.astype(np.float32, copy=False)) - self.mean
        along = offset @ self.axes.T
        left_over = np.maximum((offset * offset).sum(axis=1) - (along * along).sum(axis=1), 0)
        squared = (along * along / self.variances).sum(axis=1) + left_over / np.float32(self.rest)
        distances: NDArray[np.float32] = np.sqrt(squared).astype(np.float32)
        return distances


def _unit(features: Floats) -> Floats:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    result: Floats = features / np.maximum(length, 1e-6)
    return result
