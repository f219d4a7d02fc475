"""Ask a running server for a retraining: python scripts/retrain.py http://127.0.0.1:8000."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
