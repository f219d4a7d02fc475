"""Fail unless the web page answers: python scripts/dev/check_page.py http://127.0.0.1:8501 --wait 60."""

import argparse
import sys
import time

import psutil  # type: ignore[import-untyped]

from serve.deploy.ports import page_answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="the page, such as http://127.0.0.1:8501")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for it to start")
    parser.add_argument("--process", type=int, help="the page's process id; if it has ended, another program answers")
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    while not (answers := page_answers(options.address)) and time.monotonic() < deadline and _lives(options.process):
        time.sleep(0.5)
    if not answers:
        print(f"No page answers at {options.address}.", file=sys.stderr)
        return 1
    if not _lives(options.process):
        print(f"The page has ended; something else answers at {options.address}.", file=sys.stderr)
        return 1
    print(f"GET {options.address}: the web page answers.")
    return 0


def _lives(process: int | None) -> bool:
    return process is None or psutil.pid_exists(process)


if __name__ == "__main__":
    sys.exit(main())
