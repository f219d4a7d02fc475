"""Back up, verify and restore the database and the store: python scripts/backup.py --help."""

import sys
from pathlib import Path

from lesion.cli.backup import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1] / "configs"))
