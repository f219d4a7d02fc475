"""``pg_dump`` and ``pg_restore``: found, checked against the server, and run without a password in their arguments."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url

from lesion.backup.backup_manifest import BackupError
from lesion.core.errors import ConfigError

FOLDER = "LESION_PG_BIN"  # names the tools' folder where those of PATH are not the server's
_HINT = f"Install the client of the server's version (postgresql-client), or name its folder in {FOLDER}."


def server_version(connection: Connection) -> int:
    """Return a server's major version."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def tool(name: str, at_least: int) -> Path:
    """Find a tool.

    Args:
        name: ``pg_dump`` or ``pg_restore``.
        at_least: The major version that it must have: an older tool does not read a newer server.

    Raises:
        ConfigError: It is missing (``pg_tool_missing``) or older (``pg_tool_old``).
    """
    folder = os.environ.get(FOLDER)
    found = shutil.which(name, path=folder)
    if found is None:
        raise ConfigError(
            f"There is no {name} {f'in {folder}' if folder else 'on PATH'}. {_HINT}", code="pg_tool_missing"
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", said)
    if version is None or int(version[1]) < at_least:
        has = version[1] if version else "unknown"
        raise ConfigError(
            f"{found} is of version {has}, but the server is PostgreSQL {at_least}. {_HINT}", code="pg_tool_old"
        )
    return Path(found)


def run(tool: Path, database: str, *arguments: str) -> None:
    """Run a tool on a database.

    Args:
        tool: The tool.
        database: SQLAlchemy's address; a password in it goes into the tool's environment.
        arguments: Of the tool.

    Raises:
        BackupError: It failed.
    """
    from psycopg.conninfo import make_conninfo  # here, since psycopg is there with the extra "cluster" alone
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    dialect: Any = PGDialect_psycopg  # its methods have no types
    _, keywords = dialect().create_connect_args(make_url(database))
    secrets = {"PGPASSWORD": str(keywords.pop("password"))} if "password" in keywords else {}
    keywords.pop("context", None)
    command = [str(tool), f"--dbname={make_conninfo(**keywords)}", "--no-password", *arguments]
    done = subprocess.run(command, env=os.environ | secrets, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[:600] or f"status {done.returncode}"
        raise BackupError(f"{tool.name} failed: {said}", code=f"{tool.name}_failed")
