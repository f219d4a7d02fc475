"""Every text can be read in light and in dark mode, and buttons can be told apart by their names, in a real browser."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from playwright.sync_api import Browser, Page, expect

from lesion.database.storage import Storage
from scripts.dev.browsing import PAGES, choose, drop, go, press, settle, window
from serve.ui.text.sentences import DISCLAIMER
from tests.support.images.loop_images import put_picture
from tests.support.images.pictures import picture
from tests.support.servers.browser import IN_A_BROWSER, Front, PageProcess, World, shows
from tests.support.servers.contrast import visible_texts
from tests.support.servers.serving import ServerProcess

pytestmark = IN_A_BROWSER
LEAST = 4.5
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 22, 20)"}


@pytest.fixture(scope="module")
def world(models_server: ServerProcess, models_storage: Storage, models_root: Path) -> Iterator[World]:
    for number in range(3):
        put_picture(
            models_storage, models_root, 7100 + number, "dark", status="quarantined", reason_code="odd", reason="Odd."
        )
    with Front(models_server.url) as front, PageProcess(front.url) as page:
        yield World(models_server, models_storage, front, page)


@pytest.fixture(params=BACKGROUNDS)
def page(world: World, chrome: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = chrome.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    opened = window(context)
    opened.goto(world.page.url)
    settle(opened)
    color = opened.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor")
    assert color == BACKGROUNDS[request.param]
    yield opened
    world.front.pass_on()
    context.close()


def readable(page: Page, *expected: str) -> None:
    """Check every text in sight, and that those which are expected are among them."""
    settle(page)
    page.wait_for_timeout(700)  # colors fade in
    texts = visible_texts(page)
    assert len(texts) > 10
    assert [each for each in expected if not any(each.startswith(text.text[:40]) for text in texts)] == []
    assert [(text.text, round(text.contrast, 2)) for text in texts if text.contrast < LEAST] == []


def test_all_screens_can_be_read(page: Page) -> None:
    for name in PAGES:
        go(page, name)
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        readable(page, DISCLAIMER)
        names = Counter(filter(None, (button.inner_text() for button in page.get_by_role("button").all())))
        assert [each for each, number in names.items() if number > 1] == [], name


def test_answers_dialogs_and_choices_can_be_read(page: Page, tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.png" for seed in (1, 2)]
    for base, file in enumerate(files):
        Picture.fromarray((picture(base) * 0.4 + 150 * base).astype(np.uint8)).save(file)
    drop(page, files[0])
    shows(page, "What does it really show?")
    readable(page, "What does it really show?", "Agree")
    drop(page, files[1])
    shows(page, "2 images classified")
    readable(page, "Download as CSV")
    go(page, "Admin")
    press(page, "Release image 1")
    shows(page, "Image 1: Accepted as")  # for some seconds, above the page
    readable(page, "Image 1: Accepted as dark by local.", "Accepted as dark by local.")
    press(page, "Undo image 1")
    shows(page, "Image 1 waits for a decision again.")
    press(page, "Drop image 1")
    readable(page, "Drop an image", "Drop now", "It is stored with your name, so that others can read it later.")
    page.keyboard.press("Escape")
    page.get_by_text("Create a key", exact=True).click()
    readable(page, "Create the key", "Once there is a key, the server asks everyone for one.")
    settle(page)  # what is redrawn closes a list
    page.get_by_role("combobox", name="Release image 1 as").press("ArrowDown")
    expect(page.get_by_role("option", name="bright", exact=True)).to_be_visible()
    readable(page)


def test_refusals_can_be_read(page: Page, world: World, tmp_path: Path) -> None:
    file = tmp_path / "1.png"
    Picture.fromarray((picture(9) * 0.4 + 150).astype(np.uint8)).save(file)
    world.front.refuse(503, "server_busy", "/predict")
    drop(page, file)
    shows(page, "1 of 1 image waits.")
    readable(page, "The server is not ready", "Stop sending")
    press(page, "Stop sending")
    shows(page, "1 was not and is kept here.")
    readable(page, "Send the rest")
    world.front.pass_on()
    world.front.refuse(500, "internal_error", "/upload_training_data")
    go(page, "Upload & Retrain")
    drop(page, file)
    shows(page, "Choose the class of these images.")
    readable(page, "Choose the class of these images.", "1.png")
    choose(page, "Class of these images", "bright")
    press(page, "Upload 1 file")
    shows(page, "The server failed")
    readable(page, "The server failed", "Discard the rest")
    world.front.refuse(401, "key_unknown")
    page.reload()
    shows(page, "You are not signed in")
    settle(page)
    assert [(text.text, text.contrast) for text in visible_texts(page) if text.contrast < LEAST] == []


def test_the_page_says_the_limits_of_the_api(page: Page, world: World) -> None:
    limits = world.server.client.get("/info").json()["limits"]
    assert (limits["max_image_bytes"], limits["max_upload_bytes"]) == (20 * 2**20, 64 * 2**20)
    for name, said in (("Predict", "up to 20 MiB and"), ("Upload & Retrain", "a ZIP of up to 63 MiB")):
        go(page, name)
        shows(page, said)
        shows(page, "up to 20 MiB and 50 million pixels each")
        own = page.get_by_text("per file")
        if name == "Predict":
            expect(own).to_have_text("20MB per file")
        else:
            expect(own).not_to_be_visible()
