"""Measures what prediction sets and withheld answers promise, on images that they were not fitted on."""

from collections.abc import Sequence

import numpy as np

from lesion.conformal.answer_rules import AnswerRules
from lesion.evaluation.intervals.estimates import Estimate, Sample
from lesion.evaluation.intervals.proportions import share, worth_of
from lesion.evaluation.probabilities import Floats, Ints


def estimate_answers(
    rules: AnswerRules, probabilities: Floats, labels: Ints, groups: Ints, classes: Sequence[str]
) -> dict[str, Estimate]:
    """Estimate how often the sets hold the right class, how large they are, and how many given answers are wrong.

    Args:
        rules: Fitted on other images.
        probabilities: ``(N, C)``, calibrated.
        labels: ``(N,)`` indices below C.
        groups: ``(N,)`` integers; images that belong together share one, and one vote.
        classes: C names.

    Returns:
        By key: ``sets/coverage`` and ``sets/coverage/<class>`` at the default coverage, ``sets/size``, and, if there is
        a threshold of confidence, ``answered/share`` and ``answered/error``.
    """
    sample = Sample.of(groups)
    labels = np.asarray(labels)
    members = rules.sets.listed(probabilities)
    covered = members[np.arange(len(labels)), labels]
    everything = np.ones(len(labels), dtype=bool)
    worth = worth_of(sample, covered)
    result = {"sets/coverage": share(sample, covered, everything, worth)}
    result["sets/size"] = Estimate(float(sample.sums(members.sum(axis=1)).sum() / sample.groups))
    for c, name in enumerate(classes):
        labeled = labels == c
        result[f"sets/coverage/{name}"] = share(sample, covered & labeled, labeled, worth)
    abstention = rules.abstention
    if abstention is not None and abstention.confidence is not None:
        answered = probabilities.max(axis=1) >= abstention.confidence
        wrong = probabilities.argmax(axis=1) != labels
        worth = worth_of(sample, ~wrong)
        result["answered/share"] = share(sample, answered, everything, worth)
        result["answered/error"] = share(sample, wrong & answered, answered, worth)
    return result
