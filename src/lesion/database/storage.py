"""The state of the server and the retraining: a database and an object store, on this machine or shared by many."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from lesion.core.errors import ConfigError
from lesion.database.migrations.runner import upgrade
from lesion.database.object_store import ObjectStore, image_key
from lesion.database.tables import ACCEPTED, QUARANTINED, Image

_SQLITE = "sqlite:///"
_BUSY_S = 30  # how long a writer waits for the transaction of another writer, with SQLite
_POOL = 5  # PostgreSQL connections per process
# libpq settings, unless the address sets others: a host that vanished is noticed in seconds instead of 15 minutes.
_CONNECTION_SETTINGS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_KNOWN_IMAGES = 100  # of which a store must have at least one
_READING = "lesion_reading"  # an execution option of read-only connections


@dataclass(frozen=True)
class Storage:
    """A database and an object store.

    Only the plain values are pickled; connections are opened on first use. Create a storage before you fork processes,
    and use it after.
    """

    # ``sqlite:///PATH``, whose path is taken literally, or an SQLAlchemy address: ``postgresql+psycopg://…``.
    database: str = field(repr=False)  # it may hold a password
    files: str  # a folder, or an fsspec address such as ``s3://bucket/prefix``
    cache: Path  # this machine's folder for files fetched from the store: bundles and images
    # Arguments of the fsspec file system, such as ``endpoint_url``.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # 64 hexadecimal digits; None: in a file on this machine, see lesion.identity.identity_key.
    identity_key: str | None = field(default=None, repr=False)
    # Files with public keys; if there are any, only bundles that one of them signed are imported.
    signers: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache", Path(self.cache))  # a config has it as text

    def __getstate__(self) -> dict[str, Any]:
        plain = ("database", "files", "cache", "options", "identity_key", "signers")
        return {name: getattr(self, name) for name in plain}

    @property
    def url(self) -> URL:
        """The database's address; a question mark or percent sign in the path of an SQLite file is a part of it."""
        if self.database.startswith(_SQLITE):
            return URL.create("sqlite", database=self.database.removeprefix(_SQLITE))
        return make_url(self.database)

    @cached_property
    def engine(self) -> Engine:
        """The database's engine in this process."""
        url = self.url
        if self.database.startswith(_SQLITE):
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(url, connect_args={"timeout": _BUSY_S})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            settings = {name: value for name, value in _CONNECTION_SETTINGS.items() if name not in url.query}
            engine = create_engine(url, pool_pre_ping=True, pool_size=_POOL, connect_args=settings)
        os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
        return engine

    @cached_property
    def store(self) -> ObjectStore:
        """The object store."""
        return ObjectStore(self.files, self.options, self._known_keys)

    def _known_keys(self) -> list[str]:
        """Return the keys of the oldest images; none while the catalogue is empty or has no tables yet."""
        oldest = select(Image.sha256).where(Image.status.in_((ACCEPTED, QUARANTINED))).order_by(Image.id)
        with self.reading() as session:
            if not inspect(session.connection()).has_table(Image.__tablename__):
                return []
            return [image_key(sha256) for sha256 in session.scalars(oldest.limit(_KNOWN_IMAGES))]

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction that is committed at the end and rolled back on an error.

        With SQLite it takes the write lock at the start, so that what it read is still true when it writes.
        """
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a read-only transaction; with SQLite it does not wait for writers."""
        with (
            self.engine.connect().execution_options(**{_READING: True}) as connection,
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session

    def upgrade(self) -> None:
        """Create the tables, or bring those of an older version up to date; if impossible, raise a ConfigError."""
        try:
            upgrade(self.engine)
        except SQLAlchemyError as error:
            raise ConfigError(
                f"The database of storage.database cannot be used: {str(error).splitlines()[0]}. Check that it runs "
                "and that its address, user and password are correct.",
                code="database_unreachable",
            ) from error


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ANN401 - sqlite3's own connection
    connection.isolation_level = None  # transactions are started by SQLAlchemy's event, not by the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
