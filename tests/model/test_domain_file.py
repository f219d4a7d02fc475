"""The file of a domain: read back as it was, of older bundles too, and refused where it defines no distance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lesion.core.errors import BundleError
from lesion.domain.domain import Descriptions
from lesion.model.domain_file import read_domain, save_domain
from tests.support.bundles.domains import fit_features
from tests.support.images.pictures import picture

RNG = np.random.default_rng(0)
TRAINING, CALIBRATION = RNG.normal(size=(40, 4)), RNG.normal(size=(30, 4))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_domain(fit_features(TRAINING, CALIBRATION), tmp_path / "domain.npz")
    return tmp_path / "domain.npz"


def test_what_is_saved_is_read_back(path: Path) -> None:
    images = np.stack([picture(seed, 16) for seed in range(500, 530)])
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    fitted, opened = fit_features(TRAINING, CALIBRATION), read_domain(path)
    assert opened.strays == fitted.strays
    for found, expected in zip(opened.judge(features, images), fitted.judge(features, images), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_domain_of_format_3_keeps_its_distances(path: Path) -> None:
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in ("mean", "axes", "variances")}
        rest = arrays["scalars"][0]
    np.savez(path, **kept, scalars=np.array([rest, 2.5]))
    opened = read_domain(path)
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    images = np.zeros((30, 16, 16, 3), np.uint8)
    for level in (0.01, 0.2):  # it knows no ranks, so that the level changes nothing
        judgement = opened.judge(features, images, level)
        np.testing.assert_allclose(judgement.distances, opened.features(features) / 2.5, rtol=1e-5)


def test_a_domain_of_format_4_ranks_the_largest_measure_on_its_scale(path: Path) -> None:
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith("known_") and name != "shares"}
    middles, spreads, scores = np.array([0.5, 1.0, -1.0]), np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 1.0, 2.0])
    np.savez(path, **kept, middles=middles, spreads=spreads, scores=scores)
    images = np.stack([picture(seed, 16) for seed in range(500, 530)])
    features = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
    opened, described = read_domain(path), Descriptions.of(features, images)
    assert opened.pictures is not None
    appearance, orientation = opened.pictures
    measures = [
        np.log(opened.features(features)), np.log(appearance(described.appearance)), orientation(described.orientation)
    ]  # fmt: skip
    scaled = np.max([(values - middles[k]) / spreads[k] for k, values in enumerate(measures)], axis=0)
    judgement = opened.judge(features, images, 0.4)  # two of five: 1 is the border
    np.testing.assert_allclose(judgement.p_values, [(1 + (scores >= score).sum()) / 5 for score in scaled])
    np.testing.assert_array_equal(judgement.inside, scaled <= 1)


def changed(path: Path, name: str, value: Any) -> None:
    with np.load(path) as arrays:
        np.savez(path, **(dict(arrays) | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.zeros(3, np.float32)),
        ("mean", np.zeros(4)),
        ("axes", np.zeros((0, 4), np.float32)),
        ("variances", np.zeros(10, np.float32)),
        ("scalars", np.array([0.0, 0.0])),
        ("scalars", np.array([1.0, np.nan])),
        ("scalars", np.ones(3)),
        ("center", np.zeros(52, np.float32)),
        ("scale", np.zeros(53, np.float32)),
        ("references", np.zeros((0, 53), np.float32)),
        ("references", np.zeros((5, 52), np.float32)),
        ("turns", np.zeros((656, 2), np.float32)),
        ("turns", np.full((656, 3), np.inf, np.float32)),
        ("shares", np.array([0.5, 0.5])),
        ("shares", np.array([1.0, 0.0, 0.0])),
        ("shares", np.array([1.0, 1.0, 1.0])),
        ("known_features", np.zeros(0)),
        ("known_appearance", np.array([1.0, 0.0])),
        ("known_orientation", np.array([0.0, np.nan])),
        ("unknown", np.zeros(1)),
    ],
)
def test_arrays_that_define_no_distance_are_refused(path: Path, name: str, value: Any) -> None:
    changed(path, name, value)
    with pytest.raises(BundleError) as caught:
        read_domain(path)
    assert caught.value.code == "bundle_file_invalid"
