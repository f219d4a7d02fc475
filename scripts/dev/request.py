"""Send one image to a running server and print its answer: request.py http://127.0.0.1:8000 IMAGE."""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("image", type=Path)
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for the server to come up")
    arguments = parser.parse_args()
    if not _ready(arguments.address, arguments.wait):
        print(f"No server answers at {arguments.address}.", file=sys.stderr)
        return 1
    request = urllib.request.Request(
        f"{arguments.address}/predict", arguments.image.read_bytes(), {"Content-Type": "application/octet-stream"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(error.read().decode("utf-8", "replace"), file=sys.stderr)
        return 1
    print(f"POST /predict {arguments.image}")
    print(json.dumps(answer, indent=2, ensure_ascii=False))
    return 0


def _ready(address: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
