"""Measure how long users wait for the page: python scripts/bench/page.py [--bundle RUN/bundle] [--require].

The bench starts a server whose database holds 7,000 images and 50 jobs, and opens the page in a real browser. It
measures the time from the drop of an image to its answer, and for each page the time from the click on its name until
everything is there. Every round begins with a session that has nothing in its cache. --require exits with 1 when the
median is above 1 s for an answer or 2 s for a page.
"""

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import Browser, Page, expect
from rich.console import Console

from lesion.catalogue.first_model import import_run
from lesion.core.cli_errors import cli_errors
from lesion.core.files import bytes_sha256
from lesion.core.paths import latest_bundle
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import Image, Job, now
from lesion.model.bundle import Bundle
from lesion.promotion.comparison import GateSet
from lesion.promotion.gate import decide
from lesion.promotion.gate_settings import GateSettings
from scripts.bench.common import api_server, bench_parser, bench_table, interleaved, machine, page_server
from scripts.dev.browsing import HEIGHT, PAGES, WIDTHS, browser, browser_context, drop, go, settle, window
from serve.load.samples import encode, scan

IMAGES, JOBS, SIDE = 7000, 50, 256
ANSWER_S, PAGE_S = 1.0, 2.0
COLUMNS = ("what", "median s", "slowest s", "at most s")


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 when users wait longer than promised")
    parser.add_argument("--bundle", type=Path, help="that of the newest run by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_page"))
    options = parser.parse_args()
    with cli_errors():
        bundle = (options.bundle or latest_bundle()).resolve()
        root = options.out.resolve()
        shutil.rmtree(root, ignore_errors=True)
        storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
        picture = fill(storage, bundle, root / "dropped.png")
        settings = (f"bundle={bundle}", "storage=local", f"storage_root={root}", "worker=false")
        with api_server(root, *settings) as api, page_server(root, api) as address, browser() as chromium:
            waits = interleaved(lambda: measure(chromium, address, picture), options.rounds)
    return report(waits, options.require)


def fill(storage: Storage, bundle: Path, picture: Path) -> Path:
    """Fill the catalogue like that of a loop that has run for a year; return a picture that is not in it."""
    storage.upgrade()
    champion = import_run(storage, bundle.parent, "bench", "the first model")["version"]
    rng = np.random.default_rng(0)
    classes = Bundle.open(bundle).classes
    with storage.session() as session, ThreadPoolExecutor(2) as pool:
        missing = IMAGES - session.query(Image).count()
        for number, (content, brightness) in enumerate(pool.map(draw_picture, range(missing))):
            sha256 = bytes_sha256(content)
            storage.store.put(image_key(sha256), content)
            session.add(image_row(rng, number, sha256, classes[number % len(classes)], len(content), brightness))
        verdict = decide([gate_set(rng, len(classes))], classes, GateSettings(), 0.04).to_json()
        session.add_all(job_row(number, champion, verdict) for number in range(JOBS))
    picture.write_bytes(draw_picture(IMAGES)[0])
    return picture


def draw_picture(seed: int) -> tuple[bytes, float]:
    """Return a picture file, and its brightness."""
    pixels = scan(seed, SIDE)
    return encode(pixels, "JPEG", quality=85), float(pixels.mean())


def image_row(rng: np.random.Generator, number: int, sha256: str, label: str, size: int, brightness: float) -> Image:
    split = str(rng.choice(["train", "val", "calibration", "gate"], p=[0.64, 0.08, 0.08, 0.2]))
    side = int(rng.choice([200, 225, 236, 256, 512]))
    return Image(
        sha256=sha256, pixel_sha256=rng.bytes(32).hex(), phash=rng.bytes(8).hex(), label=label,
        status="accepted" if number % 40 else "quarantined", reason_code="" if number % 40 else "disputed",
        reason="" if number % 40 else "The model is sure of another class.", split=split,
        generation=1 if split == "gate" else None, group_key=sha256 if number % 7 else "g" * 64, source="upload",
        uploader="ann", width=side, height=side, mode="L", format="JPEG", bytes=size, brightness=brightness,
        thumbnail=rng.bytes(1024), created_at=now() - timedelta(days=int(rng.integers(365))),
    )  # fmt: skip


def gate_set(rng: np.random.Generator, classes: int, images: int = 700) -> GateSet:
    """Return a gate set with the predictions of two models that are seldom wrong."""
    labels = rng.integers(classes, size=images)
    predictions = []
    for error_rate in (0.06, 0.05):
        probabilities = rng.dirichlet(np.ones(classes), images) * 0.2
        predicted = np.where(rng.random(images) < error_rate, (labels + 1) % classes, labels)
        probabilities[np.arange(images), predicted] += 0.8
        predictions.append(probabilities.astype(np.float32))
    names = [rng.bytes(32).hex() for _ in range(images)]
    return GateSet(1, labels, np.array(names), predictions[0], predictions[1], names)


def job_row(number: int, champion: str, verdict: dict[str, object]) -> Job:
    begun = now() - timedelta(days=number * 7 + 1)
    metrics = [
        {"epoch": epoch, "train/loss": 1 / epoch, "val/loss": 1.2 / epoch, "val/acc": 0.9, "val/f1_macro": 0.9}
        for epoch in range(1, 11)
    ]
    return Job(
        id=f"{number:032x}", state="rejected", stage="rejected", progress=1.0, epoch=10, metrics=metrics,
        request={"epochs": 10, "batch_size": 32, "learning_rate": 1e-4}, requested_by="ann", parent=champion,
        reason="The new model is not better beyond chance.", verdict=verdict, created_at=begun, started_at=begun,
        finished_at=begun + timedelta(minutes=10), updated_at=begun + timedelta(minutes=10),
    )  # fmt: skip


def measure(chromium: Browser, address: str, picture: Path) -> dict[str, float]:
    """Return the seconds that a user with a new session waits for each thing."""
    page = window(browser_context(chromium, WIDTHS["desktop"], HEIGHT))
    begin = time.perf_counter()
    page.goto(address)
    page.get_by_test_id("stFileUploader").first.wait_for()
    waits = {"first sight": time.perf_counter() - begin}
    settle(page)
    begin = time.perf_counter()
    drop(page, picture)
    expect(page.get_by_text("Answered in").first).to_be_visible()
    page.get_by_test_id("stImage").locator("img").first.wait_for()
    waits["answer"] = time.perf_counter() - begin
    settle(page)
    waits |= {name: page_seconds(page, name) for name in (*PAGES[1:], PAGES[0])}
    page.context.close()
    return waits


def page_seconds(page: Page, name: str) -> float:
    begin = time.perf_counter()
    go(page, name)
    page.get_by_role("heading", name=name, exact=True).wait_for()
    settle(page)
    return time.perf_counter() - begin


def report(waits: dict[str, list[float]], require: bool) -> int:
    table = bench_table(f"{IMAGES:,} images, {JOBS} jobs, {machine()}", COLUMNS)
    late = False
    for name, seconds in waits.items():
        bound = {"answer": ANSWER_S, "first sight": None}.get(name, PAGE_S)
        late |= bound is not None and median(seconds) > bound
        table.add_row(name, f"{median(seconds):.2f}", f"{max(seconds):.2f}", f"{bound:g}" if bound else "")
    Console().print(table)
    return int(require and late)


if __name__ == "__main__":
    sys.exit(main())
