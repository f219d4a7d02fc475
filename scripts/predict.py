"""Predict image files with a bundle: python scripts/predict.py scan.png more/ --bundle outputs/bundle."""

import sys

from lesion.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
