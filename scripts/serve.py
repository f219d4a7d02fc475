"""Serve a bundle over HTTP: python scripts/serve.py bundle=outputs/bundle port=8000."""

import sys
from pathlib import Path

from lesion.cli.main import main

if __name__ == "__main__":
    # This folder has a serve.py, which would hide the package serve.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main(["serve", *sys.argv[1:]]))
