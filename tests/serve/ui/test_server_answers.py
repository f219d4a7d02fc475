"""The page without a browser when the server answers something special."""

from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from tests.support.servers.browser import Front
from tests.support.servers.page import OpenScreen, download_labels, page_text, tables, version_of
from tests.support.servers.serving import ServerProcess

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

# What the server may say


def test_a_setting_of_the_model_that_is_out_of_bounds_is_left_to_the_server(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    known = models_server.client.get("/retrain_estimate").json()
    defaults = known["defaults"] | {"batch_size": known["bounds"]["batch_size"][1] + 1, "learning_rate": 1e9}
    front.answer("/retrain_estimate", 200, known | {"defaults": defaults})
    page = opened("retrain")
    fields = {field.label: (field.value, field.placeholder) for field in page.number_input}
    assert fields["Batch size"] == fields["Learning rate"] == (None, "the model's own")
    assert fields["Epochs"][0] == defaults["epochs"]


def test_what_is_known_of_a_leak_is_told_from_what_is_not(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    stats = models_server.client.get("/dataset/stats").json()
    assert stats["leakage_known"]
    front.answer("/dataset/stats", 200, stats | {"leakage": None})
    assert "came without a test split" in page_text(opened("data"))
    front.pass_on()
    front.answer("/dataset/stats", 200, stats | {"leakage": None, "leakage_known": False})
    st.cache_data.clear()
    assert "It is not known here whether" in page_text(opened("data"))


def test_a_model_that_was_followed_by_another_is_not_called_in_use(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    jobs, ledger = models_server.client.get("/retrain_jobs").json(), models_server.client.get("/deployments").json()
    front.answer("/retrain_jobs", 200, [job for job in jobs if job["state"] == "promoted"])

    def told() -> list[str]:
        st.cache_data.clear()
        admin = opened("admin")
        next(box for box in admin.selectbox if box.label == "Retraining to look at").select_index(0).run()
        sentences = page_text(admin).split("\n") + page_text(opened("retrain")).split("\n")
        return [sentence for sentence in sentences if sentence.startswith("The new model was proved better")]

    assert told() == ["The new model was proved better and is in use."] * 2
    front.answer("/deployments", 200, [*ledger, ledger[0] | {"action": "rollback", "rollback_to": None}])
    assert told() == ["The new model was proved better and was put into use."] * 2


def test_a_verdict_is_told_in_plain_words(opened: OpenScreen, front: Front, models_server: ServerProcess) -> None:
    job = models_server.client.get("/retrain_jobs").json()[0]
    summary = {"why": "It *was* not proved better.", "next_steps": ["Upload more.", "Then retrain."]}
    rules = [{"generation": 1, "selection": "imported", "sentence": "It came with the first model."}]
    check = {"passed": False, "outcome": "fails", "sentence": "The macro-F1 is 0.9."}
    verdict = {"summary": summary, "checks": [check], "rules": rules, "comparisons": []}
    front.answer("/retrain_jobs", 200, [job | {"state": "rejected", "reason": summary["why"], "verdict": verdict}])
    st.cache_data.clear()
    shown = opened("retrain")
    told = page_text(shown)
    assert "The new model was not promoted; the model in use stays.\n\nIt *was* not proved better." in told
    assert "**What to do next**\n\n- Upload more.\n- Then retrain." in told
    assert "Generation 1: It came with the first model." in told
    assert tables(shown)[0] == [{"Holds": "no", "Condition": "The macro-F1 is 0.9."}]


def test_what_a_retraining_could_prove_is_told_before_it_is_started(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    known = models_server.client.get("/retrain_estimate").json()
    summary = {"why": "The gate set is too small.", "next_steps": ["Upload 40 more."]}
    front.answer("/retrain_estimate", 200, known | {"summary": summary, "would_train": False})
    st.cache_data.clear()
    told = page_text(opened("retrain"))
    assert "No new model could be promoted now, so a retraining would end without training one." in told
    assert told.index("The gate set is too small.") < told.index("- Upload 40 more.")
    assert "default settings of the gate" in told
    front.pass_on()
    front.answer("/retrain_estimate", 200, known | {"would_train": True, "gate_settings": "worker"})
    st.cache_data.clear()
    told = page_text(opened("retrain"))
    assert "No new model could be promoted now" not in told
    assert "default settings of the gate" not in told


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (9, "No challenger was compared with a champion yet."),
        (50, "No challenger was compared with a champion yet."),
        (200, "Of the last 200 retrainings, no challenger was compared with a champion yet."),
    ],
)
def test_retrainings_are_looked_through_for_a_challenger(
    opened: OpenScreen, front: Front, models_server: ServerProcess, number: int, words: str
) -> None:
    job = next(job for job in models_server.client.get("/retrain_jobs").json() if job["state"] == "promoted")
    failed = job | {"state": "failed", "verdict": None}
    front.answer("/retrain_jobs", 200, [failed | {"job_id": f"{place:032x}"} for place in range(number)])
    assert words in page_text(opened("model"))
    these = "9 retrainings: 9 failed." if number < 50 else f"The last {number} retrainings: {number} failed."
    assert these in page_text(opened("admin"))


def test_a_model_that_was_not_calibrated_is_not_called_so(
    opened: OpenScreen, front: Front, models_server: ServerProcess, versions: list[Path]
) -> None:
    assert "Calibrated with temperature 1.00, fitted on 10 images." in page_text(opened("model"))
    path = f"/models/{version_of(versions[1])}"
    front.answer(f"{path}/evaluation", 404, {"detail": "None.", "code": "artefact_missing"})
    front.answer(path, 200, models_server.client.get(path).json() | {"calibration": {"temperature": 1.0}})
    st.cache_data.clear()
    words = page_text(opened("model"))
    assert "Not calibrated." in words
    assert "Calibrated with" not in words


def test_names_of_strangers_are_shown_as_they_are(
    opened: OpenScreen, front: Front, models_server: ServerProcess, versions: list[Path]
) -> None:
    version = version_of(versions[1])
    facts = models_server.client.get(f"/models/{version}").json()
    data = facts["data"] | {"images": {"train": {"*a*": 3, "![b](http://e.org)": 1}}}
    front.answer(f"/models/{version}/evaluation", 404, {"detail": "None.", "code": "artefact_missing"})
    front.answer(f"/models/{version}", 200, facts | {"data": data})
    rows = tables(opened("model"))[0]
    assert [row["Class"] for row in rows] == [r"\*a\*", r"!\[b\](http://e.org)"]


# A thousand classes


def thousand(document: dict[str, Any]) -> dict[str, Any]:
    """An evaluation of a thousand classes, of which class number k is right k times of a thousand."""
    names = [f"c{number:03}" for number in range(1000)]
    matrix = [[0] * 1000 for _ in names]
    for number, row in enumerate(matrix):
        row[number] = number
        row[(number + 500) % 1000] += 1000 - number
    metrics = {f"test/f1/{name}": number / 1000 for number, name in enumerate(names)}
    scores = {name: value for name, value in document["metrics"].items() if name.count("/") == 1}
    return document | {
        "classes": names, "confusion_matrix": matrix, "metrics": scores | metrics, "images": 10**6, "curves": None,
    }  # fmt: skip


def test_of_too_many_classes_the_worst_are_shown(
    opened: OpenScreen, front: Front, models_server: ServerProcess, versions: list[Path]
) -> None:
    path = f"/models/{version_of(versions[1])}/evaluation"
    front.answer(path, 200, thousand(models_server.client.get(path).json()))
    page = opened("model")
    words = page_text(page)
    assert words.count("Only the 30 classes with the lowest F1 are shown, of 1,000.") == 2
    assert list(page.dataframe[0].value["Class"]) == [f"c{number:03}" for number in range(30)]
    counts = page.dataframe[1].value
    assert counts.shape == (30, 31)
    assert counts.loc["c007", "any other class"] == 993
    assert counts.loc["c007", "c007"] == 7
    assert "The weakest class is “c000”" in words
    assert "Download all as CSV" in download_labels(page)


def test_of_too_many_classes_the_data_shows_the_rarest(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    stats = models_server.client.get("/dataset/stats").json()
    classes, box = stats["classes"][0], stats["brightness"][0]
    names = [f"c{number:03}" for number in range(1000)]
    many = {
        "classes": [classes | {"label": name, "images": 1000 - place} for place, name in enumerate(names)],
        "brightness": [box | {"label": name, "median": place / 4} for place, name in enumerate(names)],
    }
    front.answer("/dataset/stats", 200, stats | many)
    page = opened("data")
    words = page_text(page)
    assert [row["Class"] for row in tables(page)[0]] == names[:-31:-1]
    assert "Only the 30 classes with the fewest images are shown, of 1,000." in words
    assert "Only the 30 classes that are brightest or darkest are shown, of 1,000." in words
    assert "Only the 30 classes with the largest share in groups are shown, of 1,000." in words
