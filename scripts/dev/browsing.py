"""A real browser before the page, for the tests, the screenshots, the recording and the bench.

It is Debian's Chromium, steered by Playwright, which brings no browser here: LESION_CHROMIUM names another one.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright

MISSING = (
    "there is no Chromium. Install Debian's package (apt-get install chromium), or name one: LESION_CHROMIUM=/path"
)
PAGES = ("Predict", "Visualizations", "Upload & Retrain", "Model Info", "Admin")
WIDTHS = {"desktop": 1280, "phone": 390}
HEIGHT = 900
PATIENCE_MS = 60_000
_CLICKS, _CLICK_MS = 5, 3_000
_SOME, _NEAR = 30, 12  # pixels of a colour that somebody sees; by how much it may change, of 255
# What Streamlit shows while numbers, pictures and charts are still on their way.
_UNDER_WAY = ("stSkeleton", "stSpinner", "stAppSkeleton")


def chromium() -> str | None:
    """Return the browser's path, or None where there is none."""
    names = (os.environ.get("LESION_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window for as long as the block runs."""
    path = chromium()
    if path is None:
        raise SystemExit(f"No picture can be taken: {MISSING}.")
    # Chromium's own moving picture stands in for a camera, and nobody is asked whether it may be used.
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments = ["--disable-dev-shm-usage", "--font-render-hinting=none", *camera]
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root.
        made = playwright.chromium.launch(
            executable_path=path, args=[*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        )
        try:
            yield made
        finally:
            made.close()


def window(opened: Browser, width: int = WIDTHS["desktop"], height: int = HEIGHT) -> Page:
    """Open a window with a session of its own, as another person would."""
    made = opened.new_context(viewport={"width": width, "height": height}, locale="en-GB").new_page()
    made.set_default_timeout(PATIENCE_MS)
    return made


def settle(page: Page) -> None:
    """Wait until the page has run to its end and shows what it had to show."""
    app = page.get_by_test_id("stApp")
    expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE_MS)
    for name in _UNDER_WAY:
        expect(page.get_by_test_id(name)).to_have_count(0, timeout=PATIENCE_MS)


def go(page: Page, name: str) -> None:
    """Open one of the five pages by its name in the navigation, as a person does."""
    page.get_by_role("link", name=name, exact=True).click()
    settle(page)


def drop(page: Page, *files: Path) -> None:
    """Give files to the first place for them on a page."""
    place = page.get_by_test_id("stFileUploader").first
    place.locator("input[type=file]").set_input_files([str(file) for file in files])


def choose(page: Page, label: str, option: str) -> None:
    """Choose one of a list."""
    wanted = page.get_by_role("option", name=option, exact=True)
    for _ in range(_CLICKS):  # a page that is just being drawn anew may lose one
        page.get_by_role("combobox", name=re.compile(re.escape(label))).click()
        with suppress(TimeoutError):
            wanted.wait_for(timeout=_CLICK_MS)
            break
    wanted.click()
    settle(page)


def press(page: Page, name: str) -> None:
    """Press a button, once the page stands still: one that is just being drawn anew may lose the click."""
    settle(page)
    page.get_by_role("button", name=name, exact=True).click()


def fetch(page: Page, name: str) -> Path:
    """Press a button that gives a file, and return where it came to lie."""
    with page.expect_download() as caught:
        press(page, name)
    return Path(caught.value.path())


def screenshot(page: Page) -> Image.Image:
    """Take a picture of what the window shows, as RGB."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(picture: Image.Image, path: Path) -> int:
    """Write a PNG of 256 colours, or of all where these would change one that is seen; return its size in bytes.

    Fewer bytes must not make two lines of a chart look alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    few = picture.quantize(256, kmeans=1, dither=Image.Dither.NONE)
    before, after = (np.asarray(one.convert("RGB"), np.int64).reshape(-1, 3) for one in (picture, few))
    _, first, counts = np.unique(before @ (1 << 16, 1 << 8, 1), return_index=True, return_counts=True)
    seen = first[counts >= _SOME]
    faithful = bool(np.abs(before[seen] - after[seen]).max(initial=0) <= _NEAR)
    (few if faithful else picture).save(path, optimize=True)
    return path.stat().st_size
