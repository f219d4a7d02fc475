"""Predict images with a bundle.

python scripts/predict.py scan.png more/ --bundle outputs/bundle
python scripts/predict.py more/ --csv --top-k 2 > answers.csv
cat scan.png | python scripts/predict.py - --json --overlay overlays/
"""

import sys

from lesion.cli.predict.command import main

if __name__ == "__main__":
    sys.exit(main())
