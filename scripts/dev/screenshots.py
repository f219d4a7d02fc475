"""Take a picture of each screen as a desktop and a phone show it, from a running page, such as the demo's.

bash scripts/demo.sh
python scripts/dev/screenshots.py http://127.0.0.1:8501 data/phantom_mri/glioma/patient0000_slice00.png
"""

import argparse
import re
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from scripts.dev.browsing import (
    HEIGHT,
    PAGES,
    WIDTHS,
    browser,
    browser_context,
    drop,
    go,
    save,
    screenshot,
    settle,
    window,
)

MAX_HEIGHT = {"desktop": 4500, "phone": 9000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the page, such as http://127.0.0.1:8501")
    parser.add_argument("image", type=Path, help="the image to predict")
    parser.add_argument("--out", type=Path, default=Path("docs/ui"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for device, width in WIDTHS.items():
            page = window(browser_context(chromium, width))
            page.goto(options.address)
            settle(page)
            for name in PAGES:
                page.set_viewport_size({"width": width, "height": HEIGHT})
                go(page, name)
                if name == "Predict":
                    drop(page, options.image)
                    page.get_by_test_id("stImage").first.wait_for()
                path = options.out / f"{'_'.join(re.findall('[a-z]+', name.lower()))}_{device}.png"
                size = save(take(page, width, MAX_HEIGHT[device]), path)
                print(f"{path}: {size:,} bytes")


def take(page: Page, width: int, max_height: int) -> Image.Image:
    """Return a picture of the whole page, taken in a window that is high enough, up to ``max_height``."""
    settle(page)
    page.wait_for_timeout(1000)  # until charts are drawn and animations have ended
    for _ in range(2):  # parts below the window may grow once they are visible
        height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
        page.set_viewport_size({"width": width, "height": max(HEIGHT, min(int(height), max_height))})
        page.wait_for_timeout(700)
    return screenshot(page)


if __name__ == "__main__":
    main()
