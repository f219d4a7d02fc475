"""Bring a database's tables up to date; ``Storage.upgrade`` runs this in the process that opens the database."""

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from lesion.core.errors import ConfigError

_FOLDER = Path(__file__).parent
_LOCK = 0x1E510  # the key of Lesion's advisory lock in PostgreSQL
_alembic_lock = threading.Lock()  # Alembic's environment is global to a process


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest revision in one transaction; processes that start together wait for each other.

    A revision that this version of Lesion does not know is a ConfigError.
    """
    with _alembic_lock, engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # an SQLite transaction takes the write lock at its start
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _upgrade(connection)


def known_revisions() -> set[str]:
    """Return the revisions of a database that this version of Lesion can upgrade."""
    from alembic.script import ScriptDirectory  # imported here: every serving process imports this module

    return {revision.revision for revision in ScriptDirectory(str(_FOLDER)).walk_revisions()}


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported here: only this step needs it
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known_revisions()
    if unknown:
        raise ConfigError(
            f"The database has revision '{', '.join(sorted(unknown))}', which this version of Lesion does not "
            "know: a newer version wrote it. Update Lesion, or name another database in storage.database.",
            code="database_newer",
        )
    command.upgrade(config, "head")
