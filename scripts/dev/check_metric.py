"""Fail unless a metric of a run reached a bound: python scripts/dev/check_metric.py RUN/metrics.json test/acc 0.90."""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path)
    parser.add_argument("key")
    parser.add_argument("least", type=float)
    arguments = parser.parse_args()
    value = json.loads(arguments.metrics.read_text("utf-8"))["metrics"][arguments.key]
    reached = value is not None and value >= arguments.least
    print(f"{arguments.key} = {value:.4f}, {'at least' if reached else 'BELOW'} {arguments.least}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
