"""Measure how long people wait for the page: python scripts/bench/page.py [--bundle RUN/bundle] [--require].

Against a server of its own whose database holds 7,000 images and 50 jobs, in a real browser: from the drop of an image
to its answer, and each page from the click on its name until everything is there. Every round begins with a session
that has nothing in its cache. --require exits with 1 above 1 s for an answer or 2 s for a page, in the median.
"""

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from PIL import Image as Picture
from playwright.sync_api import Browser, expect
from rich.console import Console
from rich.table import Table

from lesion.cli.models import import_run
from lesion.client import Client
from lesion.core.cli_errors import cli_errors, latest_bundle
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import Image, Job, now
from lesion.imaging.decode import bytes_sha256
from lesion.model.bundle import Bundle
from lesion.promotion.gate import GateSet, GateSettings, decide
from scripts.dev.browsing import HEIGHT, PAGES, WIDTHS, browser, drop, go, settle, window

REPOSITORY = Path(__file__).parents[2]
IMAGES, JOBS, SIDE = 7000, 50, 256
ANSWER_S, PAGE_S = 1.0, 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="the newest run's by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench_page"))
    parser.add_argument("--require", action="store_true", help="exit 1 where people wait longer than promised")
    options = parser.parse_args()
    with cli_errors():
        bundle = (options.bundle or latest_bundle()).resolve()
        root = options.out.resolve()
        shutil.rmtree(root, ignore_errors=True)
        storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
        picture = fill(storage, bundle, root / "dropped.png")
    with serving(bundle, root) as address, browser() as opened:
        waits = [measure(opened, address, picture) for _ in range(options.rounds)]
    return report({name: [each[name] for each in waits] for name in waits[0]}, options.require)


def fill(storage: Storage, bundle: Path, picture: Path) -> Path:
    """Make the catalogue of a loop that has run for a year; return a picture that is not in it."""
    storage.upgrade()
    champion = import_run(storage, bundle.parent, "bench", "the first model")["version"]
    rng = np.random.default_rng(0)
    classes = Bundle.open(bundle).classes
    with storage.session() as session, ThreadPoolExecutor(2) as pool:
        there = session.query(Image).count()
        made = pool.map(lambda seed: drawn(seed), range(IMAGES - there))
        for number, (content, brightness) in enumerate(made):
            sha256 = bytes_sha256(content)
            storage.store.put(image_key(sha256), content)
            session.add(row_of(rng, number, sha256, classes[number % len(classes)], len(content), brightness))
        verdict = decide([gate_set(rng, len(classes))], classes, GateSettings(), 0.04).to_json()
        session.add_all(job_of(number, champion, verdict) for number in range(JOBS))
    picture.write_bytes(drawn(IMAGES)[0])
    return picture


def drawn(seed: int) -> tuple[bytes, float]:
    """A picture file of a coarse pattern, and its brightness."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    picture = Picture.fromarray(coarse).resize((SIDE, SIDE), Picture.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), float(coarse.mean())


def row_of(rng: np.random.Generator, number: int, sha256: str, label: str, size: int, brightness: float) -> Image:
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
    """What two models that are seldom wrong answered."""
    labels = rng.integers(classes, size=images)
    both = []
    for share in (0.06, 0.05):
        answers = rng.dirichlet(np.ones(classes), images) * 0.2
        given = np.where(rng.random(images) < share, (labels + 1) % classes, labels)
        answers[np.arange(images), given] += 0.8
        both.append(answers.astype(np.float32))
    names = [rng.bytes(32).hex() for _ in range(images)]
    return GateSet(1, labels, np.array(names), both[0], both[1], names)


def job_of(number: int, champion: str, verdict: dict[str, object]) -> Job:
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


@contextmanager
def serving(bundle: Path, root: Path) -> Iterator[str]:
    """A server and its page, for as long as the block runs; gives the page's address."""
    api, page = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    serve = [
        f"bundle={bundle}",
        f"port={api.rpartition(':')[2]}",
        "storage=local",
        f"storage_root={root}",
        "worker=false",
    ]
    show = ["--api", api, "--port", page.rpartition(":")[2]]
    with (root / "log").open("w") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, REPOSITORY / "scripts" / name, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for name, arguments in (("serve.py", serve), ("ui.py", show))
        ]
        try:
            with Client(api) as client:
                client.wait_ready()
            while processes[1].poll() is None and not answers(page):
                time.sleep(0.2)
            yield page
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


def answers(page: str) -> bool:
    try:
        return httpx.get(f"{page}/_stcore/health").is_success
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(opened: Browser, address: str, picture: Path) -> dict[str, float]:
    """Return the seconds that somebody with a new session waits for each thing."""
    page = window(opened, WIDTHS["desktop"], HEIGHT)
    waits = {}
    begin = time.perf_counter()
    page.goto(address)
    page.get_by_test_id("stFileUploader").first.wait_for()
    waits["first sight"] = time.perf_counter() - begin
    settle(page)
    begin = time.perf_counter()
    drop(page, picture)
    expect(page.get_by_text("Answered in").first).to_be_visible()
    page.get_by_test_id("stImage").locator("img").first.wait_for()
    waits["answer"] = time.perf_counter() - begin
    settle(page)
    for name in (*PAGES[1:], PAGES[0]):
        begin = time.perf_counter()
        go(page, name)
        page.get_by_role("heading", name=name, exact=True).wait_for()
        settle(page)
        waits[name] = time.perf_counter() - begin
    page.context.close()
    return waits


def report(waits: dict[str, list[float]], require: bool) -> int:
    table = Table(title=f"{IMAGES:,} images, {JOBS} jobs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for heading in ("what", "median s", "slowest s", "at most s"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    late = False
    for name, seconds in waits.items():
        most = {"answer": ANSWER_S, "first sight": None}.get(name, PAGE_S)
        late |= most is not None and median(seconds) > most
        table.add_row(name, f"{median(seconds):.2f}", f"{max(seconds):.2f}", f"{most:g}" if most else "")
    Console().print(table)
    return int(require and late)


if __name__ == "__main__":
    sys.exit(main())
