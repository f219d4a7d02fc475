"""Decode damaged image files until the time is over.

    python scripts/dev/fuzz_decoder.py MINUTES [--seed N] [--keep FOLDER]

Files of all formats, DICOM included, are made by the tests' own writers; their headers, metadata and pixels are changed
at random, and checksums are made right again, so that the damage gets past them. Each is decoded in a child process
under the default limits. What must not happen: an error that is no ImageError, a warning, an array of another kind,
more than 2 seconds of processor time, more than 1 GB of memory, or the end of the process. Such files are kept. The
exit status is 1 if there are any.
"""

import argparse
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, probe
from tests.support.images.fuzz_seeds import fuzz_seeds
from tests.support.images.hostile import mutated, with_checksums

MAX_SECONDS = 2.0
MAX_BYTES = 2**30
SILENT_SECONDS = 30  # of a child: it hangs without using the processor


def changed(files: list[bytes], rng: np.random.Generator) -> bytes:
    """Return one damaged file: most damage is near the beginning, where the header is."""
    data = files[int(rng.integers(len(files)))]
    if rng.integers(3):
        head = int(rng.integers(16, 400))
        data = mutated(data[:head], rng) + data[head:]
    else:
        data = mutated(data, rng)
    return with_checksums(data) if data.startswith(b"\x89PNG") and rng.integers(5) else data


def fault_of(data: bytes) -> tuple[str, str]:
    """Decode a file; return what came of it, and the fault or an empty text."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = decode(data)
        wrong = image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.writeable
        outcome, fault = "decoded", "an array of another kind" if wrong else ""
        facts = probe(data)
        if (facts.height, facts.width) != image.shape[:2]:
            fault = "probe gives another size"
    except ImageError as error:
        outcome, fault = error.code, ""
    except BaseException as error:
        outcome, fault = "fault", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    return outcome, fault or (f"{seconds:.1f} s" if seconds > MAX_SECONDS else "")


def work(connection: multiprocessing.connection.Connection, seed: int) -> None:
    """Decode damaged files; before each, tell the parent which one it is, for the case that this process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libtiff says about each file
    files, rng = fuzz_seeds(), np.random.default_rng(seed)
    for data in files:  # the libraries are loaded before their memory is limited
        fault_of(data)
    with Path("/proc/self/statm").open() as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_BYTES, -1))
    while True:
        data = changed(files, rng)
        connection.send(("now", data, ""))
        connection.send(("done", *fault_of(data)))


def run(minutes: float, seed: int, keep: Path) -> int:
    """Fuzz for some minutes and print what came of it; return the number of faults."""
    end, outcomes, faults, child_seed = time.monotonic() + 60 * minutes, Counter[str](), 0, seed
    while time.monotonic() < end:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=work, args=(sender, child_seed), daemon=True)
        child.start()
        sender.close()
        data, problem = b"", ""
        while time.monotonic() < end and not problem:
            if not receiver.poll(SILENT_SECONDS):
                problem = f"no answer within {SILENT_SECONDS} s"
                break
            try:
                message, first, second = receiver.recv()
            except EOFError:
                child.join()
                problem = f"the process ended with {child.exitcode}"
                break
            if message == "now":
                data = first
                continue
            outcomes[first] += 1
            problem = second
        child.kill()
        child.join()
        child_seed += 1
        if problem:
            faults += 1
            keep.mkdir(parents=True, exist_ok=True)
            file = keep / f"fault{faults}_{os.getpid()}"
            file.write_bytes(data)
            print(f"{file}: {problem}", flush=True)
    for outcome, count in outcomes.most_common():
        print(f"{count:9,} {outcome}")
    print(f"{sum(outcomes.values()):,} files, {faults} faults, seeds from {seed} on.")
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Decode damaged image files until the time is over.")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("outputs/fuzz"))
    options = parser.parse_args()
    sys.exit(1 if run(options.minutes, options.seed, options.keep) else 0)
