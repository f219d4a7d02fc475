"""The conditions of a promotion, each with a sentence about its result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lesion.promotion.comparison import Comparison, Recall, pooled_recalls
from lesion.promotion.gate_settings import GateSettings

_ROUNDING = 1e-9  # two recalls that differ by less are equal


@dataclass(frozen=True)
class Check:
    """One condition of promotion."""

    # ``f1_macro``, ``exact_test``, ``earlier/<generation>``, ``recall/<class>``, ``recall_all/<class>`` (over all
    # generations together) or ``ece``.
    name: str
    value: float
    bound: float
    passed: bool
    sentence: str


def check_all(earlier: Sequence[Comparison], newest: Comparison, settings: GateSettings, alpha: float) -> list[Check]:
    """Check every condition: the first two prove a challenger better, the others prove that it does no harm.

    Recalls are compared with their floors on the newest generation, where a class may be rare or missing, and on all
    generations together.
    """
    checks = [
        _difference_check(newest, settings),
        _test_check(newest, alpha),
        *(_earlier_check(comparison, settings) for comparison in earlier),
        *_recall_checks(newest.recalls, settings, "recall", f"on generation {newest.generation}"),
    ]
    if earlier:
        checks += _recall_checks(pooled_recalls((*earlier, newest)), settings, "recall_all", "over all generations")
    return [*checks, _calibration_check(newest, settings)]


def _difference_check(newest: Comparison, settings: GateSettings) -> Check:
    passed = newest.lower_bound > settings.margin
    sentence = (
        f"On generation {newest.generation} the challenger's macro-F1 is {newest.challenger.f1_macro:.3f} and the "
        f"champion's {newest.champion.f1_macro:.3f}; the difference of {newest.difference:+.4f} is above "
        f"{newest.lower_bound:+.4f} with {newest.confidence:.2%} confidence, which is "
        f"{'more' if passed else 'not more'} than the margin of {settings.margin:g}."
    )
    return Check("f1_macro", newest.lower_bound, settings.margin, passed, sentence)


def _test_check(newest: Comparison, alpha: float) -> Check:
    passed = newest.p_value <= alpha
    sentence = (
        f"On generation {newest.generation} the challenger is better in {newest.better_groups} and worse in "
        f"{newest.worse_groups} of {newest.groups} groups of images: {'more' if passed else 'not more'} often better "
        f"than luck explains (exact test, p = {newest.p_value:.2g}, level {alpha:.2g})."
    )
    return Check("exact_test", newest.p_value, alpha, passed, sentence)


def _earlier_check(earlier: Comparison, settings: GateSettings) -> Check:
    passed = earlier.lower_bound > -settings.earlier_margin
    sentence = (
        f"On the earlier generation {earlier.generation} the macro-F1 difference of {earlier.difference:+.4f} is "
        f"above {earlier.lower_bound:+.4f} with {earlier.confidence:.0%} confidence: a fall of "
        f"{settings.earlier_margin:g} is {'ruled out' if passed else 'not ruled out'}."
    )
    return Check(f"earlier/{earlier.generation}", earlier.lower_bound, -settings.earlier_margin, passed, sentence)


def _recall_checks(recalls: Sequence[Recall], settings: GateSettings, name: str, where: str) -> Iterator[Check]:
    for recall in recalls:
        if recall.champion is None or recall.challenger is None:
            continue
        floor = min(settings.recall_floors.get(recall.label, settings.recall_floor), recall.champion)
        bound = max(floor, recall.champion - max(settings.recall_drop, 1 / recall.images))
        passed = recall.challenger >= bound - _ROUNDING
        sentence = (
            f"The challenger's recall of {recall.label} {where} is {recall.challenger:.3f} on {recall.images} images "
            f"(the champion's: {recall.champion:.3f}), {'not below' if passed else 'below'} the {bound:.3f} allowed."
        )
        yield Check(f"{name}/{recall.label}", recall.challenger, bound, passed, sentence)


def _calibration_check(newest: Comparison, settings: GateSettings) -> Check:
    bound = newest.champion.ece + settings.ece_margin
    passed = newest.challenger.ece <= bound
    sentence = (
        f"The challenger's calibration error on generation {newest.generation} is {newest.challenger.ece:.3f} (the "
        f"champion's: {newest.champion.ece:.3f}), {'not above' if passed else 'above'} the {bound:.3f} allowed."
    )
    return Check("ece", newest.challenger.ece, bound, passed, sentence)
