"""Which labels are probably wrong: planted wrong labels, groups, rare classes, and what must have no part in it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from lesion.retraining.label_check.confident_learning import FOLDS, LabeledImages, doubt_labels

CENTERS = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
SPREAD = 0.9
CHAMPION_SPREAD = 1.0  # of what the champion sees of each image, drawn by itself


def posterior(features: np.ndarray, spread: float = SPREAD) -> np.ndarray:
    """The exact class probabilities of what ``drawn`` draws: equal classes, normal features with equal spread."""
    squares = ((features[:, None, :4] - CENTERS) ** 2).sum(axis=2)
    weights = np.exp(-squares / (2 * spread**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def drawn(
    images: int = 600, wrong: float = 0.3, seed: int = 0, trusted: float = 0.3, held_out: float = 0.2
) -> tuple[LabeledImages, np.ndarray]:
    """Images of three classes in pairs that belong together, and their true labels; trusted labels are right.

    The champion is calibrated and errs in about one of ten images.
    """
    rng = np.random.default_rng(seed)
    pairs = np.arange(images) // 2
    truth = rng.integers(3, size=pairs[-1] + 1)[pairs]
    features = CENTERS[truth] + SPREAD * rng.normal(size=(images, 4))
    is_trusted = (rng.random(pairs[-1] + 1) < trusted)[pairs]
    is_held_out = (rng.random(pairs[-1] + 1) < held_out)[pairs] & ~is_trusted
    flipped = (rng.random(images) < wrong) & ~is_trusted
    labels = np.where(flipped, (truth + rng.integers(1, 3, size=images)) % 3, truth)
    made = LabeledImages(
        labels=labels,
        groups=np.array([f"pair {pair}" for pair in pairs]),
        features=features.astype(np.float32),
        champion=posterior(CENTERS[truth] + CHAMPION_SPREAD * rng.normal(size=(images, 4)), CHAMPION_SPREAD),
        learned=np.zeros(images, np.bool_),
        held_out=is_held_out,
        waiting=np.zeros(images, np.bool_),
        trusted=is_trusted,
    )
    return made, truth


def share_of_pairs_in_order(doubts: np.ndarray, wrong: np.ndarray) -> float:
    """How often a wrong label is more doubtful than a right one: over all pairs of them, one by one."""
    pairs = list(product(doubts[wrong], doubts[~wrong]))
    return float(sum((bad > good) + (bad == good) / 2 for bad, good in pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(3))
def test_planted_wrong_labels_are_found_and_ranked_like_the_exact_probabilities_rank_them(seed: int) -> None:
    images, truth = drawn(seed=seed)
    found = doubt_labels(images)
    uploads, wrong = ~images.trusted, images.labels != truth
    exact = 1 - posterior(images.features)[np.arange(len(truth)), images.labels]
    best = share_of_pairs_in_order(exact[uploads], wrong[uploads])
    assert share_of_pairs_in_order(found.doubts[uploads], wrong[uploads]) > best - 0.02
    assert found.doubted[uploads & wrong].mean() > 0.95
    assert found.doubted[uploads & ~wrong].mean() < 0.2
    at_wrong = found.doubted & wrong
    assert (found.suggested[at_wrong] == truth[at_wrong]).mean() > 0.85
    assert ((found.doubts >= 0) & (found.doubts <= 1)).all()
    assert found.unjudged == ()


def test_few_right_labels_are_doubted() -> None:
    images, truth = drawn(wrong=0.0)
    mistaken = posterior(images.features).argmax(axis=1) != truth  # what the best possible model gets wrong
    assert doubt_labels(images).doubted.mean() < mistaken.mean() < 0.12


def test_a_trusted_label_is_not_doubted_even_if_it_is_wrong() -> None:
    images, truth = drawn(wrong=0.3)
    mislabeled = replace(images, labels=np.where(images.trusted, (truth + 1) % 3, images.labels))
    assert not doubt_labels(mislabeled).doubted[images.trusted].any()


def test_copies_do_not_vouch_for_each_other() -> None:
    images, truth = drawn(wrong=0.0, held_out=0.0)
    copies = np.flatnonzero(truth == 0)[:20]
    features, labels, groups = images.features.copy(), images.labels.copy(), images.groups.copy()
    features[copies], features[:, 3] = features[copies[0]], 0
    features[copies, 3] = 30  # by which a model that saw one of them knows the others
    labels[copies], groups[copies] = 1, "copies"
    nobody, everybody = np.zeros(len(labels), np.bool_), np.ones(len(labels), np.bool_)
    planted = replace(images, features=features, labels=labels, trusted=nobody, learned=everybody)
    together, apart = (doubt_labels(replace(planted, groups=each)) for each in (groups, np.arange(len(groups))))
    assert together.doubts[copies].min() > 0.6
    assert apart.doubts[copies].max() < 0.5


def test_labels_that_are_held_out_have_no_part_in_judging_the_others() -> None:
    images, _ = drawn()
    first = doubt_labels(images)
    other = doubt_labels(replace(images, labels=np.where(images.held_out, 0, images.labels)))
    for name in ("doubts", "doubted", "suggested"):
        assert np.array_equal(getattr(first, name)[~images.held_out], getattr(other, name)[~images.held_out])
    assert first.doubted[images.held_out].any()


def test_what_the_champion_has_learned_says_nothing_and_what_it_has_not_counts() -> None:
    images, truth = drawn(wrong=0.3)
    sure = np.full((len(truth), 3), 0.01)
    sure[np.arange(len(truth)), images.labels] = 0.98  # it repeats the labels
    everything = np.ones(len(truth), np.bool_)
    alone = doubt_labels(replace(images, learned=everything))
    learned = doubt_labels(replace(images, champion=sure, learned=everything))
    assert np.array_equal(learned.doubts, alone.doubts)
    vote = np.full((len(truth), 3), 0.01)
    vote[np.arange(len(truth)), truth] = 0.98
    asked, wrong = doubt_labels(replace(images, champion=vote)), images.labels != truth
    assert share_of_pairs_in_order(asked.doubts, wrong) > share_of_pairs_in_order(alone.doubts, wrong)
    assert asked.doubted[wrong & ~images.trusted].mean() > alone.doubted[wrong & ~images.trusted].mean()


def test_labels_of_a_class_with_too_few_groups_are_not_judged() -> None:
    images, truth = drawn(wrong=0.1, held_out=0.0)
    rare = np.flatnonzero(truth == 2)
    few = np.setdiff1d(np.arange(len(truth)), rare[2 * (FOLDS - 1) :])
    kept = LabeledImages(*(getattr(images, name)[few] for name in LabeledImages.__dataclass_fields__))
    kept = replace(kept, labels=truth[few])
    found = doubt_labels(kept)
    assert found.unjudged == (2,)
    assert np.array_equal(found.judged, kept.labels != 2)
    assert np.isnan(found.doubts[kept.labels == 2]).all()
    assert not found.doubted[kept.labels == 2].any()
    assert not (found.suggested[found.judged] == 2).any()
    assert np.array_equal(found.suggested[~found.judged], kept.labels[~found.judged])


def test_with_a_single_class_nothing_is_judged() -> None:
    images, _ = drawn()
    found = doubt_labels(replace(images, labels=np.ones(len(images.labels), np.int64)))
    assert not found.judged.any()
    assert not found.doubted.any()
    assert found.unjudged == (0, 2)


def test_arrays_of_different_lengths_are_refused() -> None:
    images, _ = drawn()
    with pytest.raises(AssertionError, match="one length"):
        replace(images, groups=images.groups[1:])


def test_few_uploads_are_judged_by_the_usual_share_of_errors() -> None:
    images, truth = drawn(wrong=0.0, trusted=1.0, held_out=0.0)
    exact = posterior(images.features)
    clear, unclear = int(exact.max(axis=1).argmax()), int(exact.max(axis=1).argmin())
    for image, other in ((clear, 1), (unclear, 0)):
        trusted = np.ones(len(truth), np.bool_)
        trusted[image] = False
        labels = images.labels.copy()
        labels[image] = (truth[image] + other) % 3
        found = doubt_labels(replace(images, labels=labels, trusted=trusted))
        assert found.doubted.sum() == other  # a wrong label of a clear image, but not a right one of an unclear image
        assert found.doubted[image] == bool(other)
        assert found.suggested[clear] == truth[clear] or not other


def test_labels_in_quarantine_are_judged_and_nothing_is_fitted_on_them() -> None:
    images, truth = drawn(wrong=0.0, held_out=0.0)
    waiting = ~images.trusted & (np.arange(len(truth)) % 3 == 0)
    labels = np.where(waiting, (truth + 1) % 3, images.labels)
    found = doubt_labels(replace(images, labels=labels, waiting=waiting))
    assert found.judged.all()
    assert np.median(found.doubts[waiting]) > 0.8
    assert found.doubts[~waiting].mean() < 0.15
