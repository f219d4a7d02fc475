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
    """Nothing changed anywhere, so only the unseen counts: 3 images may hide a loss of 64 % of a class's hits."""
    labels = np.repeat([0, 1, 2], [100, 100, 3])
    bound = macro_f1_bound(PairedAnswers(labels, np.arange(203), labels, labels, 3), LEVEL)
    assert bound.difference == 0
    # With 36 % of its hits and no error of others its F1 is 2 · 0.36 / 1.36.
    assert bound.lower == pytest.approx(-(1 - 2 * 0.3562 / 1.3562) / 3, abs=1e-3)
    assert bound.uncertain_class == 2


def test_a_champion_may_have_had_no_luck_with_a_rare_class() -> None:
    """Of 3 images neither model hits one. The champion, which gives the class to no other image, may well hit some."""
    labels = np.repeat([0, 1, 2], [100, 100, 3])
    champion, challenger = labels.copy(), labels.copy()
    champion[-3:] = challenger[-3:] = 0
    challenger[:8] = 2  # so that a hit of the challenger would be worth less: 2 · 1 / (3 + 9)
    bound = macro_f1_bound(PairedAnswers(labels, np.arange(203), champion, challenger, 3), LEVEL)
    assert bound.uncertain_class == 2
    # Each of 3 · 0.6438 unseen hits adds 2 / 3 at most.
    unseen = 2 / 3 * 3 * 0.6438 / 3
    assert bound.difference - bound.lower == pytest.approx(unseen, abs=0.02)


def test_the_largest_group_of_another_class_may_be_given_to_a_rare_class() -> None:
    """20 images of one patient are 20 errors at once; 12 images would then be found among 32 answers."""
    labels = np.repeat([0, 0, 1], [400, 20, 12])
    groups = np.concatenate([np.arange(400), np.full(20, 400), np.arange(401, 413)])
    bound = macro_f1_bound(PairedAnswers(labels, groups, labels, labels, 2), LEVEL)
    alone = macro_f1_bound(PairedAnswers(labels, np.arange(432), labels, labels, 2), LEVEL)
    expected = (1 - 2 * 12 / (12 + 12 + 19)) / 2  # one error of the 20 is not counted, as with single images
    assert np.hypot(alone.lower, expected) == pytest.approx(-bound.lower, abs=1e-3)
    champion = labels.copy()
    champion[400:420] = 1  # it may be the champion's bad luck too
    seen = macro_f1_bound(PairedAnswers(labels, groups, champion, labels, 2), LEVEL)
    assert seen.difference > 0.2
    assert seen.lower < 0


def test_two_models_on_one_image_of_a_class_say_nothing() -> None:
    """Three classes of a single image each, which both models hit: each of them may be lost."""
    labels = np.concatenate([np.repeat([0, 1], 100), [2, 3, 4]])
    bound = macro_f1_bound(PairedAnswers(labels, np.arange(203), labels, labels, 5), LEVEL)
    assert bound.lower == pytest.approx(-3 / 5, abs=1e-3)


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


def test_changes_of_large_groups_among_small_ones_count_as_few() -> None:
    """Two groups of 20 among 100 single images get worse: as if 2 of 7 images did."""
    groups = np.concatenate([np.arange(100), np.repeat([100, 101], 20)])
    before, after = np.ones(140, bool), np.ones(140, bool)
    after[100:] = False
    changes = class_changes(np.zeros(140, int), groups, before, after, 1)
    assert changes.worse == pytest.approx([2])
    assert changes.images == pytest.approx([7])


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


@pytest.mark.parametrize(
    ("rare", "hits", "false", "common", "groups"),
    [
        # Classes, whose images the champion seldom and the challenger hardly ever hits; it gives them to 24 others.
        ((3, 3, 3), (0.168, 0.095), (0.0, 24.0), (0.619, 0.695), 0),
        # A class whose 2 images the challenger hits as often as not.
        ((2,), (0.99, 0.494), (0.0, 0.5), (0.779, 0.999), 0),
        # Three patients of 20 images, which the challenger mostly takes for a rare class.
        ((3,), (0.654, 0.433), (0.0, 4.0), (0.6, 0.857), 3),
    ],
)
def test_keeps_its_level_where_the_f1_falls_by_errors_of_others(rare, hits, false, common, groups) -> None:
    """The worst that a random search found: the macro-F1 is truly equal or lower, and was promoted in 8 % to 14 %."""
    rng = np.random.default_rng(5)
    others = 10 - len(rare) if len(rare) > 1 else 2
    sizes = [*rare, *[(1000 - 20 * groups - sum(rare)) // others] * others]
    labels = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(20 * groups, len(sizes) - 1)])
    names = np.concatenate([np.arange(sum(sizes)), sum(sizes) + np.repeat(np.arange(groups), 20)])
    common_images = np.flatnonzero(labels[: sum(sizes)] >= len(rare))

    def answer(model: int) -> np.ndarray:
        right = rng.random(len(labels)) < np.where(labels < len(rare), hits[model], common[model])
        wrong = len(rare) + (labels - len(rare) + rng.integers(1, others, len(labels))) % others
        given = np.where(right, labels, np.where(labels < len(rare), len(rare), wrong))
        taken = common_images[rng.random(len(common_images)) < false[model] / len(common_images)]
        given[taken] = rng.integers(0, len(rare), len(taken))
        for group in range(groups):
            of_group = names == sum(sizes) + group
            given[of_group] = 0 if rng.random() < (0.053, 0.817)[model] else len(sizes) - 1
        return given

    runs = 600
    drawn = [PairedAnswers(labels, names, answer(0), answer(1), len(sizes)) for _ in range(runs)]
    assert sum(macro_f1_bound(answers, 0.03).lower > 0 for answers in drawn) <= 0.05 * runs
