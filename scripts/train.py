"""Train, evaluate, explain and bundle a classifier: python scripts/train.py experiment=phantom_mri."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
