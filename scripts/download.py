"""Download a reference dataset: python scripts/download.py brain_tumor_mri --to data/brain_tumor_mri."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["download", *sys.argv[1:]]))
