"""The distance of features: what it is by its definition, and that it is finite for few or equal images."""

import numpy as np
import pytest

from lesion.domain.feature_distance import FeatureDistance


def drawn(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    """Features about one direction that vary along two axes, and hardly along the other 17."""
    rng = np.random.default_rng(seed)
    scale = np.r_[0.3, 0.2, np.full(18, 0.02)]
    features: np.ndarray = rng.normal(size=(count, 20)) * scale
    features[:, 2] += 3.0
    features[:, 19] += shift
    return features.astype(np.float32)


def test_what_leaves_the_training_images_directions_is_far_away() -> None:
    distance = FeatureDistance.fit(drawn(0, 400))
    assert (distance(drawn(3, 50, shift=1.0)) > 3 * distance(drawn(3, 50))).all()


def test_the_length_of_features_does_not_count() -> None:
    distance, features = FeatureDistance.fit(drawn(0, 400)), drawn(4, 20)
    np.testing.assert_allclose(distance(7 * features), distance(features), rtol=1e-3)


def test_the_distance_is_mahalanobis_of_probabilistic_pca() -> None:
    training = drawn(5, 40).astype(np.float64)
    distance = FeatureDistance.fit(training)
    unit = training / np.linalg.norm(training, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    kept = len(distance.axes)
    assert kept == 10  # four images a component
    values[: 20 - kept] = values[: 20 - kept].mean()
    precision = vectors @ np.diag(1 / values) @ vectors.T
    offset = unit - unit.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", offset, precision, offset))
    np.testing.assert_allclose(distance(training), expected, rtol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_or_equal_images_still_give_distances(count: int) -> None:
    for training in (drawn(0, count), np.ones((count, 20))):
        assert np.isfinite(FeatureDistance.fit(training)(drawn(6, 5))).all()
