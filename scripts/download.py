"""Download a reference data set: ``python scripts/download.py brain_tumor_mri --to data/brain_tumor_mri``."""

import argparse
import sys
from pathlib import Path

from lesion.core.errors import LesionError
from lesion.download.reference_datasets import download
from lesion.download.sources import RECIPES


def main() -> int:
    parser = argparse.ArgumentParser(description="Download a reference data set, or verify it if it is there.")
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--to", type=Path, help="the folder to make (data/<name>)")
    parser.add_argument("--source", choices=["auto", "kaggle", "hub", "url"], default="auto")
    parser.add_argument("--mirror", metavar="OWNER/NAME", help="a data set on the Hugging Face hub")
    parser.add_argument("--url", help="a ZIP archive over HTTP")
    parser.add_argument("--sha256", help="the archive's checksum")
    given = parser.parse_args()
    try:
        to = given.to or Path("data") / given.name
        download(given.name, to, source=given.source, mirror=given.mirror, url=given.url, sha256=given.sha256)
    except (LesionError, OSError) as error:
        print(f"{given.name}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"{given.name}: {error.name} is missing; run pip install 'lesion[train]'.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
