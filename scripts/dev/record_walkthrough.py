"""Record a walk through the page as a GIF: predict, explain, upload, retrain, verdict, roll back.

bash scripts/demo.sh
python scripts/dev/record_walkthrough.py http://127.0.0.1:8501 FOLDER

FOLDER has class folders of images; 60 of its first class are uploaded, so they should be new to the server. If it is
missing, phantoms that the demo does not have are generated there. The recording shows a real browser and a real
retraining, whatever its verdict, and a roll-back if there is an earlier model.
"""

import argparse
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page, expect

from lesion.phantom.folder import generate
from scripts.dev.browsing import (
    PATIENCE_MS,
    browser,
    browser_context,
    choose,
    drop,
    go,
    press,
    save,
    screenshot,
    settle,
    window,
)

WIDTH, HEIGHT, SHRINK = 1280, 800, 0.6
BAR = 34  # pixels for the caption below each picture
POLL_S, MAX_POLLS = 3.0, 400
ENDS = ("proved better and is in use", "was not promoted", "The retraining failed", "was canceled")


@dataclass
class Film:
    """Pictures of a page, each with a caption; single pictures go to the folder ``stills``, if there is one."""

    page: Page
    stills: Path | None
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)

    def take(self, caption: str, milliseconds: int = 1500, still: str = "") -> None:
        """Add a picture, and write it as a still if it has a name; an unchanged picture only prolongs the last one."""
        picture = screenshot(self.page)
        if still and self.stills is not None:
            save(picture, self.stills / f"walkthrough_{still}.png")
        picture = picture.resize((round(WIDTH * SHRINK), round(HEIGHT * SHRINK)), Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (picture.width, picture.height + BAR), "#0b3a4d")
        frame.paste(picture)
        ImageDraw.Draw(frame).text((12, picture.height + 8), caption, "white", ImageFont.load_default(16))
        frame = frame.quantize(dither=Image.Dither.NONE)
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += milliseconds // 2
            return
        self.frames.append(frame)
        self.durations.append(milliseconds)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        first, *others = self.frames
        first.save(path, save_all=True, append_images=others, duration=self.durations, loop=0, optimize=True)
        seconds = sum(self.durations) / 1000
        print(f"{path}: {len(self.frames)} pictures, {seconds:.0f} s, {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the page, such as http://127.0.0.1:8501")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=23, help="of the phantoms; another seed gives other phantoms")
    parser.add_argument("--stills", type=Path, help="a folder for single pictures")
    parser.add_argument("--out", type=Path, default=Path("outputs/walkthrough.gif"))
    options = parser.parse_args()
    generate(options.folder, patients=80, slices=4, seed=options.seed, low_field=True)
    label = min(path.name for path in options.folder.iterdir() if path.is_dir())
    images = sorted((options.folder / label).glob("*.*"))[: options.images]
    with browser() as chromium:
        page = window(browser_context(chromium, WIDTH, HEIGHT))
        page.goto(options.address)
        settle(page)
        film = Film(page, options.stills)
        predict(page, film, images[0])
        upload(page, film, images, label)
        retrain(page, film, options.epochs)
        roll_back(page, film)
        film.save(options.out)


def predict(page: Page, film: Film, image: Path) -> None:
    film.take("Predict: drop an image")
    drop(page, image)
    page.get_by_test_id("stImage").first.wait_for()
    settle(page)
    film.take("The answer, how sure it is, and where the model looked", 3000, "1_predict")
    slider = page.get_by_role("slider", name="Heat map")
    for share in (80, 100, 60, 40, 20, 0, 60):
        while (now := int(slider.input_value())) != share:
            slider.press("PageUp" if share - now >= 10 else "PageDown" if now - share >= 10 else "ArrowRight")
        settle(page)
        film.take("Explain: the heat map can be mixed in more or less", 500, "2_explain" if share == 100 else "")


def upload(page: Page, film: Film, images: list[Path], label: str) -> None:
    go(page, "Upload & Retrain")
    film.take("Upload: labeled images for the next model")
    choose(page, "Class of these images", re.compile(label, re.IGNORECASE))  # perhaps under a name that is shown
    drop(page, *images)
    film.take(f"{len(images)} images of {label}")
    press(page, f"Upload {len(images)} files" if len(images) > 1 else "Upload 1 file")
    expect(page.get_by_text(f"of {len(images)} files accepted").first).to_be_visible(timeout=4 * PATIENCE_MS)
    settle(page)
    film.take("The outcome of each file, with the reason", 3000, "3_upload")


def retrain(page: Page, film: Film, epochs: int) -> None:
    number = page.get_by_role("spinbutton", name="Epochs")
    number.fill(str(epochs))
    number.press("Enter")
    # The estimate is for the chosen number; before the first retraining ended, it is unknown.
    page.get_by_text(re.compile(rf"{epochs} epochs? over|it takes is not known yet")).first.wait_for()
    settle(page)
    button = page.get_by_role("button", name="Start retraining")
    button.scroll_into_view_if_needed()
    film.take("Retrain: the page estimates how long it will take", still="4_retrain")
    button.click()
    page.get_by_text("A retraining is running").scroll_into_view_if_needed()
    for _ in range(MAX_POLLS):
        if any(page.get_by_text(words).count() for words in ENDS):
            break
        film.take("The retraining in progress", 600)
        time.sleep(POLL_S)
    page.get_by_text("The last retraining", exact=True).scroll_into_view_if_needed()
    settle(page)
    film.take("The verdict: the new model serves only if it proved better", 4000, "5_verdict")


def roll_back(page: Page, film: Film) -> None:
    go(page, "Admin")
    film.take("Admin: jobs, models and keys", 2500)
    if page.get_by_role("button", name="Roll back", exact=True).is_disabled():
        return  # only one model has ever been in use
    press(page, "Roll back")
    page.get_by_label("Reason", exact=True).fill("the recording ends with the model that it began with")
    film.take("Roll back: with a reason", still="6_roll_back")
    press(page, "Roll back now")
    settle(page)
    film.take("The previous model serves again", 4000)


if __name__ == "__main__":
    main()
