"""Decide whether an upload is accepted, quarantined or rejected, and which split it joins. Pure functions.

The rules are tried in this order, and the first one that applies decides:

========================== ==================================================== =========== ============================
rule                       applies if                                           decision    code
========================== ==================================================== =========== ============================
``unknown_label``          the label is not one of the classes                  rejected    label_unknown
``deleted_before``         the same file or pixels were removed by an admin     rejected    deleted_before
``corrected``              the same, and the uploader may correct labels        as before   label_corrected
``relabeled``              the same file or pixels have another label           rejected    label_conflict
``own_file_again``         the uploader sent the same file before               as before   already_known
``duplicate``              the same file or pixels have the same label          rejected    duplicate
``related_to_gate``        a relative is in a frozen gate generation            rejected    gate_contamination
``copy_relabeled``         an accepted near-duplicate has another label         rejected    label_conflict
``relatives_divided``      relatives are on different sides of the split        rejected    near_duplicate_across_splits
``copy_in_quarantine``     a quarantined near-duplicate has another label       quarantined label_disputed
``burned_in_text``         the file says that its picture shows text            quarantined burned_in_text
``out_of_domain``          the champion was not trained on such images          quarantined out_of_domain
``champion_disagrees``     the champion is confident of another class           quarantined label_disputed
``burned_in_text_possible``  a screen capture or ultrasound that may show text    accepted    burned_in_text_possible
(no rule applies)                                                               accepted    (empty)
========================== ==================================================== =========== ============================

Relatives are copies of the same picture and images of the same patient. An image that is stored joins the split and the
group of its relatives; without relatives, those of an image that may show the same picture, which is no reason to
refuse it; and without any, the hash of its file chooses the split. Images that their senders took back count as never
sent. Files that cannot be read, and images beyond
the server's limits, never come here: ``serve/ingest.py`` rejects them before.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lesion.core.errors import ConfigError
from lesion.core.text import format_count, join_names
from lesion.database.tables import ACCEPTED, EXCLUDED, GATE, QUARANTINED, REJECTED, REMOVED, TRAINING, WITHDRAWN, Image
from lesion.intake.uploads import Decision, RelatedImage, Upload

_CORRECTED = "label_corrected"


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """How uploads are judged."""

    # The champion disputes a label if its probability of another class is at least this …
    dispute_confidence: float = 0.6
    dispute_probability: float = 0.1  # … and its probability of the label is at most this
    holdout: float = 0.2  # the share of groups that is held out for the open generation of the gate set
    val: float = 0.08
    calibration: float = 0.08  # the share of groups for calibration; the rest is trained on

    def __post_init__(self) -> None:
        shares = (self.dispute_confidence, self.dispute_probability, self.holdout, self.val, self.calibration)
        if not all(0 <= share <= 1 for share in shares) or self.holdout + self.val + self.calibration >= 1:
            raise ConfigError(
                f"intake: {shares} must be between 0 and 1, and holdout, val and calibration must leave something to "
                "train on."
            )


class Case:
    """An upload and all that the rules compare it with.

    ``related`` are images of the catalogue with the same file, pixels, picture or patient, the oldest first, and
    ``look_alikes`` other ones that may show the same picture; ``classes`` are those of the champion.
    """

    def __init__(
        self,
        upload: Upload,
        related: Sequence[RelatedImage],
        settings: IntakeSettings,
        classes: Sequence[str],
        look_alikes: Sequence[Image] = (),
    ) -> None:
        self.image, self.label, self.uploader = upload.image, upload.label, upload.uploader
        self.opinion, self.sent_hash, self.text_in_pixels = upload.opinion, upload.sent_hash, upload.text_in_pixels
        self.may_correct, self.settings, self.classes = upload.may_correct, settings, classes
        related = [other for other in related if other.row.reason_code != WITHDRAWN]
        self.relatives = [other for other in related if other.row.status not in REMOVED]
        self.look_alikes = look_alikes
        rows = [other.row for other in related]
        self.same_file = [
            row
            for row in rows
            if row.sha256 == self.image.sha256 or (row.sent_hash and row.sent_hash == self.sent_hash)
        ]
        same_pixels = [row for row in rows if row.pixel_sha256 == self.image.pixel_sha256]
        self.same_picture = self.same_file + [row for row in same_pixels if row not in self.same_file]
        self.mislabeled = [row for row in self.same_picture if row.label != self.label]

    def other_copies(self) -> list[Image]:
        """Return the near-duplicates that are other pictures."""
        return [other.row for other in self.relatives if other.near and other.row not in self.same_picture]

    def copy_with_other_label(self, status: str) -> Image | None:
        """Return the first near-duplicate with this status and another label."""
        copies = (other.row for other in self.relatives if other.near and other.row.status == status)
        return next((row for row in copies if row.label != self.label), None)


def _unknown_label(case: Case) -> str | None:
    known = case.label in case.classes
    return None if known else f"There is no class {case.label[:80]!r}. The classes are {', '.join(case.classes)}."


def _deleted_before(case: Case) -> str | None:
    deleted = any(row.status in REMOVED for row in case.same_picture)
    return "This image was removed by an admin and is not taken again." if deleted else None


def _corrected(case: Case) -> str | None:
    if not case.may_correct or not case.mislabeled:
        return None
    before = join_names(dict.fromkeys(row.label for row in case.mislabeled))
    frozen = any(other.frozen and other.row in case.mislabeled for other in case.relatives)
    left = " It leaves the part of the gate set that models were compared on, and joins the next one." if frozen else ""
    copies = [row.label for row in case.other_copies() if row.label != case.label]
    verb = "is" if len(copies) == 1 else "are"
    rest = f" {format_count(len(copies), 'near-duplicate')} of it {verb} still {join_names(dict.fromkeys(copies))}."
    return f"The label of this image was {before} and is {case.label} now.{left}{rest if copies else ''}"


def _relabeled(case: Case) -> str | None:
    for row in case.mislabeled:
        where = "waits in quarantine" if row.status == QUARANTINED else "is known"
        return f"The same picture {where} as {row.label}, not {case.label}. Ask an admin which label is right."
    return None


def _own_file_again(case: Case) -> str | None:
    row = next((row for row in case.same_file if row.uploader == case.uploader), None)
    return f"You sent this file before; it is {row.status}." if row else None


def _duplicate(case: Case) -> str | None:
    return "The same picture is there already, under the same label." if case.same_picture else None


def _related_to_gate(case: Case) -> str | None:
    for other in case.relatives:
        if other.frozen and other.row.status == ACCEPTED:
            what = "a copy of an image" if other.near else "an image of a patient"
            return (
                f"This is {what} of the gate set, by which new models are judged; to learn from it would be to cheat."
            )
    return None


def _copy_relabeled(case: Case) -> str | None:
    row = case.copy_with_other_label(ACCEPTED)
    advice = "Ask an admin which label is right."
    return f"Nearly the same picture is known as {row.label}, not {case.label}. {advice}" if row else None


def _relatives_divided(case: Case) -> str | None:
    divided = len({other.row.split for other in case.relatives} - {EXCLUDED}) > 1
    return (
        "It belongs to images that stand on different sides of the split, which must stay apart." if divided else None
    )


def _copy_in_quarantine(case: Case) -> str | None:
    row = case.copy_with_other_label(QUARANTINED)
    return f"Nearly the same picture waits in quarantine as {row.label}, not {case.label}." if row else None


def _burned_in_text(case: Case) -> str | None:
    shown = "The file says that text is burned into its picture, which may be a name. Look at it before it is released."
    return shown if case.text_in_pixels == "yes" else None


def _out_of_domain(case: Case) -> str | None:
    if case.opinion is None or case.opinion.in_domain:
        return None
    distance = f"distance {case.opinion.distance:.2f}, where 1 is the border"
    return f"It is unlike the images that the model knows ({distance})."


def _champion_disagrees(case: Case) -> str | None:
    if case.opinion is None:
        return None
    probabilities, settings = case.opinion.probabilities, case.settings
    best = max(probabilities, key=lambda name: probabilities[name])
    confidence, given = probabilities[best], probabilities.get(case.label, 0.0)
    if best == case.label or confidence < settings.dispute_confidence or given > settings.dispute_probability:
        return None
    return f"The model is sure of another class: {best} with {confidence:.0%}, and {case.label} with {given:.0%}."


def _burned_in_text_possible(case: Case) -> str | None:
    advice = (
        "Ultrasound and screens often show a name in the picture, and the file does not say that this one has none."
    )
    return f"{advice} Delete it if so." if case.text_in_pixels == "possible" else None


class Rule(NamedTuple):
    """A rule; ``check`` returns the reason for users if the rule applies. Without ``status`` the old one stays."""

    check: Callable[[Case], str | None]
    status: str | None
    code: str


RULES = (
    Rule(_unknown_label, REJECTED, "label_unknown"),
    Rule(_deleted_before, REJECTED, "deleted_before"),
    Rule(_corrected, None, _CORRECTED),
    Rule(_relabeled, REJECTED, "label_conflict"),
    Rule(_own_file_again, None, "already_known"),
    Rule(_duplicate, REJECTED, "duplicate"),
    Rule(_related_to_gate, REJECTED, "gate_contamination"),
    Rule(_copy_relabeled, REJECTED, "label_conflict"),
    Rule(_relatives_divided, REJECTED, "near_duplicate_across_splits"),
    Rule(_copy_in_quarantine, QUARANTINED, "label_disputed"),
    Rule(_burned_in_text, QUARANTINED, "burned_in_text"),
    Rule(_out_of_domain, QUARANTINED, "out_of_domain"),
    Rule(_champion_disagrees, QUARANTINED, "label_disputed"),
    Rule(_burned_in_text_possible, ACCEPTED, "burned_in_text_possible"),
)


def decide(case: Case) -> Decision:
    """Return the decision of the first rule that applies."""
    status, code, reason = ACCEPTED, "", ""
    for rule in RULES:
        if applies := rule.check(case):
            status, code, reason = rule.status or case.same_picture[0].status, rule.code, applies
            break
    if code == _CORRECTED:
        first, hashes = case.mislabeled[0], tuple(row.sha256 for row in case.mislabeled)
        return Decision(first.status, code, reason, known_as=first.sha256, corrected=hashes)
    if status == REJECTED or code == "already_known":
        return Decision(status, code, reason, known_as=case.same_file[0].sha256 if case.same_file else "")
    relatives = [other.row for other in case.relatives] or case.look_alikes
    split, group_key = _split_and_group(case.image.sha256, relatives, case.settings)
    return Decision(status, code, reason, split, group_key)


def _split_and_group(sha256: str, relatives: Sequence[Image], settings: IntakeSettings) -> tuple[str, str]:
    """Return the split and the group of the relatives, of those that are not excluded if possible.

    Without relatives the hash of the file draws the split, so that the same image always gets the same split.
    """
    if relatives:
        first = next((other for other in relatives if other.split != EXCLUDED), relatives[0])
        return first.split, first.group_key
    drawn = int.from_bytes(hashlib.sha256(f"split:{sha256}".encode()).digest()[:8]) / 2**64
    train, val, calibration = TRAINING
    for split, share in ((GATE, settings.holdout), (val, settings.val), (calibration, settings.calibration)):
        if drawn < share:
            return split, sha256
        drawn -= share
    return train, sha256
