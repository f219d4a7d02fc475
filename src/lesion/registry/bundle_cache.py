"""The bundles in this machine's cache: fetched from the store once, verified, and reused while their files stay."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lesion.core.errors import BundleError
from lesion.database.object_store import ObjectNotFoundError, StoreContentError, bundle_key
from lesion.database.storage import Storage
from lesion.model.bundle import Bundle
from lesion.model.bundle_facts import FACTS_FILE
from lesion.model.bundle_files import check_names

FileStates = tuple[tuple[str, int, int, int], ...]  # path, inode, bytes, time of the last change


class BundleCache:
    """The bundles below ``storage.cache`` on this machine."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._verified: dict[str, FileStates] = {}  # by version, when this process verified the files

    def path(self, version: str) -> Path:
        """Return the folder that a version's bundle is fetched to."""
        return Path(self._storage.cache) / "bundles" / version

    def unchanged(self, version: str) -> Path | None:
        """Return the folder of a bundle if this process verified it and its files have the same sizes and times since.

        Hashing a bundle takes many times as long as sending one of its pages.
        """
        folder, verified = self.path(version), self._verified.get(version)
        return folder.resolve() if verified and _file_states(folder) == verified else None

    def fetch(self, version: str, names: Sequence[str]) -> Path:
        """Copy the files of a version's bundle to this machine, verify them and return the bundle's folder.

        A damaged copy is fetched again. See :meth:`lesion.registry.registry.Registry.fetch` for the errors.
        """
        check_names(set(names), set(names) - {FACTS_FILE})
        folder = self.path(version)
        was_cached = folder.is_dir()
        try:
            return self._fetch(version, names)
        except BundleError:
            shutil.rmtree(folder, ignore_errors=True)
            if not was_cached:
                raise
            return self._fetch(version, names)

    def _fetch(self, version: str, names: Sequence[str]) -> Path:
        store = self._storage.store
        try:
            folder = store.fetch_folder(bundle_key(version), names, self.path(version))
        except ObjectNotFoundError as error:
            if not store.has(f"{bundle_key(version)}/{FACTS_FILE}"):  # not the bundle's fault
                raise StoreContentError(
                    f"The store has no files of {version}. Check that storage.files belongs to storage.database.",
                    code="store_foreign",
                ) from error
            raise BundleError(
                f"The bundle of {version} in the store is not complete: {error.message}", code="bundle_missing"
            ) from error
        states = _file_states(folder)  # before the verification: a change during it is noticed later
        bundle = Bundle.open(folder)
        if bundle.version != version:
            raise BundleError(
                f"The store has {bundle.version} under the name {version}.", code="bundle_version_mismatch"
            )
        self._verified[version] = states
        return bundle.path


def _file_states(folder: Path) -> FileStates:
    """Return what changes if a file of the folder changes; nothing if the folder does not exist or is being removed."""
    try:
        files = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
    except FileNotFoundError:
        return ()
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in files)
