"""The gate's decisions in plain words, for each way in which they can end, from gate sets made by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lesion.promotion.comparison import GateSet, Selection
from lesion.promotion.feasibility import Feasibility, assess, chance_of_proof, change_rates, more_groups
from lesion.promotion.gate import Verdict, decide, reject_exhausted
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.summary.verdict_summary import (
    Summary,
    summarize_feasibility,
    summarize_other_classes,
    summarize_without_images,
)
from tests.support.gate_sets import CLASSES, better, gate_set

SETTINGS = GateSettings()
LEVEL = 0.03


def summary_of(*sets: GateSet, settings: GateSettings = SETTINGS, **more: Any) -> Summary:
    verdict: Verdict = decide(sets, CLASSES, settings, LEVEL, **more)
    content = verdict.to_json()
    assert list(content)[:2] == ["promoted", "summary"]  # the words come before the numbers
    assert content["summary"] == {"why": verdict.summary.why, "next_steps": verdict.summary.next_steps}
    assert verdict.promoted == verdict.summary.why.startswith("The new model was promoted")
    return verdict.summary


def test_promoted() -> None:
    summary = summary_of(better())
    assert summary.why == (
        "The new model was promoted, since it was proved better. On the 300 newest held-out images it is right on 20 "
        "where the model in use is wrong, and wrong on 2 where that one is right. If both were equally good, chance "
        "would do that in under 0.01 % of all cases: less than the 3.0 % that this decision allows."
    )
    [step] = summary.next_steps
    assert step == (
        "Nothing has to be done. The report shows the 2 images on which only the earlier model is right: look for "
        "wrong labels."
    )


def test_promoted_without_a_lost_image() -> None:
    assert summary_of(gate_set(range(30), range(10))).next_steps == ("Nothing has to be done.",)


def test_not_proved_better() -> None:
    """Three images gained and none lost: the p-value of the exact test is 0.085."""
    summary = summary_of(gate_set(range(30), range(3, 30)), gathered=40)
    assert summary.why == (
        "The new model was not promoted: it was not proved better. On the 300 newest held-out images it is right on 3 "
        "where the model in use is wrong, and wrong on 0 where that one is right. If both were equally good, chance "
        "would do that in 8.5 % of all cases: more than the 3.0 % that this decision allows."
    )
    upload, pictures = summary.next_steps
    more = more_groups(300, 3 / 300, 0.0, LEVEL)
    assert more is not None
    assert f"with about {more} more groups of held-out images, an improvement like this one would be proved" in upload
    assert "once 200 held-out ones have gathered (40 so far)" in upload
    assert (
        pictures == "Look at the 3 images on which only one model is right: the report shows them with their pictures."
    )


def test_what_waits_for_a_review_is_the_first_thing_to_do() -> None:
    summary = summary_of(gate_set(range(30), range(3, 30)), unreviewed=7)
    assert summary.next_steps[0].startswith("Review the 7 held-out images that wait in quarantine")
    assert (
        summary_of(gate_set(range(30), range(3, 30)), unreviewed=1)
        .next_steps[0]
        .startswith("Review the 1 held-out image that waits in quarantine")
    )


def test_the_same_answers() -> None:
    summary = summary_of(gate_set(range(30), range(30)))
    assert summary.why.endswith("On the 300 newest held-out images both models are right on the same ones.")
    [step] = summary.next_steps
    assert step.startswith("More held-out images alone would not help.")


def test_groups_are_told_from_images() -> None:
    why = summary_of(gate_set(range(60, 80), [], group=20)).why
    assert "On the 300 newest held-out images in 15 groups it is right on 20" in why
    assert "Of the groups, 1 got better and 0 worse." in why
    assert "the model in use errs in only 1 of the gate's 15 groups" in why


def test_a_class_got_worse_though_the_model_is_better() -> None:
    champion = [i for i in range(120) if i % 3 < 2]
    summary = summary_of(gate_set(champion, [i for i in range(36) if i % 3 == 2]))
    assert summary.why.startswith(
        "The new model was not promoted: it was proved better, but it also got worse. Of 100 images of pituitary it "
        "has 88 right, the model in use 100."
    )
    assert "Look at the lost images of pituitary in the report" in summary.next_steps[0]
    assert not any("would not help" in step or "would be proved" in step for step in summary.next_steps)


def test_all_classes_got_worse() -> None:
    summary = summary_of(gate_set(range(10), range(40)))
    assert summary.why.startswith("The new model was not promoted: it was not proved better, and it got worse.")
    assert "Of 100 images of glioma it has 86 right, the model in use 96." in summary.why
    assert "So it is not better there." in summary.why
    assert "glioma, meningioma, pituitary" in summary.next_steps[0]


def test_of_many_classes_that_got_worse_five_are_described() -> None:
    """Seven classes of 40 images, of which the new model gets 14 wrong."""
    labels = np.arange(280) % 7
    right = np.full((280, 7), 0.01)
    right[np.arange(280), labels] = 0.94
    wrong = np.where((np.arange(280) < 98)[:, None], np.roll(right, 1, axis=1), right)
    hashes = [f"{number:064x}" for number in range(280)]
    gate = GateSet(1, labels, np.arange(280), right, wrong, hashes)
    why = decide([gate], [f"class {one}" for one in range(7)], SETTINGS, LEVEL).summary.why
    assert why.count("Of 40 images of class ") == 5
    assert "It got worse in 2 more classes too." in why


def test_worse_than_the_best_model_so_far() -> None:
    """The champion lost 32 of 400 images, the challenger 8 more: only together that is surely worse than the best."""
    of_class = [i for i in range(1200) if i % 3 == 2]
    others = [i for i in range(360) if i % 3 < 2]
    gate = gate_set([*of_class[:32], *others], of_class[:40], images=1200)
    summary = summary_of(replace(gate, best_hits=np.array([i not in others for i in range(1200)])))
    assert (
        "Of 400 images of pituitary it has 360 right, fewer than the best model so far for this class." in summary.why
    )
    assert "Look at the lost images of pituitary" in summary.next_steps[0]


def test_below_a_floor() -> None:
    """Both models have few images of the class right, and a fall of 18 is within the margin of this test."""
    glioma = [i for i in range(300) if i % 3 == 0]
    gate = gate_set([*glioma[:42], *range(1, 120, 3)], glioma[:60])
    settings = GateSettings(recall_floors={"glioma": 0.95}, recall_drop=0.5, recall_floor=0)
    why = summary_of(gate, settings=settings).why
    assert "It recognizes 40 % of the 100 images of glioma; at least 58 % are asked for." in why


def test_earlier_generations_got_worse() -> None:
    summary = summary_of(better(generation=2), gate_set(range(10), range(40)))
    assert (
        "On the images of generation 1, which were frozen earlier, it is right on 0 where the model in use is wrong, "
        "and wrong on 30 where that one is right."
    ) in summary.why
    assert "so that less is forgotten" in summary.next_steps[0]


def test_probabilities_got_worse() -> None:
    summary = summary_of(better(confidence=0.6))
    assert "The error of its probabilities (Brier score) is 0.272, that of the model in use 0.185." in summary.why
    assert "Check the labels of the last uploads" in summary.next_steps[0]


def test_the_score_of_all_classes_is_not_proved() -> None:
    summary = summary_of(better(), settings=GateSettings(margin=0.05))
    assert "(macro-F1) was not proved to be higher by more than 0.05." in summary.why
    assert summary.next_steps[0].startswith("Upload more labeled images, then retrain.")


def test_a_class_of_few_images_that_hides_the_improvement_is_named() -> None:
    """Of the third class there are 3 images; another one gains 8 images, and none is lost."""
    gate = gate_set(range(0, 24, 3), [])
    rows = [i for i in range(300) if i % 3 < 2 or i < 9]
    gate = replace(
        gate,
        labels=gate.labels[rows],
        groups=gate.groups[rows],
        champion=gate.champion[rows],
        challenger=gate.challenger[rows],
        hashes=[gate.hashes[row] for row in rows],
    )
    summary = summary_of(gate)
    assert "Most of this doubt comes from pituitary, with its 3 images." in summary.why
    assert summary.next_steps[0].startswith("Upload images of pituitary before all others, then retrain.")


def test_classes_that_could_not_be_judged_are_named_with_what_would_do() -> None:
    summary = summary_of(gate_set([i for i in range(27) if i % 3 < 2], [2], images=27))
    assert summary.next_steps[-1] == (
        "Whether it got worse in a class cannot be judged from so few held-out images of pituitary (about 1,637 would "
        "do, 9 are there): upload more."
    )


def test_a_gate_set_on_which_nothing_could_be_proved() -> None:
    assert (
        "The gate set is too small to prove anything: even if all of its 3 groups"
        in summary_of(gate_set(range(3), [], images=3)).why
    )
    assert "the model in use errs in only 2 of the gate's 300 groups" in summary_of(gate_set([0, 1], [])).why


def test_a_used_up_budget() -> None:
    summary = reject_exhausted(4, SETTINGS, gathered=40, unreviewed=2).summary
    assert summary.why.startswith("Nothing was compared: generation 4 of the gate set has no error budget left")
    assert summary.next_steps[0].startswith("Review the 2 held-out images")
    assert summary.next_steps[1].startswith("160 more held-out images open a new generation (40 of 200 have gathered)")
    assert "enough for a new generation" in reject_exhausted(4, SETTINGS, gathered=200).summary.next_steps[0]
    ever = reject_exhausted(4, SETTINGS, gathered=40, ever=True).summary
    assert "a new generation does not change that" in ever.next_steps[0]


def test_nothing_to_compare() -> None:
    assert summarize_without_images().text == (
        "The gate set has no images, so that no new model can be proved better. Upload labeled images: a part of them "
        "is held out for the gate set."
    )
    other = summarize_other_classes(("a", "b"), ("a", "b", "c"))
    assert "the new model has the classes a, b, c, the model in use a, b." in other.why


def test_before_a_retraining_more_uploads_are_counted() -> None:
    feasibility = assess(200, 200, LEVEL, 0.9)
    assert feasibility.more_groups
    summary = summarize_feasibility(feasibility, holdout=0.2)
    assert summary.why == feasibility.reason
    assert f"about {feasibility.more_groups} more groups of held-out images" in summary.next_steps[0]
    assert f"about {5 * feasibility.more_groups} uploads of as many patients or objects" in summary.next_steps[0]
    assert "uploads of" not in summarize_feasibility(feasibility).next_steps[0]
    assert feasibility.likely_rise is not None
    rise = f"{100 * feasibility.likely_rise:.1f}"
    assert summary.next_steps[1] == f"Or retrain now: a rise by {rise} points would likely be proved."
    assert summarize_feasibility(assess(2000, 2000, LEVEL, 0.9)).next_steps == ("Retrain.",)
    assert "not likely" in summarize_feasibility(assess(100, 100, LEVEL, 0.96)).next_steps[1]


@pytest.mark.parametrize(
    ("feasibility", "words"),
    [
        (assess(3, 3, LEVEL, 0.9), "more groups of held-out images"),
        (assess(200, 200, 0.0, 0.9), "they open a new generation of the gate set"),
        (assess(200, 200, LEVEL, 0.99, 2), "more groups of held-out images"),
    ],
)
def test_before_a_retraining_in_vain(feasibility: Feasibility, words: str) -> None:
    assert not feasibility.possible
    summary = summarize_feasibility(feasibility, unreviewed=1)
    assert summary.why == feasibility.reason
    assert summary.next_steps[0].startswith("Review the 1 held-out image")
    assert words in summary.next_steps[1]
    assert not any("etrain now" in step for step in summary.next_steps)


def test_more_groups_are_as_many_as_make_a_proof_likely() -> None:
    gain, loss = change_rates(0.9, 0.95)
    more = more_groups(200, gain, loss, LEVEL)
    assert more
    assert chance_of_proof(200 + more, 0.9, 0.95, LEVEL) >= 0.8 > chance_of_proof(200, 0.9, 0.95, LEVEL)
    assert more_groups(200, loss, gain, LEVEL) is None
    assert more_groups(2, 1e-6, 0.0, LEVEL) is None


def test_the_rule_of_each_generation_is_told() -> None:
    sets = [
        replace(gate_set(range(30), range(30), generation=number), selection=selection)
        for number, selection in enumerate((Selection.IMPORTED, Selection.OPINION_FIRST, None), 1)
    ]
    rules = decide([*reversed(sets)], CLASSES, SETTINGS, LEVEL).to_json()["rules"]
    assert [(rule["generation"], rule["selection"]) for rule in rules] == [(1, "imported"), (2, "opinion_first")]
    assert "may have left out images whose label the model in use disputed" in rules[1]["sentence"]
