"""The page's sentences, by value."""

import pytest

from serve.ui.text import sentences

ANSWER = {
    "predicted_class": "glioma",
    "confidence": 0.93,
    "probabilities": {"glioma": 0.93, "meningioma": 0.05, "pituitary": 0.02},
    "domain_distance": 0.7,
    "in_domain": True,
}
JOB = {"stage": "train", "state": "running", "epoch": 2, "epochs": 5, "seconds_left": None, "cancel_requested": False}


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (0.004, "less than 1 %"), (0.5, "50 %"), (0.989, "99 %"), (0.995, "more than 99 %"), (1.0, "100 %")],
)
def test_percent_never_claims_a_certainty_that_is_rounding(share: float, written: str) -> None:
    assert sentences.percent(share) == written


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
    assert sentences.duration(seconds) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(59, "0 minutes"), (119, "1 minute"), (3_599, "59 minutes"), (7_199, "1 hour"), (172_799, "47 hours")],
)
def test_how_long_something_has_been_there_is_in_whole_units(seconds: float, written: str) -> None:
    assert sentences.span(seconds) == written


def test_numbers_of_things() -> None:
    assert sentences.count(1, "image") == "1 image"
    assert sentences.count(1234, "image") == "1,234 images"
    assert sentences.count(2, "class") == "2 classes"


def test_a_sure_answer_says_how_often_such_answers_are_right() -> None:
    assert sentences.state_of(ANSWER) == "sure"
    assert sentences.prediction(ANSWER) == (
        "I am fairly sure that this is glioma. Of 100 answers this sure, about 93 are right "
        "on images like those it was tested on."
    )
    certain = ANSWER | {"confidence": 0.998}
    assert sentences.prediction(certain) == (
        "I am very sure that this is glioma. Of 100 answers this sure, more than 99 are right "
        "on images like those it was tested on."
    )


def test_an_unsure_answer_says_so_below_which_bound_and_names_the_rival() -> None:
    unsure = ANSWER | {"confidence": 0.5, "probabilities": {"glioma": 0.5, "meningioma": 0.46}}
    assert sentences.state_of(unsure) == "unsure"
    assert sentences.prediction(unsure) == (
        "I am not sure. glioma is the most probable with 50 %, and below 60 % I call no answer sure. meningioma comes "
        "next with 46 %. Ask a person."
    )


def test_an_unfamiliar_image_is_called_so_however_confident_the_answer() -> None:
    foreign = ANSWER | {"in_domain": False, "domain_distance": 3.21}
    assert sentences.state_of(foreign) == "foreign"
    assert sentences.prediction(foreign).startswith(
        "This does not look like what I was trained on: it lies 3.2 times as far out as the border"
    )


def test_many_answers_in_one_sentence() -> None:
    answers = [ANSWER, ANSWER | {"confidence": 0.4}, ANSWER | {"in_domain": False}]
    assert sentences.summary(answers) == (
        "3 images answered, 1 of them unsure (below 60 %), 1 unlike what the model was trained on."
    )
    assert sentences.summary([ANSWER]) == "1 image answered."


def test_what_became_of_uploads() -> None:
    assert sentences.upload_outcome(60, 0, 0) == "60 of 60 files accepted."
    assert sentences.upload_outcome(57, 1, 2) == "57 of 60 files accepted, 1 waits for an admin's look, 2 refused."
    assert sentences.upload_outcome(0, 0, 1) == "0 of 1 file accepted, 1 refused."


def test_an_upload_that_did_not_come_to_its_end_says_how_to_go_on() -> None:
    assert sentences.upload_left(150, 2000, here=False) == (
        "150 of 2,000 files sent; the rest was not. Drop the files again: what was taken is not taken twice."
    )
    assert sentences.upload_left(0, 1, here=True) == (
        "0 of 1 file sent; the rest was not. Press the button again: only the rest is sent."
    )


def test_what_the_next_retraining_would_learn_from() -> None:
    nothing = {"images": 0, "held_out": 0}
    assert sentences.next_retraining(nothing) == (
        "There is nothing new to learn from since the last retraining. Upload labelled images first."
    )
    assert sentences.next_retraining({"images": 0, "held_out": 1}) == (
        "There is nothing new to learn from since the last retraining; 1 more image is held out to judge models by."
    )
    assert sentences.next_retraining({"images": 48, "held_out": 12}) == (
        "The next retraining would learn from 48 new images; 12 more images are held out to judge models by."
    )
    assert sentences.next_retraining({"images": 1, "held_out": 0}) == (
        "The next retraining would learn from 1 new image."
    )


def test_how_long_a_retraining_takes() -> None:
    known = {"epochs": 5, "images": 672, "seconds": 61.0, "basis": "Measured on the last retraining."}
    assert sentences.estimate(known) == (
        "It takes about 60 seconds: 5 epochs over 672 images. Measured on the last retraining."
    )
    assert sentences.estimate(known | {"seconds": None, "basis": "No retraining ended."}) == (
        "How long it takes is not known yet. No retraining ended."
    )


def test_the_stages_of_a_retraining() -> None:
    assert sentences.stage(JOB) == "Learning: 2 of 5 epochs done"
    assert sentences.stage(JOB | {"seconds_left": 31.0}) == "Learning: 2 of 5 epochs done, about 30 seconds left"
    assert sentences.stage(JOB | {"stage": "gate"}) == "Comparing the new model with the one in use"
    assert sentences.stage(JOB | {"cancel_requested": True}) == "Being cancelled"
    assert sentences.outcome({"state": "rejected"}) == "The new model was not proved better; the model in use stays."


def test_a_promoted_model_is_called_in_use_only_while_it_is() -> None:
    promoted = {"state": "promoted", "version": "b"}
    assert sentences.outcome(promoted, "b") == "The new model was proved better and is in use."
    later = "The new model was proved better and was put to use."
    assert [sentences.outcome(promoted, in_use) for in_use in ("a", None)] == [later, later]


def test_feedback_says_what_became_of_the_image() -> None:
    none = {"accepted": [], "quarantined": [], "rejected": []}
    assert sentences.feedback(none | {"accepted": [{}]}, "glioma") == "Thank you. The image is kept as glioma."
    waits = none | {"quarantined": [{"reason": "The champion disagrees."}]}
    assert sentences.feedback(waits, "glioma") == (
        "Thank you. An admin will look at the image first: The champion disagrees."
    )
    refused = none | {"rejected": [{"reason": "It is known."}]}
    assert sentences.feedback(refused, "glioma") == "The image was not kept: It is known."


def test_what_strangers_wrote_is_shown_as_it_is() -> None:
    assert sentences.plain("![x](http://e.org/a.png) *b* :red[c] $d$") == (
        r"!\[x\](http://e.org/a.png) \*b\* \:red\[c\] \$d\$"
    )
    assert sentences.plain("plain words: 5.") == "plain words: 5."


def test_a_spreadsheet_runs_no_formula_of_a_stranger() -> None:
    rows = [{"File": "=cmd()", "Share": 0.5}, {"File": "größe.png", "Share": None, "More": "x, y"}]
    text = sentences.spreadsheet(rows)
    assert text.startswith(b"\xef\xbb\xbf")
    assert text.decode("utf-8-sig").split("\r\n") == [
        "File,Share,More", "'=cmd(),0.5,", 'größe.png,,"x, y"', ""
    ]  # fmt: skip


def test_a_spreadsheet_runs_no_formula_in_its_headings_either() -> None:
    assert sentences.spreadsheet([{"@cmd": "-1", "P(=x)": -1.5}]).decode("utf-8-sig").split("\r\n") == [
        "'@cmd,P(=x)", "'-1,-1.5", ""
    ]  # fmt: skip


def test_points_in_time() -> None:
    assert sentences.moment("2026-11-04T02:31:00+00:00") == "4 November 2026, 02:31 UTC"
