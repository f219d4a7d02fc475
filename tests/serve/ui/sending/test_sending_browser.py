"""Files that were dropped into the page, in a real browser, while the server refuses or cannot be reached."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from playwright.sync_api import Page, expect

from lesion.database.storage import Storage
from scripts.dev.browsing import choose, drop, go, press, settle
from tests.support.images.pictures import picture
from tests.support.servers.browser import IN_A_BROWSER, Front, OpenWindow, PageProcess, World, shows
from tests.support.servers.serving import ServerProcess

pytestmark = IN_A_BROWSER
SENT = "POST /upload_training_data"
REFUSALS = {429: ("rate_limited", "Too many requests"), 503: ("server_busy", "The server is not ready")}


@pytest.fixture(scope="module")
def lamps(lamp_server: ServerProcess, lamp_storage: Storage) -> Iterator[World]:
    with Front(lamp_server.url) as front, PageProcess(front.url) as page:
        yield World(lamp_server, lamp_storage, front, page)


@pytest.fixture
def front(lamps: World) -> Iterator[Front]:
    lamps.front.asked.clear()
    lamps.front.retry_after = 2
    yield lamps.front
    lamps.front.pass_on()


def photos(folder: Path, seeds: range) -> list[Path]:
    files = [folder / f"{seed}.png" for seed in seeds]
    for seed, file in zip(seeds, files, strict=True):
        Picture.fromarray((picture(seed) * 0.4 + 150).astype(np.uint8)).save(file)
    return files


def upload(page: Page, files: list[Path]) -> None:
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    press(page, f"Upload {len(files)} files")


def accepted(lamps: World) -> int:
    return int(lamps.server.client.get("/training_data").json()["status"]["accepted"])


@pytest.mark.parametrize("status", REFUSALS)
def test_an_upload_waits_through_clicks_elsewhere_and_is_sent_once(
    lamps: World, front: Front, open_window: OpenWindow, tmp_path: Path, status: int
) -> None:
    code, title = REFUSALS[status]
    before = accepted(lamps)
    page = open_window(lamps.page, "Upload & Retrain")
    front.refuse(status, code, "/upload_training_data", after=1)
    upload(page, photos(tmp_path, range(4000 + 100 * status, 4060 + 100 * status)))
    shows(page, title)
    shows(page, "10 of 60 files wait. They are sent again without a click in")
    expect(page.get_by_role("button", name="Stop sending")).to_have_count(1)
    choose(page, "Class of these images", "dark")  # for what follows; this is sent under its own class
    shows(page, "10 of 60 files wait.")
    go(page, "Predict")
    go(page, "Upload & Retrain")
    shows(page, "10 of 60 files wait.")
    front.pass_on()
    shows(page, "60 of 60 files accepted.", 60_000)
    expect(page.get_by_role("button", name="Stop sending")).to_have_count(0)
    assert accepted(lamps) == before + 60
    settle(page)
    assert page.get_by_text("You sent this file before").count() == 0


def test_an_upload_whose_answer_was_lost_is_stored_once(
    lamps: World, front: Front, open_window: OpenWindow, tmp_path: Path
) -> None:
    before = accepted(lamps)
    page = open_window(lamps.page, "Upload & Retrain")
    front.cut("/upload_training_data", late=True)
    upload(page, photos(tmp_path, range(4100, 4110)))
    shows(page, "The server cannot be reached")
    shows(page, "10 of 10 files wait.")
    front.pass_on()
    shows(page, "10 of 10 files accepted.", 60_000)
    assert accepted(lamps) == before + 10


def test_a_waiting_upload_is_stopped_and_the_rest_sent_on_a_click(
    lamps: World, front: Front, open_window: OpenWindow, tmp_path: Path
) -> None:
    page = open_window(lamps.page, "Upload & Retrain")
    front.refuse(503, "server_busy", "/upload_training_data")
    upload(page, photos(tmp_path, range(4110, 4115)))
    shows(page, "5 of 5 files wait.")
    press(page, "Stop sending")
    shows(page, "0 of 5 files sent; 5 were not and are kept here.")
    front.pass_on()
    asked = front.asked.count(SENT)
    page.wait_for_timeout(5_000)  # longer than the next try would have taken
    assert front.asked.count(SENT) == asked
    press(page, "Send the rest")
    shows(page, "5 of 5 files accepted.")


@pytest.mark.parametrize("status", [*REFUSALS, None])
def test_dropped_files_stay_while_nothing_is_answered(
    lamps: World, front: Front, open_window: OpenWindow, tmp_path: Path, status: int | None
) -> None:
    files = photos(tmp_path, range(4120, 4123))
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    shows(page, "4120.png")
    settle(page)
    if status is None:
        front.cut()
    else:
        front.refuse(status, REFUSALS[status][0])
    page.wait_for_timeout(11_000)  # nothing that was read before is shown any more
    choose(page, "Class of these images", "dark")  # a rerun
    shows(page, REFUSALS[status][1] if status else "The server cannot be reached")
    shows(page, "4120.png")
    front.pass_on()
    expect(page.get_by_role("button", name="Start retraining")).to_be_visible(timeout=30_000)  # it is back by itself
    shows(page, "4120.png")
    expect(page.get_by_role("button", name="Upload 3 files")).to_be_enabled()


@pytest.mark.parametrize("status", [*REFUSALS, None])
def test_images_to_predict_are_answered_when_the_server_can(
    lamps: World, front: Front, open_window: OpenWindow, tmp_path: Path, status: int | None
) -> None:
    page = open_window(lamps.page)
    settle(page)
    if status is None:
        front.cut()
    else:
        front.refuse(status, REFUSALS[status][0])
    drop(page, *photos(tmp_path, range(4130, 4133)))
    shows(page, REFUSALS[status][1] if status else "The server cannot be reached")
    shows(page, "3 of 3 images wait.")
    front.pass_on()
    shows(page, "3 images classified", 60_000)
    expect(page.get_by_role("button", name="Stop sending")).to_have_count(0)
