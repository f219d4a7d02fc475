"""Sentences about predictions, uploads and retrainings, and how the page writes times, texts and long tables."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import pandas as pd

from lesion.core.text import defuse_formulas, drop_hidden, format_count, format_percent

DISCLAIMER = (
    "Not a medical device. Lesion is for research and teaching; nothing that it says replaces the judgment of a "
    "qualified person."
)
MOST_CLASSES = 30  # that the page shows at once
State = Literal["not_recognized", "unsure", "sure"]
Row = TypeVar("Row")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>$~#|]|:(?=[a-zA-Z]))")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_STAGES = {
    "queued": "Waiting for a free worker",
    "snapshot": "Collecting the images",
    "train": "Training",
    "evaluate": "Evaluating the new model",
    "register": "Saving the new model",
    "gate": "Comparing the new model with the one in use",
    "promote": "Putting the new model into use",
}
_OUTCOMES = {
    "promoted": "The new model was proved better and was put into use.",
    "rejected": "The new model was not promoted; the model in use stays.",
    "budget_spent": "The gate's budget is used up, so nothing was decided; the model in use stays.",
    "failed": "The retraining failed; the model in use stays.",
    "cancelled": "The retraining was canceled; the model in use stays.",
}


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, whatever characters a class or file name contains."""
    return _MARKDOWN.sub(r"\\\1", text)


def accepted_images(info: Mapping[str, Any]) -> str:
    """Write which images a server takes, for predictions and uploads alike; ``info`` is the answer of ``/info``.

    >>> accepted_images({"formats": ["JPEG", "PNG"], "limits": {"max_image_bytes": 2**20, "max_pixels": 50_000_000,
    ...     "min_side": 16}})
    'JPEG or PNG, up to 1 MiB and 50 million pixels each, at least 16 pixels on each side'
    """
    *formats, last = info["formats"]
    limits = info["limits"]
    pixels = limits["max_pixels"]
    size = f"{pixels / 1e6:g} million" if pixels >= 1e6 else f"{pixels:,}"
    return (
        f"{', '.join(formats)} or {last}, up to {limits['max_image_bytes'] / 2**20:.4g} MiB and {size} pixels each, at "
        f"least {limits['min_side']} pixels on each side"
    )


def format_duration(seconds: float) -> str:
    """Write about how long something takes."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minutes"
    return f"about {format_count(round(minutes / 60), 'hour')}"


def format_age(seconds: float) -> str:
    """Write how long something has existed, in whole minutes, hours or days."""
    if seconds < _HOUR_S:
        return format_count(int(seconds / _MINUTE_S), "minute")
    if seconds < 2 * _DAY_S:
        return format_count(int(seconds / _HOUR_S), "hour")
    return format_count(int(seconds / _DAY_S), "day")


def format_milliseconds(value: float) -> str:
    """Write how long a request or a prediction took."""
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def format_time(iso: str) -> str:
    """Write a point in time."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def state_of(prediction: Mapping[str, Any]) -> State:
    """Return whether the image of a prediction is not recognized, or else the answer unsure or sure."""
    state: State = prediction["abstain_reason"] or "sure"
    return state


def headline(prediction: Mapping[str, Any]) -> str:
    """Write an answer in a few words; a class stands alone only if the image is recognized and the answer sure."""
    state = state_of(prediction)
    if state == "not_recognized":
        return "Not recognized"
    if state == "sure":
        return str(prediction["predicted_class"])
    names, classes = prediction["prediction_set"] or (), list(prediction["probabilities"])
    rivals = names if 1 < len(names) < min(4, len(classes)) else classes[:2]
    return f"Unsure: {' or '.join(rivals)}"


def describe_prediction(prediction: Mapping[str, Any]) -> str:
    """Explain a prediction in the first person."""
    label, confidence, state = prediction["predicted_class"], prediction["confidence"], state_of(prediction)
    if state == "not_recognized":
        return (
            f"This does not look like what I was trained on{_how_unusual(prediction)}. If I had to choose, I would say "
            f"{label}, but do not rely on it."
        )
    if state == "unsure":
        second = list(prediction["probabilities"].items())[1:2]
        next_best = "".join(f" The next is {name} with {format_percent(share)}." for name, share in second)
        return (
            f"I am not sure. {label} is the most probable class with {format_percent(confidence)}, and it was not "
            f"shown that answers with so low a confidence are rarely wrong.{next_best}{_possible_classes(prediction)} "
            f"{_similar_answers(prediction)} Ask a qualified person."
        )
    sureness = "very sure" if confidence >= 0.95 else "fairly sure" if confidence >= 0.8 else "somewhat sure"
    return f"I am {sureness} that this is {label}.{_possible_classes(prediction)} {_similar_answers(prediction)}"


def _how_unusual(prediction: Mapping[str, Any]) -> str:
    """Write how rare so unusual an image is among those like the training images; nothing where it was not counted."""
    share = prediction["domain_p_value"]
    return "" if share is None else f": at most about {100 * share:.1f} % of images like those look as unusual"


def _similar_answers(prediction: Mapping[str, Any]) -> str:
    """Write what was counted on the test images, or that nothing was."""
    counted = prediction["similar_answers"]
    if counted is None:
        return "How often such answers are right was not measured."
    confidences = f"from {format_percent(counted['low'])} to {format_percent(counted['high'])}"
    return (
        f"Of {format_count(counted['images'], 'test image')} answered with a confidence {confidences}, "
        f"{counted['right']:,} {'was' if counted['right'] == 1 else 'were'} right."
    )


def _possible_classes(prediction: Mapping[str, Any]) -> str:
    """Write a prediction set of several classes; of one, which is the answer's, or of all it says nothing new."""
    names = prediction["prediction_set"]
    if names is None or len(names) in (1, len(prediction["probabilities"])):
        return ""
    often = f"such lists were made to have the right class for {format_percent(prediction['coverage'])} of the images"
    return f" Possible are {', '.join(names[:-1])} and {names[-1]}: {often} of each class."


def describe_heat_map(label: str, explanation: Mapping[str, Any], *, any_heat: bool) -> str:
    """Explain a heat map, and what makes it doubtful; each map is scaled to its own strongest place."""
    covering = explanation["method"] == "occlusion"
    if not any_heat:
        return (
            f"Covering any one place does not lower the probability of {label}."
            if covering
            else f"No part of it speaks more for {label} than any other ({explanation['method']})."
        )
    if covering:
        before, after = (format_percent(explanation[name]) for name in ("probability", "covered_probability"))
        said = (
            f"Yellow marks where covering the image takes most from {label}, violet where it takes little. With the "
            f"most important place covered, {label} has {after} instead of {before}."
        )
    else:
        said = (
            f"Yellow marks what speaks most for {label}, violet what speaks little for it ({explanation['method']}). "
            f"The colors compare parts of this image only; how probable {label} is, the bars show."
        )
    rows, columns = explanation["grid"]
    doubts = {
        "no_effect": "Covering any one place hardly changes the answer, so this map says little.",
        "outside_foreground": "Most of the heat lies on the dark background: the model did not look at what is shown.",
        "coarse_grid": f"This map is coarse: it tells only {rows} × {columns} places apart.",
    }
    return " ".join([said, *(doubts[doubt] for doubt in explanation["doubts"])])


def summarize_predictions(predictions: Sequence[Mapping[str, Any]]) -> str:
    """Write how many images were classified, and how many answers are unsure."""
    states = [state_of(prediction) for prediction in predictions]
    parts = [f"{format_count(len(states), 'image')} classified"]
    if unsure := states.count("unsure"):
        parts.append(f"{unsure:,} of them unsure")
    if strange := states.count("not_recognized"):
        parts.append(f"{strange:,} not recognized, unlike what the model was trained on")
    return ", ".join(parts) + "."


def upload_outcome(accepted: int, quarantined: int, rejected: int) -> str:
    """Write what happened to uploaded files."""
    parts = [f"{accepted:,} of {format_count(accepted + quarantined + rejected, 'file')} accepted"]
    if quarantined:
        parts.append(f"{quarantined:,} in quarantine until an admin decides")
    if rejected:
        parts.append(f"{rejected:,} refused")
    return ", ".join(parts) + "."


def preview_outcome(accepted: int, quarantined: int, refused: int, archives: int) -> str:
    """Write what would become of an upload that was only checked; ``archives`` would be refused as a whole.

    >>> preview_outcome(3, 0, 1, 0)
    'Nothing was stored yet. Of 4 files, 3 would be accepted and 1 refused.'
    """
    total = accepted + quarantined + refused
    parts = [f"{number:,} {what}" for number, what in ((quarantined, "quarantined"), (refused, "refused")) if number]
    found = " and ".join([", ".join([f"{accepted:,} would be accepted", *parts[:-1]]), *parts[-1:]])
    sentence = f" Of {format_count(total, 'file')}, {found}." if total else ""
    whole = f" {format_count(archives, 'archive')} would be refused as a whole." if archives else ""
    return f"Nothing was stored yet.{sentence}{whole}"


def sending_pauses(left: int, total: int, noun: str, seconds: float) -> str:
    """Write how many of the files or images that a user gave wait, and when they are sent again."""
    waits, they = ("waits", "It is") if left == 1 else ("wait", "They are")
    again = f"in {format_count(math.ceil(seconds), 'second')}"
    return f"{left:,} of {format_count(total, noun)} {waits}. {they} sent again without a click {again}."


def sending_stopped(sent: int, total: int, noun: str) -> str:
    """Write how far a sending came that was stopped; the files are still there."""
    left = total - sent
    rest = "1 was not and is kept here" if left == 1 else f"{left:,} were not and are kept here"
    return f"{sent:,} of {format_count(total, noun)} sent; {rest}."


def next_retraining(new: Mapping[str, Any]) -> str:
    """Write what the next retraining would add, from ``next_retrain`` of ``/training_data``."""
    images, held_out, relabeled, unreviewed = (new[key] for key in ("images", "held_out", "relabeled", "unreviewed"))
    more = f"; {format_count(held_out, 'more image')} {'is' if held_out == 1 else 'are'} held out to compare models."
    notes = f" It would use {format_count(relabeled, 'corrected label')}." if relabeled else ""
    if unreviewed:
        waits, them = ("waits", "it") if unreviewed == 1 else ("wait", "them")
        notes += (
            f" {format_count(unreviewed, 'held-out image')} {waits} in quarantine; models are compared on no image "
            f"that came later before an admin has decided about {them}."
        )
    if not images:
        nothing = "There are no new images to learn from since the last retraining"
        rest = more if held_out else "." if relabeled else ". Upload labeled images first."
        return f"{nothing}{rest}{notes}"
    learned = f"The next retraining would learn from {format_count(images, 'new image')}"
    return f"{learned}{more if held_out else '.'}{notes}"


def describe_estimate(estimate: Mapping[str, Any]) -> str:
    """Write how long a retraining would take, from ``/retrain_estimate``."""
    if estimate["seconds"] is None:
        return f"How long it takes is not known yet. {estimate['basis']}"
    work = f"{format_count(estimate['epochs'], 'epoch')} over {format_count(estimate['images'], 'image')}"
    return f"It takes {format_duration(estimate['seconds'])}: {work}. {estimate['basis']}"


def describe_gate_settings(estimate: Mapping[str, Any]) -> str:
    """Write, from ``/retrain_estimate``, that the gate's default settings were used; nothing for those of a worker."""
    if estimate["gate_settings"] == "worker":
        return ""
    return "This was computed with the default settings of the gate, since no worker runs that has told its own."


def describe_stage(job: Mapping[str, Any]) -> str:
    """Write what a retraining is doing."""
    if job["cancel_requested"]:
        return "Being canceled"
    text: str = _STAGES.get(job["stage"], job["stage"])
    if job["stage"] == "train":
        text += f": {job['epoch']} of {format_count(job['epochs'], 'epoch')} done"
    left = job["seconds_left"]
    return f"{text}, {format_duration(left)} left" if left is not None else text


def describe_worker(worker: Mapping[str, Any]) -> str:
    """Write that no retraining worker runs and since when, from ``worker`` of a job or of the estimate."""
    if worker["running"]:
        return ""
    since = f" since {format_time(worker['seen_at'])}" if worker["seen_at"] else " on this storage so far"
    return f"No worker is running{since}; jobs wait until one is started."


def describe_outcome(job: Mapping[str, Any], version_in_use: str | None = None) -> str:
    """Write how a retraining ended, and whether its model is still in use: another one may have followed it."""
    if job["state"] == "promoted" and job["version"] == version_in_use:
        return "The new model was proved better and is in use."
    return str(_OUTCOMES.get(job["state"], job["state"]))


def describe_feedback(outcome: Mapping[str, Any], label: str) -> str:
    """Write what happened to an image that was sent with its right class, from the response of ``/feedback``."""
    for entry in outcome["accepted"]:
        stored = f"The image is stored as {label}."
        return f"Thank you. {entry['reason'] if entry['code'] == 'label_corrected' else stored}"
    for entry in outcome["quarantined"]:
        return f"Thank you. An admin will look at the image first: {entry['reason']}"
    return f"The image was not stored: {outcome['rejected'][0]['reason']}"


def select_lowest(rows: Sequence[Row], rank: Callable[[Row], Any], criterion: str) -> tuple[list[Row], str]:
    """Return all rows in their order; of too many, those with the lowest rank, the lowest first, and a note on that."""
    selected = list(rows) if len(rows) <= MOST_CLASSES else sorted(rows, key=rank)[:MOST_CLASSES]
    return selected, selection_note(len(selected), len(rows), criterion)


def selection_note(selected: int, total: int, criterion: str) -> str:
    """Write which classes are shown and how many there are; return nothing where all are shown."""
    return f"Only the {selected} classes {criterion} are shown, of {total:,}." if selected < total else ""


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as a CSV file that spreadsheets open, and in which no text acts as a formula, is hidden or turned."""
    table = pd.DataFrame(list(rows)).map(_cell).rename(columns=_cell)
    return table.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")


def _cell(value: object) -> object:
    return defuse_formulas(drop_hidden(value, kept="\t\r\n")) if isinstance(value, str) else value
