"""The database that a backup is restored into: SQLite's files are replaced, PostgreSQL's tables are filled again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError

from lesion.backup import dumps, postgres_tools
from lesion.backup.backup_manifest import BackupError
from lesion.backup.dumps import CATALOGUE, MARKER, connect_postgresql
from lesion.core.text import join_names
from lesion.database.storage import Storage
from lesion.database.tables import DELETED, Base, Image

T = TypeVar("T")
_LOCK_TIMEOUT = "10s"  # for processes that still use the tables


class RestoreTarget(Protocol):
    """The database of a storage that a backup is restored into."""

    def rows(self, backup: str) -> dict[str, int]:
        """Return the number of rows by table that would be lost; none if this backup's restore was interrupted."""

    def check(self, server: int | None) -> None:
        """Refuse a backup of a newer server, before anything is changed."""

    def clear(self, backup: str) -> set[str]:
        """Empty the database if this must be done first, and return the hashes of its deleted images."""

    def load(self, parts: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        """Fill the database and call ``finish`` on the result before it counts as restored."""


def target_of(storage: Storage) -> RestoreTarget:
    """Return the restore target for a storage's kind of database."""
    return _PostgresTarget(storage) if dumps.database_kind(storage) == dumps.POSTGRESQL else _SqliteTarget(storage)


def _count_rows(connection: Connection, tables: set[str]) -> dict[str, int]:
    present = [table for name, table in Base.metadata.tables.items() if name in tables]
    counts = {table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in present}
    return {name: count for name, count in counts.items() if count}


def _deleted_images(connection: Connection, tables: set[str]) -> set[str]:
    statement = select(Image.sha256).where(Image.status == DELETED)
    return set(connection.scalars(statement)) if Image.__tablename__ in tables else set()


class _SqliteTarget:
    """SQLite's two files. New files are made next to them and replace them at the end, so nothing is cleared before."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._files = dumps.sqlite_files(storage)

    def rows(self, backup: str) -> dict[str, int]:
        return self._read(_count_rows, {}, {"file that is not a readable database": 1})

    def check(self, server: int | None) -> None:
        pass

    def clear(self, backup: str) -> set[str]:
        return self._read(_deleted_images, set(), set())

    def load(self, parts: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        self._storage.engine.dispose()
        new = {part: path.with_name(f".{path.name}.restoring") for part, path in self._files.items()}
        for part, path in new.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_sqlite(path)
            if part in parts:
                dumps.copy_sqlite(parts[part], path)
        restored = replace(self._storage, database=f"sqlite:///{new[CATALOGUE]}")
        finish(restored)
        restored.engine.dispose()  # closing the last connection merges the write-ahead log
        for part in sorted(new, reverse=True):  # the catalogue last: without it there is nothing to lose
            _remove_sqlite(self._files[part])
            if new[part].is_file():
                new[part].replace(self._files[part])

    def _read(self, query: Callable[[Connection, set[str]], T], missing: T, damaged: T) -> T:
        """Query the present catalogue, which may be damaged: this is what a restore is for."""
        if not self._files[CATALOGUE].is_file():
            return missing
        try:
            with self._storage.engine.connect() as connection:
                return query(connection, set(inspect(connection).get_table_names()))
        except DatabaseError:
            return damaged


def _remove_sqlite(database: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal", ""):  # SQLite would apply an old log to the new file
        database.with_name(database.name + suffix).unlink(missing_ok=True)


class _PostgresTarget:
    """Lesion's tables and DBOS's schema in a PostgreSQL database."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def rows(self, backup: str) -> dict[str, int]:
        with connect_postgresql(self._storage) as connection:
            tables = set(inspect(connection).get_table_names())
            foreign = sorted(tables - {*Base.metadata.tables, "alembic_version", MARKER})
            if foreign:
                names = join_names(foreign, quote="'")
                raise BackupError(
                    f"The database has tables that are not Lesion's: {names}. Restore into a separate database.",
                    code="database_foreign",
                )
            if MARKER in tables and connection.scalar(text(f"SELECT backup FROM {MARKER}")) == backup:  # noqa: S608
                return {}
            return _count_rows(connection, tables)

    def check(self, server: int | None) -> None:
        with connect_postgresql(self._storage) as connection:
            here = postgres_tools.server_version(connection)
        if server is not None and server > here:
            raise BackupError(
                f"The backup is of PostgreSQL {server}, but this server is {here}. Restore into {server} or newer.",
                code="server_older",
            )
        postgres_tools.find_tool("pg_restore", here)

    def clear(self, backup: str) -> set[str]:
        """Empty it in one transaction, which also saves the deleted images for a second attempt."""
        try:
            with connect_postgresql(self._storage) as connection:
                tables = set(inspect(connection).get_table_names())
                deleted = _deleted_images(connection, tables)
                if MARKER in tables:
                    deleted |= set(json.loads(connection.scalar(text(f"SELECT deleted FROM {MARKER}")) or "[]"))  # noqa: S608
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {dumps.DBOS_SCHEMA} CASCADE")
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

    def load(self, parts: Mapping[str, Path], finish: Callable[[Storage], None]) -> None:
        with connect_postgresql(self._storage) as connection:
            tool = postgres_tools.find_tool("pg_restore", postgres_tools.server_version(connection))
        settings = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-comments")
        postgres_tools.run_tool(tool, self._storage.database, *settings, str(parts[CATALOGUE]))
        finish(self._storage)
        with self._storage.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {MARKER}")
