"""What a database is restored into: looked at, emptied and filled; SQLite's files are replaced, PostgreSQL's tables."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError

from lesion.backup import postgres_tools
from lesion.backup.backup_manifest import BackupError, some
from lesion.backup.dumps import CATALOGUE, DBOS_SCHEMA, MARKER, POSTGRESQL, copy_sqlite, kind_of, reached, sqlite_files
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, Base, Image

T = TypeVar("T")
_WAIT = "10s"  # for those who still use the tables


class Target(Protocol):
    """A database that a backup is restored into."""

    def rows(self, backup: str) -> dict[str, int]:
        """Return how many rows of which tables would be lost; none where this backup's restore was interrupted."""

    def check(self, server: int | None) -> None:
        """Refuse what cannot be restored here, before anything is touched."""

    def clear(self, backup: str) -> set[str]:
        """Empty it where that must come first; returns the images that are deleted in it."""

    def load(self, dumps: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        """Fill it; ``finish`` brings what was filled in up to date before it counts as restored."""


def target_of(storage: Storage) -> Target:
    """Return the target that a storage's database is."""
    return PostgresTarget(storage) if kind_of(storage) == POSTGRESQL else SqliteTarget(storage)


def _counted(connection: Connection, tables: set[str]) -> dict[str, int]:
    known = [table for name, table in Base.metadata.tables.items() if name in tables]
    counts = {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in known}
    return {name: count for name, count in counts.items() if count}


def _deleted(connection: Connection, tables: set[str]) -> set[str]:
    statement = select(Image.sha256).where(Image.status == DELETED)
    return set(connection.scalars(statement)) if Image.__tablename__ in tables else set()


class SqliteTarget:
    """SQLite's two files. New ones are made beside them and take their place at the end, so clearing is not needed.

    Args:
        storage: The loop's.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._files = sqlite_files(storage)

    def rows(self, backup: str) -> dict[str, int]:
        """See :class:`Target`. The file of the catalogue comes last: without it there is nothing to lose."""
        return self._read(_counted, {}, {"file that is no whole database": 1})

    def check(self, server: int | None) -> None:
        """See :class:`Target`."""

    def clear(self, backup: str) -> set[str]:
        """See :class:`Target`."""
        return self._read(_deleted, set(), set())

    def load(self, dumps: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        """See :class:`Target`."""
        self._storage.engine.dispose()
        made = {part: path.with_name(f".{path.name}.restoring") for part, path in self._files.items()}
        for part, path in made.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(path)
            if part in dumps:
                copy_sqlite(dumps[part], path)
        fresh = replace(self._storage, database=f"sqlite:///{made[CATALOGUE]}")
        finish(fresh)
        fresh.engine.dispose()  # the last connection brings the write-ahead log home
        for part in sorted(made, reverse=True):  # the catalogue last
            _remove(self._files[part])
            if made[part].is_file():
                made[part].replace(self._files[part])

    def _read(self, ask: Callable[[Connection, set[str]], T], missing: T, damaged: T) -> T:
        """Ask the catalogue that is there; one that is damaged is what a restore is for."""
        if not self._files[CATALOGUE].is_file():
            return missing
        try:
            with self._storage.engine.connect() as connection:
                return ask(connection, set(inspect(connection).get_table_names()))
        except DatabaseError:
            return damaged


def _remove(database: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal", ""):  # a log that is left would be played into the new file
        database.with_name(database.name + suffix).unlink(missing_ok=True)


class PostgresTarget:
    """Lesion's tables and DBOS's schema in a PostgreSQL database.

    Args:
        storage: The loop's.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def rows(self, backup: str) -> dict[str, int]:
        """See :class:`Target`."""
        with reached(self._storage) as connection:
            tables = set(inspect(connection).get_table_names())
            foreign = sorted(tables - {*Base.metadata.tables, "alembic_version", MARKER})
            if foreign:
                raise BackupError(
                    f"The database has tables that are not Lesion's: {some(foreign)}. Restore into one of its own.",
                    code="database_foreign",
                )
            if MARKER in tables and connection.scalar(text(f"SELECT backup FROM {MARKER}")) == backup:  # noqa: S608
                return {}
            return _counted(connection, tables)

    def check(self, server: int | None) -> None:
        """See :class:`Target`."""
        with reached(self._storage) as connection:
            here = postgres_tools.server_version(connection)
        if server is not None and server > here:
            raise BackupError(
                f"The backup is of PostgreSQL {server}, and this server is {here}. Restore into {server} or newer.",
                code="server_older",
            )
        postgres_tools.tool("pg_restore", here)

    def clear(self, backup: str) -> set[str]:
        """See :class:`Target`. In one transaction; the deleted images are kept for a second try."""
        try:
            with reached(self._storage) as connection:
                tables = set(inspect(connection).get_table_names())
                deleted = _deleted(connection, tables)
                if MARKER in tables:
                    deleted |= set(json.loads(connection.scalar(text(f"SELECT deleted FROM {MARKER}")) or "[]"))  # noqa: S608
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAIT}'")
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {DBOS_SCHEMA} CASCADE")
                for name in sorted(tables):
                    connection.exec_driver_sql(f'DROP TABLE "{name}" CASCADE')
                connection.exec_driver_sql(f"CREATE TABLE {MARKER} (backup TEXT NOT NULL, deleted TEXT NOT NULL)")
                values = {"backup": backup, "deleted": json.dumps(sorted(deleted))}
                connection.execute(text(f"INSERT INTO {MARKER} VALUES (:backup, :deleted)"), values)  # noqa: S608
                connection.commit()
                return deleted
        except DBAPIError as error:
            raise BackupError(
                f"The tables cannot be removed: {str(error.orig).splitlines()[0]}. Stop every server and worker first.",
                code="database_busy",
            ) from error

    def load(self, dumps: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        """See :class:`Target`."""
        with reached(self._storage) as connection:
            tool = postgres_tools.tool("pg_restore", postgres_tools.server_version(connection))
        settings = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-comments")
        postgres_tools.run(tool, self._storage.database, *settings, str(dumps[CATALOGUE]))
        finish(self._storage)
        with self._storage.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {MARKER}")
