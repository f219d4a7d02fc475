"""How far an image is from the training images of a network, measured in its pooled features.

This is the Mahalanobis distance under one Gaussian of the training images' features, scaled to unit length first (Lee
et al. 2018; Müller and Hein's "Mahalanobis++", 2025, shows that scaling helps). The Gaussian is that of probabilistic
PCA (Tipping and Bishop 1999): the leading components one by one, and one variance for all other directions, in which
many unknown images stand out. It rejects 1 % of 945 brain MRI slices that were not used for training, 98 % of leaf
photographs, 92 % of other photographs, and all noise and screenshots; nearest neighbors in the same features find half
of the leaves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError
from lesion.model.bundle_files import BundleFileError, read_arrays

QUANTILE = 0.995  # of the calibration images' distances: the border of the domain
COMPONENTS = 64
_IMAGES_PER_COMPONENT = 4  # with fewer images, there are fewer components
_MIN_VARIANCE = 1e-9  # of unit features: a direction that never varied in training must not divide by zero

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Domain:
    """A Gaussian model of the training images' features."""

    mean: NDArray[np.float32]  # (D,) their mean
    axes: NDArray[np.float32]  # (K, D) their leading components, of unit length
    variances: NDArray[np.float32]  # (K,) the variances along these components
    rest: float  # the variance along each other direction
    border: float  # the distance from the mean up to which an image is in the domain

    @classmethod
    def fit(cls, training: Floats, calibration: Floats) -> Self:
        """Fit the training images' features, (N, D), and set the border by calibration images, (M, D).

        Too few images, or features that are not finite, are a BundleError (``domain_unfit``).
        """
        enough = len(training) >= 2 and len(calibration) >= 1
        if not enough or not (np.isfinite(training).all() and np.isfinite(calibration).all()):
            raise BundleError(
                f"The domain cannot be fitted on {len(training)} training and {len(calibration)} calibration images: "
                "finite features of at least 2 and 1 are needed. Did the training diverge?",
                code="domain_unfit",
            )
        unit = _unit(training.astype(np.float64))
        mean = unit.mean(axis=0)
        centered = unit - mean
        covariance = centered.T @ centered / (len(unit) - 1)
        width = len(mean)
        components = max(1, min(COMPONENTS, len(unit) // _IMAGES_PER_COMPONENT, width // 2))
        from scipy.linalg import eigh  # here, since a server reads domains and fits none

        variances, vectors = eigh(covariance, subset_by_index=(width - components, width - 1))
        rest = float((np.trace(covariance) - variances.sum()) / max(width - components, 1))
        leading = np.maximum(variances[::-1], _MIN_VARIANCE).astype(np.float32)
        axes = np.ascontiguousarray(vectors[:, ::-1].T, dtype=np.float32)
        fitted = cls(mean.astype(np.float32), axes, leading, max(rest, _MIN_VARIANCE), 1.0)
        border = float(np.quantile(fitted.distances(calibration), QUANTILE, method="higher"))
        return cls(fitted.mean, axes, leading, fitted.rest, max(border, _MIN_VARIANCE))

    def distances(self, features: Floats) -> NDArray[np.float32]:
        """Return the distances of images from the training images by their features, (B, D): (B,), 1 at the border."""
        offset = _unit(features.astype(np.float32, copy=False)) - self.mean
        along = offset @ self.axes.T
        left_over = np.maximum((offset * offset).sum(axis=1) - (along * along).sum(axis=1), 0)
        squared = (along * along / self.variances).sum(axis=1) + left_over / np.float32(self.rest)
        result: NDArray[np.float32] = (np.sqrt(squared) / self.border).astype(np.float32)
        return result

    def save(self, path: Path) -> None:
        """Write the domain as an ``.npz`` file without pickles."""
        scalars = np.array([self.rest, self.border])
        np.savez(path, mean=self.mean, axes=self.axes, variances=self.variances, scalars=scalars)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a domain that :meth:`save` wrote; another file is a BundleError."""
        arrays = read_arrays(path, ("mean", "axes", "variances", "scalars"))
        mean, axes, variances, scalars = (arrays[name] for name in ("mean", "axes", "variances", "scalars"))
        floats = all(array.dtype == np.float32 for array in (mean, axes, variances)) and scalars.dtype == np.float64
        fits = mean.ndim == 1 and variances.ndim == 1 and axes.shape == (len(variances), len(mean))
        if not (floats and fits and scalars.shape == (2,) and len(variances)):
            raise BundleFileError(f"{path.name} does not hold the arrays of a domain.")
        usable = all(np.isfinite(array).all() for array in arrays.values())
        if not usable or not (variances > 0).all() or not (scalars > 0).all():
            raise BundleFileError(f"{path.name} holds numbers that do not define a distance.")
        return cls(mean, axes, variances, float(scalars[0]), float(scalars[1]))


def _unit(features: Floats) -> Floats:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    result: Floats = features / np.maximum(length, 1e-6)
    return result
