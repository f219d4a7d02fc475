import base64
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from lesion.evaluation import findings, plots, views
from lesion.evaluation.calibration import fit_calibration
from lesion.evaluation.evaluation import correct_examples, evaluate_logits, worst_errors
from lesion.evaluation.findings import (
    calibration_finding,
    faithfulness_finding,
    headline_finding,
    leakage_finding,
    weakest_finding,
)
from lesion.evaluation.probabilities import softmax
from lesion.evaluation.reliability import reliability
from lesion.evaluation.report import DISCLAIMER, RANDOM_WEIGHTS, write_report
from lesion.evaluation.views import Example
from lesion.explanation.faithfulness import RANDOM, Faithfulness

NASTY = ("<script>alert(1)</script>", "Ünïcode näme 脳", "$x_1$ & 'quotes\"", "{{ 7 * 7 }}")
VOID = {"meta", "img", "br", "link", "input", "hr"}


def made(classes=NASTY, n=60, seed=0, strength=1.5, present=None):
    rng = np.random.default_rng(seed)
    labels = rng.integers(present or len(classes), size=n)
    logits = rng.normal(size=(n, len(classes))).astype(np.float32)
    logits[np.arange(n), labels] += strength
    names = [f"folder/<img src=x>{i}.png" for i in range(n)]
    return evaluate_logits(
        logits, labels, np.arange(n) // 2, classes, fit_calibration(logits, labels, classes), paths=names
    )


def shown(evaluation, rows, overlay=True):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return [Example.of(evaluation, int(row), pixels, pixels if overlay else None) for row in rows]


def full(evaluation, history=None):
    classes = evaluation.classes
    return {
        "model": {"backbone": "mobilenetv2_100", "weights": {"source": "none", "sha256": None}, "parameters": 2228996},
        "errors": shown(evaluation, worst_errors(evaluation)),
        "examples": shown(evaluation, correct_examples(evaluation), overlay=False),
        "faithfulness": [
            Faithfulness("gradcam", 0.3, 0.25, 0.1, 0.4, 16, 0.05),
            Faithfulness("eigencam", 0.1, 0.05, -0.1, 0.2, 16, 0.3),
            Faithfulness(RANDOM, 0.05, 0.0, 0.0, 0.0, 16, 0.0),
        ],
        "facts": {
            "name": "phantoms",
            "policy": "grouped",
            "images": {"train": dict.fromkeys(classes, 1200), "test": {classes[0]: 7}},
            "groups": 12,
            "duplicate_groups": 3,
            "excluded": 1,
            "fingerprint": "f" * 64,
            "conflicts": [
                {"path": "a/<b>.png", "label": classes[0], "duplicate_group": 5},
                {"path": "c/d.png", "label": classes[1], "duplicate_group": 5},
            ],
        },
        "leakage": {
            "test_images": 10,
            "leaked": 4,
            "per_class": {classes[0]: {"test": 10, "leaked": 4}, classes[1]: {"test": 0, "leaked": 0}},
            "contact_sheet_png": b"\x89PNG",
            "folder_score": {"test/acc": 0.987654, "test/f1/ece": 0.5, "f1_macro": None},
        },
        "history": history,
        "config": "model:\n  name: <b>bold</b>\n",
        "lineage": {"lesion": "0.1.0", "parent": None},
        "created": datetime(2026, 11, 23, 16, 0, tzinfo=UTC),
    }


class Page(HTMLParser):
    """Collects a page's elements and identifiers, and insists that its tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str | None] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "metrics.csv"
    path.write_text(
        "epoch,step,train/loss,val/loss,val/acc\n0,4,1.0,,\n0,5,,0.9,0.5\n1,9,0.6,,\n1,10,,0.7,0.75\n1,10,,,\n"
    )
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory, history):
    evaluation = made()
    path = write_report(
        tmp_path_factory.mktemp("page") / "new" / "report.html",
        evaluation,
        title="A <i>title</i>",
        **full(evaluation, history),
    )
    return path.read_text("utf-8")


def test_is_self_contained(page):
    for tag, attributes in Page(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "base"}
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert re.match(r"data:image/|#", attributes.get(name, "#")), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_escapes_names(page):
    parsed = Page(page)
    for name in NASTY:
        assert name in parsed.text
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "49" not in [cell.strip() for cell in parsed.text.split("\n")]  # {{ 7 * 7 }} is not computed
    assert "<i>title" not in page
    assert "<b>bold" not in page


def test_every_link_and_identifier_is_good(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    for tag, attributes in parsed.tags:
        target = attributes.get("href" if tag == "a" else "xlink:href", "")
        if target.startswith("#"):
            assert target[1:] in parsed.ids
    for reference in re.findall(r"url\(#([^)]*)\)", page):
        assert reference in parsed.ids


def test_everything_shown_has_words_for_those_who_cannot_see(page):
    parsed = Page(page)
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    drawings = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert images
    assert all(attributes["alt"] for attributes in images)
    assert len(drawings) == 6
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_holds_the_numbers(page, history):
    evaluation, text = made(), Page(page).text
    for key in ("acc", "f1_macro", "nll", "ece"):
        low, high = evaluation.intervals[f"test/{key}"]
        assert f"{evaluation.metrics[f'test/{key}']:.3f}" in text
        assert f"{low:.3f} to {high:.3f}" in text
    assert RANDOM_WEIGHTS in text
    assert DISCLAIMER in text
    assert "0.988" in text  # the score on the data's own split
    assert "1 picture has" in text
    assert "2,228,996" in text
    assert "23 November 2026, 16:00 UTC" in text


@pytest.mark.usefixtures("blank_figures")
def test_sections_without_data_disappear(tmp_path):
    evaluation = made()
    page = write_report(tmp_path / "r.html", evaluation, title="T", model={"weights": {"source": "hub"}}).read_text(
        "utf-8"
    )
    parsed = Page(page)
    assert {"errors", "examples", "faithfulness", "data", "leakage"}.isdisjoint(parsed.ids)
    assert {"summary", "classes", "calibration", "model", "limits"} <= set(parsed.ids)
    assert RANDOM_WEIGHTS not in parsed.text
    assert "Worst errors" not in parsed.text


@pytest.mark.usefixtures("blank_figures")
def test_does_not_claim_a_grouped_split_where_there_is_none(tmp_path):
    evaluation = made()
    sections = full(evaluation)
    claim = "This report’s own split keeps near-duplicates together."
    assert claim in write_report(tmp_path / "r.html", evaluation, title="T", **sections).read_text("utf-8")
    del sections["facts"]["policy"]
    assert claim not in write_report(tmp_path / "r.html", evaluation, title="T", **sections).read_text("utf-8")


def test_same_input_gives_the_same_page(tmp_path, history, page):
    evaluation = made()
    again = write_report(tmp_path / "2.html", evaluation, title="A <i>title</i>", **full(evaluation, history))
    assert again.read_bytes() == page.encode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "n", "strength", "present"),
    [
        (("yes", "no"), 40, 1.0, None),
        (("yes", "no"), 1, 9.0, None),
        (("yes", "no"), 30, 99.0, None),
        (tuple(f"class {i} of a rather long name" for i in range(30)), 200, 1.0, None),
        (("seen", "also seen", "without test images"), 40, 1.0, 2),
        (("only one seen", "other"), 20, -1.0, 1),
    ],
)
def test_unusual_evaluations(tmp_path, classes, n, strength, present):
    evaluation = made(classes, n, strength=strength, present=present)
    page = write_report(tmp_path / "r.html", evaluation, title="T", **full(evaluation)).read_text("utf-8")
    text = Page(page).text
    assert "nan" not in re.sub(r"[A-Za-z-]{4,}", "", text).lower()
    if (evaluation.predictions == evaluation.labels).all():
        assert "misclassified." in text
        assert "Worst errors" not in text


def test_example_images_survive():
    evaluation = made(("x", "y"))
    gradient = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[:, None, None], 60, axis=1).repeat(3, axis=2)
    example = Example.of(evaluation, 3, gradient)
    assert example.label == evaluation.classes[evaluation.labels[3]]
    assert example.confidence == pytest.approx(evaluation.probabilities[3].max())
    data = base64.b64decode(views.image_uri(example.image).split(",")[1])
    difference = np.asarray(Image.open(io.BytesIO(data)), int) - gradient
    assert np.abs(difference).max() <= 6


def test_findings_say_the_numbers():
    # Nine of ten right; the one mistake takes y for x.
    labels = np.array([0] * 6 + [1] * 4)
    logits = 3 * np.eye(2)[labels]
    logits[9] = [2, 0]
    evaluation = evaluate_logits(logits, labels, np.arange(10), ("x", "y"), fit_calibration(logits, labels, "xy"))
    record = evaluation.to_json()
    assert headline_finding(record).startswith("The model classifies 9 of 10 test images correctly, 90.0 %")
    assert headline_finding(record).endswith("most frequent class would be correct for 60.0 %.")
    assert "“y” (F1 0.857)" in weakest_finding(record)
    assert "to predict “x” for “y”: 1 of 4 images." in weakest_finding(record)
    temperature = f"(temperature {evaluation.calibration.temperature:.2f})"
    assert f"calibration on 10 other images {temperature}; the answers remain" in calibration_finding(record)
    confidence = evaluation.probabilities.max(axis=1).mean()
    assert calibration_finding(record).endswith(f"{'over' if confidence > 0.9 else 'under'}-confident.")
    assert leakage_finding({"test_images": 200, "leaked": 50}).startswith("50 of the 200 images (25.0 %)")
    assert leakage_finding({"test_images": 200, "leaked": 0}).startswith("None of the 200")
    scored = {"test_images": 200, "leaked": 50, "folder_accuracy_leaked": 0.98, "folder_accuracy_others": 0.9}
    assert leakage_finding(scored).endswith(" classified 98.0 % of those correctly, and 90.0 % of the others.")
    assert leakage_finding(scored | {"folder_accuracy_others": None}).endswith("memory.")
    rows = [Faithfulness("a", 0.3, 0.2, 0.1, 0.3, 8, 0.1), Faithfulness("b", 0.1, 0.0, -0.1, 0.1, 8, 0.1)]
    assert faithfulness_finding(rows) == "On 8 images, better than a random map: a; not clearly better: b."
    assert "do not rely" in faithfulness_finding(rows[1:])


def test_findings_never_round_to_certainty():
    assert "(under 0.1 %)" in leakage_finding({"test_images": 100_000, "leaked": 1})
    assert "(over 99.9 %)" in leakage_finding({"test_images": 100_000, "leaked": 99_999})


def test_learning_curves_average_an_epoch_and_skip_blanks(history):
    history.write_text(history.read_text() + "1,11,0.8,,\n,12,5.0,,\n2,12,nan,,\n")
    series = plots._series(history)
    assert {key: list(values.items()) for key, values in series.items()} == {
        "train/loss": [(1.0, 1.0), (2.0, 0.7)],
        "val/loss": [(1.0, 0.9), (2.0, 0.7)],
        "val/acc": [(1.0, 0.5), (2.0, 0.75)],
    }
    history.write_text("epoch,step\n")
    assert plots.learning_curves(history) is None


def test_plots_leave_no_global_state_and_can_be_rendered():
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    evaluation = made()
    figures = [
        plots.confusion_matrix(evaluation.confusion, NASTY),
        plots.roc_curves(evaluation.probabilities, evaluation.labels, NASTY),
        plots.pr_curves(evaluation.probabilities, evaluation.labels, NASTY),
        plots.reliability_diagram(
            reliability(softmax(evaluation.logits), evaluation.labels),
            reliability(softmax(evaluation.logits, 2), evaluation.labels),
            [(np.zeros(15), np.ones(15))] * 2,
        ),
        plots.class_distribution({"train": {"a": 3, "b": 1}, "test": {"b": 2}}),
    ]
    for figure in figures:
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        with plots._style():
            figure.savefig(buffer, format="png", dpi=144, facecolor="white")
        image = Image.open(buffer)
        assert image.size[0] > 400
        assert np.asarray(image.convert("L")).std() > 5
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_confusion_matrix_shows_counts_and_shares():
    figure = plots.confusion_matrix(np.array([[3, 1], [0, 0]]), ("x", "y"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["3\n75%", "1\n25%", "0", "0"]


@pytest.mark.usefixtures("blank_figures")
def test_sources_have_their_scores_and_what_they_tell(tmp_path):
    rows = [
        {"source": "PNG, <b>512</b>", "images": 1200, "test_images": 40, "acc": 0.9125, "low": 0.8, "high": 0.97,
         "most_frequent": "x & y", "most_frequent_share": 0.55},
        {"source": "JPEG", "images": 9, "test_images": 0, "acc": float("nan"), "low": float("nan"),
         "high": float("nan"), "most_frequent": "z", "most_frequent_share": 1.0},
    ]  # fmt: skip
    sources = {"rows": rows, "class_told": 0.72, "class_guessed": 0.4}
    html = write_report(tmp_path / "r.html", made(), title="t", model={}, sources=sources).read_text("utf-8")
    assert "told right for 72.0 % of the images; always guessing the most frequent class is right for 40.0 %" in html
    assert "can learn sources instead of diseases" in html
    assert "PNG, &lt;b&gt;512&lt;/b&gt;" in html
    assert "0.800 to 0.970" in html
    assert "x &amp; y (55.0 %)" in html
    assert "Sources say nothing" in findings.sources_finding(0.41, 0.4)
