"""Makes chosen writes of a database slow, so that something can be done in the middle of their transaction."""

import sqlite3
import time
from contextlib import closing

from sqlalchemy import create_engine, make_url, text

_PATIENCE_S = 120.0


def file_of(database: str) -> str:
    """The file of a database's address."""
    return str(make_url(database).database)


def hold(database: str, *events: str, seconds: float) -> None:
    """From now on these writes, such as ``INSERT ON jobs``, take about so many seconds, in their transaction."""
    if not database.startswith("sqlite"):
        _hold_postgresql(database, *events, seconds=seconds)
        return
    with closing(sqlite3.connect(file_of(database), timeout=_PATIENCE_S, isolation_level=None)) as connection:
        count = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {}) SELECT count(*) AS c FROM n"
        )
        took = []
        for _ in range(5):
            begin = time.monotonic()
            connection.execute(count.format(100_000)).fetchall()
            took.append(time.monotonic() - begin)
        most = int(100_000 * seconds / min(took))
        view = f"takes_{seconds:.0f}_s"
        connection.execute(f"CREATE VIEW IF NOT EXISTS {view} AS {count.format(most)}")
        for event in events:
            connection.execute(f'CREATE TRIGGER "{event}" AFTER {event} BEGIN SELECT c FROM {view}; END')


def _hold_postgresql(database: str, *events: str, seconds: float) -> None:
    engine = create_engine(database)
    name = f"takes_{seconds:.0f}_s"
    with engine.begin() as connection:
        body = f"BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END"
        connection.execute(text(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"))
        for event in events:
            connection.execute(
                text(f'CREATE TRIGGER "{event}" AFTER {event} FOR EACH STATEMENT EXECUTE FUNCTION {name}()')
            )
    engine.dispose()
