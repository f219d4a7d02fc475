"""Where the loop keeps its state: a database and an object store, on this machine or shared by many."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from lesion.core.errors import ConfigError
from lesion.database.migrations.runner import upgrade
from lesion.database.object_store import ObjectStore

_BUSY_S = 30  # how long a writer waits for another one's transaction, with SQLite
_POOL = 5  # connections a process keeps to PostgreSQL
# Of libpq, unless the address says other: a host that vanished is noticed in seconds, not in a quarter of an hour.
_TCP = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_READING = "lesion_reading"  # an execution option of connections


@dataclass(frozen=True)
class Storage:
    """The loop's database and files. Plain values alone are pickled and passed on; connections are made on first use.

    Make it before processes are forked, use it after.

    Attributes:
        database: An SQLAlchemy address: ``sqlite:///…`` or ``postgresql+psycopg://…``.
        files: A folder, or an fsspec address such as ``s3://bucket/prefix``.
        cache: This machine's folder for what was fetched from ``files``: bundles and images.
        options: Arguments of the fsspec file system, such as ``endpoint_url``.
    """

    database: str = field(repr=False)  # it may hold a password
    files: str
    cache: Path
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache", Path(self.cache))  # settings give it as text

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("database", "files", "cache", "options")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def engine(self) -> Engine:
        """The database's engine in this process."""
        sqlite = self.database.startswith("sqlite")
        if sqlite:
            Path(self.database.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(self.database, connect_args={"timeout": _BUSY_S})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            url = make_url(self.database)
            patience = {name: value for name, value in _TCP.items() if name not in url.query}
            engine = create_engine(url, pool_pre_ping=True, pool_size=_POOL, connect_args=patience)
        os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
        return engine

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return ObjectStore(self.files, self.options)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an error.

        With SQLite it takes the write lock at once, so that what it read still holds when it writes.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: with SQLite it waits for nobody who writes."""
        with (
            self.engine.connect().execution_options(**{_READING: True}) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session

    def upgrade(self) -> None:
        """Make the tables, or bring those of an older version up to date.

        Raises:
            ConfigError: The database cannot be reached, or belongs to a newer version of Lesion.
        """
        try:
            upgrade(self.engine)
        except SQLAlchemyError as error:
            raise ConfigError(
                f"The database of storage.database cannot be used: {str(error).splitlines()[0]}. Check that it runs "
                "and that its address, user and password are right.",
                code="database_unreachable",
            ) from error


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ANN401 - sqlite3's own connection
    connection.isolation_level = None  # transactions are begun by SQLAlchemy's event, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
