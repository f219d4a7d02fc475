"""Sentences made of numbers, for people who read no tables."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

UNSURE = 0.6  # calibrated: fewer than six of ten answers this sure are right
DISCLAIMER = (
    "Not a medical device. Lesion is for research and teaching; nothing that it says replaces the judgement of a "
    "qualified person."
)
State = Literal["foreign", "unsure", "sure"]
_MARKDOWN = re.compile(r"([\\`*_\[\]<>$~#|]|:(?=[a-zA-Z]))")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_STAGES = {
    "queued": "Waiting for a free worker",
    "snapshot": "Collecting the images",
    "train": "Learning",
    "evaluate": "Measuring the new model",
    "register": "Keeping the new model",
    "gate": "Comparing the new model with the one in use",
    "promote": "Putting the new model to use",
}
_OUTCOMES = {
    "promoted": "The new model was proved better and was put to use.",
    "rejected": "The new model was not proved better; the model in use stays.",
    "failed": "The retraining failed; the model in use stays.",
    "cancelled": "The retraining was cancelled; the model in use stays.",
}


def plain(text: str) -> str:
    """Return a text that Markdown shows as it is, such as a class or a file name of a stranger."""
    return _MARKDOWN.sub(r"\\\1", text)


def percent(share: float) -> str:
    """Write a share, without claiming certainty that rounding alone would give."""
    if 0 < share < 0.01:
        return "less than 1 %"
    if 0.99 < share < 1:
        return "more than 99 %"
    return f"{share:.0%}".replace("%", " %")


def count(number: int, noun: str) -> str:
    """Write a number of things: ``1 image``, ``1,234 images``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith(("s", "x")) else "s")


def duration(seconds: float) -> str:
    """Write about how long something takes."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 90:
        return f"about {round(seconds, -1):.0f} seconds"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minutes"
    return f"about {count(round(minutes / 60), 'hour')}"


def span(seconds: float) -> str:
    """Write how long something has been there, in whole minutes, hours or days."""
    if seconds < _HOUR_S:
        return count(int(seconds / _MINUTE_S), "minute")
    if seconds < 2 * _DAY_S:
        return count(int(seconds / _HOUR_S), "hour")
    return count(int(seconds / _DAY_S), "day")


def milliseconds(value: float) -> str:
    """Write how long the model took."""
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def state_of(answer: Mapping[str, Any]) -> State:
    """Say which kind of answer this is: of an unfamiliar image, an unsure one, or a sure one."""
    if not answer["in_domain"]:
        return "foreign"
    return "unsure" if answer["confidence"] < UNSURE else "sure"


def sureness(confidence: float) -> str:
    """Say in a word or two how sure a calibrated probability is."""
    for least, words in ((0.95, "very sure"), (0.8, "fairly sure"), (UNSURE, "somewhat sure")):
        if confidence >= least:
            return words
    return "not sure"


def frequency(confidence: float) -> str:
    """Say what a calibrated probability means."""
    number = "more than 99" if confidence > 0.99 else f"about {confidence * 100:.0f}"
    return f"Of 100 answers this sure, {number} are right on images like those it was tested on."


def prediction(answer: Mapping[str, Any], *, calibrated: bool = True) -> str:
    """Say what an answer means, in the words of the model; only a calibrated one knows how often it is right."""
    label, confidence, state = answer["predicted_class"], answer["confidence"], state_of(answer)
    if state == "foreign":
        return (
            f"This does not look like what I was trained on: it lies {answer['domain_distance']:.1f} times as far out "
            f"as the border of what I know. If I had to choose, I would say {label}, but do not rely on it."
        )
    if state == "unsure":
        second = list(answer["probabilities"].items())[1:2]
        rival = "".join(f" {name} comes next with {percent(share)}." for name, share in second)
        bound = f"and below {percent(UNSURE)} I call no answer sure"
        return f"I am not sure. {label} is the most probable with {percent(confidence)}, {bound}.{rival} Ask a person."
    often = frequency(confidence) if calibrated else "How often such answers are right was never measured."
    return f"I am {sureness(confidence)} that this is {label}. {often}"


def evidence(label: str, method: str, *, any_heat: bool) -> str:
    """Say what a heat map shows; each is scaled to its own strongest place, and an even one shows nothing."""
    if not any_heat:
        return f"No place in it speaks more for {label} than any other ({method})."
    return (
        f"Yellow is where most speaks for {label}, violet where little does ({method}). The scale is this map's own: "
        f"how probable {label} is, the bars say."
    )


def summary(answers: Sequence[Mapping[str, Any]]) -> str:
    """Say how sure the answers for many images are."""
    states = [state_of(answer) for answer in answers]
    parts = [f"{count(len(states), 'image')} answered"]
    if unsure := states.count("unsure"):
        parts.append(f"{unsure:,} of them unsure (below {percent(UNSURE)})")
    if foreign := states.count("foreign"):
        parts.append(f"{foreign:,} unlike what the model was trained on")
    return ", ".join(parts) + "."


def upload_outcome(accepted: int, quarantined: int, rejected: int) -> str:
    """Say what became of uploaded files."""
    total = accepted + quarantined + rejected
    parts = [f"{accepted:,} of {count(total, 'file')} accepted"]
    if quarantined:
        parts.append(f"{quarantined:,} {'waits' if quarantined == 1 else 'wait'} for an admin's look")
    if rejected:
        parts.append(f"{rejected:,} refused")
    return ", ".join(parts) + "."


def upload_left(sent: int, total: int, *, here: bool) -> str:
    """Say how far an upload came that did not come to its end, and how to go on, with the files still here or not."""
    again = "Press the button again: only the rest is sent." if here else "Drop the files again: what was taken is not "
    return f"{sent:,} of {count(total, 'file')} sent; the rest was not. {again}" + ("" if here else "taken twice.")


def next_retraining(fresh: Mapping[str, Any]) -> str:
    """Say what the next retraining would add, from ``next_retrain`` of ``/training_data``."""
    images, held_out = fresh["images"], fresh["held_out"]
    kept = f"; {count(held_out, 'more image')} {'is' if held_out == 1 else 'are'} held out to judge models by."
    if not images:
        nothing = "There is nothing new to learn from since the last retraining"
        return f"{nothing}{kept}" if held_out else f"{nothing}. Upload labelled images first."
    return f"The next retraining would learn from {count(images, 'new image')}{kept if held_out else '.'}"


def estimate(known: Mapping[str, Any]) -> str:
    """Say how long a retraining would take, from ``/retrain_estimate``."""
    if known["seconds"] is None:
        return f"How long it takes is not known yet. {known['basis']}"
    epochs = count(known["epochs"], "epoch")
    return f"It takes {duration(known['seconds'])}: {epochs} over {count(known['images'], 'image')}. {known['basis']}"


def stage(job: Mapping[str, Any]) -> str:
    """Say what a retraining is doing."""
    if job["cancel_requested"]:
        return "Being cancelled"
    words: str = _STAGES.get(job["stage"], job["stage"])
    if job["stage"] == "train":
        words += f": {job['epoch']} of {count(job['epochs'], 'epoch')} done"
    left = job["seconds_left"]
    return f"{words}, {duration(left)} left" if left is not None else words


def outcome(job: Mapping[str, Any], in_use: str | None = None) -> str:
    """Say how a retraining ended, and whether its model is the one in use: others may have followed it."""
    if job["state"] == "promoted" and job["version"] == in_use:
        return "The new model was proved better and is in use."
    words: str = _OUTCOMES.get(job["state"], job["state"])
    return words


def feedback(answer: Mapping[str, Any], label: str) -> str:
    """Say what became of an image that came with its right class, from the answer to ``/feedback``."""
    if answer["accepted"]:
        return f"Thank you. The image is kept as {label}."
    for entry in answer["quarantined"]:
        return f"Thank you. An admin will look at the image first: {entry['reason']}"
    return f"The image was not kept: {answer['rejected'][0]['reason']}"


def moment(iso: str) -> str:
    """Write a point in time."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")


def spreadsheet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as a CSV file that spreadsheets open, and in which no stranger's text acts as a formula."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8-sig")


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
