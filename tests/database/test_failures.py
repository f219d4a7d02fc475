"""What counts as a full disk, database or store."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from lesion.core.errors import LesionError
from lesion.database import object_store
from lesion.database.failures import is_full
from lesion.database.object_store import ObjectStore, StoreError, StoreFullError


class PostgresqlError(Exception):
    sqlstate = "53100"


class S3Error(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("An error occurred when calling the PutObject operation")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def caused_by(cause: Exception) -> Exception:
    error = LesionError("It could not be stored.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (PostgresqlError(), True),
        (S3Error(507), True),
        (caused_by(caused_by(S3Error(507))), True),
        (S3Error(503), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (sqlite3.OperationalError("database is locked"), False),
        (caused_by(KeyError("x")), False),
    ],
)
def test_what_is_full(error: Exception, full: bool) -> None:
    assert is_full(error) == full


def test_a_database_without_room_is_full_and_a_locked_one_is_not(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/small.db", connect_args={"timeout": 0})
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count = 4"))
        connection.execute(text("CREATE TABLE big (content BLOB)"))
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("INSERT INTO big VALUES (zeroblob(100000))"))
        assert is_full(caught.value)
        connection.rollback()
    with closing(sqlite3.connect(tmp_path / "small.db", isolation_level=None)) as other, engine.connect() as connection:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OperationalError, match="locked") as caught:
            connection.execute(text("INSERT INTO big VALUES (1)"))
        assert not is_full(caught.value)
    engine.dispose()


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, StoreFullError, "storage_full"), (errno.EACCES, StoreError, "store_failed")],
)
def test_a_store_says_whether_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], code: str
) -> None:
    store = ObjectStore(str(tmp_path / "files"), {})
    store.put("bundles/a/x", b"1")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, "It does not work")

    monkeypatch.setattr(object_store, "atomic_path", fail)
    monkeypatch.setattr("tempfile.mkdtemp", fail)
    with pytest.raises(StoreError) as put:
        store.put("images/b", b"2")
    with pytest.raises(StoreError) as fetched:
        store.fetch_folder("bundles/a", ["x"], tmp_path / "cache" / "a")
    for caught in (put, fetched):
        assert (type(caught.value), caught.value.code) == (kind, code)
    assert store.names() == ["bundles/a/x"]
