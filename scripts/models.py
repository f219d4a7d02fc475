"""Import, list, promote and roll back models: python scripts/models.py --help."""

import sys
from pathlib import Path

from lesion.cli.models import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1] / "configs"))
