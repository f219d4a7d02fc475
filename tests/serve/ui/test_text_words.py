"""The page's sentences, by value."""

from typing import Any

import pytest

from lesion.core.text import format_count, format_percent
from serve.ui.text import sentences

ANSWER = {
    "predicted_class": "glioma",
    "confidence": 0.93,
    "probabilities": {"glioma": 0.93, "meningioma": 0.05, "pituitary": 0.02},
    "domain_distance": 0.7,
    "in_domain": True,
    "domain_p_value": 0.4,
    "abstain_reason": None,
    "prediction_set": ["glioma"],
    "coverage": 0.9,
    "similar_answers": {"low": 0.9, "high": 0.95, "images": 41, "right": 40},
}
UNSURE = ANSWER | {
    "confidence": 0.5,
    "abstain_reason": "unsure",
    "probabilities": {"glioma": 0.5, "meningioma": 0.46, "pituitary": 0.04},
    "prediction_set": ["glioma", "meningioma"],
    "similar_answers": None,
}
UNFAMILIAR = ANSWER | {
    "abstain_reason": "not_recognized", "in_domain": False, "domain_p_value": 0.0069, "similar_answers": None,
}  # fmt: skip
JOB = {"stage": "train", "state": "running", "epoch": 2, "epochs": 5, "seconds_left": None, "cancel_requested": False}


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (0.004, "under 1 %"), (0.5, "50 %"), (0.989, "99 %"), (0.995, "over 99 %"), (1.0, "100 %")],
)
def test_percent_never_claims_a_certainty_that_is_rounding(share: float, written: str) -> None:
    assert format_percent(share) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (3, "a few seconds"),
        (44, "about 40 seconds"),
        (89, "about 90 seconds"),
        (100, "about 2 minutes"),
        (3600, "about 60 minutes"),
        (7000, "about 2 hours"),
    ],
)
def test_durations_are_rounded_to_what_people_plan_with(seconds: float, written: str) -> None:
    assert sentences.format_duration(seconds) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(59, "0 minutes"), (119, "1 minute"), (3_599, "59 minutes"), (7_199, "1 hour"), (172_799, "47 hours")],
)
def test_how_long_something_has_been_there_is_in_whole_units(seconds: float, written: str) -> None:
    assert sentences.format_age(seconds) == written


def test_numbers_of_things() -> None:
    assert format_count(1, "image") == "1 image"
    assert format_count(1234, "image") == "1,234 images"
    assert format_count(2, "class") == "2 classes"


def test_a_sure_answer_says_how_often_such_answers_were_right() -> None:
    assert (sentences.state_of(ANSWER), sentences.headline(ANSWER)) == ("sure", "glioma")
    assert sentences.describe_prediction(ANSWER) == (
        "I am fairly sure that this is glioma. Of 41 test images answered with a confidence from 90 % to 95 %, 40 were "
        "right."
    )
    certain = ANSWER | {"confidence": 0.998, "similar_answers": None}
    assert sentences.describe_prediction(certain) == (
        "I am very sure that this is glioma. How often such answers are right was not measured."
    )


def test_an_unsure_answer_says_so_and_names_the_rival() -> None:
    assert (sentences.state_of(UNSURE), sentences.headline(UNSURE)) == ("unsure", "Unsure: glioma or meningioma")
    assert sentences.describe_prediction(UNSURE) == (
        "I am not sure. glioma is the most probable class with 50 %, and it was not shown that answers with so low a "
        "confidence are rarely wrong. The next is meningioma with 46 %. Possible are glioma and meningioma: such "
        "lists were made to have the right class for 90 % of the images of each class. How often such answers are "
        "right was not measured. Ask a qualified person."
    )
    # Of older models; of one class, which is not sure enough; of all classes, which says nothing.
    for names in (None, ["glioma"], ["glioma", "meningioma", "pituitary"]):
        changed = UNSURE | {"prediction_set": names}
        assert sentences.headline(changed) == "Unsure: glioma or meningioma"
        assert "Possible are" not in sentences.describe_prediction(changed)


def test_an_unfamiliar_image_is_called_so_however_confident_the_answer() -> None:
    assert (sentences.state_of(UNFAMILIAR), sentences.headline(UNFAMILIAR)) == ("not_recognized", "Not recognized")
    assert sentences.describe_prediction(UNFAMILIAR).startswith(
        "This does not look like what I was trained on: at most about 0.7 % of images like those look as unusual."
    )
    assert sentences.describe_prediction(UNFAMILIAR | {"domain_p_value": None}).startswith(  # of older models
        "This does not look like what I was trained on. If I had to choose"
    )


EXPLANATION = {
    "method": "occlusion", "grid": [12, 12], "doubts": [], "probability": 0.93, "covered_probability": 0.41,
}  # fmt: skip


def test_a_heat_map_by_occlusion_says_what_covering_does() -> None:
    assert sentences.describe_heat_map("glioma", EXPLANATION, any_heat=True) == (
        "Yellow marks where covering the image takes most from glioma, violet where it takes little. With the most "
        "important place covered, glioma has 41 % instead of 93 %."
    )
    assert sentences.describe_heat_map("glioma", EXPLANATION, any_heat=False) == (
        "Covering any one place does not lower the probability of glioma."
    )


def test_a_grad_cam_compares_places() -> None:
    explanation = EXPLANATION | {"method": "grad-cam", "probability": None, "covered_probability": None}
    assert "what speaks most for glioma" in sentences.describe_heat_map("glioma", explanation, any_heat=True)
    assert sentences.describe_heat_map("glioma", explanation, any_heat=False) == (
        "No part of it speaks more for glioma than any other (grad-cam)."
    )


@pytest.mark.parametrize(
    ("doubt", "words"),
    [
        ("no_effect", "Covering any one place hardly changes the answer, so this map says little."),
        (
            "outside_foreground",
            "Most of the heat lies on the dark background: the model did not look at what is shown.",
        ),
        ("coarse_grid", "This map is coarse: it tells only 3 × 3 places apart."),
    ],
)
def test_what_makes_a_heat_map_doubtful_is_said(doubt: str, words: str) -> None:
    explanation = EXPLANATION | {"doubts": [doubt], "grid": [3, 3]}
    assert sentences.describe_heat_map("glioma", explanation, any_heat=True).endswith(words)


def test_many_answers_in_one_sentence() -> None:
    assert sentences.summarize_predictions([ANSWER, UNSURE, UNFAMILIAR]) == (
        "3 images classified, 1 of them unsure, 1 not recognized, unlike what the model was trained on."
    )
    assert sentences.summarize_predictions([ANSWER]) == "1 image classified."


def test_what_became_of_uploads() -> None:
    assert sentences.upload_outcome(60, 0, 0) == "60 of 60 files accepted."
    assert (
        sentences.upload_outcome(57, 1, 2)
        == "57 of 60 files accepted, 1 in quarantine until an admin decides, 2 refused."
    )
    assert sentences.upload_outcome(0, 0, 1) == "0 of 1 file accepted, 1 refused."


def test_what_waits_and_what_was_not_sent() -> None:
    assert sentences.sending_pauses(10, 2060, "file", 6.2) == (
        "10 of 2,060 files wait. They are sent again without a click in 7 seconds."
    )
    assert sentences.sending_pauses(1, 1, "image", 1.0) == (
        "1 of 1 image waits. It is sent again without a click in 1 second."
    )
    assert sentences.sending_stopped(150, 2000, "file") == (
        "150 of 2,000 files sent; 1,850 were not and are kept here."
    )
    assert sentences.sending_stopped(0, 1, "image") == "0 of 1 image sent; 1 was not and is kept here."


def test_a_missing_worker_is_said_with_the_time() -> None:
    assert sentences.describe_worker({"running": True, "seen_at": None}) == ""
    assert sentences.describe_worker({"running": False, "seen_at": "2026-11-30T02:11:05+00:00"}) == (
        "No worker is running since 30 November 2026, 02:11 UTC; jobs wait until one is started."
    )
    assert sentences.describe_worker({"running": False, "seen_at": None}) == (
        "No worker is running on this storage so far; jobs wait until one is started."
    )


def test_what_the_next_retraining_would_learn_from() -> None:
    nothing = {"images": 0, "held_out": 0, "unreviewed": 0, "relabeled": 0}
    assert sentences.next_retraining(nothing) == (
        "There are no new images to learn from since the last retraining. Upload labeled images first."
    )
    assert sentences.next_retraining({"images": 0, "held_out": 1, "unreviewed": 0, "relabeled": 0}) == (
        "There are no new images to learn from since the last retraining; 1 more image is held out to compare models."
    )
    assert sentences.next_retraining({"images": 48, "held_out": 12, "unreviewed": 0, "relabeled": 0}) == (
        "The next retraining would learn from 48 new images; 12 more images are held out to compare models."
    )
    assert sentences.next_retraining({"images": 1, "held_out": 0, "unreviewed": 0, "relabeled": 0}) == (
        "The next retraining would learn from 1 new image."
    )
    assert sentences.next_retraining({"images": 0, "held_out": 0, "unreviewed": 0, "relabeled": 2}) == (
        "There are no new images to learn from since the last retraining. It would use 2 corrected labels."
    )
    assert sentences.next_retraining({"images": 3, "held_out": 0, "unreviewed": 0, "relabeled": 1}) == (
        "The next retraining would learn from 3 new images. It would use 1 corrected label."
    )
    assert sentences.next_retraining({"images": 1, "held_out": 0, "unreviewed": 3, "relabeled": 0}) == (
        "The next retraining would learn from 1 new image. 3 held-out images wait in quarantine; models are compared "
        "on no image that came later before an admin has decided about them."
    )


def test_how_long_a_retraining_takes() -> None:
    known = {"epochs": 5, "images": 672, "seconds": 61.0, "basis": "Measured on the last retraining."}
    assert sentences.describe_estimate(known) == (
        "It takes about 60 seconds: 5 epochs over 672 images. Measured on the last retraining."
    )
    assert sentences.describe_estimate(known | {"seconds": None, "basis": "No retraining ended."}) == (
        "How long it takes is not known yet. No retraining ended."
    )
    assert sentences.describe_gate_settings({"gate_settings": "worker"}) == ""
    assert "default settings" in sentences.describe_gate_settings({"gate_settings": "default"})


def test_the_stages_of_a_retraining() -> None:
    assert sentences.describe_stage(JOB) == "Training: 2 of 5 epochs done"
    assert (
        sentences.describe_stage(JOB | {"seconds_left": 31.0}) == "Training: 2 of 5 epochs done, about 30 seconds left"
    )
    assert sentences.describe_stage(JOB | {"stage": "gate"}) == "Comparing the new model with the one in use"
    assert sentences.describe_stage(JOB | {"cancel_requested": True}) == "Being canceled"
    assert (
        sentences.describe_outcome({"state": "rejected"}) == "The new model was not promoted; the model in use stays."
    )


def test_a_promoted_model_is_called_in_use_only_while_it_is() -> None:
    promoted = {"state": "promoted", "version": "b"}
    assert sentences.describe_outcome(promoted, "b") == "The new model was proved better and is in use."
    later = "The new model was proved better and was put into use."
    assert [sentences.describe_outcome(promoted, in_use) for in_use in ("a", None)] == [later, later]


def test_feedback_says_what_became_of_the_image() -> None:
    none: dict[str, list[dict[str, str]]] = {"accepted": [], "quarantined": [], "rejected": []}
    stored = none | {"accepted": [{"code": "", "reason": ""}]}
    assert sentences.describe_feedback(stored, "glioma") == "Thank you. The image is stored as glioma."
    corrected = none | {"accepted": [{"code": "label_corrected", "reason": "It was b and is a now."}]}
    assert sentences.describe_feedback(corrected, "a") == "Thank you. It was b and is a now."
    waits = none | {"quarantined": [{"reason": "The champion disagrees."}]}
    assert sentences.describe_feedback(waits, "glioma") == (
        "Thank you. An admin will look at the image first: The champion disagrees."
    )
    refused = none | {"rejected": [{"reason": "It is known."}]}
    assert sentences.describe_feedback(refused, "glioma") == "The image was not stored: It is known."


def test_text_from_outside_is_shown_as_it_is() -> None:
    assert sentences.escape_markdown("![x](http://e.org/a.png) *b* :red[c] $d$") == (
        r"!\[x\](http://e.org/a.png) \*b\* \:red\[c\] \$d\$"
    )
    assert sentences.escape_markdown("plain words: 5.") == "plain words: 5."


def test_a_spreadsheet_runs_no_formula_from_outside() -> None:
    rows: list[dict[str, Any]] = [
        {"File": "=cmd()", "Share": 0.5},
        {"File": "größe.png", "Share": None, "More": "x, y"},
    ]
    text = sentences.to_csv(rows)
    assert text.startswith(b"\xef\xbb\xbf")
    assert text.decode("utf-8-sig").split("\r\n") == [
        "File,Share,More", "'=cmd(),0.5,", 'größe.png,,"x, y"', ""
    ]  # fmt: skip


def test_a_spreadsheet_runs_no_formula_in_its_headings_either() -> None:
    assert sentences.to_csv([{"@cmd": "-1", "P(=x)": -1.5}]).decode("utf-8-sig").split("\r\n") == [
        "'@cmd,P(=x)", "'-1,-1.5", ""
    ]  # fmt: skip


def test_points_in_time() -> None:
    assert sentences.format_time("2026-11-04T02:31:00+00:00") == "4 November 2026, 02:31 UTC"
