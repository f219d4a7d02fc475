"""Which files are never data, and where the newest model is."""

from pathlib import Path, PurePath

from lesion.core.errors import LesionError

# Folders that programs add: macOS's shadow of every file in a ZIP archive, thumbnails and waste of file servers.
_ADDED_FOLDERS = frozenset({
    "__MACOSX", "@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "System Volume Information",
    "lost+found",
})  # fmt: skip
_ADDED_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})  # lower case


def is_hidden(path: PurePath) -> bool:
    """Return whether any part of a path begins with a dot or is a folder or file that other programs add.

    Give the path relative to the folder that the user named: folders above it do not count.
    """
    hidden = any(part.startswith(".") or part in _ADDED_FOLDERS for part in path.parts)
    return hidden or path.name.lower() in _ADDED_FILES


def latest_bundle(outputs: Path = Path("outputs")) -> Path:
    """Return the newest ``<command>/<run>/bundle`` in a folder of runs; raise a LesionError if there is none."""
    bundles = sorted(outputs.glob("*/*/bundle/bundle.json"), key=lambda path: path.stat().st_mtime)
    if not bundles:
        raise LesionError(
            f"There is no bundle in '{outputs}'. Train one first (lesion train), or name one.", code="bundle_missing"
        )
    return bundles[-1].parent
