"""The domain: its p-values, its border at each level, strays among calibration images, and a trained model's own."""

import numpy as np
import pytest

from lesion.core.errors import BundleError
from lesion.domain.appearance import AppearanceDistance
from lesion.domain.domain import Descriptions, Domain
from lesion.imaging.decode import read
from lesion.model.bundle import Bundle
from lesion.model.engines import OpenVINOEngine
from lesion.model.predictor import Prediction, Predictor
from lesion.training.packaging import fit_domain
from tests.support.bundles.domains import fit_features
from tests.support.images.pictures import picture
from tests.support.training_runs import Run


def own_images(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and gray pictures that are brighter above than below."""
    rng = np.random.default_rng(seed)
    ground = np.linspace(120, 30, 48)[:, None, None]
    pictures = [ground + 0.3 * picture(10_000 * seed + number)[..., :1].repeat(3, 2) for number in range(count)]
    features = 0.2 * rng.normal(size=(count, 12)) + 3 * (np.arange(12) == 0)
    return features.astype(np.float32), np.stack(pictures).astype(np.uint8)


def fit(calibration: tuple[np.ndarray, np.ndarray]) -> Domain:
    return Domain.fit(Descriptions.of(*own_images(0, 150)), Descriptions.of(*calibration))


@pytest.fixture(scope="module")
def domain() -> Domain:
    return fit(own_images(1, 200))


def test_p_values_are_the_rarest_rank_by_its_share_of_the_level(domain: Domain) -> None:
    """Against counting, one image and one measure at a time."""
    images = Descriptions.of(*own_images(3, 50))
    assert domain.pictures is not None
    appearance, orientation = domain.pictures
    measures = [
        np.log(domain.features(images.features)), np.log(appearance(images.appearance)), orientation(images.orientation)
    ]  # fmt: skip
    expected = []
    for image in range(50):
        ranks = []
        for values, known, share in zip(measures, domain.known, (0.2, 0.2, 0.6), strict=True):
            above = sum(float(each) >= float(values[image]) for each in known)
            ranks.append((above + 1) / (len(known) + 1) / share)
        expected.append(min(1.0, *ranks))
    np.testing.assert_allclose(domain.judge_descriptions(images).p_values, expected)


def test_pictures_of_training_images_are_ranked_by_fits_without_their_groups() -> None:
    training, calibration = Descriptions.of(*own_images(0, 60)), Descriptions.of(*own_images(1, 20))
    groups = np.repeat(np.arange(20), 3)
    fitted = Domain.fit(training, calibration, groups)
    assert [len(known) for known in fitted.known] == [20, 80, 80]
    appearance = []
    for fold in range(5):
        held_out = groups % 5 == fold
        rest = AppearanceDistance.fit(training.appearance[~held_out])
        appearance += np.log(rest(training.appearance[held_out])).tolist()
    appearance += np.log(AppearanceDistance.fit(training.appearance)(calibration.appearance)).tolist()
    np.testing.assert_allclose(fitted.known[1], np.sort(appearance), rtol=1e-6)
    alone = Domain.fit(training, calibration, np.zeros(60, int))  # one group cannot be held out
    assert [len(known) for known in alone.known] == [20, 20, 20]


def test_few_calibration_images_do_not_leave_the_false_alarms_to_chance() -> None:
    """With 20 of them, as many own images are called foreign as with 400, by the measures of pictures."""
    training = Descriptions.of(*own_images(0, 300))
    own = Descriptions.of(*own_images(2, 1000))
    shares = []
    for seed in range(10, 18):
        known = Domain.fit(training, Descriptions.of(*own_images(seed, 20))).known
        appearance = np.log(AppearanceDistance.fit(training.appearance)(own.appearance))
        shares.append((appearance > np.quantile(known[1], 0.95)).mean())
    assert max(abs(share - 0.05) for share in shares) < 0.02


@pytest.mark.parametrize("level", [0.03, 0.05, 0.2])
def test_the_level_is_the_share_of_own_images_that_are_called_foreign(domain: Domain, level: float) -> None:
    judgement = domain.judge(*own_images(2, 1000), level)
    np.testing.assert_array_equal(judgement.inside, judgement.p_values > level)
    np.testing.assert_array_equal(judgement.inside, judgement.distances <= 1)
    assert (~judgement.inside).mean() < level + 4 * np.sqrt(level * (1 - level) / 200)
    assert (~judgement.inside).mean() > 0.4 * level  # a share of the level is lost where measures agree


def test_each_measure_alone_finds_its_kind(domain: Domain) -> None:
    features, pictures = own_images(3, 40)
    kinds = {
        "far features": (features + 9 * (np.arange(12) == 5), pictures),
        "colored": (features, pictures * np.array([0.4, 1.0, 0.5])),
        "upside down": (features, pictures[:, ::-1]),
    }
    for kind, (other_features, other_pictures) in kinds.items():
        judgement = domain.judge(other_features.astype(np.float32), np.ascontiguousarray(other_pictures, np.uint8))
        assert (~judgement.inside).mean() >= 0.95, kind


def test_a_stray_hardly_widens_the_domain() -> None:
    features, pictures = own_images(6, 100)
    foreign_features, foreign_pictures = own_images(5, 300)
    foreign = (foreign_features, np.ascontiguousarray(foreign_pictures[:, ::-1]))
    stray = pictures.copy()
    stray[0] = np.random.default_rng(0).integers(0, 256, stray[0].shape)
    shares, strays = [], []
    for calibration in (pictures, stray):
        fitted = fit((features, calibration))
        strays.append(fitted.strays)
        shares.append((~fitted.judge(*foreign).inside).mean())
    assert strays == [0, 1]
    assert shares[1] > shares[0] - 0.03


def test_with_few_calibration_images_the_most_unusual_is_the_border() -> None:
    calibration = own_images(1, 5)
    judgement = fit(calibration).judge(*calibration, 0.05)
    assert judgement.inside.all()
    far = Descriptions.of(*own_images(4, 1))
    assert fit(calibration).judge_descriptions(far._replace(features=-far.features)).distances[0] > 1


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_or_equal_images_still_give_a_border(count: int) -> None:
    features, pictures = own_images(0, count)
    for training in ((features, pictures), (np.ones_like(features), np.zeros_like(pictures))):
        described = Descriptions.of(*training)
        fitted = Domain.fit(described, Descriptions(*(part[:1] for part in described)))
        judgement = fitted.judge(*own_images(6, 5))
        assert np.isfinite(judgement.distances).all()
        assert fitted.judge(training[0][:1], training[1][:1]).inside.all()


def test_a_diverged_network_is_refused() -> None:
    rng = np.random.default_rng(0)
    for training, calibration in (
        (np.full((5, 4), np.nan), 5),
        (rng.normal(size=(1, 4)), 5),
        (rng.normal(size=(5, 4)), 0),
    ):
        with pytest.raises(BundleError) as caught:
            fit_features(training, rng.normal(size=(calibration, 4)))
        assert caught.value.code == "domain_unfit"


def test_a_run_leaves_the_domain_of_its_own_images(run: Run) -> None:
    bundle = Bundle.open(run.bundle_path)
    datamodule = run.objects["datamodule"]
    again = fit_domain(OpenVINOEngine(bundle.onnx, precision="f32"), datamodule)
    for found, stored in zip(again.known, bundle.domain().known, strict=True):
        np.testing.assert_allclose(found, stored, atol=0.05)
    rows = [datamodule.manifest.split(split) for split in ("val", "calibration")]
    paths = [path for split in rows for path in split["path"]]
    training = len(datamodule.manifest.split("train"))
    assert again.calibration_images == pytest.approx(len(paths), abs=again.strays)
    assert len(again.known[2]) == pytest.approx(len(paths) + training, abs=again.strays)
    answers = Predictor.load(run.bundle_path, "cpu", precision="f32").predict(
        [read(datamodule.manifest.root / path) for path in paths]
    )
    distances = [answer.domain_distance for answer in answers if isinstance(answer, Prediction)]
    assert len(distances) == len(paths)
    for answer in answers:
        assert isinstance(answer, Prediction)
        assert answer.in_domain == (answer.domain_distance <= 1)
        assert answer.domain_p_value is not None
        assert 0 < answer.domain_p_value <= 1
