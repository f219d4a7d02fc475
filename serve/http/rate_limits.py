"""How often a key may be used: a moving window per minute, and a quota per day that all servers share."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from lesion.database.tables import ApiKey, Usage
from serve.http.problems import TooManyRequestsError

_MINUTE_S = 60.0


class MovingWindow:
    """Admits at most so many requests of each key within any minute.

    It uses the clock that nobody sets: with the one that tells the time, a key would wait for as long as that was set
    back.
    """

    def __init__(self) -> None:
        self._admitted: dict[str, deque[float]] = {}  # the moments of the last minute, by key

    def admit(self, key_id: str, limit: int) -> float:
        """Admit a request and return 0, or return the seconds until the next one is admitted."""
        moments, now = self._admitted.setdefault(key_id, deque()), time.monotonic()
        while moments and moments[0] <= now - _MINUTE_S:
            moments.popleft()
        if len(moments) >= limit:
            return moments[-limit] + _MINUTE_S - now
        moments.append(now)
        return 0.0


@dataclass(eq=False)
class UsageMeter:
    """Counts the requests of one API process.

    Each API process allows an equal part of a minute's limit, since the processes know nothing of each other. A day's
    requests are counted in the database, at most a second late.

    ``per_minute`` and ``per_day`` (UTC) are for keys without limits of their own; there is no limit when None.
    """

    per_minute: int | None
    per_day: int | None
    processes: int

    def __post_init__(self) -> None:
        self._window = MovingWindow()
        # Requests by key and day.
        self._unsaved: Counter[tuple[str, str]] = Counter()
        self._saved: Counter[tuple[str, str]] = Counter()

    def count(self, key: ApiKey) -> None:
        """Count a request, or raise a TooManyRequestsError if it is one more than the limit."""
        today = _today()
        day = (key.id, today)
        quota = key.per_day or self.per_day
        if quota is not None and self._saved[day] + self._unsaved[day] >= quota:
            spent = f"The {quota:,} requests of this key for today are used up"
            now = datetime.now(UTC)
            midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            raise _too_many("quota_spent", spent, (midnight - now).total_seconds())
        limit = key.per_minute or self.per_minute
        if limit is not None:
            left = self._window.admit(key.id, max(1, limit // self.processes))
            if left:
                raise _too_many("rate_limited", f"This key may send {limit:,} requests per minute", left)
        self._unsaved[day] += 1

    def take_unsaved(self) -> Counter[tuple[str, str]]:
        """Return the requests since the last call, by key and day; the caller saves them or gives them back."""
        unsaved, self._unsaved = self._unsaved, Counter()
        self._saved.update(unsaved)  # they count against the quota while they are being saved
        return unsaved

    def give_back(self, unsaved: Counter[tuple[str, str]]) -> None:
        """Keep requests that could not be saved for the next time."""
        self._saved.subtract(unsaved)
        self._unsaved += unsaved

    def set_saved(self, saved: Mapping[str, int]) -> None:
        """Set today's requests of each key over all servers."""
        today = _today()
        self._saved = Counter({(key, today): requests for key, requests in saved.items()})


def save_usage(session: Session, unsaved: Counter[tuple[str, str]]) -> None:
    """Add requests to the table; this fails if another server adds the first row of a key and day just now."""
    for (key, day), requests in sorted(unsaved.items()):  # sorted, so that two servers cannot deadlock
        row = update(Usage).where(Usage.key_id == key, Usage.day == day).values(requests=Usage.requests + requests)
        if session.execute(row).rowcount == 0:  # type: ignore[attr-defined]
            session.add(Usage(key_id=key, day=day, requests=requests))
            session.flush()


def usage_today(session: Session) -> dict[str, int]:
    """Return today's requests by key."""
    rows = session.execute(select(Usage.key_id, Usage.requests).where(Usage.day == _today()))
    return {key: requests for key, requests in rows}  # noqa: C416 - mypy does not take rows for pairs


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _too_many(code: str, what: str, seconds: float) -> TooManyRequestsError:
    wait = max(1, ceil(seconds))
    message = f"{what}. Try again in {wait} seconds, or ask the operator for a higher limit."
    error = TooManyRequestsError(message, code=code)
    error.headers = {"Retry-After": str(wait)}
    return error
