"""Files that users drop in a real browser: how many bytes the page keeps, and what their names look like."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from lesion.core.files import bytes_sha256
from scripts.dev.browsing import choose, drop, fetch, go, press, settle
from tests.support.images.pictures import picture
from tests.support.servers.browser import IN_A_BROWSER, OpenWindow, PageProcess, shows
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = IN_A_BROWSER


@pytest.fixture(scope="module")
def small_page(lamp_server: ServerProcess) -> Iterator[PageProcess]:
    """A page that keeps one MiB."""
    with PageProcess(lamp_server.url, "--max-upload", "1", "--max-session", "1", "--max-all", "1") as served:
        yield served


def large(path: Path, seed: int) -> Path:
    """A picture file of about 0.6 MiB, which the page can keep once."""
    noise = np.random.default_rng(seed).integers(170, 230, (800, 900), np.uint8)
    Image.fromarray(noise).save(path)
    assert 0.55 < path.stat().st_size / 2**20 < 0.9
    return path


def refused(page: Page) -> None:
    expect(page.get_by_text("413").first).to_be_visible(timeout=20_000)


def outcome_of(page: Page, text: str) -> None:
    """Wait for the outcomes of an upload that have this text; until then those of the upload before are shown."""
    eventually(lambda: text.lower() in fetch(page, "Download the list as CSV").read_text("utf-8").lower())


def test_the_room_of_files_is_free_again_when_they_have_left_the_page(
    small_page: PageProcess, open_window: OpenWindow, tmp_path: Path
) -> None:
    page = open_window(small_page)
    first, second, third, fourth = (large(tmp_path / f"{number}.png", 9000 + number) for number in range(4))
    drop(page, first)
    shows(page, "0.png as the model sees it.")
    drop(page, second)
    refused(page)  # both would be too much
    go(page, "Model Info")
    go(page, "Upload & Retrain")  # what was dropped on Predict has left the page
    choose(page, "Class of these images", "bright")
    for file in (second, third, fourth):
        drop(page, file)
        press(page, "Upload 1 file")
        shows(page, "1 of 1 file accepted.", 60_000)
        settle(page)
        outcome_of(page, file.name)


def test_names_that_turn_or_hide_text_are_shown_and_saved_plainly(
    small_page: PageProcess, open_window: OpenWindow, tmp_path: Path
) -> None:
    names = {"a\u202egnp.exe.png": "agnp.exe.png", "gl\u200bioma.png": "glioma.png", "a;=1+1.png": "a;'=1+1.png"}
    for number, name in enumerate(names):
        Image.fromarray((picture(9100 + number) * 0.4 + 150).astype(np.uint8)).save(tmp_path / name)
    page = open_window(small_page)
    drop(page, *(tmp_path / name for name in names))
    shows(page, "3 images classified")
    rows = fetch(page, "Download as CSV").read_text("utf-8").splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == list(names.values())
    page = open_window(small_page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *(tmp_path / name for name in names))
    press(page, "Upload 3 files")
    shows(page, "3 of 3 files accepted.")
    rows = fetch(page, "Download the list as CSV").read_text("utf-8").splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == sorted(names.values())


def test_a_wrong_label_is_corrected_by_uploading_the_image_again_and_back_on_predict(
    small_page: PageProcess, lamp_server: ServerProcess, open_window: OpenWindow, tmp_path: Path
) -> None:
    file = tmp_path / "scan.png"
    Image.fromarray((picture(9200) * 0.4 + 150).astype(np.uint8)).save(file)
    page = open_window(small_page, "Upload & Retrain")
    for label, said in (("bright", "accepted"), ("dark", "The label of this image was bright and is dark now.")):
        choose(page, "Class of these images", label)
        drop(page, file)
        press(page, "Upload 1 file")
        shows(page, "1 of 1 file accepted.")
        settle(page)
        outcome_of(page, said)
    go(page, "Predict")
    drop(page, file)
    choose(page, "Right class", "dark")
    press(page, "Correct")
    shows(page, "Thank you. The image is stored as dark.")  # as it is known already
    page.reload()
    settle(page)
    drop(page, file)
    press(page, "Agree")  # with bright
    shows(page, "Thank you. The label of this image was dark and is bright now.")
    record = lamp_server.client.get(f"/images/{bytes_sha256(file.read_bytes())}").json()
    assert [(each["was"], each["label"]) for each in record["label_history"]] == [
        ("bright", "dark"),
        ("dark", "bright"),
    ]
