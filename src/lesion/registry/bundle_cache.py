"""The bundles that this machine has: brought from the store once, verified, and known again while nothing changed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lesion.core.errors import BundleError
from lesion.database.object_store import StoreError, bundle_key
from lesion.database.storage import Storage
from lesion.model.bundle import FACTS_FILE, Bundle
from lesion.model.bundle_files import check_names

Traces = tuple[tuple[str, int, int, int], ...]


class BundleCache:
    """Bundles below this machine's cache.

    Args:
        storage: The loop's database and files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._verified: dict[str, Traces] = {}  # what the files were like when this process verified them

    def place(self, version: str) -> Path:
        """Return where a version's bundle lies once it was fetched."""
        return Path(self._storage.cache) / "bundles" / version

    def unchanged(self, version: str) -> Path | None:
        """Return the folder of a bundle that this process verified, if its files are the same ones since.

        That is told by their sizes and times: to hash a bundle takes many times as long as to send a page of it.
        """
        folder, known = self.place(version), self._verified.get(version)
        return folder.resolve() if known and _traces(folder) == known else None

    def fetch(self, version: str, names: Sequence[str]) -> Path:
        """Bring a version's bundle to this machine, once, and verify it; a damaged copy is fetched again.

        Args:
            version: The version.
            names: Its files, as the registry lists them.

        Returns:
            The bundle's folder.

        Raises:
            BundleError: The bundle in the store is not whole.
            StoreError: The store does not answer, or is another one than the database's (``store_foreign``).
        """
        check_names(set(names), set(names) - {FACTS_FILE}, FACTS_FILE)
        folder = self.place(version)
        was_there = folder.is_dir()
        try:
            return self._fetch(version, names)
        except BundleError:
            shutil.rmtree(folder, ignore_errors=True)
            if not was_there:
                raise
            return self._fetch(version, names)

    def _fetch(self, version: str, names: Sequence[str]) -> Path:
        store = self._storage.store
        try:
            folder = store.fetch_folder(bundle_key(version), names, self.place(version))
        except StoreError as error:
            if error.code != "file_gone":
                raise
            if not store.has(f"{bundle_key(version)}/{FACTS_FILE}"):  # it is no fault of the bundle
                raise StoreError(
                    f"The store has nothing of {version}. Check that storage.files belongs to storage.database.",
                    code="store_foreign",
                ) from error
            raise BundleError(f"The store's {version} is not whole: {error.message}", code="bundle_missing") from error
        traces = _traces(folder)  # before they are verified: a change meanwhile is seen later
        bundle = Bundle.open(folder)
        if bundle.version != version:
            raise BundleError(f"The store has {bundle.version} as {version}.", code="bundle_version_mismatch")
        self._verified[version] = traces
        return bundle.path


def _traces(folder: Path) -> Traces:
    """Tell a folder's files by what changes when they do; nothing when it is not there, or being removed."""
    try:
        found = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    except FileNotFoundError:
        return ()
    return tuple((name, facts.st_ino, facts.st_size, facts.st_mtime_ns) for name, facts in found)
