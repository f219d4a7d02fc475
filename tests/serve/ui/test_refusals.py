"""The page without a browser, when one of its requests is refused: it says so there, and all else goes on."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from lesion.client import Client
from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from serve.ui.error_messages import undone
from serve.ui.session import ADDRESS
from tests.support.browser import Front
from tests.support.loop_images import put_picture
from tests.support.page import (
    buttons,
    drop,
    evaluated,
    going_back,
    photo,
    press,
    said,
    select,
    tables,
    two_models,
    version_of,
)
from tests.support.paths import REPOSITORY
from tests.support.serving import ServerProcess, free_port

Opening = Callable[..., AppTest]
APP = REPOSITORY / "serve" / "ui" / "app.py"
BUSY, SPENT = (503, "server_busy"), (429, "rate_limited")
NOT_DONE = "This was not done. Try again."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def versions(root: Path) -> list[Path]:
    return [evaluated(root / f"version{number}", 0.05 + number / 100) for number in range(2)]


@pytest.fixture(scope="module")
def storage(root: Path, versions: list[Path]) -> Iterator[Storage]:
    made = two_models(root, versions, 12)
    yield made
    made.engine.dispose()


@pytest.fixture(scope="module")
def waiting(storage: Storage, root: Path) -> str:
    """An image in quarantine."""
    return put_picture(storage, root, 7000, "dark", status="quarantined", reason_code="disputed", reason="Odd.")


@pytest.fixture(scope="module")
def server(root: Path, storage: Storage, waiting: str, versions: list[Path]) -> Iterator[ServerProcess]:
    settings = ("storage=local", f"storage_root={root / 'loop'}", "worker=false", "server.workers=1")
    with ServerProcess(versions[1], *settings) as running:
        yield running


@pytest.fixture
def front(server: ServerProcess) -> Iterator[Front]:
    """Stands between the page and the server, at an address of its own for each test."""
    with Front(server.url) as stands:
        yield stands


@pytest.fixture
def opened(front: Front, monkeypatch: pytest.MonkeyPatch) -> Opening:
    """Run a piece of the page, by default a page's ``show``, as a new session would; all of it without a name."""
    monkeypatch.setenv(ADDRESS, front.url)
    st.cache_data.clear()

    def opening(module: str = "", call: str = "show(connect())") -> AppTest:
        if not module:
            return AppTest.from_file(APP, default_timeout=30).run()
        script = (
            f"from serve.ui import {module}\nfrom serve.ui.error_messages import guarded\n"
            f"from serve.ui.session import connect\nwith guarded():\n    {module}.{call}\n"
        )
        return AppTest.from_string(script, default_timeout=30).run()

    return opening


def titles(page: AppTest) -> list[str]:
    """What the errors on a page are called."""
    return [error.proto.title for error in page.error]


# What is read


@pytest.mark.parametrize(
    ("name", "path", "goes_on"),
    [
        ("visualizations", "/dataset/montage", ["Classes", "Images", "Near-duplicates", "Uploads"]),
        ("training", "/training_data", ["Upload", "Retrain"]),
        ("training", "/retrain_estimate", ["Upload", "There is nothing new to learn from"]),
        ("model", "/models/{version}/evaluation", ["Champion against challenger", "Papers and files"]),
        ("model", "/retrain_jobs", ["How good it is", "Champion against challenger", "Papers and files"]),
        ("admin", "/deployments", ["Model in use", "Quarantine", "Retrainings", "API keys", "Traffic"]),
        ("admin", "/quarantine", ["serves since", "1 retraining: 1 promoted.", "There are no keys", "Traffic"]),
        ("admin", "/retrain_jobs", ["serves since", "1 image waits", "There are no keys", "Traffic"]),
        ("admin", "/keys", ["serves since", "1 image waits", "1 retraining: 1 promoted.", "Traffic"]),
        ("admin", "/statistics", ["serves since", "1 image waits", "There are no keys", "Traffic"]),
    ],
)
def test_one_refusal_leaves_the_rest_of_the_page(
    opened: Opening, front: Front, versions: list[Path], name: str, path: str, goes_on: list[str]
) -> None:
    front.refuse(*BUSY, path.format(version=version_of(versions[1])))
    page = opened(name)
    words = said(page)
    assert titles(page) == ["The server is not ready"]
    assert "The stand-in refuses this with 503. This page tries again by itself" in words.replace("\n\n", " ")
    assert [part for part in goes_on if part not in words] == []
    front.pass_on()
    press(page, "Try again")
    assert not page.error


def test_an_image_that_is_not_answered_now_is_asked_for_again(opened: Opening, front: Front) -> None:
    front.refuse(*BUSY, "/predict")
    page = drop(opened("predict"), ("one.png", photo(1)))
    assert titles(page) == ["The server is not ready"]
    assert "Looking again every 2 seconds …" in said(page)
    front.pass_on()
    press(page, "Try again")
    assert page.subheader[0].value == "bright"


def test_two_parts_that_are_refused_at_once_both_say_so(opened: Opening, front: Front) -> None:
    front.refuse(*BUSY, "/training_data")
    front.refuse(*BUSY, "/info")
    page = opened("training")
    assert titles(page) == ["The server is not ready"] * 2
    assert [button.label for button in page.button].count("Try again") == 2
    front.pass_on()
    front.refuse(401, "key_unknown", "/dataset/montage")
    front.refuse(401, "key_unknown", "/info")
    st.cache_data.clear()
    page = opened("visualizations")
    assert titles(page) == ["You are not signed in"] * 2
    assert [button.label for button in page.button].count("Sign in") == 2


def test_what_every_part_would_meet_ends_the_page_at_the_first(opened: Opening, front: Front) -> None:
    front.refuse(*SPENT, "/quarantine")
    page = opened("admin")
    assert titles(page) == ["Too many requests"]
    assert "Wait a little. This page tries again by itself every ten seconds." in page.error[0].value
    assert [header.value for header in page.header] == ["Model in use", "Quarantine"]


@pytest.mark.parametrize("status", [422, 503])
def test_an_image_whose_picture_cannot_be_shown_can_be_decided_on(
    opened: Opening, front: Front, waiting: str, status: int
) -> None:
    front.refuse(status, "odd", f"/quarantine/{waiting}/thumbnail")
    page = opened("admin")
    assert page.warning[0].value == f"The stand-in refuses this with {status}."
    assert not page.error
    assert buttons(page)["Release"]
    assert "Uploaded as **dark**" in said(page)
    assert "Traffic" in said(page)


def test_a_server_that_cannot_predict_is_there_for_all_else(
    opened: Opening, front: Front, server: ServerProcess, storage: Storage
) -> None:
    health = server.client.get("/health").json()
    front.answer("/health", 503, health | {"status": "unavailable", "ready": False})
    front.refuse(503, "no_worker_ready", "/predict")
    page = opened()
    assert page.title[0].value == "Predict"
    assert not page.error
    drop(page, ("one.png", photo(1)))
    assert titles(page) == ["The server cannot predict now"]
    admin = opened("admin")
    assert not admin.error
    assert buttons(admin)["Roll back"]
    assert tables(opened("model"))


def test_a_proxy_that_answers_503_is_no_server(opened: Opening, front: Front) -> None:
    front.answer("/health", 503, ["no", "server"])
    assert titles(opened("admin")) == ["The server is not ready"]


# What is done


def test_a_refused_click_says_that_it_was_not_done() -> None:
    away = LesionError("It is so.", code="server_away", status=503)
    with pytest.raises(LesionError) as unreached:
        Client(f"http://127.0.0.1:{free_port()}").call("POST", "/rollback")
    assert undone(unreached.value) == NOT_DONE
    unknown = "Whether this was done is not known: look before you try again."
    assert undone(away) == unknown  # it may have gone while it was at it
    assert undone(LesionError("It is so.", code="timed_out", status=504)) == unknown
    assert undone(LesionError("It is so.", code="answer_not_understood", status=502)) == unknown
    assert undone(LesionError("It is so.", code="champion_changed", status=409)) == "This was not done."


def fill(page: AppTest, text: str) -> AppTest:
    page.text_input[0].set_value(text)
    return page


def click(front: Front, page: AppTest, label: str, asked: str, refusal: tuple[int, str]) -> None:
    """Press a button whose request is refused: it is said, and nobody sends it again."""
    front.refuse(*refusal, asked.split()[1])
    press(page, label)
    said(page)
    assert len(page.error) == 1
    assert f"The stand-in refuses this with {refusal[0]}.\n\n{NOT_DONE}" in page.error[0].value
    assert "by itself" not in page.error[0].value
    assert not any("Looking again" in caption.value for caption in page.caption)
    page.run()
    assert front.asked.count(asked) == 1


@pytest.mark.parametrize("refusal", [BUSY, SPENT])
def test_changes_that_are_refused_are_not_done_later(
    opened: Opening, front: Front, server: ServerProcess, storage: Storage, waiting: str, versions: list[Path],
    refusal: tuple[int, str],
) -> None:  # fmt: skip
    ledger, first = Registry(storage).history(), version_of(versions[0])
    page = fill(opened("deploying", going_back(server)), "why not")
    click(front, page, "Roll back now", "POST /rollback", refusal)
    page = fill(opened("deploying", f"promote(connect(), '{first}', {ledger[-1].id})"), "why not")
    click(front, page, "Promote now", f"POST /models/{first}/promote", refusal)
    page = fill(opened("quarantine", f"drop(connect(), '{waiting}')"), "a thumb")
    click(front, page, "Drop now", f"POST /quarantine/{waiting}/drop", refusal)
    click(front, opened("quarantine"), "Release", f"POST /quarantine/{waiting}/release", refusal)
    page = opened("keys", "revoke(connect(), {'id': 'abc', 'name': 'ann'})")
    click(front, page, "Revoke now", "DELETE /keys/abc", refusal)
    click(front, fill(opened("keys"), "ann"), "Make the key", "POST /keys", refusal)
    click(front, opened("training"), "Start retraining", "POST /retrain", refusal)
    page = drop(opened("predict"), ("one.png", photo(1)))
    click(front, page, "Agree", "POST /feedback", refusal)
    assert [row.id for row in Registry(storage).history()] == [row.id for row in ledger]


def test_a_retraining_that_cannot_be_cancelled_says_so_until_somebody_clicks(
    opened: Opening, front: Front, server: ServerProcess
) -> None:
    with Client(server.url) as client:
        job_id = client.retrain(epochs=2)["job_id"]
        try:
            click(front, opened("training"), "Cancel the retraining", f"DELETE /retrain_jobs/{job_id}", BUSY)
        finally:
            client.cancel(job_id)


def test_a_rollback_of_another_champion_than_was_shown_is_refused(
    opened: Opening, storage: Storage, server: ServerProcess
) -> None:
    ledger = Registry(storage).history()
    stale = going_back(server).replace(f"'id': {ledger[-1].id}", f"'id': {ledger[0].id}")
    page = press(fill(opened("deploying", stale), "too slow"), "Roll back now")
    assert titles(page) == ["This cannot be done now"]
    assert page.error[0].value.endswith("This was not done.")
    assert len(Registry(storage).history()) == len(ledger)


def test_an_image_that_somebody_else_released_under_another_class_stays_as_it_is(
    opened: Opening, storage: Storage, server: ServerProcess, root: Path
) -> None:
    sha256 = put_picture(storage, root, 7001, "dark", status="quarantined", reason_code="disputed", reason="Odd.")
    page = opened("quarantine")
    server.client.post(f"/quarantine/{sha256}/release", json={"label": "bright"}).raise_for_status()
    page.button(key=f"release-{sha256}").click().run()
    assert titles(page) == ["This cannot be done now"]
    assert "is accepted as bright already" in page.error[0].value
    assert not page.toast


def test_of_retrainings_of_the_same_minute_the_chosen_one_is_shown(
    opened: Opening, front: Front, server: ServerProcess
) -> None:
    job = next(job for job in server.client.get("/retrain_jobs").json() if job["state"] == "promoted")
    twins = [job | {"job_id": f"{place}" * 32, "reason": f"Reason {place}."} for place in range(2)]
    front.answer("/retrain_jobs", 200, twins)
    page = opened("admin")
    for place in range(2):
        next(box for box in page.selectbox if box.label == "Retraining to look at").select_index(place).run()
        assert f"Reason {place}." in said(page)


def test_a_bundle_is_fetched_in_sight_of_the_page(opened: Opening, front: Front, versions: list[Path]) -> None:
    page = opened("model")
    click(front, page, "Fetch the bundle", f"GET /models/{version_of(versions[1])}/bundle", BUSY)
    front.pass_on()
    press(page, "Fetch the bundle")
    assert not page.error
    assert "Download the bundle" in [each.proto.label for each in page.get("download_button")]


# Uploads


def uploading(opened: Opening, *files: tuple[str, bytes]) -> AppTest:
    return select(drop(opened("training"), *files), "Class of these images", "bright")


def test_an_upload_that_is_broken_off_never_looks_whole(opened: Opening, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(300, 360)]
    page = uploading(opened, *files)
    front.refuse(*BUSY, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert titles(page) == ["The server is not ready"]
    assert "by itself" not in page.error[0].value
    here = "50 of 60 files sent; the rest was not. Press the button again: only the rest is sent."
    assert [warning.value for warning in page.warning] == [here, "50 of 50 files accepted."]
    assert not page.success
    front.pass_on()
    press(page, "Upload 60 files")
    assert [success.value for success in page.success] == ["60 of 60 files accepted."]
    assert not page.warning
    assert not page.error
    assert front.asked.count("POST /upload_training_data") == 3


def test_an_upload_whose_files_are_gone_asks_for_them_again(opened: Opening, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(400, 460)]
    page = uploading(opened, *files)
    front.refuse(*SPENT, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    front.pass_on()
    page.file_uploader[0].set_value([]).run()  # as after a look at another page
    gone = "50 of 60 files sent; the rest was not. Drop the files again: what was taken is not taken twice."
    assert page.warning[0].value == gone
    assert not page.success
    press(drop(page, *files), "Upload 60 files")
    assert [success.value for success in page.success] == ["60 of 60 files accepted."]
    assert not page.warning
    press(select(drop(page, ("new.png", photo(461))), "Class of these images", "bright"), "Upload 1 file")
    assert [success.value for success in page.success] == ["1 of 1 file accepted."]


def test_the_group_of_an_upload_stays_until_it_is_whole(opened: Opening, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(600, 660)]
    page = opened("training", "show(connect()) if not training.st.session_state.get('away') else None")
    select(drop(page, *files), "Class of these images", "bright")
    page.text_input[0].set_value("patient a").run()
    front.refuse(*BUSY, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert page.text_input[0].value == "patient a"
    front.pass_on()
    for away in (True, False):  # a look at another page
        page.session_state["away"] = away
        page.run()
    assert page.text_input[0].value == "patient a"
    press(select(drop(page, *files), "Class of these images", "bright"), "Upload 60 files")
    assert [success.value for success in page.success] == ["60 of 60 files accepted."]
    assert page.text_input[0].value == ""  # what follows is perhaps of another patient
    assert next(box for box in page.selectbox if box.label == "Class of these images").value == "bright"


def test_of_files_that_are_too_large_together_only_the_one_that_is_by_itself_is_refused(
    opened: Opening, front: Front
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(150, 250, (300, 300, 3), np.uint8)).save(buffer, "PNG")
    files = [(f"{seed}.png", photo(seed)) for seed in range(500, 507)]
    front.refuse(413, "body_too_large", "/upload_training_data", least=len(buffer.getvalue()))
    page = uploading(opened, *files[:3], ("large.png", buffer.getvalue()), *files[3:])
    press(page, "Upload 8 files")
    table = page.dataframe[0].value
    assert list(table["Outcome"]) == ["Refused", *["Accepted"] * 7]
    assert list(table.iloc[0]) == ["large.png", "Refused", "The stand-in refuses this with 413."]
    assert front.asked.count("POST /upload_training_data") == 7  # 8, 4, 2, 1 and 1 of them, 2, 4
    assert "7 of 8 files accepted, 1 refused." in said(page)


def test_the_form_says_how_much_a_zip_may_hold(opened: Opening, server: ServerProcess) -> None:
    assert server.client.get("/info").json()["limits"]["max_archive_entries"] == 1000
    assert "1,000 files and folders at most" in opened("training").file_uploader[0].label


# What the server may say


def test_a_setting_of_the_model_that_is_out_of_bounds_is_left_to_the_server(
    opened: Opening, front: Front, server: ServerProcess
) -> None:
    known = server.client.get("/retrain_estimate").json()
    defaults = known["defaults"] | {"batch_size": known["bounds"]["batch_size"][1] + 1, "learning_rate": 1e9}
    front.answer("/retrain_estimate", 200, known | {"defaults": defaults})
    page = opened("training")
    fields = {field.label: (field.value, field.placeholder) for field in page.number_input}
    assert fields["Batch size"] == fields["Learning rate"] == (None, "the model's own")
    assert fields["Epochs"][0] == defaults["epochs"]


def test_what_is_known_of_a_leak_is_told_from_what_is_not(opened: Opening, front: Front, server: ServerProcess) -> None:
    stats = server.client.get("/dataset/stats").json()
    assert stats["leakage_known"]
    front.answer("/dataset/stats", 200, stats | {"leakage": None})
    assert "came without a test split of its own" in said(opened("visualizations"))
    front.pass_on()
    front.answer("/dataset/stats", 200, stats | {"leakage": None, "leakage_known": False})
    st.cache_data.clear()
    assert "whether that leaks, is not known here" in said(opened("visualizations"))


def test_a_model_that_was_followed_by_another_is_not_called_in_use(
    opened: Opening, front: Front, server: ServerProcess
) -> None:
    jobs, ledger = server.client.get("/retrain_jobs").json(), server.client.get("/deployments").json()
    front.answer("/retrain_jobs", 200, [job for job in jobs if job["state"] == "promoted"])

    def told() -> list[str]:
        st.cache_data.clear()
        admin = opened("admin")
        next(box for box in admin.selectbox if box.label == "Retraining to look at").select_index(0).run()
        sentences = said(admin).split("\n") + said(opened("training")).split("\n")
        return [sentence for sentence in sentences if "proved better" in sentence]

    assert told() == ["The new model was proved better and is in use."] * 2
    front.answer("/deployments", 200, [*ledger, ledger[0] | {"action": "rollback", "rollback_to": None}])
    assert told() == ["The new model was proved better and was put to use."] * 2


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (9, "No challenger was compared with a champion yet."),
        (50, "No challenger was compared with a champion yet."),
        (200, "Of the last 200 retrainings no challenger was compared with a champion yet."),
    ],
)
def test_retrainings_are_looked_through_for_a_challenger(
    opened: Opening, front: Front, server: ServerProcess, number: int, words: str
) -> None:
    job = next(job for job in server.client.get("/retrain_jobs").json() if job["state"] == "promoted")
    failed = job | {"state": "failed", "verdict": None}
    front.answer("/retrain_jobs", 200, [failed | {"job_id": f"{place:032x}"} for place in range(number)])
    assert words in said(opened("model"))
    these = "9 retrainings: 9 failed." if number < 50 else f"The last 50 retrainings: {number} failed."
    assert these in said(opened("admin"))


def test_a_model_that_was_not_calibrated_is_not_called_so(
    opened: Opening, front: Front, server: ServerProcess, versions: list[Path]
) -> None:
    assert "Calibrated with temperature 1.00, fitted on 10 images." in said(opened("model"))
    path = f"/models/{version_of(versions[1])}"
    front.answer(f"{path}/evaluation", 404, {"detail": "None.", "code": "artefact_missing"})
    front.answer(path, 200, server.client.get(path).json() | {"calibration": {"temperature": 1.0}})
    st.cache_data.clear()
    words = said(opened("model"))
    assert "Not calibrated." in words
    assert "Calibrated with" not in words


def test_names_of_strangers_are_shown_as_they_are(
    opened: Opening, front: Front, server: ServerProcess, versions: list[Path]
) -> None:
    version = version_of(versions[1])
    facts = server.client.get(f"/models/{version}").json()
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
    opened: Opening, front: Front, server: ServerProcess, versions: list[Path]
) -> None:
    path = f"/models/{version_of(versions[1])}/evaluation"
    front.answer(path, 200, thousand(server.client.get(path).json()))
    page = opened("model")
    words = said(page)
    assert words.count("Shown are the 30 classes with the lowest F1, of 1,000.") == 2
    assert list(page.dataframe[0].value["Class"]) == [f"c{number:03}" for number in range(30)]
    counts = page.dataframe[1].value
    assert counts.shape == (30, 31)
    assert counts.loc["c007", "any other class"] == 993
    assert counts.loc["c007", "c007"] == 7
    assert "c000 is told apart worst" in words
    assert "Download all as CSV" in [each.proto.label for each in page.get("download_button")]


def test_of_too_many_classes_the_data_shows_the_rarest(opened: Opening, front: Front, server: ServerProcess) -> None:
    stats = server.client.get("/dataset/stats").json()
    classes, box = stats["classes"][0], stats["brightness"][0]
    names = [f"c{number:03}" for number in range(1000)]
    many = {
        "classes": [classes | {"label": name, "images": 1000 - place} for place, name in enumerate(names)],
        "brightness": [box | {"label": name, "median": place / 4} for place, name in enumerate(names)],
    }
    front.answer("/dataset/stats", 200, stats | many)
    page = opened("visualizations")
    words = said(page)
    assert [row["Class"] for row in tables(page)[0]] == names[:-31:-1]
    assert "Shown are the 30 classes with the fewest images, of 1,000." in words
    assert "Shown are the 30 classes that are brightest or darkest, of 1,000." in words
    assert "Shown are the 30 classes with the largest share in groups, of 1,000." in words
