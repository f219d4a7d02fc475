"""Fail unless the web page answers: python scripts/dev/check_page.py http://127.0.0.1:8501 --wait 60."""

import argparse
import os
import sys
import time
import urllib.request


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="the page, such as http://127.0.0.1:8501")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for it to come up")
    parser.add_argument("--process", type=int, help="the page's process; if it has ended, another one answers there")
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.wait
    while not (answers := _answers(arguments.address)) and time.monotonic() < deadline and _lives(arguments.process):
        time.sleep(0.5)
    if not answers:
        print(f"No page answers at {arguments.address}.", file=sys.stderr)
        return 1
    if not _lives(arguments.process):
        print(f"The page has ended; something else answers at {arguments.address}.", file=sys.stderr)
        return 1
    print(f"GET {arguments.address}: the web page answers.")
    return 0


def _answers(address: str) -> bool:
    """Whether there is the page's HTML, and behind it the program that fills it."""
    try:
        with (
            urllib.request.urlopen(address, timeout=5) as page,
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as health,
        ):
            return b"<html" in page.read() and health.read() == b"ok"
    except OSError:
        return False


def _lives(process: int | None) -> bool:
    """Whether a process is there, if one is named."""
    try:
        if process is not None:
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
