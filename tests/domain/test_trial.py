"""The trial of a domain: the pictures that are drawn for it, what is counted, and what is said of it."""

import numpy as np
import pytest

from lesion.domain.domain import Descriptions, Domain
from lesion.domain.foreign_images import KINDS, foreign_images
from lesion.domain.trial import DomainTrial, KindTrial
from tests.domain.test_domain import own_images


def test_every_kind_is_drawn_in_the_size_of_its_own_images() -> None:
    own = own_images(0, 30)[1]
    drawn = foreign_images(own, 40)
    assert set(drawn) == set(KINDS)
    for kind, pictures in drawn.items():
        made_of_own = kind in ("inverted", "upside_down", "quarter_turn", "cropped", "blurred")
        assert pictures.shape == (30 if made_of_own else 40, 48, 48, 3), kind
        assert pictures.dtype == np.uint8, kind
        assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) > len(pictures) // 4, kind  # not one picture


def test_the_drawings_come_from_the_seed() -> None:
    own = own_images(0, 5)[1]
    first, again, other = (foreign_images(own, 5, seed) for seed in (0, 0, 1))
    for kind in KINDS:
        np.testing.assert_array_equal(first[kind], again[kind])
    assert any(not np.array_equal(first[kind], other[kind]) for kind in KINDS)


def test_own_images_are_changed_as_their_kind_says() -> None:
    own = own_images(0, 1)[1]
    drawn = foreign_images(own, 1)
    np.testing.assert_array_equal(drawn["inverted"], 255 - own)
    np.testing.assert_array_equal(drawn["upside_down"], own[:, ::-1])
    np.testing.assert_array_equal(drawn["quarter_turn"][0], np.rot90(own[0]))


@pytest.fixture(scope="module")
def trial() -> DomainTrial:
    domain = Domain.fit(Descriptions.of(*own_images(0, 150)), Descriptions.of(*own_images(1, 200)))
    features = own_images(2, 1)[0]
    return DomainTrial.run(domain, lambda images: np.repeat(features, len(images), axis=0), own_images(2, 60)[1])


def test_the_pictures_alone_tell_most_kinds(trial: DomainTrial) -> None:
    """The features are those of its own images here, whatever the picture."""
    foreign = {kind.kind: kind.foreign / kind.images for kind in trial.kinds}
    for kind in ("noise", "blank", "text", "color_texture", "leaf", "inverted", "upside_down"):
        assert foreign[kind] >= 0.9, kind
    assert trial.test_foreign <= 8  # of 60, of which 3 are expected
    assert trial.calibration_images + trial.strays == 200


def test_a_trial_is_read_back(trial: DomainTrial) -> None:
    assert DomainTrial.from_json(trial.to_json()) == trial


@pytest.mark.parametrize("change", [{"kind": "unheard_of"}, {"foreign": 41}, {"foreign": -1}, {"images": 0}])
def test_an_impossible_count_is_refused(change: dict[str, object]) -> None:
    written = DomainTrial(100, 0, 10, 0, (KindTrial("noise", 40, 40),)).to_json()
    written["kinds"][0].update(change)
    with pytest.raises(ValueError, match="trial of a known kind"):
        DomainTrial.from_json(written)


def test_what_was_found_is_said_with_its_counts() -> None:
    kinds = (KindTrial("noise", 40, 40), KindTrial("text", 40, 36), KindTrial("upside_down", 40, 21))
    assert DomainTrial(144, 0, 884, 43, kinds).sentences() == [
        "Of 884 test images, 43 were called unlike the training images.",
        "Recognized as foreign, at least nine in ten: noise, pages of text.",
        "Not reliably recognized: its own images upside down (21 of 40).",
    ]
    assert DomainTrial(144, 0, 884, 43, kinds).missed == ("upside_down",)
    few = DomainTrial(14, 0, 1, 1, kinds[:1]).sentences()
    assert few == [
        "Of 1 test image, 1 was called unlike the training images.",
        "The border comes from only 14 images: how many images like the training images are called unlike them is not "
        "known well.",
        "Recognized as foreign, at least nine in ten: noise.",
    ]
