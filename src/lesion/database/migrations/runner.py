"""The steps that bring a database's tables up to date; run inside the process that opens it, by ``Storage.upgrade``."""

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from lesion.core.errors import ConfigError

_FOLDER = Path(__file__).parent
_LOCK = 0x1E510  # PostgreSQL's advisory lock of this program
_one_at_a_time = threading.Lock()  # Alembic's environment is global to a process


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest revision, in one transaction; processes that start together wait for the first.

    Raises:
        ConfigError: The database has a revision that this version of Lesion does not know.
    """
    with _one_at_a_time, engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's transactions begin with the write lock
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    from alembic import command  # here, since only this step needs it and every serving process imports the module
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        raise ConfigError(
            f"The database has revision '{', '.join(sorted(present - known))}', which this version of Lesion does not "
            "know: a newer one made it. Update Lesion, or name another database in storage.database.",
            code="database_newer",
        )
    command.upgrade(config, "head")
