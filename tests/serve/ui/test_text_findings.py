"""Sentences about the data, a model and the server's work: they say what the numbers say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lesion.evaluation import findings
from serve.ui.text import admin_findings, data_findings, model_findings
from serve.ui.text.sentences import selection_note


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
            "are about equally frequent, so accuracy can be taken at face value.",
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
            "14 images in 2 classes. Every class has 7, so accuracy can be taken at face value.",
        ),
        ({"a": 0, "b": 0}, "There are no accepted images yet."),
    ],
)
def test_the_distribution_says_how_even_it_is(images: dict[str, int], words: str) -> None:
    assert data_findings.class_distribution(classes(**images)) == words


def test_brightness_says_whether_it_gives_a_class_away() -> None:
    dark, bright = box("dark", 0, 20, 30, 40, 90), box("bright", 90, 150, 160, 170, 250)
    assert data_findings.brightness([bright, dark]) == (
        "Half of the images of dark, the darkest class, are below 30 of 255; half of those of bright, the "
        "brightest class, are above 160. The middle halves of one pair of classes do not overlap (dark and bright): a "
        "model may learn brightness instead of what matters."
    )
    alike = box("grey", 0, 25, 35, 160, 200)
    assert "would be wrong for at least a quarter of the images of one of them" in data_findings.brightness(
        [dark, alike]
    )
    brighter = box("white", 200, 210, 220, 230, 240)
    assert "3 pairs of classes do not overlap (such as dark and white)" in data_findings.brightness(
        [dark, bright, brighter]
    )
    near, wide = box("near", 40, 41, 42, 150, 160), box("wide", 0, 5, 161, 210, 255)
    assert "pairs of classes do not overlap (such as dark and bright)" in data_findings.brightness(
        [dark, near, bright, wide]
    )
    assert data_findings.brightness([dark]) == "Half of the images of dark are darker than 30 of 255."
    assert data_findings.brightness([]) == "No brightness has been measured yet."
    lonely = box("lonely", 200, 200, 200, 200, 200) | {"images": 1}
    assert data_findings.brightness([dark, alike, lonely]) == (
        f"{data_findings.brightness([dark, alike])} Left out: 1 class with fewer than 20 images."
    )
    assert data_findings.brightness([lonely]) == "No class has 20 images yet; fewer are too few to compare brightness."


def test_resolutions_say_how_alike_they_are_and_what_is_enlarged() -> None:
    large, small = {"width": 512, "height": 400, "images": 30}, {"width": 100, "height": 90, "images": 10}

    def sentence(*rows: dict[str, int], others: int = 0, enlarged: int = 0, trim: bool = False) -> str:
        stats = {"resolutions": rows, "other_resolutions": others, "enlarged": enlarged}
        return data_findings.resolutions(stats, {"size": 224, "trim": trim})

    assert (
        sentence(large)
        == "All 30 images are 512 × 400 pixels. No image is smaller than the 224 pixels that the model sees."
    )
    assert sentence(large, small, enlarged=10) == (
        "There are 2 sizes; the most frequent is 512 × 400 pixels, with 75 % of the images. 10 of 40 (25 %) are "
        "smaller than the 224 pixels that the model sees and are enlarged."
    )
    assert sentence(large, small, others=60, enlarged=1, trim=True) == (
        "There are more than 2 sizes; the most frequent is 512 × 400 pixels, with 30 % of the images. 1 of 100 (1 %) "
        "is smaller than the 224 pixels that the model sees (before dark margins are cut off) and is enlarged."
    )
    assert sentence(small, enlarged=10).endswith(
        "All are smaller than the 224 pixels that the model sees and are enlarged."
    )
    assert sentence() == "The size of the images is not known."


def test_duplicates_say_how_many_images_are_no_new_evidence() -> None:
    found = {"groups": 3, "images": 10, "largest": 5}
    assert data_findings.duplicates(found, 40) == (
        "10 of 40 images (25 %) have near-duplicates or share a patient or plant: 3 groups, the largest with 5 images. "
        "A group is used either to learn from or to evaluate, never for both."
    )
    assert "(25 %) have near-duplicates or share a patient or plant: one group. A" in data_findings.duplicates(
        found | {"groups": 1}, 40
    )
    assert data_findings.duplicates({"groups": 0, "images": 0, "largest": 0}, 40) == (
        "None of the 40 images is a near-duplicate of another or shares a patient or plant with another."
    )


def test_leakage_says_how_far_the_datas_own_split_can_be_trusted() -> None:
    assert data_findings.leakage({"test_images": 1182, "leaked": 870}, known=True) == (
        "870 of the 1,182 images (73.6 %) of the data's own test split have a near-duplicate in its training split. A "
        "score on that split partly measures memory. This is why Lesion makes its own splits."
    )
    assert data_findings.leakage({"test_images": 10, "leaked": 0}, known=True) == (
        "None of the 10 images of the data's own test split has a near-duplicate in its training split."
    )
    assert data_findings.leakage(None, known=True) == "The data came without a test split, so no such split can leak."
    assert data_findings.leakage(None, known=False) == (
        "It is not known here whether the data came with a test split, and whether that split leaks."
    )


def test_uploads_say_what_became_of_them_and_when_most_came() -> None:
    quiet = {"day": "2026-11-22", "accepted": 1, "quarantined": 0, "rejected": 0}
    busy = {"day": "2026-11-03", "accepted": 11, "quarantined": 3, "rejected": 5}
    assert data_findings.uploads([busy, quiet]) == (
        "20 files on 2 days: 60 % accepted, 15 % in quarantine, 25 % refused. The busiest day was 3 "
        "November 2026 with 19 files."
    )
    assert data_findings.uploads([quiet]) == "1 file on 1 day: 100 % accepted, 0 % in quarantine, 0 % refused."
    assert data_findings.uploads([]) == "Nothing has been uploaded yet: all images came with the first model."


def test_a_montage_says_what_it_is_drawn_from() -> None:
    rows = [box("dark", 5, 20, 30, 40, 90)]
    assert data_findings.montage("dark", 4, rows) == (
        "4 of 20 images of dark, chosen at random. Half of the class is darker than 30 of 255; its darkest image has 5 "
        "and its brightest 90."
    )
    assert data_findings.montage("dark", 24, rows).startswith("All 20 images of dark, in random order.")
    assert data_findings.montage("bright", 4, rows) == "There are no accepted images of bright yet."
    assert data_findings.montage("dark", 4, [rows[0] | {"images": 1}]) == (
        "The only image of dark. Its mean brightness is 30 of 255."
    )


# Of a model


def measured(**metrics: float | None) -> Any:
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
    assert findings.headline_finding(measured(acc=0.825, acc_low=0.71, acc_high=0.92)) == (
        "The model classifies 33 of 40 test images correctly, 82.5 % (95 % interval 71.0 % to 92.0 %, from 30 groups "
        "of images that belong together). Always guessing the most frequent class would be correct for 50.0 %."
    )
    few = findings.headline_finding(measured(acc=0.825, acc_low=None))
    assert "82.5 % (too few images for an interval). Always" in few
    by_vote = findings.headline_finding(measured(acc=0.8, acc_low=0.71, acc_high=0.92, acc_per_image=0.825))
    assert by_vote.startswith(
        "The model classifies 33 of 40 test images correctly, 82.5 %. If each of the 30 groups of images that belong "
        "together has one vote, 80.0 % (95 % interval 71.0 % to 92.0 %). Always"
    )


def test_too_few_images_are_told_from_an_interval_that_nobody_looked_for() -> None:
    metrics = {"test/acc": 0.9, "test/acc_low": 0.8, "test/acc_high": 0.95, "test/recall/a": 0.5}
    evaluation = {"metrics": metrics | {"test/f1_macro": 0.7, "test/f1_macro_low": None, "test/f1_macro_high": None}}
    assert model_findings.format_interval(evaluation, "acc") == "0.800 to 0.950"
    assert model_findings.format_interval(evaluation, "f1_macro") == "too few to say"
    assert model_findings.format_interval(evaluation, "recall/a") == ""  # a model of an older version
    assert model_findings.format_interval(evaluation, "recall/b") == ""


def test_scores_without_patients_are_an_upper_bound() -> None:
    assert findings.patients_notes(20, 20) == []
    assert findings.patients_notes(20, 0)[0].startswith("Patients unknown: images of one patient")
    assert findings.patients_notes(2000, 1500)[0].startswith("The patients of 500 of 2,000 images are unknown: ")


def test_the_weakest_class_and_the_most_frequent_mistake_are_named() -> None:
    assert findings.weakest_finding(measured(**{"f1/a": 0.837, "f1/b": 0.811})) == (
        "The weakest class is “b” (F1 0.811). The most frequent mistake is to predict “a” for “b”: 5 of 20 images."
    )
    perfect = measured() | {"confusion_matrix": [[20, 0], [0, 20]]}
    assert findings.weakest_finding(perfect) == "None of the 40 test images was misclassified."


def test_of_too_many_classes_the_matrix_has_those_with_the_lowest_f1() -> None:
    names = [f"c{number:03}" for number in range(100)]
    # Class k is right k times and twice taken for the next one; the last one has no score.
    matrix = [[row * (row == column) + 2 * (column == (row + 1) % 100) for column in range(100)] for row in range(100)]
    scores = {f"test/f1/{name}": number / 100 for number, name in enumerate(names[:99])}
    many = {"classes": names, "confusion_matrix": matrix, "metrics": scores}
    rows, columns, cells, note = model_findings.confusions(many)
    assert rows == names[:30]
    assert columns == [*rows, "any other class"]
    assert cells[3] == [*[0] * 3, 3, 2, *[0] * 26]
    assert cells[29] == [*[0] * 29, 29, 2]  # taken for the thirtieth, which is not shown
    assert note == "Only the 30 classes with the lowest F1 are shown, of 100."
    assert model_findings.confusions(measured()) == (["a", "b"], ["a", "b"], [[18, 2], [5, 15]], "")
    assert selection_note(30, 30, "with the lowest F1") == ""


def test_calibration_says_what_it_changed() -> None:
    assert findings.calibration_finding(measured(ece=0.031, ece_uncalibrated=0.085)) == (
        "Confidence and accuracy differ by 3.1 percentage points on average, less than the 8.5 before "
        "calibration on 12 other images (temperature 1.25)."
    )
    assert "not less than the 2.0" in findings.calibration_finding(measured(ece=0.03, ece_uncalibrated=0.02))
    nothing = measured(ece=0.03, ece_uncalibrated=0.03) | {"calibration_images": 0}
    assert findings.calibration_finding(nothing).endswith("on average; nothing was calibrated.")


def test_the_class_that_a_curve_shows_worst_is_named() -> None:
    areas = measured(**{"roc_auc/a": 0.97, "roc_auc/b": 0.91, "pr_auc/a": 0.88, "pr_auc/b": 0.95})
    assert findings.ranking_finding(areas, "roc") == (
        "Of one image of “b” and one of another class, the first gets the higher probability for “b” in 91.0 % of "
        "cases; every other class does at least as well."
    )
    assert findings.ranking_finding(areas, "pr") == (
        "“a” has the lowest average precision, 0.880; guessing would give 0.500, its share of the test images."
    )
    assert model_findings.worst_classes(areas, "roc", 1) == ["b"]
    perfect = measured(**{"roc_auc/a": 1.0, "roc_auc/b": 1.0})
    assert findings.ranking_finding(perfect, "roc") == "Every class is ranked without a mistake on the test images."
    assert findings.ranking_finding(measured(), "pr") == "No class has enough test images for a curve."


def test_a_comparison_says_which_model_did_better_and_how_surely() -> None:
    found = {
        "images": 700, "generation": 2, "gained": 56, "lost": 25, "difference": 0.045, "lower_bound": 0.023,
        "confidence": 0.96, "champion": {"f1_macro": 0.917}, "challenger": {"f1_macro": 0.961},
    }  # fmt: skip
    assert model_findings.comparison(found) == (
        "On the 700 images of gate generation 2, the challenger's macro-F1 is 0.961 and the champion's 0.917. Only the "
        "challenger is right on 56 images, only the champion on 25. The difference is +0.045; with 96 % confidence it "
        "is above +0.023."
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
    assert admin_findings.jobs([], 50) == "There has been no retraining yet."


def test_what_serves_is_said_with_since_when_and_by_whom() -> None:
    first = {"version": "aaa", "action": "first", "actor": "ann", "created_at": "2026-11-01T10:00:00+00:00"}
    assert admin_findings.deployments([first]) == (
        "aaa has been in use since 1 November 2026, 10:00 UTC, deployed by ann. It is the first model here."
    )
    back = first | {"action": "rollback", "actor": "bob"}
    assert admin_findings.deployments([first, first | {"action": "promote"}, back]).endswith(
        "deployed by bob. The model has been changed 2 times so far; 1 of these changes went back to an earlier model."
    )
    assert admin_findings.deployments([]) == "No model has been deployed yet."


def test_a_decision_says_what_who_and_which_models_learned_from_it() -> None:
    names = {"a": "Apple"}
    image = {"status": "accepted", "label": "a", "decision": {"actor": "eve"}}
    assert admin_findings.decision(None, names) == "Waits for a decision."
    assert admin_findings.decision(image, names) == "Accepted as Apple by eve."
    assert admin_findings.decision(image | {"status": "dropped"}, names) == "Dropped by eve."
    assert admin_findings.decision(image | {"status": "deleted", "decision": None}, names) == "Deleted."
    assert admin_findings.decided("image 3", image, names, []) == "Image 3: Accepted as Apple by eve."
    back = image | {"status": "quarantined"}
    assert admin_findings.decided("image 3", back, names, []) == "Image 3 waits for a decision again."
    assert admin_findings.decided("image 3", back, names, ["v1", "v2"]) == (
        "Image 3 waits for a decision again. Models that learned from it stay as they are: v1, v2."
    )


def test_the_quarantine_says_how_many_wait_and_why() -> None:
    rows = [{"reason_code": "disputed"}, {"reason_code": "out_of_domain"}, {"reason_code": "disputed"}]
    assert admin_findings.quarantine(3, rows) == "3 images wait for a decision: 2 disputed, 1 out of domain."
    assert (
        admin_findings.quarantine(40, rows) == "40 images wait for a decision; shown here: 2 disputed, 1 out of domain."
    )
    assert admin_findings.quarantine(1, rows[:1]) == "1 image waits for a decision: 1 disputed."
    assert admin_findings.quarantine(0, []) == "No image waits for a decision."


def test_keys_are_counted_by_role_without_the_revoked() -> None:
    rows: list[dict[str, Any]] = [
        {"role": "admin", "revoked_at": None, "requests_today": 4},
        {"role": "viewer", "revoked_at": None, "requests_today": 0},
        {"role": "viewer", "revoked_at": "2026-11-01T10:00:00+00:00", "requests_today": 3},
    ]
    assert admin_findings.keys(rows, "ann") == "2 active keys (1 admin, 1 viewer); 7 requests with keys today."
    assert admin_findings.keys([], "local") == (
        "There are no keys: the server answers only its own machine, and everyone there is an admin."
    )
    assert admin_findings.keys([], "anonymous") == (
        "There are no keys: everyone who can reach the server may use it, and everyone is an admin."
    )


def test_traffic_says_how_much_how_well_and_how_fast() -> None:
    totals = {"requests": 200, "client_errors": 10, "server_errors": 1, "p50_ms": 4.25, "p95_ms": 120.4}
    minutes = [{"requests": 30, "p95_ms": 4.0}, {"requests": 60, "p95_ms": 90.0}]
    found = {"totals": totals, "minutes": minutes, "uptime_s": 3 * 86_400}
    assert admin_findings.traffic(found) == (
        "Running for 3 days, with 200 requests since the start and 45.0 per minute recently. 5 % were refused and "
        "under 1 % failed because of the server. Half were answered within 4.2 ms, 95 of 100 within 120 ms."
    )
    silent = {"totals": totals | {"requests": 0}, "minutes": [], "uptime_s": 60}
    assert (
        admin_findings.traffic(silent)
        == "Running for 1 minute, with 0 requests since the start and 0.0 per minute recently."
    )
    assert admin_findings.latency(minutes) == (
        "In the 2 minutes with requests, 95 of 100 were answered within 4.0 ms in the best minute and 90 ms in the "
        "worst."
    )
    assert admin_findings.latency([{"p95_ms": None}]) == "No request was timed recently."


def test_what_is_known_of_an_image() -> None:
    image = {
        "status": "accepted", "split": "train", "uploader": "ann", "created_at": "2026-11-30T02:11:05+00:00",
        "reason": "", "versions": [],
    }  # fmt: skip
    assert admin_findings.describe_image(image, "glioma") == (
        "Known as glioma; accepted, for train; uploaded by ann on 30 November 2026, 02:11 UTC. Versions that were made "
        "or tested with it: none yet."
    )
    used = {"reason": "Odd.", "versions": [{"version": "a1"}, {"version": "a1"}, {"version": "b2"}]}
    assert admin_findings.describe_image(image | used, "glioma").endswith(
        "02:11 UTC. Odd. Versions that were made or tested with it: a1, b2."
    )
