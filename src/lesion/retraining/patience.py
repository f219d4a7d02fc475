"""What a job does while its database, store or disk fails: it waits, and ends only after a long time."""

import errno
import time

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lesion.database.object_store import ObjectNotFoundError, StoreContentError, StoreError

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)


class JobPaused(BaseException):
    """The database, the store or the disk fails for now: leave everything as it is, and try the same again soon.

    It is not an ``Exception``: DBOS would record it as the end of the job or fail to do so, and the job would then stay
    with a worker that does not run it.
    """


class Patience:
    """How long failed attempts of a job are repeated; ``seconds`` count from the first one after a success."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failing_since: dict[str, float] = {}

    def allows_retry(self, job_id: str, error: BaseException) -> bool:
        """Note a failed attempt, and return whether there should be another one."""
        since = self._failing_since.setdefault(job_id, time.monotonic())
        return may_pass(error) and time.monotonic() - since < self._seconds

    def note_success(self, job_id: str) -> None:
        """Note that a job has completed a stage."""
        self._failing_since.pop(job_id, None)


def may_pass(error: BaseException) -> bool:
    """Return whether another attempt may succeed: a database, store or disk is away, locked, full or read-only now."""
    if isinstance(error, StoreError):
        return not isinstance(error, ObjectNotFoundError | StoreContentError)
    if isinstance(error, OSError):
        return error.errno in _MAY_PASS
    return isinstance(error, OperationalError | InterfaceError | InternalError | PoolTimeoutError)
