"""Domains for tests, fitted in milliseconds."""

import numpy as np
from numpy.typing import NDArray

from lesion.domain.domain import Descriptions, Domain
from tests.support.images.pictures import picture


def fit_features(training: NDArray[np.floating], calibration: NDArray[np.floating], size: int = 16) -> Domain:
    """A domain of features, (N, D) and (M, D), whose pictures are coarse random patterns."""
    pictures = np.stack([picture(seed, size) for seed in range(len(training) + len(calibration))])
    features = np.concatenate([training, calibration]).astype(np.float32)
    described = Descriptions.of(features, pictures)
    return Domain.fit(
        Descriptions(*(part[: len(training)] for part in described)),
        Descriptions(*(part[len(training) :] for part in described)),
    )
