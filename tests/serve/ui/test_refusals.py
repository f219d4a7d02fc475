"""The page without a browser when one of its requests is refused: it tells so, and everything else works."""

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lesion.client import Client, ResponseError, ServerTimeoutError, ServerUnavailableError, UnexpectedResponseError
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from serve.deploy.ports import free_port
from serve.ui.error_messages import describe_failed_click
from tests.support.images.loop_images import put_disputed
from tests.support.servers.browser import Front
from tests.support.servers.page import (
    OpenScreen,
    buttons,
    download_labels,
    drop_files,
    error_titles,
    going_back,
    page_text,
    photo,
    press,
    tables,
    version_of,
)
from tests.support.servers.serving import ServerProcess, eventually

# Every test here needs a server, with an image in quarantine.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("waiting")]

BUSY, SPENT = (503, "server_busy"), (429, "rate_limited")
NOT_DONE = "This was not done. Try again."


# What is read


@pytest.mark.parametrize(
    ("name", "path", "goes_on"),
    [
        ("data", "/dataset/montage", ["Classes", "Images", "Near-duplicates", "Uploads"]),
        ("retrain", "/training_data", ["Upload", "Retrain"]),
        ("retrain", "/retrain_estimate", ["Upload", "learn from"]),
        ("model", "/models/{version}/evaluation", ["Champion against challenger", "Documents and files"]),
        ("model", "/retrain_jobs", ["How good it is", "Champion against challenger", "Documents and files"]),
        ("admin", "/deployments", ["Model in use", "Quarantine", "Retrainings", "API keys", "Traffic"]),
        ("admin", "/quarantine", ["in use since", "1 promoted", "There are no keys", "Traffic"]),
        ("admin", "/retrain_jobs", ["in use since", "1 image waits", "There are no keys", "Traffic"]),
        ("admin", "/keys", ["in use since", "1 image waits", "1 promoted", "Traffic"]),
        ("admin", "/statistics", ["in use since", "1 image waits", "There are no keys", "Traffic"]),
    ],
)
def test_one_refusal_leaves_the_rest_of_the_page(
    opened: OpenScreen, front: Front, versions: list[Path], name: str, path: str, goes_on: list[str]
) -> None:
    front.refuse(*BUSY, path.format(version=version_of(versions[1])))
    page = opened(name)
    words = page_text(page)
    assert error_titles(page) == ["The server is not ready"]
    assert "The stand-in refuses this with 503. This page tries again by itself" in words.replace("\n\n", " ")
    assert [part for part in goes_on if part not in words] == []
    front.pass_on()
    press(page, next(button.label for button in page.button if button.label.startswith("Try again")))
    assert not page.error


@pytest.mark.parametrize("refusal", [BUSY, SPENT])
def test_an_image_that_is_not_answered_now_is_asked_for_again(
    opened: OpenScreen, front: Front, refusal: tuple[int, str]
) -> None:
    front.retry_after = 1
    front.refuse(*refusal, "/predict", after=1)
    files = [(f"{seed}.png", photo(seed)) for seed in range(1, 4)]
    page = drop_files(opened("predict.page"), *files)
    (line,) = page.warning
    assert "images wait. They are sent again without a click in 1 second." in line.value
    assert not page.error
    assert "1 image classified" in page_text(page)  # what was answered is there
    front.pass_on()
    eventually(lambda: "3 images classified" in page_text(page.run()))
    assert not page.warning
    answered = [asked for asked in front.asked if asked == "POST /predict"]
    assert len(answered) <= 1 + 3 + 2  # the first, those that were refused, and those two again


def test_images_that_wait_are_kept_when_a_user_stops_that(opened: OpenScreen, front: Front) -> None:
    front.refuse(*BUSY, "/predict")
    page = drop_files(opened("predict.page"), ("one.png", photo(1)))
    press(page, "Stop sending")
    eventually(lambda: not page.session_state["predictions"].sending.active)
    page.run()
    assert page.warning[0].value == "0 of 1 image sent; 1 was not and is kept here."
    front.pass_on()
    asked = len(front.asked)
    page.run()
    assert "POST /predict" not in front.asked[asked:]
    press(page, "Send the rest")
    assert page.subheader[0].value == "bright"


def test_two_parts_that_are_refused_at_once_both_say_so(opened: OpenScreen, front: Front) -> None:
    front.refuse(*BUSY, "/training_data")
    front.refuse(*BUSY, "/info")
    page = opened("retrain")
    assert error_titles(page) == ["The server is not ready"] * 2
    labels = [button.label for button in page.button if button.label.startswith("Try again")]
    assert labels == ["Try again (uploading)", "Try again (retraining)"]
    front.pass_on()
    front.refuse(401, "key_unknown", "/dataset/montage")
    front.refuse(401, "key_unknown", "/info")
    st.cache_data.clear()
    page = opened("data")
    assert error_titles(page) == ["You are not signed in"] * 2
    labels = [button.label for button in page.button if button.label.startswith("Sign in")]
    assert labels == ["Sign in (montage)", "Sign in"]


def test_what_every_part_would_meet_ends_the_page_at_the_first(opened: OpenScreen, front: Front) -> None:
    front.refuse(*SPENT, "/quarantine")
    page = opened("admin")
    assert error_titles(page) == ["Too many requests"]
    assert "Wait a little. This page tries again by itself every ten seconds." in page.error[0].value
    assert [header.value for header in page.header] == ["Model in use", "Quarantine"]


@pytest.mark.parametrize("status", [422, 503])
def test_an_image_whose_picture_cannot_be_shown_can_be_decided_on(
    opened: OpenScreen, front: Front, waiting: str, status: int
) -> None:
    front.refuse(status, "odd", f"/quarantine/{waiting}/thumbnail")
    page = opened("admin")
    assert page.warning[0].value == f"The stand-in refuses this with {status}."
    assert not page.error
    assert buttons(page)["Release image 1"]
    assert "Uploaded as **dark**" in page_text(page)
    assert "Traffic" in page_text(page)


def test_a_server_that_cannot_predict_is_there_for_all_else(
    opened: OpenScreen, front: Front, models_server: ServerProcess, models_storage: Storage
) -> None:
    health = models_server.client.get("/health").json()
    front.answer("/health", 503, health | {"status": "unavailable", "ready": False})
    front.refuse(503, "no_worker_ready", "/predict")
    page = opened()
    assert page.title[0].value == "Predict"
    assert not page.error
    drop_files(page, ("one.png", photo(1)))
    assert page.warning[0].proto.title == "The server cannot predict now"
    admin = opened("admin")
    assert not admin.error
    assert buttons(admin)["Roll back"]
    assert tables(opened("model"))


def test_a_proxy_that_answers_503_is_no_server(opened: OpenScreen, front: Front) -> None:
    front.answer("/health", 503, ["no", "server"])
    assert error_titles(opened("admin")) == ["The server is not ready"]


# What is done


def test_a_refused_click_says_that_it_was_not_done() -> None:
    with pytest.raises(ServerUnavailableError) as unreached:
        Client(f"http://127.0.0.1:{free_port()}").call("POST", "/rollback")
    assert describe_failed_click(unreached.value) == NOT_DONE
    unknown = "It is not known whether this was done: check before you try again."
    # Of an error without a cause nobody knows that the server was never reached.
    for error in (ServerUnavailableError("It is so."), ServerTimeoutError("It is so."), UnexpectedResponseError("")):
        assert describe_failed_click(error) == unknown
    conflict = ResponseError("It is so.", code="champion_changed", status=409)
    assert describe_failed_click(conflict) == "This was not done."


def fill(page: AppTest, text: str) -> AppTest:
    page.text_input[0].set_value(text)
    return page


def click(front: Front, page: AppTest, label: str, asked: str, refusal: tuple[int, str]) -> None:
    """Press a button whose request is refused: it is said, and nobody sends it again."""
    front.refuse(*refusal, asked.split()[1])
    press(page, label)
    page_text(page)
    assert len(page.error) == 1
    assert f"The stand-in refuses this with {refusal[0]}.\n\n{NOT_DONE}" in page.error[0].value
    assert "by itself" not in page.error[0].value
    assert not any("Checking again" in caption.value for caption in page.caption)
    page.run()
    assert front.asked.count(asked) == 1


@pytest.mark.parametrize("refusal", [BUSY, SPENT])
def test_changes_that_are_refused_are_not_done_later(
    opened: OpenScreen, front: Front, models_server: ServerProcess, models_storage: Storage, waiting: str,
    versions: list[Path],    refusal: tuple[int, str],
) -> None:  # fmt: skip
    ledger, first = Registry(models_storage).history(), version_of(versions[0])
    page = fill(opened("deployments", going_back(models_server)), "why not")
    click(front, page, "Roll back now", "POST /rollback", refusal)
    page = fill(opened("deployments", f"promote(connect(), '{first}', {ledger[-1].id})"), "why not")
    click(front, page, "Promote now", f"POST /models/{first}/promote", refusal)
    page = fill(opened("review", f"drop(connect(), '{waiting}')"), "a thumb")
    click(front, page, "Drop now", f"POST /quarantine/{waiting}/drop", refusal)
    click(front, opened("review"), "Release image 1", f"POST /quarantine/{waiting}/release", refusal)
    page = opened("api_keys", "revoke(connect(), {'id': 'abc', 'name': 'ann'})")
    click(front, page, "Revoke now", "DELETE /keys/abc", refusal)
    click(front, fill(opened("api_keys"), "ann"), "Create the key", "POST /keys", refusal)
    click(front, opened("retrain"), "Start retraining", "POST /retrain", refusal)
    page = drop_files(opened("predict.page"), ("one.png", photo(1)))
    click(front, page, "Agree", "POST /feedback", refusal)
    assert [row.id for row in Registry(models_storage).history()] == [row.id for row in ledger]


def test_a_retraining_that_cannot_be_cancelled_says_so_until_somebody_clicks(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    with Client(models_server.url) as client:
        job_id = client.retrain(epochs=2)["job_id"]
        try:
            click(front, opened("retrain"), "Cancel the retraining", f"DELETE /retrain_jobs/{job_id}", BUSY)
        finally:
            client.cancel(job_id)


def test_a_rollback_of_another_champion_than_was_shown_is_refused(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess
) -> None:
    ledger = Registry(models_storage).history()
    stale = going_back(models_server).replace(f"'id': {ledger[-1].id}", f"'id': {ledger[0].id}")
    page = press(fill(opened("deployments", stale), "too slow"), "Roll back now")
    assert error_titles(page) == ["This cannot be done now"]
    assert page.error[0].value.endswith("This was not done.")
    assert len(Registry(models_storage).history()) == len(ledger)


def test_an_image_that_somebody_else_released_under_another_class_stays_as_it_is(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess, models_root: Path
) -> None:
    sha256 = put_disputed(models_storage, models_root, 7001)
    page = opened("review")
    models_server.client.post(f"/quarantine/{sha256}/release", json={"label": "bright"}).raise_for_status()
    page.button(key=f"release-{sha256}").click().run()
    assert error_titles(page) == ["This cannot be done now"]
    assert "is accepted as bright already" in page.error[0].value
    assert not page.toast


def test_of_retrainings_of_the_same_minute_the_chosen_one_is_shown(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    job = next(job for job in models_server.client.get("/retrain_jobs").json() if job["state"] == "promoted")
    twins = [job | {"job_id": f"{place}" * 32, "reason": f"Reason {place}."} for place in range(2)]
    front.answer("/retrain_jobs", 200, twins)
    page = opened("admin")
    for place in range(2):
        next(box for box in page.selectbox if box.label == "Retraining to look at").select_index(place).run()
        assert f"Reason {place}." in page_text(page)


def test_a_bundle_is_fetched_in_sight_of_the_page(opened: OpenScreen, front: Front, versions: list[Path]) -> None:
    page = opened("model")
    click(front, page, "Fetch the bundle", f"GET /models/{version_of(versions[1])}/bundle", BUSY)
    front.pass_on()
    press(page, "Fetch the bundle")
    assert not page.error
    assert "Download the bundle" in download_labels(page)
