"""The gate's statistics against independent computations, its conditions one by one, and its report."""

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

from lesion.core.errors import ConfigError, DataError
from lesion.evaluation.reliability import reliability
from lesion.promotion import paired_tests
from lesion.promotion.comparison import MAX_CHANGED, GateSet
from lesion.promotion.gate import decide, reject_exhausted
from lesion.promotion.gate_report import gate_report
from lesion.promotion.gate_settings import GateSettings
from tests.support.paths import REPOSITORY

CLASSES = ("glioma", "meningioma", "pituitary")
SETTINGS = GateSettings()
ALPHA = 0.045


def answers(labels, wrong, confidence=None):
    """Probabilities that are right but for the rows ``wrong``, which give the next class; calibrated unless told."""
    confidence = confidence or min(0.99, max(0.5, 1 - len(list(wrong)) / max(len(labels), 1)))
    probabilities = np.full((len(labels), 3), (1 - confidence) / 2)
    given = np.array(labels)
    given[list(wrong)] = (given[list(wrong)] + 1) % 3
    probabilities[np.arange(len(labels)), given] = confidence
    return probabilities


def gate_set(champion_wrong, challenger_wrong, images=300, generation=1, group=1, **confidence):
    labels = np.arange(images) % 3
    return GateSet(
        generation=generation,
        labels=labels,
        groups=np.array([f"group {i // group}" for i in range(images)]),
        champion=answers(labels, champion_wrong),
        challenger=answers(labels, challenger_wrong, **confidence),
        hashes=[f"{i:064x}" for i in range(images)],
    )


def better(**changes):
    """A challenger that answers rightly 20 of the champion's 30 errors, evenly over classes, and gets 2 new ones."""
    return gate_set(range(30), [*range(10), 100, 101], **changes)


def verdict_of(*sets, settings=SETTINGS, alpha=ALPHA, **more):
    return decide(sets, CLASSES, settings, alpha, **more)


def outcomes(verdict):
    return {check.name: check.outcome.value for check in verdict.checks}


def failed(verdict):
    return {check.name for check in verdict.checks if not check.passed}


# Statistics


def random_counts(seed=0, images=400, group=1, rate=0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=images)
    champion, challenger = (np.where(rng.random(images) < rate, rng.integers(3, size=images), labels) for _ in range(2))
    return labels, np.arange(images) // group, champion, challenger


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    labels, groups, champion, challenger = random_counts()
    champion_f1, challenger_f1 = paired_tests.macro_f1_scores(
        paired_tests.count_by_group(labels, groups, champion, challenger, 3).sum(axis=0)
    )
    assert champion_f1 == pytest.approx(f1_score(labels, champion, average="macro"))
    assert challenger_f1 == pytest.approx(f1_score(labels, challenger, average="macro"))


def test_a_class_without_images_is_left_out_of_macro_f1() -> None:
    labels, given = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    counts = paired_tests.count_by_group(labels, np.arange(4), given, labels, 3).sum(axis=0)
    champion, challenger = paired_tests.macro_f1_scores(counts)
    assert champion == pytest.approx((1 + 2 / 3) / 2)
    assert challenger == 1


def test_groups_widen_the_bound_of_images_that_change_together() -> None:
    champion = [i for i in range(300) if i // 10 % 3 == 0]
    by_group, by_image = gate_set(champion, [], group=10), gate_set(champion, [])
    grouped, single = verdict_of(by_group).comparisons[0], verdict_of(by_image).comparisons[0]
    assert grouped.difference == single.difference
    assert grouped.difference - grouped.lower_bound > 2.5 * (single.difference - single.lower_bound)


@pytest.mark.parametrize("groups", [8, 30])
def test_the_exact_test_keeps_its_level_whatever_the_share_of_changed_groups(groups) -> None:
    outcomes = [(b, c) for b, c in product(range(groups + 1), repeat=2) if b + c <= groups]
    p = np.array([paired_tests.exact_p_value(b, c, groups) for b, c in outcomes])
    changed, up = np.array([b + c for b, c in outcomes]), np.array([b for b, _ in outcomes])
    for rate in np.linspace(0.005, 1, 60):
        probability = binom.pmf(changed, groups, rate) * binom.pmf(up, changed, 0.5)
        for alpha in (0.05, 0.045, 0.01, 0.0045, 0.00045):
            assert probability[p <= alpha].sum() <= alpha


def test_the_exact_test_rejects_whatever_exact_mcnemar_rejects() -> None:
    for b, c in product(range(1, 60, 3), range(0, 40, 3)):
        conditional = binom.sf(b - 1, b + c, 0.5)
        assert paired_tests.exact_p_value(b, c, 700) <= conditional + 2e-5
        if b > c:
            assert conditional == pytest.approx(paired_tests.mcnemar_p_value(b, c) / 2)


def test_the_exact_test_knows_values() -> None:
    """Of 30 changed groups 20 got better: 0.049 conditionally, which never rejects at 0.045."""
    assert binom.sf(19, 30, 0.5) == pytest.approx(0.0494, abs=1e-4)
    assert 0.035 < paired_tests.exact_p_value(20, 10, 700) < 0.045
    assert paired_tests.exact_p_value(0, 0, 700) == 1
    assert paired_tests.exact_p_value(0, 9, 700) == 1
    assert paired_tests.exact_p_value(300, 0, 300) < 2e-5


def test_fewest_better_groups() -> None:
    needed = paired_tests.fewest_better_groups(700, ALPHA)
    assert needed in (4, 5)
    assert paired_tests.exact_p_value(needed, 0, 700) <= ALPHA < paired_tests.exact_p_value(needed - 1, 0, 700)
    assert paired_tests.fewest_better_groups(3, ALPHA) is None


def test_changed_groups_count_the_sign_of_the_net_change() -> None:
    labels = np.zeros(8, int)
    champion = np.array([0, 1, 1, 1, 0, 0, 0, 1])
    challenger = np.array([0, 0, 1, 0, 1, 1, 1, 0])
    counts = paired_tests.count_by_group(labels, np.array([0, 0, 1, 1, 2, 2, 3, 3]), champion, challenger, 2)
    assert paired_tests.discordant_groups(counts) == (2, 1)  # the last group gained one image and lost one


# Decisions


def test_a_challenger_that_is_proved_better_is_promoted() -> None:
    verdict = verdict_of(better(), looks_left=2, gathered=17)
    assert verdict.promoted
    assert failed(verdict) == set()
    assert [check.name for check in verdict.checks] == [
        "f1_macro",
        "exact_test",
        *(f"recall/{name}" for name in CLASSES),
        *(f"recall_floor/{name}" for name in CLASSES),
        "brier",
    ]
    assert outcomes(verdict) == {
        "f1_macro": "holds", "exact_test": "holds", "brier": "holds",
        **{f"recall/{name}": "holds" for name in CLASSES}, **{f"recall_floor/{name}": "holds" for name in CLASSES},
    }  # fmt: skip
    assert "better in 20 and worse in 2 of 300 groups" in verdict.reasons[1]
    assert (verdict.generation, verdict.alpha, verdict.looks_left, verdict.gathered) == (1, ALPHA, 2, 17)
    one = verdict.comparisons[0]
    assert (one.gained, one.lost, one.better_groups, one.worse_groups) == (20, 2, 20, 2)
    assert one.champion.accuracy == pytest.approx(0.9)
    assert one.challenger.accuracy == pytest.approx(0.96)
    assert one.challenger.ece == pytest.approx(reliability(better().challenger, better().labels).ece)
    assert one.lower_bound > 0.02
    assert one.mcnemar_p == pytest.approx(2 * binom.cdf(2, 22, 0.5))


def test_the_same_input_gives_the_same_verdict() -> None:
    assert verdict_of(better()) == verdict_of(better())


def test_the_champion_itself_is_not_promoted() -> None:
    verdict = verdict_of(gate_set(range(30), range(30)))
    assert failed(verdict) == {"f1_macro", "exact_test"}
    assert verdict.comparisons[0].p_value == 1
    assert -0.05 < verdict.comparisons[0].lower_bound < 0


def test_a_worse_challenger_is_rejected_with_its_reasons() -> None:
    verdict = verdict_of(gate_set(range(10), range(40)))
    assert not verdict.promoted
    assert {"f1_macro", "exact_test"} <= failed(verdict)
    assert len(verdict.reasons) == len(failed(verdict))
    assert "not more often better than luck explains" in " ".join(verdict.reasons)


def test_few_changed_images_do_not_suffice() -> None:
    """Three images gained and none lost: luck has done it once in eight times."""
    verdict = verdict_of(gate_set(range(30), range(3, 30)))
    assert "exact_test" in failed(verdict)
    assert verdict.comparisons[0].p_value > 0.05


def test_groups_that_change_together_count_once() -> None:
    """Twenty images gained are proof when they are strangers, and none when they are slices of two patients."""
    wrong = range(60, 80)
    strangers, patients = gate_set(wrong, []), gate_set(wrong, [], group=20)
    assert verdict_of(strangers).promoted
    assert "exact_test" in failed(verdict_of(patients))
    assert verdict_of(patients).comparisons[0].better_groups == 1


def test_the_margin_must_be_cleared() -> None:
    bound = verdict_of(better()).comparisons[0].lower_bound
    strict = GateSettings(margin=round(bound + 0.001, 4))
    assert failed(verdict_of(better(), settings=strict)) == {"f1_macro"}


def test_a_stricter_level_asks_for_more() -> None:
    close = gate_set(range(30), [*range(18), 100, 101, 102])  # 12 against 3
    assert verdict_of(close, alpha=0.045).promoted
    assert "exact_test" in failed(verdict_of(close, alpha=0.0045))


def test_an_earlier_generation_must_not_get_worse() -> None:
    newest, earlier = better(generation=2), gate_set(range(10), range(40), generation=1)
    verdict = verdict_of(newest, earlier)
    assert failed(verdict) >= {"earlier"}
    assert [one.generation for one in verdict.comparisons] == [1, 2]
    assert verdict.generation == 2
    assert verdict_of(newest, gate_set(range(30), range(30), generation=1)).promoted


def test_ten_earlier_generations_on_which_nothing_changed_do_not_prevent_a_promotion() -> None:
    """Each of them has changed images, as many gained as lost; one test for each would reject one in five."""
    rng = np.random.default_rng(0)
    earlier = []
    for number in range(1, 11):
        changed = rng.permutation(200)[:20]
        earlier.append(gate_set(changed[:10], changed[10:], images=200, generation=number))
    verdict = verdict_of(*earlier, better(generation=11))
    assert verdict.promoted
    assert outcomes(verdict)["earlier"] == "holds"
    assert "generations 1, 2, 3" in next(check.sentence for check in verdict.checks if check.name == "earlier")


def test_one_small_earlier_generation_cannot_judge_and_does_not_block() -> None:
    verdict = verdict_of(better(generation=2), gate_set(range(5), range(5, 11), images=60, generation=1))
    assert verdict.promoted
    assert outcomes(verdict)["earlier"] == "too_few_images"


def test_a_look_has_the_images_of_all_generations_since_the_last_promotion() -> None:
    """Neither 5 against 0 nor 4 against 1 is proof; 9 against 1 is."""
    first, second = gate_set(range(20), range(5, 20)), gate_set(range(20), [*range(4, 20), 50], generation=2)
    second = replace(second, groups=np.arange(300, 600))
    alone, together = verdict_of(first, second, alpha=0.02), verdict_of(first, second, alpha=0.02, deciding_since=1)
    assert "exact_test" in failed(alone)
    assert "exact_test" not in failed(together)
    [one] = together.comparisons
    assert (one.generations, one.images, one.groups, one.gained, one.lost) == ((1, 2), 600, 600, 9, 1)
    assert (one.better_groups, one.worse_groups) == (9, 1)
    assert "generations 1, 2 together" in together.checks[1].sentence


def test_no_class_may_pay_for_the_others() -> None:
    """All errors of two classes go, and an eighth of the third class's images get worse: 12 of 100 with none better."""
    champion = [i for i in range(120) if i % 3 < 2]
    challenger = [i for i in range(36) if i % 3 == 2]
    verdict = verdict_of(gate_set(champion, challenger))
    assert failed(verdict) == {"recall/pituitary"}
    assert "pituitary" in verdict.reasons[0]
    assert "0.880 on 100 images" in verdict.reasons[0]


def test_a_class_of_few_images_is_named_as_not_judged_and_does_not_block() -> None:
    champion = [i for i in range(27) if i % 3 < 2]  # of 9 images of the third class, one or two get worse
    for lost in ([2], [2, 5]):
        verdict = verdict_of(gate_set(champion, lost, images=27))
        assert outcomes(verdict)["recall/pituitary"] == "too_few_images"
        assert "recall/pituitary" not in failed(verdict)
        check = next(check for check in verdict.checks if check.name == "recall/pituitary")
        # (lost + 1) / (9 + 1) of the images changed; (1.645 + 2.878) / 0.05 standard errors must fit the margin.
        assert check.needed == pytest.approx((len(lost) + 1) / 10 * ((1.64485 + 2.87816) / 0.05) ** 2, abs=1)
        assert f"pituitary (about {check.needed:,} would do)" in verdict.notes[-1]


def test_a_class_without_images_is_named_as_not_judged() -> None:
    labels = np.arange(200) % 2
    given = np.column_stack([answers(labels, [])[:, :2], np.zeros(200)])
    given /= given.sum(axis=1, keepdims=True)
    one = GateSet(1, labels, np.arange(200), given, given, [f"{i:064x}" for i in range(200)])
    [note] = [note for note in verdict_of(one).notes if "pituitary" in note]
    assert note.endswith("cannot be judged without a held-out image, as in pituitary.")


def test_a_class_whose_large_groups_fall_is_not_called_equal() -> None:
    """Of 15 patients of 20 images 2 fall, beside 1,500 single images. If 5 % fall, 4.5 patients do, or by luck 2."""
    labels = np.zeros(1800, int)
    groups = np.concatenate([np.arange(1500), 1500 + np.repeat(np.arange(15), 20)])
    champion, fallen = answers(labels, []), answers(labels, range(1500, 1540))
    grouped = GateSet(1, labels, groups, champion, fallen, [f"{i:064x}" for i in range(1800)])
    assert outcomes(verdict_of(grouped))["recall/glioma"] == "too_few_images"
    single = replace(grouped, groups=np.arange(1800))
    assert outcomes(verdict_of(single))["recall/glioma"] == "holds"


def test_recall_floors() -> None:
    floors = GateSettings(recall_floors={"glioma": 0.95})
    wrong = [*range(0, 300, 9)]  # 34 images of the first class
    verdict = verdict_of(gate_set([*range(1, 120, 3)], wrong), settings=floors)
    check = next(check for check in verdict.checks if check.name == "recall_floor/glioma")
    assert (check.value, check.bound, check.outcome) == (pytest.approx(0.66), pytest.approx(0.95), "fails")
    slightly = verdict_of(gate_set([*range(1, 60, 3)], [0, 3, 6, 9, 12, 15]), settings=floors)
    assert outcomes(slightly)["recall_floor/glioma"] == "too_few_images"  # 0.94 may well be 0.95


def test_a_champion_below_the_floor_does_not_bar_its_improvement() -> None:
    floors = GateSettings(recall_floor=0.95)
    verdict = verdict_of(better(), settings=floors)  # from 0.90 to 0.96 or 0.97
    assert {check.bound for check in verdict.checks if check.name.startswith("recall_floor/")} == {0.9}
    assert verdict.promoted


def test_a_class_that_the_newest_generation_lacks_is_guarded_by_the_others() -> None:
    newest = better(generation=2)
    keep = newest.labels != 2
    newest = GateSet(
        2, newest.labels[keep], newest.groups[keep], newest.champion[keep], newest.challenger[keep],
        [name for name, kept in zip(newest.hashes, keep, strict=True) if kept],
    )  # fmt: skip
    earlier = gate_set(range(90), [i for i in range(60) if i % 3 == 2], generation=1)
    verdict = verdict_of(newest, earlier)
    check = next(check for check in verdict.checks if check.name == "recall/pituitary")
    assert "on 100 images" in check.sentence
    recall = verdict.to_json()["comparisons"][1]["recalls"][2]
    assert (recall["images"], recall["champion"], recall["challenger"]) == (0, None, None)


def with_best(gate, best_wrong):
    hits = np.ones(len(gate.labels), bool)
    hits[list(best_wrong)] = False
    return replace(gate, best_hits=hits)


def test_a_class_may_not_fall_below_the_best_model_so_far() -> None:
    """The champion lost 8 % of a class, the challenger loses 5 % more: little for each, too much together."""
    of_class = [i for i in range(1200) if i % 3 == 2]
    others = [i for i in range(360) if i % 3 < 2]
    gate = gate_set([*of_class[:32], *others], of_class[:52], images=1200)
    assert "best_recall/pituitary" not in outcomes(verdict_of(gate))
    verdict = verdict_of(with_best(gate, others))
    assert failed(verdict) >= {"best_recall/pituitary"}
    assert "best model so far's: 1.000" in verdict.reasons[-1]
    assert verdict.improved == ("glioma", "meningioma")


def test_classes_that_became_better_than_ever_are_named() -> None:
    """All three have gained 6 or 7 images and lost 1 at most; 7 of 8 is proof at 5 %, as is 6 of 7 (z = 1.89)."""
    assert verdict_of(better()).improved == CLASSES
    assert verdict_of(gate_set(range(30), range(30))).improved == ()
    assert verdict_of(with_best(better(), [])).improved == ()


def test_probabilities_must_not_get_much_worse() -> None:
    assert failed(verdict_of(better(confidence=0.6))) == {"brier"}
    one = verdict_of(better()).comparisons[0]
    # 270 right answers with 0.9, and 30 wrong ones, whose true class got 0.05, as did the third one.
    right, wrong = 0.1**2 + 2 * 0.05**2, 0.9**2 + 0.95**2 + 0.05**2
    assert one.champion.brier == pytest.approx((270 * right + 30 * wrong) / 300)


def test_says_that_a_gate_set_is_too_small() -> None:
    note = verdict_of(gate_set(range(3), [], images=3)).notes[0]
    assert "too small" in note
    assert "all of its 3 groups" in note


def test_says_that_the_champion_errs_too_seldom() -> None:
    note = verdict_of(gate_set([0, 1], [])).notes[0]
    assert "errs in only 2 of its 300 groups" in note


def test_a_spent_generation_rejects_and_says_what_renews_it() -> None:
    verdict = reject_exhausted(4, SETTINGS, gathered=40)
    assert not verdict.promoted
    assert (verdict.checks, verdict.comparisons) == ((), ())
    assert "Generation 4" in verdict.reasons[0]
    assert "160 more held-out images" in verdict.reasons[0]
    assert "a new generation does not change that" in reject_exhausted(4, SETTINGS, gathered=40, ever=True).reasons[0]
    assert "enough for a new one" in reject_exhausted(4, SETTINGS, gathered=200).reasons[0]


def test_images_that_changed_sides_are_listed_the_worst_first() -> None:
    one = verdict_of(better()).comparisons[0]
    assert [changed.gained for changed in one.changed] == [False] * 2 + [True] * 20
    lost = one.changed[0]
    assert (lost.sha256, lost.label, lost.champion, lost.challenger) == (f"{100:064x}", "meningioma", "meningioma",
                                                                         "pituitary")  # fmt: skip
    assert (lost.champion_confidence, lost.challenger_confidence) == pytest.approx((0.9, 0.96))


def test_the_list_of_changed_images_is_bounded() -> None:
    one = verdict_of(gate_set(range(300), [])).comparisons[0]
    assert len(one.changed) == MAX_CHANGED
    assert one.gained == 300


def test_a_verdict_is_json() -> None:
    tree = verdict_of(better()).to_json()
    again = json.loads(json.dumps(tree, allow_nan=False))
    assert again["promoted"] is True
    assert again["comparisons"][0]["recalls"][0] == {
        "label": "glioma", "images": 100, "champion_hits": 90, "challenger_hits": 96,
        "champion": 0.9, "challenger": 0.96,
    }  # fmt: skip
    assert again["checks"][1]["bound"] == ALPHA
    assert (again["checks"][1]["outcome"], again["checks"][1]["passed"]) == ("holds", True)


# Refusals


@pytest.mark.parametrize("alpha", [0, 0.5, 1, -0.1])
def test_refuses_what_is_no_level(alpha) -> None:
    with pytest.raises(ConfigError, match="An exhausted generation has none"):
        verdict_of(better(), alpha=alpha)


def test_refuses_no_or_repeated_generations() -> None:
    for sets in ((), (better(), better())):
        with pytest.raises(DataError) as caught:
            verdict_of(*sets)
        assert caught.value.code == "gate_set_invalid"


def test_refuses_a_floor_of_an_unknown_class() -> None:
    with pytest.raises(ConfigError, match="gliome") as caught:
        verdict_of(better(), settings=GateSettings(recall_floors={"gliome": 0.9}))
    assert caught.value.code == "gate_class_unknown"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", np.zeros(0, int)),
        ("labels", np.full(300, 3)),
        ("groups", np.arange(299)),
        ("hashes", ["a"]),
        ("champion", np.ones((300, 3))),
        ("challenger", np.full((300, 3), np.nan)),
        ("challenger", np.full((300, 2), 0.5)),
    ],
)
def test_refuses_gate_sets_that_cannot_be_compared(field, value) -> None:
    values = {name: getattr(better(), name) for name in GateSet.__dataclass_fields__}
    with pytest.raises(DataError, match="Generation 1 of the gate set cannot be compared") as caught:
        verdict_of(GateSet(**values | {field: value}))
    assert caught.value.code == "gate_set_invalid"


@pytest.mark.parametrize(
    "values",
    [
        {"margin": -0.1},
        {"recall_floor": 1},
        {"recall_floors": {"glioma": 2}},
        {"harm_level": 0},
        {"block_level": 0.5},
        {"brier_margin": 1},
        {"renew_images": 0},
    ],
)
def test_refuses_settings_that_make_no_sense(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        GateSettings(**values)


@pytest.mark.slow
def test_the_gate_needs_no_torch() -> None:
    """The worker process decides; torch belongs to the training subprocess alone."""
    code = "import lesion.promotion.gate_report, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


# Report


def page_of(verdict, **more):
    return gate_report(
        verdict, title="phantom <mri>", champion="aaaaaaaaaaaa", challenger="bbbbbbbbbbbb", job_id="j1",
        created=datetime(2026, 5, 4, 3, 2, tzinfo=UTC), **more,
    )  # fmt: skip


def test_report_of_a_promotion() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(buffer, "PNG")
    verdict = verdict_of(better(generation=2), gate_set(range(30), range(30)), looks_left=2, gathered=17)
    page = page_of(verdict, pictures={f"{100:064x}": buffer.getvalue()}, quarantined=5)
    assert "Challenger bbbbbbbbbbbb was proved better than champion aaaaaaaaaaaa and is promoted." in page
    assert "phantom &lt;mri&gt;: promoted" in page
    assert page.count("data:image/png;base64,") == 1
    assert base64.b64encode(buffer.getvalue()).decode() in page
    assert page.count("<figure") == 22
    assert "22 of 22" in page
    assert "04 May 2026, 03:02 UTC" in page
    assert "Of the images in quarantine, 5 are held out" in page
    assert "would favor it" in page
    assert "allows 2 more decisions, at stricter levels. 17 of the 200 held-out images" in page
    assert all(check.sentence.replace("'", "&#39;") in page for check in verdict.checks)
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_report_of_a_rejection() -> None:
    page = page_of(verdict_of(gate_set(range(30), range(30))))
    assert "was not proved better" in page
    assert "2 of 9 conditions do not hold" in page
    assert "no further decision" in page
    assert "quarantine" not in page
    assert "Images that changed sides" not in page


def test_report_of_a_spent_generation() -> None:
    page = page_of(reject_exhausted(3, SETTINGS, 40))
    assert "was not compared" in page
    assert "Nothing is left of the error budget of generation 3. 40 of the 200" in page
    assert 'id="conditions"' not in page


def test_report_escapes_class_names() -> None:
    nasty = ("<script>alert(1)</script>", "a & b", "{{ 7 * 7 }}")
    page = page_of(decide([better()], nasty, SETTINGS, ALPHA))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page


# The bench, at a size for every day


@pytest.mark.slow
def test_bench_runs() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/bench/gate.py", "--runs", "3", "--only", "200 images", "--processes", "1"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "macro-F1 +0.000, correlation 0.5: 200 images, class of 2 %" in done.stdout
    assert done.stdout.count("≤ 5%") == 6
    assert "Requirement" in done.stdout
