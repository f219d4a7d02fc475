"""The domain: what is like the training images, what is not, and that the numbers survive the bundle."""

from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import BundleError
from lesion.imaging.decode import read
from lesion.model.bundle import Bundle
from lesion.model.domain import Domain
from lesion.model.engines import OpenVINOEngine
from lesion.model.predictor import Prediction, Predictor
from lesion.training.packaging import fit_domain
from tests.support.training_runs import Run


def drawn(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    """Features about one direction that vary along two axes, and hardly along the other 17."""
    rng = np.random.default_rng(seed)
    scale = np.r_[0.3, 0.2, np.full(18, 0.02)]
    features: np.ndarray = rng.normal(size=(count, 20)) * scale
    features[:, 2] += 3.0
    features[:, 19] += shift
    return features.astype(np.float32)


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.fit(drawn(0, 400), drawn(1, 200))


def test_as_many_as_the_quantile_says_are_within(domain: Domain) -> None:
    assert domain.distances(drawn(1, 200)).max() == pytest.approx(
        1.0, abs=1e-4
    )  # 0.995 of 200: the last or last but one
    assert 0.97 <= (domain.distances(drawn(2, 2000)) <= 1).mean() <= 1.0


def test_what_leaves_the_training_images_directions_is_outside(domain: Domain) -> None:
    inside, outside = domain.distances(drawn(3, 50)), domain.distances(drawn(3, 50, shift=1.0))
    assert (outside > 3 * inside).all()
    assert (outside > 1).all()


def test_the_length_of_features_does_not_count(domain: Domain) -> None:
    features = drawn(4, 20)
    np.testing.assert_allclose(domain.distances(7 * features), domain.distances(features), rtol=1e-3)


def test_the_distance_is_mahalanobis_of_probabilistic_pca() -> None:
    training = drawn(5, 40).astype(np.float64)
    fitted = Domain.fit(training, training)
    unit = training / np.linalg.norm(training, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(unit.T))
    kept = len(fitted.axes)
    assert kept == 10  # four images a component
    values[: 20 - kept] = values[: 20 - kept].mean()
    precision = vectors @ np.diag(1 / values) @ vectors.T
    offset = unit - unit.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", offset, precision, offset))
    np.testing.assert_allclose(fitted.distances(training) * fitted.border, expected, rtol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_or_equal_images_still_give_a_border(count: int) -> None:
    for training in (drawn(0, count), np.ones((count, 20))):
        fitted = Domain.fit(training, training[:1])
        assert np.isfinite(fitted.distances(drawn(6, 5))).all()
        assert fitted.distances(training[:1])[0] <= 1.001


def test_a_diverged_network_is_refused() -> None:
    for training, calibration in (
        (drawn(0, 5) * np.nan, drawn(1, 5)),
        (drawn(0, 1), drawn(1, 5)),
        (drawn(0, 5), drawn(1, 0)),
    ):
        with pytest.raises(BundleError) as caught:
            Domain.fit(training, calibration)
        assert caught.value.code == "domain_unfit"


def test_what_is_saved_is_read_back(domain: Domain, tmp_path: Path) -> None:
    domain.save(tmp_path / "domain.npz")
    np.testing.assert_array_equal(
        Domain.read(tmp_path / "domain.npz").distances(drawn(7, 30)), domain.distances(drawn(7, 30))
    )


def test_a_run_leaves_the_domain_of_its_own_images(run: Run) -> None:
    bundle = Bundle.open(run.bundle_path)
    datamodule = run.objects["datamodule"]
    again = fit_domain(OpenVINOEngine(bundle.onnx, precision="f32"), datamodule)
    assert again.border == pytest.approx(bundle.domain().border, rel=1e-3)
    rows = datamodule.manifest.split("calibration")
    answers = Predictor.load(run.bundle_path, "cpu", precision="f32").predict(
        [read(datamodule.manifest.root / path) for path in rows["path"]]
    )
    distances = [answer.domain_distance for answer in answers if isinstance(answer, Prediction)]
    assert len(distances) == len(rows)
    assert max(distances) == pytest.approx(1.0, abs=0.01)  # so few that the quantile is the largest
    for answer in answers:
        assert isinstance(answer, Prediction)
        assert answer.in_domain == (answer.domain_distance <= 1)
