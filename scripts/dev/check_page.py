"""Fail unless the web page answers: python scripts/dev/check_page.py http://127.0.0.1:8501 --wait 60."""

import argparse
import sys
import time
from functools import partial

import psutil

from serve.deploy.ports import page_answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="the page, such as http://127.0.0.1:8501")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for it to start")
    parser.add_argument("--process", type=int, help="the page's process id; if it has ended, another program answers")
    options = parser.parse_args()
    deadline = time.monotonic() + options.wait
    lives = partial(psutil.pid_exists, options.process) if options.process is not None else lambda: True
    while not (answers := page_answers(options.address)) and time.monotonic() < deadline and lives():
        time.sleep(0.5)
    if not answers:
        sys.exit(f"No page answers at {options.address}.")
    if not lives():
        sys.exit(f"The page has ended; something else answers at {options.address}.")
    print(f"GET {options.address}: the web page answers.")


if __name__ == "__main__":
    main()
