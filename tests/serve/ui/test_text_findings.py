"""Sentences about the data, a model and the server's work: they say what the numbers say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serve.ui.screens.predict import table
from serve.ui.text import admin_findings, data_findings, model_findings


def classes(**images: int) -> list[dict[str, Any]]:
    total = sum(images.values())
    return [{"label": name, "images": many, "share": many / max(1, total)} for name, many in images.items()]


def box(label: str, low: float, q1: float, median: float, q3: float, high: float) -> dict[str, Any]:
    return {"label": label, "images": 20, "low": low, "q1": q1, "median": median, "q3": q3, "high": high}


# Of the data


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            {"a": 60, "b": 50},
            "110 images in 2 classes. a is the most frequent with 60 (55 %), b the rarest with 50 (45 %): the classes "
            "are about equally frequent, so that accuracy can be taken as it is.",
        ),
        (
            {"a": 900, "b": 100},
            "1,000 images in 2 classes. a is the most frequent with 900 (90 %), b the rarest with 100 (10 %), 9.0 "
            "times fewer: always guessing a would be right for 90 %, so look at macro-F1 rather than at accuracy.",
        ),
        (
            {"a": 5, "b": 0},
            "5 images in 2 classes. a is the most frequent with 5 (100 %), b the rarest with 0 (0 %): no model can "
            "learn a class that it never sees.",
        ),
        (
            {"a": 7, "b": 7},
            "14 images in 2 classes. Every class has 7, so that accuracy can be taken as it is.",
        ),
        ({"a": 0, "b": 0}, "There is no accepted image yet."),
    ],
)
def test_the_distribution_says_how_even_it_is(images: dict[str, int], words: str) -> None:
    assert data_findings.class_distribution(classes(**images)) == words


def test_brightness_says_whether_it_gives_a_class_away() -> None:
    dark, bright = box("dark", 0, 20, 30, 40, 90), box("bright", 90, 150, 160, 170, 250)
    assert data_findings.brightness([bright, dark]) == (
        "Half of the images of dark, the darkest class, are below 30 of 255; half of those of bright, the brightest, "
        "above 160. The middle halves of one pair of classes do not overlap (dark and bright): a model may learn "
        "brightness instead of what matters."
    )
    alike = box("grey", 0, 25, 35, 160, 200)
    assert "would be wrong for a quarter of one of them or more" in data_findings.brightness([dark, alike])
    brighter = box("white", 200, 210, 220, 230, 240)
    assert "3 pairs of classes do not overlap (such as dark and white)" in data_findings.brightness(
        [dark, bright, brighter]
    )
    near, wide = box("near", 40, 41, 42, 150, 160), box("wide", 0, 5, 161, 210, 255)
    assert "pairs of classes do not overlap (such as dark and bright)" in data_findings.brightness(
        [dark, near, bright, wide]
    )
    assert data_findings.brightness([dark]) == "Half of the images of dark are darker than 30 of 255."
    assert data_findings.brightness([]) == "No brightness was measured yet."
    lonely = box("lonely", 200, 200, 200, 200, 200) | {"images": 1}
    assert data_findings.brightness([dark, alike, lonely]) == (
        f"{data_findings.brightness([dark, alike])} Left out: 1 class of fewer than 20 images."
    )
    assert data_findings.brightness([lonely]) == "No class has 20 images yet, too few to compare how bright they are."


def test_resolutions_say_how_alike_they_are_and_what_is_enlarged() -> None:
    large, small = {"width": 512, "height": 400, "images": 30}, {"width": 100, "height": 90, "images": 10}

    def said(*rows: dict[str, int], others: int = 0, enlarged: int = 0, trim: bool = False) -> str:
        stats = {"resolutions": rows, "other_resolutions": others, "enlarged": enlarged}
        return data_findings.resolutions(stats, {"size": 224, "trim": trim})

    assert said(large) == "All 30 images are 512 × 400 pixels. None is smaller than the 224 pixels that the model sees."
    assert said(large, small, enlarged=10) == (
        "There are 2 sizes; the most frequent, 512 × 400 pixels, has 75 % of the images. 10 of 40 (25 %) are smaller "
        "than the 224 pixels that the model sees, and enlarged."
    )
    assert said(large, small, others=60, enlarged=1, trim=True) == (
        "There are more than 2 sizes; the most frequent, 512 × 400 pixels, has 30 % of the images. 1 of 100 (1 %) is "
        "smaller than the 224 pixels that the model sees, before dark margins are cut off, and enlarged."
    )
    assert said(small, enlarged=10).endswith("All are smaller than the 224 pixels that the model sees, and enlarged.")
    assert said() == "There is no image whose size could be told."


def test_duplicates_say_how_many_images_are_no_new_evidence() -> None:
    found = {"groups": 3, "images": 10, "largest": 5}
    assert data_findings.duplicates(found, 40) == (
        "10 of 40 images (25 %) have near-duplicates or share a patient or plant: 3 groups, the largest of 5. A group "
        "stands on one side, learned from or judged by, never on both."
    )
    assert "(25 %) have near-duplicates or share a patient or plant: one group. A" in data_findings.duplicates(
        found | {"groups": 1}, 40
    )
    assert data_findings.duplicates({"groups": 0, "images": 0, "largest": 0}, 40) == (
        "None of the 40 images is a near-duplicate of another or shares a patient or plant with one."
    )


def test_leakage_says_how_far_the_datas_own_split_can_be_trusted() -> None:
    assert data_findings.leakage({"test_images": 1182, "leaked": 870}, known=True) == (
        "870 of the 1,182 images (74 %) of the data's own test split have a near-duplicate in its training split: a "
        "score on it partly measures memory. This is why Lesion splits anew."
    )
    assert data_findings.leakage({"test_images": 10, "leaked": 0}, known=True) == (
        "None of the 10 images of the data's own test split has a near-duplicate in its training split."
    )
    assert (
        data_findings.leakage(None, known=True)
        == "The data came without a test split of its own, so that there is none that could leak."
    )
    assert data_findings.leakage(None, known=False) == (
        "Whether the data came with a test split of its own, and whether that leaks, is not known here."
    )


def test_uploads_say_what_became_of_them_and_when_most_came() -> None:
    quiet = {"day": "2026-11-22", "accepted": 1, "quarantined": 0, "rejected": 0}
    busy = {"day": "2026-11-03", "accepted": 11, "quarantined": 3, "rejected": 5}
    assert data_findings.uploads([busy, quiet]) == (
        "20 files on 2 days: 60 % accepted, 15 % in quarantine, 25 % refused. Most came on 3 November 2026, 19 of them."
    )
    assert data_findings.uploads([quiet]) == "1 file on 1 day: 100 % accepted, 0 % in quarantine, 0 % refused."
    assert data_findings.uploads([]) == "Nothing was uploaded yet: all images came with the first model."


def test_a_montage_says_what_it_is_drawn_from() -> None:
    rows = [box("dark", 5, 20, 30, 40, 90)]
    assert data_findings.montage("dark", 4, rows) == (
        "4 of 20 images of dark, chosen at random. Half of them are darker than 30 of 255, the darkest has 5 and the "
        "brightest 90."
    )
    assert data_findings.montage("dark", 24, rows).startswith("All 20 images of dark")
    assert data_findings.montage("bright", 4, rows) == "There is no accepted image of bright yet."
    assert data_findings.montage("dark", 4, [rows[0] | {"images": 1}]) == (
        "The only image of dark. Its mean brightness is 30 of 255."
    )


# Of a model


def measured(**metrics: float | None) -> dict[str, Any]:
    return {
        "split": "test",
        "classes": ["a", "b"],
        "images": 40,
        "groups": 30,
        "temperature": 1.25,
        "calibration_images": 12,
        "confusion_matrix": [[18, 2], [5, 15]],
        "metrics": {f"test/{name}": value for name, value in metrics.items()},
    }


def test_the_headline_says_how_often_it_is_right_and_what_guessing_gives() -> None:
    assert model_findings.headline(measured(acc=0.825, acc_low=0.71, acc_high=0.92)) == (
        "It classifies 33 of 40 test images rightly, 82 % (95 % interval 71 % to 92 %, from 30 groups of images that "
        "belong together). Always guessing the most frequent class would be right for 50 %."
    )
    assert "82 %. Always" in model_findings.headline(measured(acc=0.825, acc_low=None))


def test_the_weakest_class_and_the_most_frequent_mistake_are_named() -> None:
    assert model_findings.weakest(measured(**{"f1/a": 0.837, "f1/b": 0.811})) == (
        "b is told apart worst (F1 0.811). The most frequent mistake is b taken for a: 5 of 20 images."
    )
    perfect = measured() | {"confusion_matrix": [[20, 0], [0, 20]]}
    assert model_findings.weakest(perfect) == "Not one of the 40 test images was misclassified."


def test_of_too_many_classes_the_matrix_has_those_with_the_lowest_f1() -> None:
    names = [f"c{number:03}" for number in range(100)]
    # Class k is right k times and twice taken for the next one; the last one has no score.
    matrix = [[row * (row == column) + 2 * (column == (row + 1) % 100) for column in range(100)] for row in range(100)]
    scores = {f"test/f1/{name}": number / 100 for number, name in enumerate(names[:99])}
    rows, columns, cells = model_findings.confusions({"classes": names, "confusion_matrix": matrix, "metrics": scores})
    assert rows == names[:30]
    assert columns == [*rows, "any other class"]
    assert cells[3] == [*[0] * 3, 3, 2, *[0] * 26]
    assert cells[29] == [*[0] * 29, 29, 2]  # taken for the thirtieth, which is not shown
    assert model_findings.confusions(measured()) == (["a", "b"], ["a", "b"], [[18, 2], [5, 15]])
    assert table.cut(30, 100, "with the lowest F1") == "Shown are the 30 classes with the lowest F1, of 100."
    assert table.cut(30, 30, "with the lowest F1") == ""


def test_calibration_says_what_it_changed() -> None:
    assert model_findings.calibration(measured(ece=0.031, ece_uncalibrated=0.085)) == (
        "Confidence and share of right answers differ by 3.1 percentage points on average, less than the 8.5 before "
        "calibration on 12 other images (temperature 1.25)."
    )
    assert "not less than the 2.0" in model_findings.calibration(measured(ece=0.03, ece_uncalibrated=0.02))
    nothing = measured(ece=0.03, ece_uncalibrated=0.03) | {"calibration_images": 0}
    assert model_findings.calibration(nothing).endswith("on average; nothing was calibrated.")


def test_the_class_that_a_curve_shows_worst_is_named() -> None:
    areas = measured(**{"roc_auc/a": 0.97, "roc_auc/b": 0.91, "pr_auc/a": 0.88, "pr_auc/b": 0.95})
    assert model_findings.ranking(areas, "roc") == (
        "Of one image of b and one of another class, the former gets the higher probability for b in 91 % of cases; no "
        "class fares worse."
    )
    assert model_findings.ranking(areas, "pr") == (
        "a has the lowest average precision, 0.880; guessing would give 0.500, its share of the test images."
    )
    assert model_findings.worst_classes(areas, "roc", 1) == ["b"]
    perfect = measured(**{"roc_auc/a": 1.0, "roc_auc/b": 1.0})
    assert model_findings.ranking(perfect, "roc") == "Every class is ranked without a mistake on the test images."
    assert model_findings.ranking(measured(), "pr") == "No class has test images enough for a curve."


def test_a_comparison_says_which_model_did_better_and_how_surely() -> None:
    found = {
        "images": 700, "generation": 2, "gained": 56, "lost": 25, "difference": 0.045, "lower_bound": 0.023,
        "confidence": 0.96, "champion": {"f1_macro": 0.917}, "challenger": {"f1_macro": 0.961},
    }  # fmt: skip
    assert model_findings.comparison(found) == (
        "On the 700 images of gate generation 2 the challenger's macro-F1 is 0.961 and the champion's 0.917. The "
        "challenger alone is right on 56 images, the champion alone on 25; the difference of +0.045 lies above +0.023 "
        "with 96 % confidence."
    )


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.5, "less than an hour"), (1.2, "1 hour"), (47.9, "47 hours"), (49, "2 days"), (720, "30 days")],
)
def test_an_age_is_in_words(hours: float, words: str) -> None:
    made = datetime(2026, 11, 1, tzinfo=UTC)
    assert model_findings.age(made.isoformat(), made + timedelta(hours=hours)) == words


# Of the server's work


def job(state: str, minutes: float | None) -> dict[str, Any]:
    begun = datetime(2026, 11, 1, tzinfo=UTC)
    ended = None if minutes is None else (begun + timedelta(minutes=minutes)).isoformat()
    return {"state": state, "started_at": begun.isoformat(), "finished_at": ended}


def test_retrainings_are_summed_up() -> None:
    rows = [job("running", None), job("rejected", 20), job("promoted", 10), job("rejected", 30)]
    assert admin_findings.jobs(rows, 50) == (
        "4 retrainings: 1 running, 2 rejected, 1 promoted. Half of those that ended took about 20 minutes or less."
    )
    assert admin_findings.jobs(rows, 4).startswith("The last 4 retrainings: 1 running,")
    assert admin_findings.jobs(rows[:1], 50) == "1 retraining: 1 running."
    assert admin_findings.jobs([], 50) == "There was no retraining yet."


def test_what_serves_is_said_with_since_when_and_by_whom() -> None:
    first = {"version": "aaa", "action": "first", "actor": "ann", "created_at": "2026-11-01T10:00:00+00:00"}
    assert admin_findings.deployments([first]) == (
        "aaa serves since 1 November 2026, 10:00 UTC, by ann. It is the first model here."
    )
    back = first | {"action": "rollback", "actor": "bob"}
    assert admin_findings.deployments([first, first | {"action": "promote"}, back]).endswith(
        "by bob. Of 2 changes of model so far, 1 went back to an earlier one."
    )
    assert admin_findings.deployments([]) == "No model was ever deployed."


def test_the_quarantine_says_how_many_wait_and_why() -> None:
    rows = [{"reason_code": "disputed"}, {"reason_code": "out_of_domain"}, {"reason_code": "disputed"}]
    assert admin_findings.quarantine(3, rows) == "3 images wait for a decision: 2 disputed, 1 out of domain."
    assert admin_findings.quarantine(40, rows) == "40 images wait for a decision; here: 2 disputed, 1 out of domain."
    assert admin_findings.quarantine(1, rows[:1]) == "1 image waits for a decision: 1 disputed."
    assert admin_findings.quarantine(0, []) == "No image waits for a decision."


def test_keys_are_counted_by_role_without_the_revoked() -> None:
    rows = [
        {"role": "admin", "revoked_at": None, "requests_today": 4},
        {"role": "viewer", "revoked_at": None, "requests_today": 0},
        {"role": "viewer", "revoked_at": "2026-11-01T10:00:00+00:00", "requests_today": 3},
    ]
    assert admin_findings.keys(rows, "ann") == "2 keys in force (1 admin, 1 viewer); 7 requests with keys today."
    assert admin_findings.keys([], "local") == (
        "There are no keys: the server answers its own machine alone, and there everybody is an admin."
    )
    assert admin_findings.keys([], "anonymous") == (
        "There are no keys: whoever reaches the server may use it, and everybody is an admin."
    )


def test_traffic_says_how_much_how_well_and_how_fast() -> None:
    totals = {"requests": 200, "client_errors": 10, "server_errors": 1, "p50_ms": 4.25, "p95_ms": 120.4}
    minutes = [{"requests": 30, "p95_ms": 4.0}, {"requests": 60, "p95_ms": 90.0}]
    found = {"totals": totals, "minutes": minutes, "uptime_s": 3 * 86_400}
    assert admin_findings.traffic(found) == (
        "Up for 3 days, with 200 requests since the start, 45.0 a minute of late. 5 % were refused and less than 1 % "
        "failed by the server's fault. Half were answered within 4.2 ms, 95 of 100 within 120 ms."
    )
    silent = {"totals": totals | {"requests": 0}, "minutes": [], "uptime_s": 60}
    assert admin_findings.traffic(silent) == "Up for 1 minute, with 0 requests since the start, 0.0 a minute of late."
    assert admin_findings.pace(minutes) == (
        "In the 2 minutes with requests, 95 of 100 were answered within 4.0 ms at best and 90 ms at worst."
    )
    assert admin_findings.pace([{"p95_ms": None}]) == "No request was timed of late."
