"""What images that nobody reviewed change of the scores on which the gate decides."""

from collections.abc import Callable, Sequence, Set

import numpy as np

from lesion.database.storage import Storage
from lesion.promotion.comparison import GateSet
from lesion.promotion.paired_answers import AnswersByReview, RightAnswers
from lesion.retraining.label_check.unreviewed_images import unreviewed_hashes


def count_by_review(
    storage: Storage, decided: Sequence[GateSet], newer: Sequence[GateSet], waiting: Set[str]
) -> AnswersByReview:
    """Count both models' right answers to the images that the gate decided on, and to ``newer`` held-out ones.

    ``waiting`` are the hashes of those newer ones that are in quarantine.
    """
    with storage.reading() as session:
        unreviewed = unreviewed_hashes(session, [gate_set.generation for gate_set in decided])
    return AnswersByReview(
        reviewed=_count(decided, lambda sha256: sha256 not in unreviewed),
        unreviewed=_count(decided, lambda sha256: sha256 in unreviewed),
        gathered=_count(newer, lambda sha256: sha256 not in waiting),
        waiting=_count(newer, lambda sha256: sha256 in waiting),
    )


def _count(sets: Sequence[GateSet], counts: Callable[[str], bool]) -> RightAnswers:
    """Count right answers to the images for whose hash ``counts`` is true."""
    total = RightAnswers(0, 0, 0)
    for gate_set in sets:
        counted = np.array([counts(sha256) for sha256 in gate_set.hashes], np.bool_)
        champion, challenger = (
            int((answers.argmax(axis=1) == gate_set.labels)[counted].sum())
            for answers in (gate_set.champion, gate_set.challenger)
        )
        total += RightAnswers(int(counted.sum()), champion, challenger)
    return total
