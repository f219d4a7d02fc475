"""Run retrainings: python scripts/worker.py."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["worker", *sys.argv[1:]]))
