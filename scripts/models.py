"""Import, list, promote and roll back models: python scripts/models.py --help."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["models", *sys.argv[1:]]))
