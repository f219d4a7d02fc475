"""The Upload & Retrain screen without a browser when requests of an upload are refused."""

import time
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lesion.client import Client
from serve.deploy.ports import free_port
from tests.support.images.hostile import encode
from tests.support.servers.browser import Front
from tests.support.servers.page import OpenScreen, buttons, drop_files, error_titles, page_text, photo, press, select
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

BUSY, SPENT = (503, "server_busy"), (429, "rate_limited")


def accepted(page: AppTest) -> list[str]:
    """What the page says about a whole upload; it may praise the last retraining too."""
    return [success.value for success in page.success if "accepted" in success.value]


def about_sending(page: AppTest) -> list[Any]:
    """The page's warnings; that no retraining worker runs here is true, and another subject."""
    return [warning for warning in page.warning if not warning.value.startswith("No worker is running")]


def uploading(opened: OpenScreen, *files: tuple[str, bytes]) -> AppTest:
    return select(drop_files(opened("retrain"), *files), "Class of these images", "bright")


def until_sent(page: AppTest) -> AppTest:
    """Run the page as it does by itself, until nothing waits any more."""
    eventually(lambda: "upload-sending" not in page.run().session_state, 30)
    return page


@pytest.mark.parametrize("refusal", [BUSY, SPENT])
def test_an_upload_that_is_refused_for_now_is_sent_by_itself_and_once(
    opened: OpenScreen, front: Front, models_server: ServerProcess, refusal: tuple[int, str]
) -> None:
    first = 300 + 60 * (refusal == SPENT)
    files = [(f"{seed}.png", photo(seed)) for seed in range(first, first + 60)]
    page = uploading(opened, *files)
    front.retry_after = 1
    front.refuse(*refusal, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert not page.file_uploader[0].value  # the sending has them
    assert "50 of 50 files accepted." in [warning.value for warning in page.warning]
    (line,) = [warning for warning in about_sending(page) if "wait" in warning.value]
    assert line.value.startswith("10 of 60 files wait. They are sent again without a click in 1 second.")
    assert f"The stand-in refuses this with {refusal[0]}." in line.value
    assert line.proto.title == {BUSY: "The server is not ready", SPENT: "Too many requests"}[refusal]
    assert not accepted(page)
    assert not page.error
    time.sleep(2)  # it is refused again, and more patient
    front.pass_on()
    until_sent(page)
    assert accepted(page) == ["60 of 60 files accepted."]
    assert not about_sending(page)
    assert list(page.dataframe[0].value["Reason"]) == [""] * 60  # none was there already: nothing was sent twice


def test_files_whose_answer_was_lost_are_not_stored_twice(
    opened: OpenScreen, front: Front, models_server: ServerProcess
) -> None:
    before = models_server.client.get("/training_data").json()["status"]["accepted"]
    files = [(f"{seed}.png", photo(seed)) for seed in range(700, 760)]
    page = uploading(opened, *files)
    front.cut("/upload_training_data", after=1, late=True)
    press(page, "Upload 60 files")
    (line,) = [warning for warning in about_sending(page) if "wait" in warning.value]
    assert line.proto.title == "The server cannot be reached"
    front.pass_on()
    until_sent(page)
    assert accepted(page) == ["60 of 60 files accepted."]
    reasons = list(page.dataframe[0].value["Reason"])
    assert (reasons.count(""), reasons.count("You sent this file before; it is accepted.")) == (50, 10)
    assert models_server.client.get("/training_data").json()["status"]["accepted"] == before + 60


def test_an_upload_is_stopped_and_the_rest_sent_or_discarded(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(420, 480)]
    page = uploading(opened, *files)
    front.refuse(*SPENT, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    asked = front.asked.count("POST /upload_training_data")
    press(page, "Stop sending")
    eventually(lambda: not page.session_state["upload-sending"].active)
    page.run()
    stopped = "50 of 60 files sent; 10 were not and are kept here."
    assert [warning.value for warning in about_sending(page)] == [stopped, "50 of 50 files accepted."]
    front.pass_on()
    page.run()
    assert front.asked.count("POST /upload_training_data") == asked == 2
    # The files after these wait for the user's decision.
    select(drop_files(page, ("new.png", photo(481))), "Class of these images", "bright")
    assert not buttons(page)["Upload 1 file"]
    press(page, "Send the rest")
    until_sent(page)
    assert accepted(page) == ["60 of 60 files accepted."]
    assert front.asked.count("POST /upload_training_data") == 3
    assert buttons(page)["Upload 1 file"]
    press(page, "Upload 1 file")
    assert accepted(until_sent(page)) == ["1 of 1 file accepted."]
    front.refuse(500, "internal_error", "/upload_training_data")
    press(select(drop_files(page, ("last.png", photo(482))), "Class of these images", "bright"), "Upload 1 file")
    page.run()
    assert error_titles(page) == ["The server failed"]
    press(page, "Discard the rest")
    assert not page.error
    assert not about_sending(page)
    assert buttons(page)["Start retraining"]


def test_files_are_kept_while_the_server_refuses_whatever_is_asked(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(483, 486)]
    for refusal in (BUSY, SPENT, None):
        page = uploading(opened, *files)
        st.cache_data.clear()
        if refusal is None:
            page.session_state["client"] = Client(f"http://127.0.0.1:{free_port()}")
        else:
            front.refuse(*refusal)
        page.run()
        assert page.error  # what else the screen shows
        assert [file.name for file in page.file_uploader[0].value] == [name for name, _ in files]
        assert buttons(page)["Upload 3 files"]
        page.session_state["client"] = Client(front.url)
        front.pass_on()
    press(page, "Upload 3 files")
    assert accepted(until_sent(page)) == ["3 of 3 files accepted."]


def test_the_group_of_an_upload_goes_with_all_its_files(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(600, 660)]
    page = opened("retrain", "show(connect()) if not screen.st.session_state.get('away') else None")
    select(drop_files(page, *files), "Class of these images", "bright")
    page.text_input[0].set_value("patient a").run()
    front.retry_after = 1
    front.refuse(*BUSY, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert next(box for box in page.selectbox if box.label == "Class of these images").value == "bright"
    assert page.text_input[0].value == ""  # what follows is perhaps of another patient
    assert {group for _, _, group in page.session_state["upload"].requested} == {"patient a"}
    for away in (True, False):  # a look at another page
        page.session_state["away"] = away
        page.run()
    front.pass_on()
    until_sent(page)
    assert accepted(page) == ["60 of 60 files accepted."]


def test_of_files_that_are_too_large_together_only_the_one_that_is_by_itself_is_refused(
    opened: OpenScreen, front: Front
) -> None:
    large = encode(np.random.default_rng(0).integers(150, 250, (300, 300, 3), np.uint8))
    files = [(f"{seed}.png", photo(seed)) for seed in range(500, 507)]
    front.refuse(413, "body_too_large", "/upload_training_data", least=len(large))
    page = uploading(opened, *files[:3], ("large.png", large), *files[3:])
    until_sent(press(page, "Upload 8 files"))
    table = page.dataframe[0].value
    assert list(table["Outcome"]) == ["Refused", *["Accepted"] * 7]
    assert list(table.iloc[0]) == ["large.png", "Refused", "The stand-in refuses this with 413."]
    assert front.asked.count("POST /upload_training_data") == 7  # 8, 4, 2, 1 and 1 of them, 2, 4
    assert "7 of 8 files accepted, 1 refused." in page_text(page)


def test_the_form_says_how_much_a_zip_may_hold(opened: OpenScreen, models_server: ServerProcess) -> None:
    assert models_server.client.get("/info").json()["limits"]["max_archive_entries"] == 1000
    assert "1,000 files and folders at most" in opened("retrain").file_uploader[0].label
