"""Show the web page of a running server: python scripts/ui.py --api http://127.0.0.1:8000."""

import sys
from pathlib import Path

from lesion.cli.main import main

if __name__ == "__main__":
    # This folder has a serve.py, which would hide the package serve.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    sys.exit(main(["ui", *sys.argv[1:]]))
