"""Make, list and revoke API keys: python scripts/keys.py --help."""

import sys
from pathlib import Path

from lesion.cli.keys import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1] / "configs"))
