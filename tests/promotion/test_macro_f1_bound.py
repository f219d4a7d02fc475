import numpy as np
import pytest
from scipy.stats import norm

from lesion.promotion.macro_f1_bound import macro_f1_bound
from lesion.promotion.paired_answers import PairedAnswers, class_changes

LEVEL = 0.05


def draw(rng, sizes, champion, challenger):
    """Answers that are right with a probability for each class; wrong ones give the next class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    first, second = (
        np.where(rng.random(len(labels)) < np.asarray(right)[labels], labels, (labels + 1) % len(sizes))
        for right in (champion, challenger)
    )
    return PairedAnswers(labels, np.arange(len(labels)), first, second, len(sizes))


def macro_f1(labels, given, classes):
    from sklearn.metrics import f1_score

    return f1_score(labels, given, average="macro", labels=range(classes), zero_division=0)


def test_the_difference_is_scikit_learns() -> None:
    answers = draw(np.random.default_rng(0), [40, 30, 8], [0.8] * 3, [0.9] * 3)
    expected = macro_f1(answers.labels, answers.challenger, 3) - macro_f1(answers.labels, answers.champion, 3)
    assert macro_f1_bound(answers, LEVEL).difference == pytest.approx(expected)


def test_with_many_images_the_bound_is_that_of_a_stratified_bootstrap() -> None:
    rng = np.random.default_rng(1)
    answers = draw(rng, [600, 500, 400], [0.8, 0.7, 0.75], [0.85, 0.75, 0.7])
    rows = [np.flatnonzero(answers.labels == c) for c in range(3)]
    differences = []
    for _ in range(500):
        drawn = np.concatenate([rng.choice(row, len(row)) for row in rows])
        scores = [macro_f1(answers.labels[drawn], given[drawn], 3) for given in (answers.champion, answers.challenger)]
        differences.append(scores[1] - scores[0])
    bound = macro_f1_bound(answers, LEVEL)
    assert bound.difference - bound.lower == pytest.approx(norm.isf(LEVEL) * np.std(differences), rel=0.1)
    assert bound.uncertain_class is None


def test_a_class_that_did_not_change_on_three_images_may_have_changed() -> None:
    """Nothing changed anywhere, so only the unseen counts: 3 images may hide a loss of 64 %, a third of a macro-F1."""
    labels = np.repeat([0, 1, 2], [100, 100, 3])
    bound = macro_f1_bound(PairedAnswers(labels, np.arange(203), labels, labels, 3), LEVEL)
    assert bound.difference == 0
    # A share d of a class's hits lost takes d of its recall, and (2 - 1) · d / 2 of its F1 to first order.
    assert bound.lower == pytest.approx(-0.6438 / 2 / 3, abs=1e-3)
    assert bound.uncertain_class == 2


def test_groups_count_as_one_image_where_they_change_together() -> None:
    rng = np.random.default_rng(2)
    single = draw(rng, [60, 60], [0.7, 0.7], [0.8, 0.8])
    labels, groups, first, second = (
        np.repeat(values, 10) for values in (single.labels, single.groups, single.champion, single.challenger)
    )
    tenfold = PairedAnswers(labels, groups, first, second, 2)
    one, ten = macro_f1_bound(single, LEVEL), macro_f1_bound(tenfold, LEVEL)
    assert ten.difference == pytest.approx(one.difference)
    assert ten.lower == pytest.approx(one.lower, abs=0.002)  # but for the correction of the variance, 60/59 to 600/599


def test_a_class_without_images_is_left_out() -> None:
    answers = draw(np.random.default_rng(3), [50, 50], [0.7, 0.7], [0.9, 0.9])
    more = PairedAnswers(answers.labels, answers.groups, answers.champion, answers.challenger, 3)
    assert macro_f1_bound(more, LEVEL) == macro_f1_bound(answers, LEVEL)


def test_changes_count_groups_by_kishs_number() -> None:
    """Of 4 images in groups of 3 and 1, the first group gains 2 and loses 1: one gained, of 16 / 10 images' worth."""
    labels, groups = np.zeros(4, int), np.array(["a", "a", "a", "b"])
    before, after = np.array([False, False, True, True]), np.array([True, True, False, False])
    changes = class_changes(labels, groups, before, after, 2)
    assert changes.images == pytest.approx([1.6, 0])
    assert changes.better == pytest.approx([0.4, 0])
    assert changes.worse == pytest.approx([0.4, 0])


@pytest.mark.parametrize(("rare", "common"), [(2, 49), (3, 99), (9, 97)])
def test_keeps_its_level_where_a_rare_class_collapses_unseen(rare, common) -> None:
    """The rare class falls from 0.85 to 0.37; the other one rises so far that the macro-F1 stays the same."""
    rng, sizes = np.random.default_rng(4), np.array([common, rare])

    def expected(right):
        errors = (1 - np.asarray(right)) * sizes
        hits = np.asarray(right) * sizes
        return (2 * hits / (sizes + hits + errors[::-1])).mean()

    champion = (0.6, 0.85)
    risen = min((abs(expected((p, 0.37)) - expected(champion)), p) for p in np.linspace(0.6, 0.999, 400))[1]
    wrong = sum(macro_f1_bound(draw(rng, sizes, champion, (risen, 0.37)), LEVEL).lower > 0 for _ in range(1000))
    assert wrong <= 65  # 5 % and two standard errors; the variance alone gives 90 and more for the first two
