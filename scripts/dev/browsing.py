"""Use the page in a real browser, for the tests, the screenshots, the recording and the bench.

The browser is Debian's Chromium, controlled by Playwright, which installs none here. LESION_CHROMIUM names another one.
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
from playwright.sync_api import Browser, BrowserContext, Page, TimeoutError, expect, sync_playwright

MISSING = (
    "there is no Chromium. Install Debian's package (apt-get install chromium), or name one: LESION_CHROMIUM=/path"
)
PAGES = ("Predict", "Visualizations", "Upload & Retrain", "Model Info", "Admin")
WIDTHS = {"desktop": 1280, "phone": 390}
HEIGHT = 900
PATIENCE_MS = 60_000
_CLICKS, _CLICK_MS = 5, 3_000
_VISIBLE_PIXELS = 30  # a color with at least as many pixels is visible
_COLOR_TOLERANCE = 12  # by how much a visible color may change, of 255
# Shown by Streamlit while numbers, pictures and charts are loading.
_LOADING = ("stSkeleton", "stSpinner", "stAppSkeleton")


def chromium() -> str | None:
    """Return the path of the browser, or None if it is not installed."""
    names = (os.environ.get("LESION_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Run a browser without a window until the block ends."""
    path = chromium()
    if path is None:
        raise SystemExit(f"No picture can be taken: {MISSING}.")
    # A test picture of Chromium replaces the camera, and no dialog asks for permission to use it.
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    arguments = ["--disable-dev-shm-usage", "--font-render-hinting=none", *camera]
    with sync_playwright() as playwright:
        # Chromium does not start its sandbox as root.
        instance = playwright.chromium.launch(
            executable_path=path, args=[*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        )
        try:
            yield instance
        finally:
            instance.close()


def browser_context(chromium: Browser, width: int = WIDTHS["desktop"], height: int = HEIGHT) -> BrowserContext:
    """Return a context for windows of this size; windows of one context share what the browser has loaded."""
    return chromium.new_context(viewport={"width": width, "height": height}, locale="en-GB")


def window(context: BrowserContext) -> Page:
    """Open a window, which begins a new session of the page."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def settle(page: Page) -> None:
    """Wait until the page has finished its run and nothing is loading."""
    app = page.get_by_test_id("stApp")
    expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE_MS)
    for name in _LOADING:
        expect(page.get_by_test_id(name)).to_have_count(0, timeout=PATIENCE_MS)


def go(page: Page, name: str) -> None:
    """Open one of the five screens by its name in the navigation, as a user does."""
    page.get_by_role("link", name=name, exact=True).click()
    settle(page)


def drop(page: Page, *files: Path) -> None:
    """Drop files on the first uploader of a page."""
    page.get_by_test_id("stFileUploader").first.locator("input[type=file]").set_input_files(
        [str(file) for file in files]
    )


def choose(page: Page, label: str, option: str | re.Pattern[str]) -> None:
    """Choose an entry of a list; a page that is being redrawn may show it twice, lose a click, or close the list."""
    box = page.get_by_role("combobox", name=re.compile(re.escape(label)))
    for _ in range(_CLICKS):
        expect(box).to_have_count(1, timeout=PATIENCE_MS)
        settle(page)
        with suppress(TimeoutError, AssertionError):
            box.click(timeout=_CLICK_MS)
            page.get_by_role("option", name=option, exact=True).click(timeout=_CLICK_MS)
            expect(box).to_have_value(option, timeout=_CLICK_MS)
            break
    settle(page)
    expect(box).to_have_value(option)


def press(page: Page, name: str) -> None:
    """Press a button once the page has settled: a page that is being redrawn may lose the click."""
    settle(page)
    page.get_by_role("button", name=name, exact=True).click()


def fetch(page: Page, name: str) -> Path:
    """Press a button that downloads a file, and return the path of the file."""
    with page.expect_download() as download:
        press(page, name)
    return Path(download.value.path())


def screenshot(page: Page) -> Image.Image:
    """Return a picture of what the window shows, as RGB."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def save(picture: Image.Image, path: Path) -> int:
    """Write a PNG with 256 colors, or with all colors if 256 would change a visible one; return its size in bytes.

    A smaller file must not make two lines of a chart look alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reduced = picture.quantize(256, kmeans=1, dither=Image.Dither.NONE)
    before, after = (np.asarray(version.convert("RGB"), np.int64).reshape(-1, 3) for version in (picture, reduced))
    _, first, counts = np.unique(before @ (1 << 16, 1 << 8, 1), return_index=True, return_counts=True)
    visible = first[counts >= _VISIBLE_PIXELS]
    faithful = bool(np.abs(before[visible] - after[visible]).max(initial=0) <= _COLOR_TOLERANCE)
    (reduced if faithful else picture).save(path, optimize=True)
    return path.stat().st_size
