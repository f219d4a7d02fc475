"""Files by name in a folder or an S3 bucket, each written whole or not at all, and never changed."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lesion.core.errors import ConfigError, LesionError


def image_key(sha256: str) -> str:
    """Return the name of an image's file in the store."""
    return f"images/{sha256[:2]}/{sha256}"


def bundle_key(version: str) -> str:
    """Return the prefix of a bundle's files in the store."""
    return f"bundles/{version}"


class StoreError(LesionError):
    """A file that the store lacks, or a store that does not answer."""

    default_code = "store_failed"
    default_status = 503


class ObjectStore:
    """An object store over fsspec.

    Args:
        address: A folder, or an fsspec address such as ``s3://bucket/prefix``.
        options: Arguments of the file system, such as ``endpoint_url``.

    Raises:
        ConfigError: The address is of no kind that is known, or what speaks with it is not installed.
    """

    def __init__(self, address: str, options: Mapping[str, Any]) -> None:
        settings = {"use_listings_cache": False, **options}  # other machines change what is there
        try:
            self._files, root = fsspec.core.url_to_fs(str(address), **settings)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"storage.files cannot be used: {error}. S3 needs pip install 'lesion[cluster]'.", code="store_unusable"
            ) from error
        self._root = PurePosixPath(root)
        self.local = isinstance(self._files, LocalFileSystem)

    @property
    def folder(self) -> Path | None:
        """The folder that names are relative to, where the store is on this machine."""
        return Path(self._root) if self.local else None

    def put(self, key: str, data: bytes) -> None:
        """Keep data under a name; what has that name already is taken to be the same.

        Raises:
            StoreError: The store does not answer or is full.
        """
        path = str(self._root / key)
        with _answering(f"'{key}' could not be stored"):
            if self.has(key):
                return
            if self.local:
                _write_whole(Path(path), data)
            else:
                self._files.pipe_file(path, data)  # an object appears when it is complete

    def has(self, key: str) -> bool:
        """Whether something has a name.

        Raises:
            StoreError: The store does not answer.
        """
        with _answering(f"'{key}' could not be looked up in the store"):
            return bool(self._files.exists(str(self._root / key)))

    def get(self, key: str) -> bytes:
        """Return what has a name.

        Raises:
            StoreError: Nothing has it (``file_gone``), or the store does not answer.
        """
        with _answering(f"'{key}' could not be read from the store"):
            try:
                return bytes(self._files.cat_file(str(self._root / key)))
            except FileNotFoundError as error:
                raise StoreError(f"The store has no '{key}'.", code="file_gone", status=404) from error

    def names(self, prefix: str = "") -> list[str]:
        """Return what there is under ``prefix/``, or in all, sorted.

        Raises:
            StoreError: The store does not answer.
        """
        with _answering("The store could not be listed"):
            try:
                found = self._files.find(str(self._root / prefix), detail=True)
            except FileNotFoundError:  # an S3 bucket that the first file makes, as in a store that was lost
                found = {}
        files = [path for path, facts in found.items() if facts["type"] != "directory"]  # an S3 that is empty names one
        return sorted(PurePosixPath(path).relative_to(self._root).as_posix() for path in files)

    def delete(self, key: str) -> None:
        """Remove what has a name; nothing happens where nothing has it.

        Raises:
            StoreError: The store does not answer.
        """
        with _answering(f"'{key}' could not be removed from the store"):
            if self.has(key):
                self._files.rm_file(str(self._root / key))

    def delete_folder(self, prefix: str) -> None:
        """Remove every file under ``prefix/``; nothing happens where there is none.

        Raises:
            StoreError: The store does not answer.
        """
        with _answering(f"'{prefix}' could not be removed from the store"), suppress(FileNotFoundError):
            self._files.rm(str(self._root / prefix), recursive=True)

    def put_folder(self, prefix: str, folder: Path, names: Iterable[str]) -> None:
        """Keep files of a folder under ``prefix/<name>``."""
        for name in names:
            self.put(f"{prefix}/{name}", (folder / name).read_bytes())

    def fetch_folder(self, prefix: str, names: Iterable[str], target: Path) -> Path:
        """Bring files under ``prefix`` to a local folder, which appears when it is whole; kept if it is there already.

        Raises:
            StoreError: A file is missing, or the store does not answer.
        """
        if target.is_dir():
            return target
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


@contextmanager
def _answering(trouble: str) -> Iterator[None]:
    """Make a StoreError of whatever a file system raises: with an S3 that is away, that is no OSError."""
    try:
        yield
    except LesionError:
        raise
    except Exception as error:
        raise StoreError(f"{trouble}: {error}. Try again.") from error


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
