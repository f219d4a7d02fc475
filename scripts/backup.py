"""Back up, verify and restore the database and the store: python scripts/backup.py --help."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["backup", *sys.argv[1:]]))
