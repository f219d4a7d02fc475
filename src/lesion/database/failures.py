"""Which errors of a disk, a database or a store mean that there is no room."""

import errno
import sqlite3

_FULL = (errno.ENOSPC, errno.EDQUOT)
_POSTGRESQL_FULL = "53100"  # the SQLSTATE disk_full
_HTTP_FULL = 507  # of an S3 store


def is_full(error: BaseException) -> bool:
    """Return whether there was no room on a disk, in a database or in a store: with more room, the same may succeed.

    An error that was raised from another one is full if that one is.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_full(cause):
            return True
        cause = cause.__cause__
    return False


def _is_full(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if getattr(error, "sqlstate", None) == _POSTGRESQL_FULL:  # psycopg's, which only a cluster has
        return True
    answer = getattr(error, "response", None)  # botocore's, likewise
    return isinstance(answer, dict) and answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == _HTTP_FULL
