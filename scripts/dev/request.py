"""Send one image to a running server and print its answer: request.py http://127.0.0.1:8000 IMAGE."""

import argparse
import json
from pathlib import Path

from lesion.client import Client
from lesion.core.cli_errors import cli_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("image", type=Path)
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for the server to start")
    options = parser.parse_args()
    with cli_errors(), Client(options.address) as client:
        client.wait_ready(options.wait)
        response = client.predict(options.image.read_bytes())
    print(f"POST /predict {options.image}")
    print(json.dumps(response, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
