"""One consistent copy of the loop's database, DBOS's tables with it, and a connection that reads exactly that copy."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from lesion.backup import postgres_tools
from lesion.backup.backup_manifest import BackupError, private_file, private_folder
from lesion.core.errors import ConfigError
from lesion.database.migrations import runner
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry

SQLITE, POSTGRESQL = "sqlite", "postgresql"
CATALOGUE, WORKFLOWS = "catalogue", "workflows"  # of SQLite's two files
DBOS_SCHEMA = "dbos"  # DBOS's own default, see lesion.retraining.workflow
MARKER = "lesion_restore"  # a table of PostgreSQL that is there while a restore is under way
_OURS = ("public", DBOS_SCHEMA)


def kind_of(storage: Storage) -> str:
    """Return ``sqlite`` or ``postgresql``."""
    return make_url(storage.database).get_backend_name()


def sqlite_files(storage: Storage) -> dict[str, Path]:
    """Return where an SQLite storage keeps its catalogue and DBOS's tables."""
    catalogue = Path(str(make_url(storage.database).database))
    return {CATALOGUE: catalogue, WORKFLOWS: catalogue.with_name("workflows.db")}


def first_entry(connection: Connection, number: int | None = None) -> dict[str, Any] | None:
    """Return the entry of the audit log that an installation began with, or the one of that number.

    It tells installations apart: every change writes an entry in its own transaction, entries are never changed or
    removed, a restore brings them back, and no two installations make the same first change in the same microsecond.
    """
    statement = select(AuditEntry.id, AuditEntry.at, AuditEntry.actor, AuditEntry.action, AuditEntry.subject)
    if number is not None:
        statement = statement.where(AuditEntry.id == number)
    row = connection.execute(statement.order_by(AuditEntry.id).limit(1)).mappings().first()
    return None if row is None else dict(row) | {"at": row["at"].astimezone(UTC).isoformat(timespec="microseconds")}


def check_same(connection: Connection, folder: Path, before: Mapping[str, Any]) -> None:
    """Refuse to go on with another installation's backup: nothing of it would be left.

    Raises:
        BackupError: The backup has content, and this database did not begin as the one in it (``backup_other``).
    """
    there = before.get("began")
    same = not any(before["counts"].values()) if there is None else first_entry(connection, there["id"]) == there
    if not same:
        raise BackupError(
            f"'{folder}' holds a backup of {before['taken_at']}, of an installation that {_story(there)}. "
            f"This database {_story(first_entry(connection))}. If it should be the one of the backup, restore that "
            "before you make a new one; else name another folder. --replace gives that backup up for good. "
            "It was not touched.",
            code="backup_other",
        )


def _story(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "has nothing in its audit log"
    return f"began at {entry['at']} with {entry['action']} '{entry['subject']}' by {entry['actor']}"


def known_revisions() -> set[str]:
    """Return the revisions of the database that this version of Lesion can bring up to date."""
    folder = str(Path(runner.__file__).parent)
    return {revision.revision for revision in ScriptDirectory(folder).walk_revisions()}


def revision_of(connection: Connection) -> str:
    """Return a database's revision.

    Raises:
        BackupError: This version of Lesion does not know it (``database_newer``), or there are no tables
            (``database_empty``).
    """
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) != 1 or heads[0] not in known_revisions():
        raise BackupError(
            f"The database has revision {', '.join(heads) or 'none'}, which this version of Lesion does not know. "
            "Use the version of Lesion that made it, and check storage.database.",
            code="database_newer" if heads else "database_empty",
        )
    return heads[0]


@contextmanager
def dumped(storage: Storage, folder: Path) -> Iterator[tuple[dict[str, Path], Connection]]:
    """Write a copy of the database into a folder, under a name of its own.

    Yields:
        The copy's files by what they are, and a connection that sees what the copy has, whatever is written meanwhile.

    Raises:
        BackupError: It failed; the disk may be full.
        ConfigError: The database cannot be reached, or PostgreSQL's tools are missing or too old.
    """
    private_folder(folder)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    with (
        _of_sqlite(storage, folder, stem) if kind_of(storage) == SQLITE else _of_postgres(storage, folder, stem) as made
    ):
        yield made


@contextmanager
def _of_sqlite(storage: Storage, folder: Path, stem: str) -> Iterator[tuple[dict[str, Path], Connection]]:
    files = {}
    # DBOS's file first: a job that it does not know yet is handed to it by the next worker, and a stage that it does
    # not know to be done is done again and changes nothing. The other way round a job would be lost.
    for part in (WORKFLOWS, CATALOGUE):
        source = sqlite_files(storage)[part]
        if source.is_file():
            files[part] = private_file(folder / f"{stem}-{part}.db")
            copy_sqlite(source, files[part])
    if CATALOGUE not in files:
        raise ConfigError(f"There is no database '{sqlite_files(storage)[CATALOGUE]}'.", code="database_unreachable")
    engine = create_engine(f"sqlite:///{files[CATALOGUE]}", poolclass=NullPool)
    with engine.connect() as connection:
        yield files, connection


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an SQLite database while it may be written to, as one moment had it.

    Raises:
        BackupError: It is damaged, or the disk is full.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, that a reader need not write beside
            (state,) = new.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"'{source}' could not be copied to '{target}': {error}.", code="dump_failed") from error
    if state != "ok":
        raise BackupError(f"The database '{source}' is damaged: {state}.", code="database_damaged")


@contextmanager
def _of_postgres(storage: Storage, folder: Path, stem: str) -> Iterator[tuple[dict[str, Path], Connection]]:
    with reached(storage) as connection:
        tool = postgres_tools.tool("pg_dump", postgres_tools.server_version(connection))
        target = private_file(folder / f"{stem}.dump")
        # pg_dump joins this transaction's view, so that the rows that are read here are the rows of the dump.
        shared = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        others = connection.exec_driver_sql(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).scalars()
        excluded = [f'--exclude-schema="{name}"' for name in others if name not in _OURS]
        # Not --schema=public: the dump would then make that schema, which every database has.
        settings = ["--format=custom", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"]
        settings += [f"--exclude-table={_OURS[0]}.{MARKER}", f"--snapshot={shared}", f"--file={target}"]
        postgres_tools.run(tool, storage.database, *settings, *excluded)
        yield {CATALOGUE: target}, connection


@contextmanager
def reached(storage: Storage) -> Iterator[Connection]:
    """Connect to a PostgreSQL database, in one transaction that sees one moment.

    Raises:
        ConfigError: It cannot be reached, or its tables are not in the schema ``public``.
    """
    engine = create_engine(storage.database, poolclass=NullPool, isolation_level="REPEATABLE READ")
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise ConfigError(
            f"The database of storage.database cannot be reached: {str(error).splitlines()[0]}.",
            code="database_unreachable",
        ) from error
    with connection:
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
        if schema != _OURS[0]:
            raise ConfigError(f"Backups know tables in the schema 'public' alone, and these are in '{schema}'.")
        yield connection
