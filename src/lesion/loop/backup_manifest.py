"""A backup's manifest: what is in the folder, with hashes; written last, so that a backup without one is not whole."""

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lesion.errors import LesionError
from lesion.loop.snapshot_store import THREADS
from lesion.model.bundle import canonical_json

FORMAT = 1
NAME = "manifest.json"
FILES, DATABASE = "files", "database"  # folders of a backup: the store's objects under their names, and the dumps
_SHOWN = 5  # names in a message
_SAFE = re.compile(rf"(?:{FILES}|{DATABASE})(?:/(?!\.{{1,2}}(?:/|$))[\w.\- ]+)+")


class BackupError(LesionError):
    """A backup that cannot be made, is not whole, or cannot be restored here."""

    default_code = "backup_failed"
    default_status = 409


def some(names: list[str]) -> str:
    """Return the first names for a message, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def write(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write a manifest in place of the one before, whole or not at all; returns it."""
    manifest = {"format": FORMAT} | facts
    manifest["sha256"] = _seal(manifest)
    temporary = folder / f".{NAME}.part"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """Return a backup's manifest.

    Raises:
        BackupError: There is none (``backup_incomplete``), it was altered (``backup_altered``), or a newer version of
            Lesion wrote it (``backup_newer``).
    """
    path = folder / NAME
    if not path.is_file():
        raise BackupError(
            f"'{folder}' has no {NAME}: it is no backup, or one that was interrupted. Run create again, it goes on.",
            code="backup_incomplete",
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        newer = manifest["format"] > FORMAT
        whole = newer or manifest["sha256"] == _seal(manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        newer = whole = False
    if newer:
        raise BackupError(f"'{path}' is of a newer version of Lesion. Update Lesion.", code="backup_newer")
    if not whole or not all(_SAFE.fullmatch(name) for name in manifest["files"]):
        raise BackupError(f"'{path}' was altered or is damaged. Use another backup.", code="backup_altered")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Read every file of a backup and compare it with the manifest, which is returned.

    Raises:
        BackupError: As :func:`read`; a file is missing or has other bytes (``backup_altered``), which are named.
    """
    manifest = read(folder)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: facts_of(folder / name) if (folder / name).is_file() else None, manifest["files"])
        wrong = [name for name, facts in zip(manifest["files"], found, strict=True) if facts != manifest["files"][name]]
    if wrong:
        raise BackupError(
            f"{len(wrong)} of the {len(manifest['files'])} files of '{folder}' are missing or have other bytes than "
            f"when the backup was made: {some(wrong)}. Use another backup; nothing was restored.",
            code="backup_altered",
        )
    return manifest


def facts_of(path: Path) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def prune(folder: Path, manifest: dict[str, Any]) -> None:
    """Remove what a backup holds beyond its manifest: earlier dumps, and images that were deleted since."""
    for path in (folder / FILES, folder / DATABASE):
        for file in path.rglob("*"):
            if file.is_file() and file.relative_to(folder).as_posix() not in manifest["files"]:
                file.unlink()


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({key: manifest[key] for key in manifest if key != "sha256"})).hexdigest()
