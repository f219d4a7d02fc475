"""The Upload & Retrain screen without a browser when requests of an upload are refused."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from tests.support.images.hostile import encode
from tests.support.servers.browser import Front
from tests.support.servers.page import OpenScreen, drop_files, error_titles, page_text, photo, press, select
from tests.support.servers.serving import ServerProcess

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

BUSY, SPENT = (503, "server_busy"), (429, "rate_limited")


def accepted(page: AppTest) -> list[str]:
    """What the page says about a whole upload; it may praise the last retraining too."""
    return [success.value for success in page.success if "accepted" in success.value]


def uploading(opened: OpenScreen, *files: tuple[str, bytes]) -> AppTest:
    return select(drop_files(opened("retrain"), *files), "Class of these images", "bright")


def test_an_upload_that_is_broken_off_never_looks_whole(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(300, 360)]
    page = uploading(opened, *files)
    front.refuse(*BUSY, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert error_titles(page) == ["The server is not ready"]
    assert "by itself" not in page.error[0].value
    here = "50 of 60 files sent; the rest was not. Press the button again: only the rest is sent."
    assert [warning.value for warning in page.warning] == [here, "50 of 50 files accepted."]
    assert not accepted(page)
    front.pass_on()
    press(page, "Upload 60 files")
    assert accepted(page) == ["60 of 60 files accepted."]
    assert not page.warning
    assert not page.error
    assert front.asked.count("POST /upload_training_data") == 3


def test_an_upload_whose_files_are_gone_asks_for_them_again(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(400, 460)]
    page = uploading(opened, *files)
    front.refuse(*SPENT, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    front.pass_on()
    page.file_uploader[0].set_value([]).run()  # as after a look at another page
    gone = "50 of 60 files sent; the rest was not. Drop the files again: those that were sent are not stored twice."
    assert page.warning[0].value == gone
    assert not accepted(page)
    press(drop_files(page, *files), "Upload 60 files")
    assert accepted(page) == ["60 of 60 files accepted."]
    assert not page.warning
    press(select(drop_files(page, ("new.png", photo(461))), "Class of these images", "bright"), "Upload 1 file")
    assert accepted(page) == ["1 of 1 file accepted."]


def test_the_group_of_an_upload_stays_until_it_is_whole(opened: OpenScreen, front: Front) -> None:
    files = [(f"{seed}.png", photo(seed)) for seed in range(600, 660)]
    page = opened("retrain", "show(connect()) if not screen.st.session_state.get('away') else None")
    select(drop_files(page, *files), "Class of these images", "bright")
    page.text_input[0].set_value("patient a").run()
    front.refuse(*BUSY, "/upload_training_data", after=1)
    press(page, "Upload 60 files")
    assert page.text_input[0].value == "patient a"
    front.pass_on()
    for away in (True, False):  # a look at another page
        page.session_state["away"] = away
        page.run()
    assert page.text_input[0].value == "patient a"
    press(select(drop_files(page, *files), "Class of these images", "bright"), "Upload 60 files")
    assert accepted(page) == ["60 of 60 files accepted."]
    assert page.text_input[0].value == ""  # what follows is perhaps of another patient
    assert next(box for box in page.selectbox if box.label == "Class of these images").value == "bright"


def test_of_files_that_are_too_large_together_only_the_one_that_is_by_itself_is_refused(
    opened: OpenScreen, front: Front
) -> None:
    large = encode(np.random.default_rng(0).integers(150, 250, (300, 300, 3), np.uint8))
    files = [(f"{seed}.png", photo(seed)) for seed in range(500, 507)]
    front.refuse(413, "body_too_large", "/upload_training_data", least=len(large))
    page = uploading(opened, *files[:3], ("large.png", large), *files[3:])
    press(page, "Upload 8 files")
    table = page.dataframe[0].value
    assert list(table["Outcome"]) == ["Refused", *["Accepted"] * 7]
    assert list(table.iloc[0]) == ["large.png", "Refused", "The stand-in refuses this with 413."]
    assert front.asked.count("POST /upload_training_data") == 7  # 8, 4, 2, 1 and 1 of them, 2, 4
    assert "7 of 8 files accepted, 1 refused." in page_text(page)


def test_the_form_says_how_much_a_zip_may_hold(opened: OpenScreen, models_server: ServerProcess) -> None:
    assert models_server.client.get("/info").json()["limits"]["max_archive_entries"] == 1000
    assert "1,000 files and folders at most" in opened("retrain").file_uploader[0].label
