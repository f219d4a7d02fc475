"""Sentences about the server's work, written from its numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from lesion.core.text import format_count, format_percent
from serve.ui.text.class_names import shown_name
from serve.ui.text.sentences import format_age, format_duration, format_milliseconds, format_time


def jobs(rows: Sequence[Mapping[str, Any]], limit: int) -> str:
    """Write how retrainings ended and how long they took, from ``/retrain_jobs``, which returns the last ``limit``."""
    if not rows:
        return "There has been no retraining yet."
    states = Counter(map(state_name, rows))
    prefix = "The last " if len(rows) >= limit else ""
    listed = ", ".join(f"{number:,} {state}" for state, number in states.items())
    text = f"{prefix}{format_count(len(rows), 'retraining')}: {listed}."
    seconds = [duration for row in rows if (duration := job_seconds(row)) is not None]
    if not seconds:
        return text
    return f"{text} Half of those that ended took {format_duration(median(seconds))} or less."


def job_seconds(job: Mapping[str, Any]) -> float | None:
    """Return how long a retraining ran; None unless it began and ended."""
    if not (job["started_at"] and job["finished_at"]):
        return None
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


def deployments(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write which model is in use, since when and by whose decision, from ``/deployments``."""
    if not rows:
        return "No model has been deployed yet."
    last = rows[-1]
    text = f"{last['version']} has been in use since {format_time(last['created_at'])}, deployed by {last['actor']}."
    if len(rows) == 1:
        return f"{text} It is the first model here."
    rollbacks = sum(row["action"] == "rollback" for row in rows)
    return (
        f"{text} The model has been changed {format_count(len(rows) - 1, 'time')} so far; {rollbacks:,} of these "
        "changes went back to an earlier model."
    )


def state_name(job: Mapping[str, Any]) -> str:
    """Return the state of a retraining as words."""
    return str(job["state"]).replace("_", " ")


def quarantine(total: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write how many images wait for an admin, and the reasons of those that are shown."""
    if not rows:
        return "No image waits for a decision."
    reasons = Counter(row["reason_code"].replace("_", " ") or "unknown" for row in rows)
    listed = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    text = f"{format_count(total, 'image')} {'waits' if total == 1 else 'wait'} for a decision"
    return f"{text}; shown here: {listed}." if total > len(rows) else f"{text}: {listed}."


def describe_image(image: Mapping[str, Any], label: str) -> str:
    """Write what is known of a stored image, from ``/images/{sha256}``."""
    uploaded = f"uploaded by {image['uploader']} on {format_time(image['created_at'])}"
    text = f"Known as {label}; {image['status']}, for {image['split']}; {uploaded}."
    if image["reason"]:
        text += f" {image['reason']}"
    versions = ", ".join(dict.fromkeys(use["version"] for use in image["versions"]))
    return f"{text} Versions that were made or tested with it: {versions or 'none yet'}."


def decision(image: Mapping[str, Any] | None, names: Mapping[str, str]) -> str:
    """Write what was decided about a quarantined image, from the answer to it; None if nothing was."""
    if image is None:
        return "Waits for a decision."
    what = {"accepted": f"Accepted as {shown_name(image['label'], names)}"}.get(
        image["status"], image["status"].capitalize()
    )
    return f"{what} by {image['decision']['actor']}." if image["decision"] else f"{what}."


def decided(name: str, image: Mapping[str, Any], names: Mapping[str, str], versions: Sequence[str]) -> str:
    """Write what a click decided about an image, and which models learned from it before this was undone."""
    if image["status"] != "quarantined":
        return f"{name.capitalize()}: {decision(image, names)}"
    text = f"{name.capitalize()} waits for a decision again."
    if versions:
        text += f" Models that learned from it stay as they are: {', '.join(versions)}."
    return text


def keys(rows: Sequence[Mapping[str, Any]], user_name: str) -> str:
    """Write which keys are active, from ``/keys``; without keys, who may use the server, by the name in ``/me``."""
    if not rows and user_name == "anonymous":
        return "There are no keys: everyone who can reach the server may use it, and everyone is an admin."
    if not rows:
        return "There are no keys: the server answers only its own machine, and everyone there is an admin."
    roles = Counter(row["role"] for row in rows if row["revoked_at"] is None)
    requests = sum(row["requests_today"] for row in rows)
    listed = ", ".join(f"{number:,} {role}" for role, number in roles.items())
    return (
        f"{format_count(roles.total(), 'active key')} ({listed}); {format_count(requests, 'request')} with keys today."
    )


def traffic(statistics: Mapping[str, Any]) -> str:
    """Write how many requests the server got and how fast it answered, from ``/statistics``."""
    totals, minutes = statistics["totals"], statistics["minutes"]
    requests = totals["requests"]
    recent = sum(minute["requests"] for minute in minutes) / max(1, len(minutes))
    text = (
        f"Running for {format_age(statistics['uptime_s'])}, with {format_count(requests, 'request')} since the start "
        f"and {recent:.1f} per minute recently."
    )
    if not requests:
        return text
    failed, refused = (format_percent(totals[name] / requests) for name in ("server_errors", "client_errors"))
    text += f" {refused} were refused and {failed} failed because of the server."
    if totals["p50_ms"] is None:
        return text
    half, most = (format_milliseconds(totals[name]) for name in ("p50_ms", "p95_ms"))
    return f"{text} Half were answered within {half}, 95 of 100 within {most}."


def latency(minutes: Sequence[Mapping[str, Any]]) -> str:
    """Write how much the latency of the last minutes varied, from ``minutes`` of ``/statistics``."""
    values = [minute["p95_ms"] for minute in minutes if minute["p95_ms"] is not None]
    if not values:
        return "No request was timed recently."
    best, worst = format_milliseconds(min(values)), format_milliseconds(max(values))
    if len(values) == 1:
        return f"In the one minute with requests, 95 of 100 were answered within {best}."
    return (
        f"In the {len(values)} minutes with requests, 95 of 100 were answered within {best} in the best minute and "
        f"{worst} in the worst."
    )
