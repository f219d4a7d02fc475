"""Make a storage ready for servers and workers: python scripts/prepare.py."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
