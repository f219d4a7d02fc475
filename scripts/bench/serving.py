"""Measure what serving costs over the bare engine: engine, Predictor and HTTP server, in turns, as medians.

    python scripts/bench/serving.py --bundle outputs/bundle [--images FOLDER] [--rounds 5]

The engine alone, times the number of cores, is the ceiling. The server runs one worker a core; its clients share the
same cores, so its figure is a lower bound.
"""

import argparse
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from lesion.core.cli_errors import cli_errors, latest_bundle
from lesion.core.cpu import available_cores
from lesion.model.predictor import Predictor
from serve.load.samples import load_images

CLIENTS = 4  # processes, each with one connection at a time


def main() -> None:
    """Run the bench and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--images", help="a folder of images to send; generated 512-pixel JPEGs by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18321)
    options = parser.parse_args()
    with cli_errors():
        bundle = options.bundle or latest_bundle()
        cores = available_cores()
        images = load_images(options.images)
        predictor = Predictor.load(bundle, device="cpu")
        decoded = np.stack([predictor.bundle.preprocessing.read(data) for data in images])
        server = start(bundle, options.port, cores)
        try:
            with ProcessPoolExecutor(CLIENTS, get_context("spawn")) as pool:
                url = f"http://127.0.0.1:{options.port}/predict"
                subjects: dict[str, Callable[[], float]] = {
                    "engine, 1 thread": lambda: rate(lambda: predictor.engine(decoded), len(decoded)),
                    "Predictor, 1 thread": lambda: rate(lambda: predictor.predict(images), len(images)),
                    f"HTTP, {cores} workers": lambda: send(pool, url, images),
                }
                rounds = [{name: run() for name, run in subjects.items()} for _ in range(options.rounds)]
        finally:
            server.terminate()
            server.wait(30)
    report({name: median(each[name] for each in rounds) for name in subjects}, cores, predictor.engine.precision)


def rate(run: Callable[[], object], images: int) -> float:
    """Return images a second over at least one second."""
    run()
    begin = time.perf_counter()
    runs = 0
    while time.perf_counter() - begin < 1.0:
        run()
        runs += 1
    return runs * images / (time.perf_counter() - begin)


def start(bundle: Path, port: int, workers: int) -> "subprocess.Popen[bytes]":
    """Start a server and wait until it is ready."""
    script = Path(__file__).parents[1] / "serve.py"
    settings = [f"bundle={bundle}", f"port={port}", f"server.workers={workers}", "server.device=cpu"]
    server = subprocess.Popen([sys.executable, str(script), *settings], stdout=subprocess.DEVNULL)
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            return server
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server did not start.")


def send(pool: ProcessPoolExecutor, url: str, images: list[bytes]) -> float:
    """Return answers a second over some seconds, from several clients at once."""
    begin = time.perf_counter()
    counts = list(pool.map(client, [url] * CLIENTS, [images] * CLIENTS))
    return sum(counts) / (time.perf_counter() - begin)


def client(url: str, images: list[bytes], seconds: float = 3.0) -> int:
    """Send images one after another over one connection; return how many were answered."""
    import http.client

    connection = http.client.HTTPConnection(url.split("/")[2])
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < seconds:
        connection.request("POST", "/predict", images[count % len(images)], {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the server answered {answer.status}")
        count += 1
    return count


def report(rates: dict[str, float], cores: int, precision: str) -> None:
    """Print images a second, and each as a share of the engine on every core."""
    engine = next(iter(rates.values()))
    table = Table(title=f"{cores} cores, OpenVINO {precision}, load {os.getloadavg()[0]:.1f}")
    for heading in ("what", "images/s", f"of {cores} × engine"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, value in rates.items():
        table.add_row(name, f"{value:.0f}", f"{value / (engine * cores):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
