"""Which files are never data, and where the newest model is."""

from pathlib import Path, PurePath

from lesion.core.errors import LesionError

_ARCHIVER_FOLDER = "__MACOSX"  # macOS adds a shadow of every file to its ZIP archives, under the same name


def is_hidden(path: PurePath) -> bool:
    """Return whether any part of a path begins with a dot or is a folder that archivers add.

    Give the path relative to the folder that the user named: folders above it do not count.
    """
    return any(part.startswith(".") or part == _ARCHIVER_FOLDER for part in path.parts)


def latest_bundle(outputs: Path = Path("outputs")) -> Path:
    """Return the newest ``<command>/<run>/bundle`` in a folder of runs; raise a LesionError if there is none."""
    bundles = sorted(outputs.glob("*/*/bundle/bundle.json"), key=lambda path: path.stat().st_mtime)
    if not bundles:
        raise LesionError(
            f"There is no bundle in '{outputs}'. Train one first (lesion train), or name one.", code="bundle_missing"
        )
    return bundles[-1].parent
