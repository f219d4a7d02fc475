"""Measure what serving costs over the bare engine: engine, Predictor and HTTP server, in turns, as medians.

    python scripts/bench/serving.py --bundle outputs/bundle [--images FOLDER] [--rounds 5]

The rate of the engine alone, times the number of cores, is the ceiling. The server runs one inference worker per core;
its clients use the same cores, so its rate is a lower bound.
"""

import http.client
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console

from lesion.core.cli_errors import cli_errors
from lesion.core.cpu import available_cores
from lesion.core.paths import latest_bundle
from lesion.model.predictor import Predictor
from scripts.bench.common import api_server, bench_parser, bench_table, interleaved, machine
from serve.load.samples import load_images

CLIENTS = 4  # processes, each with one connection at a time


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--images", help="a folder of images to send; generated 512-pixel JPEGs by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18321)
    options = parser.parse_args()
    with cli_errors(), tempfile.TemporaryDirectory(prefix="lesion-bench-") as folder:
        bundle = (options.bundle or latest_bundle()).resolve()
        predictor = Predictor.load(bundle, device="cpu")
        images = load_images(options.images)
        settings = (f"bundle={bundle}", f"server.workers={available_cores()}", "server.device=cpu")
        with (
            api_server(Path(folder), *settings, port=options.port) as address,
            ProcessPoolExecutor(CLIENTS, get_context("spawn")) as pool,
        ):
            measures = subjects(predictor, images, pool, address)
            rates = interleaved(lambda: {name: measure() for name, measure in measures.items()}, options.rounds)
        report({name: median(values) for name, values in rates.items()}, predictor.engine.precision)


def subjects(
    predictor: Predictor, images: list[bytes], pool: ProcessPoolExecutor, address: str
) -> dict[str, Callable[[], float]]:
    """Return what is measured: functions that return images per second."""
    decoded = np.stack([predictor.bundle.preprocessing.read(data) for data in images])
    return {
        "engine, 1 thread": lambda: rate(lambda: predictor.engine(decoded), len(decoded)),
        "Predictor, 1 thread": lambda: rate(lambda: predictor.predict(images), len(images)),
        f"HTTP, {available_cores()} workers": lambda: send(pool, address, images),
    }


def rate(run: Callable[[], object], images: int) -> float:
    """Return images per second, measured for at least one second."""
    run()
    begin = time.perf_counter()
    runs = 0
    while time.perf_counter() - begin < 1.0:
        run()
        runs += 1
    return runs * images / (time.perf_counter() - begin)


def send(pool: ProcessPoolExecutor, address: str, images: list[bytes]) -> float:
    """Return responses per second over some seconds, from several clients at once."""
    begin = time.perf_counter()
    counts = list(pool.map(client, [address] * CLIENTS, [images] * CLIENTS))
    return sum(counts) / (time.perf_counter() - begin)


def client(address: str, images: list[bytes], seconds: float = 3.0) -> int:
    """Send images one after another over one connection; return how many were answered."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    begin = time.perf_counter()
    count = 0
    while time.perf_counter() - begin < seconds:
        connection.request("POST", "/predict", images[count % len(images)], {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"the server answered {response.status}")
        count += 1
    return count


def report(rates: dict[str, float], precision: str) -> None:
    cores, engine = available_cores(), next(iter(rates.values()))
    table = bench_table(f"{machine()}, OpenVINO {precision}", ("what", "images/s", f"of {cores} × engine"))
    for name, value in rates.items():
        table.add_row(name, f"{value:.0f}", f"{value / (engine * cores):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
