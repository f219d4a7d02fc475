"""What the numbers of the server's work mean, in a sentence made of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from serve.ui.text.sentences import count, duration, milliseconds, moment, percent, span


def jobs(rows: Sequence[Mapping[str, Any]], most: int) -> str:
    """Say how retrainings ended and how long they took, from ``/retrain_jobs``, which gives the last ``most``."""
    if not rows:
        return "There was no retraining yet."
    states = Counter(row["state"] for row in rows)
    these = f"The last {count(most, 'retraining')}" if len(rows) >= most else count(len(rows), "retraining")
    text = f"{these}: {', '.join(f'{number:,} {state}' for state, number in states.items())}."
    seconds = [taken for row in rows if (taken := seconds_of(row)) is not None]
    if not seconds:
        return text
    return f"{text} Half of those that ended took {duration(median(seconds))} or less."


def seconds_of(job: Mapping[str, Any]) -> float | None:
    """Return how long a retraining ran; None unless it began and ended."""
    if not (job["started_at"] and job["finished_at"]):
        return None
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


def deployments(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what serves, since when and on whose word, from ``/deployments``."""
    if not rows:
        return "No model was ever deployed."
    last = rows[-1]
    text = f"{last['version']} serves since {moment(last['created_at'])}, by {last['actor']}."
    if len(rows) == 1:
        return f"{text} It is the first model here."
    back = sum(row["action"] == "rollback" for row in rows)
    return f"{text} Of {count(len(rows) - 1, 'change')} of model so far, {back:,} went back to an earlier one."


def quarantine(waiting: int, shown: Sequence[Mapping[str, Any]]) -> str:
    """Say how many images wait for an admin and what for, from the page that is shown."""
    if not shown:
        return "No image waits for a decision."
    reasons = Counter(row["reason_code"].replace("_", " ") or "unknown" for row in shown)
    why = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    waits = f"{count(waiting, 'image')} {'waits' if waiting == 1 else 'wait'} for a decision"
    return f"{waits}; here: {why}." if waiting > len(shown) else f"{waits}: {why}."


def keys(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Say which keys open the server, from ``/keys``, and who needs none, by the name that ``/me`` gives."""
    if not rows and name == "anonymous":
        return "There are no keys: whoever reaches the server may use it, and everybody is an admin."
    if not rows:
        return "There are no keys: the server answers its own machine alone, and there everybody is an admin."
    roles = Counter(row["role"] for row in rows if row["revoked_at"] is None)
    requests = sum(row["requests_today"] for row in rows)
    works = ", ".join(f"{number:,} {role}" for role, number in roles.items())
    return f"{count(roles.total(), 'key')} in force ({works}); {count(requests, 'request')} with keys today."


def traffic(found: Mapping[str, Any]) -> str:
    """Say what the server was asked and how fast it answered, from ``/statistics``."""
    totals, minutes = found["totals"], found["minutes"]
    requests = sum(minute["requests"] for minute in minutes)
    text = f"Up for {span(found['uptime_s'])}, with {count(totals['requests'], 'request')} since the start"
    text += f", {requests / max(1, len(minutes)):.1f} a minute of late."
    if not totals["requests"]:
        return text
    failed, refused = (totals[name] / totals["requests"] for name in ("server_errors", "client_errors"))
    text += f" {percent(refused)} were refused and {percent(failed)} failed by the server's fault."
    if totals["p50_ms"] is None:
        return text
    return (
        f"{text} Half were answered within {milliseconds(totals['p50_ms'])}, 95 of 100 within "
        f"{milliseconds(totals['p95_ms'])}."
    )


def pace(minutes: Sequence[Mapping[str, Any]]) -> str:
    """Say how even the latencies of the last minutes were, from ``minutes`` of ``/statistics``."""
    timed = [minute["p95_ms"] for minute in minutes if minute["p95_ms"] is not None]
    if not timed:
        return "No request was timed of late."
    best, worst = milliseconds(min(timed)), milliseconds(max(timed))
    if len(timed) == 1:
        return f"In the one minute with requests, 95 of 100 were answered within {best}."
    within = f"95 of 100 were answered within {best} at best and {worst} at worst"
    return f"In the {len(timed)} minutes with requests, {within}."
