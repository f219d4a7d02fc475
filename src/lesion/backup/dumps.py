"""Make one consistent copy of the database with DBOS's tables, and open a connection that reads exactly that copy."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from lesion.backup import postgres_tools
from lesion.backup.backup_manifest import BackupError, BackupManifest, make_private_file, make_private_folder
from lesion.core.errors import ConfigError
from lesion.database.migrations.runner import known_revisions
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry

SQLITE: Literal["sqlite"] = "sqlite"
POSTGRESQL: Literal["postgresql"] = "postgresql"
CATALOGUE, WORKFLOWS = "catalogue", "workflows"  # SQLite's two files
DBOS_SCHEMA = "dbos"  # DBOS's default, see lesion.retraining.workflow
MARKER = "lesion_restore"  # a PostgreSQL table that exists while a restore is running
_SCHEMAS = ("public", DBOS_SCHEMA)

Dump = tuple[dict[str, Path], Connection]  # the copy's files by part, and a connection that sees what the copy has


def database_kind(storage: Storage) -> Literal["sqlite", "postgresql"]:
    """Return the kind of a storage's database."""
    return POSTGRESQL if storage.url.get_backend_name() == POSTGRESQL else SQLITE


def sqlite_files(storage: Storage) -> dict[str, Path]:
    """Return the files of an SQLite database: the catalogue and DBOS's tables."""
    catalogue = Path(str(storage.url.database))
    return {CATALOGUE: catalogue, WORKFLOWS: catalogue.with_name("workflows.db")}


def first_entry(connection: Connection, entry_id: int | None = None) -> dict[str, Any] | None:
    """Return the first entry of the audit log, or the entry with this id.

    It identifies an installation: every change writes an entry in its own transaction, entries are never changed or
    removed, a restore keeps them, and no two installations make the same first change in the same microsecond.
    """
    statement = select(AuditEntry.id, AuditEntry.at, AuditEntry.actor, AuditEntry.action, AuditEntry.subject)
    if entry_id is not None:
        statement = statement.where(AuditEntry.id == entry_id)
    row = connection.execute(statement.order_by(AuditEntry.id).limit(1)).mappings().first()
    return None if row is None else {**row, "at": row["at"].astimezone(UTC).isoformat(timespec="microseconds")}


def check_same_installation(connection: Connection, folder: Path, manifest: BackupManifest) -> None:
    """Raise a BackupError if a backup has content and its audit log began differently (``backup_other``)."""
    began = manifest["began"]
    same = not any(manifest["counts"].values()) if began is None else first_entry(connection, began["id"]) == began
    if not same:
        raise BackupError(
            f"'{folder}' holds a backup of {manifest['taken_at']}, of an installation that {_describe(began)}. "
            f"This database {_describe(first_entry(connection))}. If it should be the database of the backup, restore "
            "the backup before you make a new one; otherwise name another folder. --replace discards the old backup. "
            "It was not touched.",
            code="backup_other",
        )


def _describe(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "has nothing in its audit log"
    return f"began at {entry['at']} with {entry['action']} '{entry['subject']}' by {entry['actor']}"


def database_revision(connection: Connection) -> str:
    """Return a database's revision; it is a BackupError if this version does not know it, or there are no tables."""
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) != 1 or heads[0] not in known_revisions():
        raise BackupError(
            f"The database has revision {', '.join(heads) or 'none'}, which this version of Lesion does not know. "
            "Use the version of Lesion that wrote it, and check storage.database.",
            code="database_newer" if heads else "database_empty",
        )
    return heads[0]


def dump_database(storage: Storage, folder: Path) -> AbstractContextManager[Dump]:
    """Write a copy of the database into a folder, in files with new names.

    Raises:
        BackupError: It failed; the disk may be full.
        ConfigError: The database cannot be reached, or PostgreSQL's tools are missing or too old.
    """
    make_private_folder(folder)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    dump = _dump_sqlite if database_kind(storage) == SQLITE else _dump_postgresql
    return dump(storage, folder, stem)


@contextmanager
def _dump_sqlite(storage: Storage, folder: Path, stem: str) -> Iterator[Dump]:
    files = {}
    # DBOS's file first: the next worker adds a job that DBOS does not know yet, and repeats a stage that DBOS does not
    # know to be finished, which changes nothing. In the other order a job could be lost.
    for part in (WORKFLOWS, CATALOGUE):
        source = sqlite_files(storage)[part]
        if source.is_file():
            files[part] = make_private_file(folder / f"{stem}-{part}.db")
            copy_sqlite(source, files[part])
    if CATALOGUE not in files:
        raise ConfigError(f"There is no database '{sqlite_files(storage)[CATALOGUE]}'.", code="database_unreachable")
    engine = create_engine(URL.create("sqlite", database=str(files[CATALOGUE])), poolclass=NullPool)
    with engine.connect() as connection:
        yield files, connection


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy the state that an SQLite database has at one moment, while it may be written to.

    A damaged database or a full disk is a BackupError.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode=DELETE")  # one file, next to which a reader need not write
            (state,) = new.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"'{source}' could not be copied to '{target}': {error}.", code="dump_failed") from error
    if state != "ok":
        raise BackupError(f"The database '{source}' is damaged: {state}.", code="database_damaged")


@contextmanager
def _dump_postgresql(storage: Storage, folder: Path, stem: str) -> Iterator[Dump]:
    with connect_postgresql(storage) as connection:
        tool = postgres_tools.find_tool("pg_dump", postgres_tools.server_version(connection))
        target = make_private_file(folder / f"{stem}.dump")
        # pg_dump uses the snapshot of this transaction, so that the connection reads the same rows as the dump.
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        schemas = connection.exec_driver_sql(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).scalars()
        excluded = [f'--exclude-schema="{name}"' for name in schemas if name not in _SCHEMAS]
        # Not --schema=public: then the dump would create that schema, which every database has.
        settings = ["--format=custom", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"]
        settings += [f"--exclude-table={_SCHEMAS[0]}.{MARKER}", f"--snapshot={snapshot}", f"--file={target}"]
        postgres_tools.run_tool(tool, storage.database, *settings, *excluded)
        yield {CATALOGUE: target}, connection


@contextmanager
def connect_postgresql(storage: Storage) -> Iterator[Connection]:
    """Connect to a PostgreSQL database in one transaction, which sees the state of one moment.

    A database that cannot be reached, or has its tables outside of the schema ``public``, is a ConfigError.
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
        if schema != _SCHEMAS[0]:
            raise ConfigError(f"Backups support tables in the schema 'public' only, but these are in '{schema}'.")
        yield connection
