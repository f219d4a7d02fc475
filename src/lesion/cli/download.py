"""Download a reference dataset: lesion download brain_tumor_mri --to data/brain_tumor_mri."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lesion.core.errors import LesionError
from lesion.download.reference_datasets import download
from lesion.download.sources import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if the dataset is complete, 1 if it could not be downloaded, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    folder = options.to or Path("data") / options.name
    try:
        place = {"mirror": options.mirror, "url": options.url, "sha256": options.sha256}
        download(options.name, folder, source=options.source, **place)
    except (LesionError, OSError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"{options.name}: {error.name} is missing; run pip install 'lesion[train]'.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run the same command to continue.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lesion download", description="Download a reference dataset, or verify it if it is there."
    )
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--to", type=Path, help="the folder to create (default: data/<name>)")
    parser.add_argument("--source", choices=["auto", "kaggle", "hub", "url"], default="auto")
    parser.add_argument("--mirror", metavar="OWNER/NAME", help="a dataset on the Hugging Face hub")
    parser.add_argument("--url", help="a ZIP archive over HTTP")
    parser.add_argument("--sha256", help="the archive's checksum")
    return parser
