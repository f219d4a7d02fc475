"""What becomes of an uploaded image, and on which side of the split it goes; pure functions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from lesion.core.errors import ConfigError
from lesion.data.inspection import ImageRecord
from lesion.database.tables import ACCEPTED, DELETED, EXCLUDED, GATE, QUARANTINED, TRAINING

REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """How uploaded images are judged.

    Attributes:
        min_side: The shorter side in pixels that an image to learn from needs.
        dispute_confidence: How sure the champion must be of another class to dispute a label …
        dispute_probability: … and how little, at most, it must give the label.
        holdout: The share of groups that is held out into the open generation of the gate set.
        val: The share for validation.
        calibration: The share for calibration; what is left is trained on.
    """

    min_side: int = 32
    dispute_confidence: float = 0.6
    dispute_probability: float = 0.1
    holdout: float = 0.2
    val: float = 0.08
    calibration: float = 0.08

    def __post_init__(self) -> None:
        shares = (self.dispute_confidence, self.dispute_probability, self.holdout, self.val, self.calibration)
        if not all(0 <= share <= 1 for share in shares) or self.holdout + self.val + self.calibration >= 1:
            raise ConfigError(
                f"intake: {shares} must lie between 0 and 1, and holdout, val and calibration leave something to train "
                "on."
            )


@dataclass(frozen=True, slots=True)
class ModelOpinion:
    """What the champion says of an image.

    Attributes:
        probabilities: Of each class, calibrated.
        in_domain: Whether the image is like those it was trained on.
        distance: How far it is: 1 at the border.
        version: Which champion.
    """

    probabilities: Mapping[str, float]
    in_domain: bool
    distance: float
    version: str

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Self:
        """Read an inference worker's answer to a job with ``opinion=True``."""
        return cls(answer["probabilities"], answer["in_domain"], answer["domain_distance"], answer["model_version"])


@dataclass(frozen=True, slots=True)
class ExistingImage:
    """An image of the catalogue that has to do with the one to be judged.

    Attributes:
        sha256: Its file.
        pixel_sha256: Its pixels.
        label: Its label.
        status: ``accepted``, ``quarantined`` or ``deleted``.
        split: Its group's side.
        frozen: Whether it is in a gate generation that decides already.
        group_key: Its group.
        uploader: Who brought it.
        near: Whether it shows the same picture, perhaps altered; if not, only the patient is the same.
    """

    sha256: str
    pixel_sha256: str
    label: str
    status: str
    split: str
    frozen: bool
    group_key: str
    uploader: str
    near: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of an image.

    Attributes:
        status: ``accepted``, ``quarantined`` or ``rejected``.
        code: Why, for programs; empty for an image that is simply accepted.
        reason: Why, for people.
        split: ``train``, ``val``, ``calibration``, ``gate`` or ``excluded``; empty unless it is new and kept.
        group_key: Its group; empty alike.
    """

    status: str
    code: str = ""
    reason: str = ""
    split: str = ""
    group_key: str = ""


def decide(
    examined: ImageRecord,
    label: str,
    opinion: ModelOpinion | None,
    known: Sequence[ExistingImage],
    settings: IntakeSettings,
    *,
    classes: Sequence[str],
    uploader: str,
) -> Decision:
    """Judge one image by what is known of it.

    Args:
        examined: The image.
        label: What the uploader calls it.
        opinion: What the champion says of it; None where nobody can be asked.
        known: Images of the catalogue with the same file, the same pixels, the same picture or the same patient, in the
            order they came.
        settings: The thresholds.
        classes: The classes there are.
        uploader: Who brings it.
    """
    if label not in classes:
        return _rejected("label_unknown", f"There is no class {label[:80]!r}. The classes are {', '.join(classes)}.")
    side = min(examined.width, examined.height)
    if side < settings.min_side:
        return _rejected(
            "too_small",
            f"The image of {examined.width} × {examined.height} pixels is too small to learn from: at least "
            f"{settings.min_side} on each side are needed.",
        )
    refused = _same(examined, label, known, uploader) or _related(label, known)
    if refused:
        return refused
    split, group_key = _side(examined.sha256, known, settings)
    code, reason = _doubt(label, opinion, known, settings)
    return Decision(QUARANTINED if code else ACCEPTED, code, reason, split, group_key)


def _rejected(code: str, reason: str) -> Decision:
    return Decision(REJECTED, code, reason)


def _same(examined: ImageRecord, label: str, known: Sequence[ExistingImage], uploader: str) -> Decision | None:
    """The judgement of an image that was here before, byte for byte or pixel for pixel."""
    files = [one for one in known if one.sha256 == examined.sha256]
    same = files + [one for one in known if one.pixel_sha256 == examined.pixel_sha256 and one not in files]
    if any(one.status == DELETED for one in same):
        return _rejected("deleted_before", "This image was removed by an admin and is not taken again.")
    for one in same:
        if one.label != label:
            where = "waits in quarantine" if one.status == QUARANTINED else "is known"
            return _rejected(
                "label_conflict",
                f"The same picture {where} as {one.label}, not {label}. Ask an admin which label is right.",
            )
    if files and files[0].uploader == uploader:
        return Decision(files[0].status, "already_known", f"You sent this file before; it is {files[0].status}.")
    if same:
        return _rejected("duplicate", "The same picture is there already, under the same label.")
    return None


def _related(label: str, known: Sequence[ExistingImage]) -> Decision | None:
    """The refusal of an image that may not stand beside others of its picture or patient."""
    living = [one for one in known if one.status != DELETED]
    gate = next((one for one in living if one.frozen and one.status == ACCEPTED), None)
    if gate is not None:
        what = "a copy of an image" if gate.near else "an image of a patient"
        return _rejected(
            "gate_contamination",
            f"This is {what} of the gate set, by which new models are judged; to learn from it would be to cheat.",
        )
    for one in living:
        if one.near and one.status == ACCEPTED and one.label != label:
            return _rejected(
                "label_conflict",
                f"Nearly the same picture is known as {one.label}, not {label}. Ask an admin which label is right.",
            )
    sides = {one.split for one in living if one.split != EXCLUDED}
    if len(sides) > 1:
        return _rejected(
            "near_duplicate_across_splits",
            "It belongs to images that stand on different sides of the split, which must stay apart.",
        )
    return None


def _side(sha256: str, known: Sequence[ExistingImage], settings: IntakeSettings) -> tuple[str, str]:
    """Split and group: those of its relatives, else by chance, though always by the same one for the same image."""
    living = sorted((one for one in known if one.status != DELETED), key=lambda one: one.split == EXCLUDED)
    if living:
        return living[0].split, living[0].group_key
    drawn = int.from_bytes(hashlib.sha256(f"split:{sha256}".encode()).digest()[:8]) / 2**64
    train, val, calibration = TRAINING
    for split, share in ((GATE, settings.holdout), (val, settings.val), (calibration, settings.calibration)):
        if drawn < share:
            return split, sha256
        drawn -= share
    return train, sha256


def _doubt(
    label: str, opinion: ModelOpinion | None, known: Sequence[ExistingImage], settings: IntakeSettings
) -> tuple[str, str]:
    """Code and reason of a quarantine; empty where there is no doubt."""
    for one in known:
        if one.near and one.status == QUARANTINED and one.label != label:
            return "label_disputed", f"Nearly the same picture waits in quarantine as {one.label}, not {label}."
    if opinion is None:
        return "", ""
    if not opinion.in_domain:
        return "out_of_domain", (
            f"It is unlike the images that the model knows (distance {opinion.distance:.2f}, where 1 is the border)."
        )
    best = max(opinion.probabilities, key=lambda name: opinion.probabilities[name])
    confidence, given = opinion.probabilities[best], opinion.probabilities.get(label, 0.0)
    if best != label and confidence >= settings.dispute_confidence and given <= settings.dispute_probability:
        return "label_disputed", (
            f"The model is sure of another class: {best} with {confidence:.0%}, and {label} with {given:.0%}."
        )
    return "", ""
