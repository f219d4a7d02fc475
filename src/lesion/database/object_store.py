"""Files under keys in a folder or an S3 bucket. Each is written whole or not at all, and never changed."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lesion.core.errors import (
    ConfigError,
    InvalidValueError,
    LesionError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
)
from lesion.core.files import atomic_path, bytes_sha256
from lesion.database.failures import is_full
from lesion.database.store_marker import MARKER, StoreMarker


class StoreError(UnavailableError):
    """The object store does not answer."""

    default_code = "store_failed"


class StoreFullError(NoSpaceError, StoreError):
    """The object store has no room, or the disk that a file of it is copied to."""


class StoreContentError(StoreError):
    """The object store answers, but its files are others than expected."""

    default_code = "store_wrong"


class ObjectNotFoundError(NotFoundError, StoreError):
    """The object store answers, but has no file under this key."""

    default_code = "file_gone"


class DamagedFileError(LesionError):
    """A stored file has another content than the one that was stored."""

    default_code = "file_damaged"


def image_key(sha256: str) -> str:
    """Return the key of an image's file."""
    return f"images/{sha256[:2]}/{sha256}"


def bundle_key(version: str) -> str:
    """Return the prefix of the keys of a bundle's files."""
    return f"bundles/{version}"


class ObjectStore:
    """Files under keys such as ``images/3f/3f9a…``, over fsspec.

    The ``address`` is a folder, or one of fsspec's such as ``s3://bucket/prefix``; ``options`` are arguments of the
    fsspec file system, such as ``endpoint_url``. An address of an unknown kind, or of one whose package is not
    installed, is a ConfigError. Every method raises a ``StoreError`` when the store does not answer, and an
    InvalidValueError for a key that leads out of the store.

    With ``known_keys``, which returns some keys that the catalogue names, a folder is marked as the store's with the
    first file. One that has neither the marker nor such a file, as a share that is not mounted, is a ``StoreError``
    (``store_unmounted``), and nothing is written to it; only ``names`` lists it as it is.
    """

    def __init__(
        self, address: str, options: Mapping[str, Any], known_keys: Callable[[], Sequence[str]] | None = None
    ) -> None:
        settings = {"use_listings_cache": False, **options}  # other machines change the content
        try:
            if "://" in address and not address.startswith("/"):
                self._files, root = fsspec.core.url_to_fs(address, **settings)
            else:  # fsspec would read :: in a path as two addresses
                self._files = LocalFileSystem(**settings)
                root = str(Path(address).expanduser().absolute())
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"storage.files cannot be used: {error}. S3 needs pip install 'lesion[cluster]'.", code="store_unusable"
            ) from error
        self._root = PurePosixPath(root)
        self.local = isinstance(self._files, LocalFileSystem)
        self._marker = StoreMarker(Path(root), known_keys) if self.local and known_keys else None

    @property
    def folder(self) -> Path | None:
        """The folder that keys are relative to; None if the store is not on this machine."""
        return Path(self._root) if self.local else None

    def put(self, key: str, data: bytes) -> None:
        """Store data under a key, unless the key exists: then its content is assumed to be the same."""
        path = self._path(key)
        with _store_errors(f"'{key}' could not be stored"):
            if self.has(key):
                return
            if self.local:
                self.mark()
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(Path(path)) as unfinished:
                    unfinished.write_bytes(data)
                    unfinished.chmod(0o644)  # whatever the umask: servers may run as other users than workers
            else:
                self._files.pipe_file(path, data)  # S3 shows an object only when it is complete

    def mark(self) -> None:
        """Mark an empty folder as the store's, although the catalogue names files: before a backup is restored."""
        with _store_errors("The store could not be marked"):
            if self._marker is not None:
                self._marker.write()

    def check_mounted(self) -> None:
        """Raise a StoreError (``store_unmounted``) if the folder is not the store's: what it lacks is not missing."""
        with _store_errors("The store could not be looked at"):
            if self._marker is None or self._marker.is_there():
                return
        raise StoreError(
            f"'{self._root}' has none of the files that the catalogue names. Mount the share that it is on, or "
            "check that storage.files belongs to storage.database. If the files are lost, restore a backup.",
            code="store_unmounted",
        )

    def has(self, key: str) -> bool:
        """Return whether a key exists."""
        with _store_errors(f"'{key}' could not be looked up in the store"):
            if self._files.exists(self._path(key)):
                return True
            self.check_mounted()
            return False

    def get(self, key: str) -> bytes:
        """Return the content of a key, or raise an ObjectNotFoundError."""
        with _store_errors(f"'{key}' could not be read from the store"):
            try:
                return bytes(self._files.cat_file(self._path(key)))
            except FileNotFoundError as error:
                self.check_mounted()
                raise ObjectNotFoundError(f"The store has no '{key}'.") from error

    def get_image(self, sha256: str) -> bytes:
        """Return an image's file, or raise an ObjectNotFoundError, or a DamagedFileError if its hash is another."""
        data = self.get(image_key(sha256))
        if bytes_sha256(data) != sha256:
            raise DamagedFileError(
                f"The content of '{image_key(sha256)}' in the store does not match its hash. Restore it from a backup."
            )
        return data

    def names(self, prefix: str = "") -> list[str]:
        """Return the keys below ``prefix/``, or all keys, sorted."""
        with _store_errors("The store could not be listed"):
            try:
                entries = self._files.find(self._path(prefix), detail=True)
            except FileNotFoundError:  # the bucket is made with the first file
                entries = {}
        files = [path for path, entry in entries.items() if entry["type"] != "directory"]  # an empty bucket lists one
        keys = (PurePosixPath(path).relative_to(self._root).as_posix() for path in files)
        return sorted(key for key in keys if key != MARKER)

    def delete(self, key: str) -> None:
        """Remove a key; do nothing if it does not exist."""
        with _store_errors(f"'{key}' could not be removed from the store"):
            if self.has(key):
                self._files.rm_file(self._path(key))

    def delete_folder(self, prefix: str) -> None:
        """Remove every key below ``prefix/``; do nothing if there are none."""
        with _store_errors(f"'{prefix}' could not be removed from the store"), suppress(FileNotFoundError):
            self._files.rm(self._path(prefix), recursive=True)

    def put_folder(self, prefix: str, folder: Path, names: Iterable[str]) -> None:
        """Store files of a folder under ``prefix/<name>``."""
        for name in names:
            self.put(f"{prefix}/{name}", (folder / name).read_bytes())

    def fetch_folder(self, prefix: str, names: Iterable[str], target: Path) -> Path:
        """Copy the files ``prefix/<name>`` to a local folder, which appears when it is complete.

        An existing folder is left as it is. A missing file is an ObjectNotFoundError; a disk here that is full is a
        StoreFullError.
        """
        if target.is_dir():
            return target
        with _store_errors(f"'{prefix}' could not be copied to '{target}'"):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                for name in names:
                    file = temporary / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(self.get(f"{prefix}/{name}"))
                temporary.chmod(0o755)
                try:
                    temporary.rename(target)
                except OSError:  # another process was first
                    if not target.is_dir():
                        raise
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return target

    def _path(self, key: str) -> str:
        relative = PurePosixPath(key)
        if relative.is_absolute() or ".." in relative.parts or "\0" in key:
            raise InvalidValueError(f"The key {key[:80]!r} leads out of the store.", code="key_invalid")
        return str(self._root / relative)


@contextmanager
def _store_errors(problem: str) -> Iterator[None]:
    """Turn whatever a file system raises into a StoreError; an unreachable S3 does not raise an OSError."""
    try:
        yield
    except LesionError:
        raise
    except Exception as error:
        if is_full(error):
            raise StoreFullError(f"{problem}: {error}. Free space there, then try again.") from error
        raise StoreError(f"{problem}: {error}. Try again.") from error
