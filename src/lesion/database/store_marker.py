"""A file in the folder of a store, by which it is told from the empty folder that an unmounted share leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion.core.files import write_atomically

MARKER = ".lesion-store"
_TEXT = (
    "This folder is a store of Lesion. Without this file and its images it is taken for a share that is not mounted.\n"
)


@dataclass(frozen=True)
class StoreMarker:
    """The marker of a store's ``folder``; stores of earlier versions get theirs when they are written to next."""

    folder: Path
    # Returns names of files in the folder that the catalogue knows, perhaps not all; empty while the store is new.
    known_files: Callable[[], Sequence[str]]

    def is_there(self) -> bool:
        """Return whether the folder is the store's: it has the marker or a known file, or no file is known yet."""
        if (self.folder / MARKER).exists():
            return True
        known = self.known_files()
        return not known or any((self.folder / name).exists() for name in known)

    def write(self) -> None:
        """Mark the folder; it is created if necessary."""
        if not (self.folder / MARKER).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / MARKER, _TEXT)
            (self.folder / MARKER).chmod(0o644)  # whatever the umask: other users' servers look for it
