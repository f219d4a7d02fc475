"""Find ``pg_dump`` and ``pg_restore``, check their version, and run them without a password on the command line."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url

from lesion.backup.backup_manifest import BackupError
from lesion.core.errors import ConfigError

TOOLS_VARIABLE = "LESION_PG_BIN"  # the folder of the tools, if those on PATH do not fit the server
_ADVICE = f"Install the client of the server's version (postgresql-client), or name its folder in {TOOLS_VARIABLE}."


def server_version(connection: Connection) -> int:
    """Return a server's major version."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def find_tool(name: str, server: int) -> Path:
    """Return the path of ``pg_dump`` or ``pg_restore``; a missing one, or older than the server, is a ConfigError."""
    folder = os.environ.get(TOOLS_VARIABLE)
    path = shutil.which(name, path=folder)
    if path is None:
        place = f"in {folder}" if folder else "on PATH"
        raise ConfigError(f"There is no {name} {place}. {_ADVICE}", code="pg_tool_missing")
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\(PostgreSQL\) (\d+)", output)
    if version is None or int(version[1]) < server:
        raise ConfigError(
            f"{path} has version {version[1] if version else 'unknown'}, but the server is PostgreSQL {server}. "
            f"{_ADVICE}",
            code="pg_tool_old",
        )
    return Path(path)


def run_tool(tool: Path, database: str, *arguments: str) -> None:
    """Run a tool on a database; its password is passed in the environment. A tool that fails is a BackupError."""
    from psycopg.conninfo import make_conninfo  # imported here: only the extra "cluster" installs psycopg
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    dialect: Any = PGDialect_psycopg  # its methods have no types
    _, keywords = dialect().create_connect_args(make_url(database))
    secrets = {"PGPASSWORD": str(keywords.pop("password"))} if "password" in keywords else {}
    keywords.pop("context", None)
    command = [str(tool), f"--dbname={make_conninfo(**keywords)}", "--no-password", *arguments]
    process = subprocess.run(command, env=os.environ | secrets, capture_output=True, text=True, check=False)
    if process.returncode:
        reason = " ".join(process.stderr.split())[:600] or f"status {process.returncode}"
        raise BackupError(f"{tool.name} failed: {reason}", code=f"{tool.name}_failed")
