"""Fail unless a metric of a run reached a bound: python scripts/dev/check_metric.py RUN/metrics.json test/acc 0.90."""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("key")
    parser.add_argument("minimum", type=float)
    options = parser.parse_args()
    value = json.loads(options.metrics.read_text("utf-8"))["metrics"][options.key]
    reached = value is not None and value >= options.minimum
    print(f"{options.key} = {value:.4f}, {'at least' if reached else 'BELOW'} {options.minimum}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
