"""The rules of answers, from their fit through the bundle to a prediction and its HTTP answer."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lesion.cli.predict.command import main
from lesion.conformal.abstention import Abstention
from lesion.conformal.answer_rules import AnswerRules
from lesion.conformal.prediction_sets import PredictionSets
from lesion.core.errors import BundleError
from lesion.evaluation.answer_metrics import estimate_answers
from lesion.evaluation.evaluation import evaluate_logits
from lesion.evaluation.probabilities import Calibration
from lesion.evaluation.report import write_report
from lesion.imaging.heatmap import encode_png
from lesion.model.bundle import Bundle
from lesion.model.predictor import Prediction, Predictor
from tests.support.bundles.lamp_bundles import SIZE, lamp
from tests.support.servers.serving import ServerProcess

RULES = AnswerRules(
    PredictionSets({0.9: np.array([0.3, 0.6], np.float32), 0.95: np.array([0.0, 0.1], np.float32)}, (30, 40)),
    Abstention(0.8, groups=70),
)


def gray(value: int) -> bytes:
    return encode_png(np.full((SIZE, SIZE, 3), value, dtype=np.uint8))


def test_sets_and_abstention_by_hand(tmp_path: Path) -> None:
    """The lamp gives a logit difference of 0.1 for each step of gray above 127."""
    predictor = Predictor.load(lamp(tmp_path / "lamp", 0.05, answer_rules=RULES.to_json()), "cpu", precision="f32")
    sure, unsure, dark = predictor.predict([gray(187), gray(128), gray(120)])
    assert isinstance(sure, Prediction)
    assert isinstance(unsure, Prediction)
    assert isinstance(dark, Prediction)
    assert sure.confidence == pytest.approx(1 / (1 + np.exp(-6)), abs=1e-3)
    assert (sure.prediction_set(), sure.prediction_set(0.95), sure.abstention) == (("bright",), ("bright",), None)
    assert unsure.probabilities["bright"] == pytest.approx(0.525, abs=1e-3)
    assert (unsure.prediction_set(), unsure.abstention) == (("bright",), "unsure")
    assert unsure.prediction_set(0.95) == ("bright", "dark")
    assert dark.probabilities["dark"] == pytest.approx(0.668, abs=1e-3)
    assert dark.prediction_set() == ("dark", "bright")  # 0.332 is above 0.3, and the most probable comes first
    with pytest.raises(KeyError):
        sure.prediction_set(0.5)


def test_a_bundle_of_an_older_version_has_neither(tmp_path: Path) -> None:
    unsure, sure = Predictor.load(lamp(tmp_path / "lamp", 0.05)).predict([gray(128), gray(187)])
    assert isinstance(unsure, Prediction)
    assert isinstance(sure, Prediction)
    assert (unsure.prediction_set(), unsure.abstention, unsure.similar_answers) == (None, "unsure", None)
    assert (sure.prediction_set(), sure.abstention) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sets": {"thresholds": {"0.9": [0.1]}, "groups": [5]}},
        {"sets": {"thresholds": {"0.9": [0.1, 7]}, "groups": [5, 5]}},
        {"sets": [], "abstention": None},
        {"abstention": {"confidence": -1, "error": 0.05, "risk": 0.05, "groups": 3}},
        {"abstention": 3},
        {"abstention": {}},
    ],
)
def test_facts_that_are_no_rules_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="answer_rules") as caught:
        lamp(tmp_path / "lamp", 0.05, answer_rules=RULES.to_json() | changes)
    assert caught.value.code == "bundle_facts_invalid"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [{"low": 0.5}],
        [{"low": 0.9, "high": 0.5, "images": 20, "right": 3}],
        [{"low": 0.5, "high": 0.9, "images": 20, "right": 21}],
        ["many"],
    ],
)
def test_facts_that_are_no_frequencies_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(BundleError, match="answer_frequencies") as caught:
        lamp(tmp_path / "lamp", 0.05, answer_frequencies=value)
    assert caught.value.code == "bundle_facts_invalid"


def test_rules_survive_the_bundle(tmp_path: Path) -> None:
    rules = Bundle.open(
        lamp(tmp_path / "lamp", 0.05, answer_rules=json.loads(json.dumps(RULES.to_json())))
    ).answer_rules
    assert rules is not None
    assert rules.to_json() == RULES.to_json()


def test_what_the_rules_promise_is_measured_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.35, 0.65], [0.85, 0.15], [0.2, 0.8]], np.float32)
    labels = np.array([0, 0, 0, 1, 1])
    measured = estimate_answers(RULES, probabilities, labels, np.arange(5), ["a", "b"])
    # sets: {a}, {a}, {a, b}, {a}, {b}
    assert measured["sets/coverage"].value == pytest.approx(4 / 5)
    assert measured["sets/coverage/a"].value == pytest.approx(1.0)
    assert measured["sets/coverage/b"].value == pytest.approx(1 / 2)
    assert measured["sets/size"].value == pytest.approx(6 / 5)
    assert measured["answered/share"].value == pytest.approx(3 / 5)  # 0.9, 0.85 and 0.8
    assert measured["answered/error"].value == pytest.approx(1 / 3)
    grouped = estimate_answers(RULES, probabilities, labels, np.array([0, 0, 0, 1, 2]), ["a", "b"])
    assert grouped["sets/coverage"].value == pytest.approx(2 / 3)


def test_without_the_same_shares_nothing_is_promised_about_errors() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1).astype(np.float32)
    assert AnswerRules.fit(probabilities, labels, np.arange(300)).abstention is not None
    rules = AnswerRules.fit(probabilities, labels, np.arange(300), same_shares=False)
    assert rules.abstention is None
    assert AnswerRules.from_json(rules.to_json()).abstention is None
    # Nor where a class has no images: nothing is known about its answers.
    assert AnswerRules.fit(probabilities, 0 * labels, np.arange(300)).abstention is None
    assert "answered/error" not in estimate_answers(rules, probabilities, labels, np.arange(300), ["a", "b"])


def test_the_report_shows_the_promise_and_what_was_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = (3.0 * (labels[:, None] == [0, 1]) + rng.normal(size=(200, 2))).astype(np.float32)
    rules = AnswerRules.fit(Calibration().probabilities(logits[:100]), labels[:100], np.arange(100))
    evaluation = evaluate_logits(
        logits[100:], labels[100:], np.arange(100), ["a", "b"], Calibration(), answer_rules=rules
    )
    text = write_report(tmp_path / "report.html", evaluation, title="t", model={}).read_text("utf-8")
    assert "Possible classes and withheld answers" in text
    assert f"{evaluation.metrics['test/sets/coverage/b']:.3f}" in text
    assert evaluation.intervals["test/sets/coverage/b"][0] < evaluation.metrics["test/sets/coverage/b"]


def test_the_command_says_not_recognized_and_unsure_before_any_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(lamp(tmp_path / "lamp", 0.05, answer_rules=RULES.to_json()))
    files = {"black": gray(0), "gray": gray(128), "white": gray(187), "text": b"no image"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]

    def output(*arguments: str) -> str:
        main([*paths, *arguments, "--bundle", bundle, "--precision", "f32", "--device", "cpu"])
        return capsys.readouterr().out

    rows = [json.loads(line) for line in output("--json").splitlines()]
    assert [list(row)[:3] for row in rows[:3]] == [["file", "abstain_reason", "predicted_class"]] * 3
    assert [row.get("abstain_reason") for row in rows] == ["not_recognized", "unsure", None, None]
    for arguments in (("--csv",), ("--csv", "--top-k", "1")):
        header, *table = csv.reader(output(*arguments).splitlines())
        assert header[:4] == ["file", "abstain_reason", "predicted_class", "confidence"]
        assert [row[1] for row in table] == ["not_recognized", "unsure", "", ""]
        assert {len(row) for row in table} == {len(header)}
    words = " ".join(output().split())
    assert "not recognized, unlike the" in words
    assert "unsure: bright" in words


@pytest.mark.slow
def test_the_server_answers_with_both(tmp_path: Path) -> None:
    frequencies = [{"low": 0.99, "high": 1.0, "images": 30, "right": 28}]
    facts = {"answer_rules": RULES.to_json(), "answer_frequencies": frequencies}
    with ServerProcess(lamp(tmp_path / "lamp", 0.05, **facts), "server.workers=1") as server:
        answer = server.client.post("/predict", content=gray(120)).json()
        assert (answer["prediction_set"], answer["coverage"]) == (["dark", "bright"], 0.9)
        assert (answer["abstain"], answer["abstain_reason"]) == (True, "unsure")
        other = server.client.post("/predict", params={"coverage": 0.95}, content=gray(187)).json()
        assert (other["prediction_set"], other["coverage"], other["abstain"]) == (["bright"], 0.95, False)
        assert (answer["similar_answers"], other["similar_answers"]) == (None, frequencies[0])
        assert list(other)[:3] == ["abstain", "abstain_reason", "predicted_class"]
        refused = server.client.post("/predict", params={"coverage": 0.5}, content=gray(187))
        assert (refused.status_code, refused.json()["code"]) == (422, "coverage_unknown")
        assert "0.9, 0.95" in refused.json()["detail"]
        assert server.client.get("/info").json()["answer_rules"]["abstention"]["confidence"] == 0.8
