"""Check the labels of uploads that nobody reviewed, before a retraining learns from them or is judged by them."""

import hashlib
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.catalogue.images import limits_of_accepted
from lesion.core.text import format_count, format_percent, join_names
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import GATE, QUARANTINED, AuditEntry, Image, ModelVersion, SnapshotImage, now
from lesion.model.bundle import Bundle
from lesion.model.predictor import Predictor
from lesion.retraining.label_check.champion_votes import ChampionVotes, predict_stored
from lesion.retraining.label_check.confident_learning import LabelDoubts, LabeledImages, doubt_labels
from lesion.retraining.label_check.unreviewed_images import (
    StoredLabel,
    doubtable_images,
    trusted_images,
    waiting_images,
)

logger = logging.getLogger(__name__)

LABEL_DOUBTED = "label_doubted"  # the reason_code of an image that a check quarantined
_CHECKED, _DOUBTED = "labels.checked", "image.label_doubted"  # actions of the audit log
_MOST_TRUSTED = 500  # of each class: more take longer and change the doubts little
_CHUNK = 500  # rows that one query reads


@dataclass(frozen=True)
class LabelCheck:
    """What a check of labels found."""

    images: int = 0  # uploads that nobody had reviewed
    doubted: int = 0  # how many of them were quarantined
    unjudged: tuple[str, ...] = ()  # classes with too few groups of images to judge their labels

    def sentence(self) -> str:
        """Return the outcome in words; empty if nothing was compared."""
        if not self.images:
            return ""
        compared = format_count(self.images, "uploaded image")
        waiting = "waits" if self.doubted == 1 else "wait"
        text = (
            f"Before the training, the labels of {compared} that nobody had reviewed were compared with what the "
            f"model and the other labels suggest: {self.doubted:,} of them {waiting} in quarantine for a review."
        )
        if self.unjudged:
            text += f" Labels of {join_names(self.unjudged)} were not judged: too few groups of images have them."
        return text


def check_labels(storage: Storage, job_id: str, champion: Path, report_progress: Callable[[], None]) -> LabelCheck:
    """Quarantine the uploads whose labels are probably wrong, and store how doubtful each label is.

    A job that runs again gets what it found before. If the last check by this champion left the same images, nothing
    is compared again.

    Args:
        storage: The catalogue and its files.
        job_id: The retraining for which the labels are checked.
        champion: The folder of the champion's bundle.
        report_progress: Called before each batch of images; an error that it raises ends the check, which has changed
            nothing by then.

    Raises:
        StoreError: The store does not answer.
        BundleError: The champion cannot be loaded.
    """
    bundle = Bundle.open(champion)
    with storage.session() as session:
        earlier = find_check(session, job_id)
        checked = [image for image in doubtable_images(session) if image.label in bundle.classes]
        if earlier is not None or not checked or _is_checked(session, checked, bundle.version):
            return earlier or LabelCheck()
        trusted, waiting = trusted_images(session, _MOST_TRUSTED), waiting_images(session)
        learned, limits = _learned_hashes(session, bundle.version), limits_of_accepted(session)
    predictor = Predictor.load(champion, device="cpu", limits=limits)
    compared = [image for image in (*checked, *waiting, *trusted) if image.label in bundle.classes]
    votes = predict_stored(storage, predictor, compared, report_progress)
    # What a check doubted is still fitted on: otherwise the next one would doubt the images most like it, and so on.
    unfitted = {image for image in waiting if image.reason_code != LABEL_DOUBTED}
    doubts = doubt_labels(_labeled(votes, learned, {*trusted}, unfitted, bundle.classes))
    report_progress()
    with storage.session() as session:
        earlier = find_check(session, job_id)
        return earlier or _store(session, job_id, votes.images, doubts, bundle)


def find_check(session: Session, job_id: str) -> LabelCheck | None:
    """Return what the check for a retraining found; None if there was none."""
    entry = session.scalar(select(AuditEntry).filter_by(action=_CHECKED, subject=job_id))
    if entry is None:
        return None
    return LabelCheck(entry.detail["images"], entry.detail["doubted"], tuple(entry.detail["unjudged"]))


def _is_checked(session: Session, images: Sequence[StoredLabel], version: str) -> bool:
    """Return whether the last check left exactly these images, under these labels, with this champion."""
    newest = select(AuditEntry).filter_by(action=_CHECKED).order_by(AuditEntry.id.desc()).limit(1)
    last = session.scalar(newest)
    return last is not None and last.detail["left"] == _fingerprint(images, version)


def _fingerprint(images: Sequence[StoredLabel], version: str) -> str:
    lines = sorted(f"{image.sha256} {image.label}" for image in images)
    return hashlib.sha256("\n".join([version, *lines]).encode()).hexdigest()


def _learned_hashes(session: Session, version: str) -> set[str]:
    """Return the hashes of the images that a version was trained on."""
    snapshot = select(ModelVersion.snapshot_id).where(ModelVersion.version == version).scalar_subquery()
    trained = SnapshotImage.snapshot_id == snapshot, SnapshotImage.split == "train"
    return set(session.scalars(select(SnapshotImage.sha256).where(*trained)))


def _labeled(
    votes: ChampionVotes,
    learned: Set[str],
    trusted: Set[StoredLabel],
    waiting: Set[StoredLabel],
    classes: Sequence[str],
) -> LabeledImages:
    images = votes.images
    return LabeledImages(
        labels=np.array([classes.index(image.label) for image in images], np.int64),
        groups=np.array([image.group_key for image in images]),
        features=votes.features,
        champion=votes.probabilities,
        learned=np.array([image.sha256 in learned for image in images], np.bool_),
        held_out=np.array([image.split == GATE for image in images], np.bool_),
        waiting=np.array([image in waiting for image in images], np.bool_),
        trusted=np.array([image in trusted for image in images], np.bool_),
    )


def _store(
    session: Session, job_id: str, images: Sequence[StoredLabel], doubts: LabelDoubts, bundle: Bundle
) -> LabelCheck:
    """Store the doubts of images that nobody reviewed meanwhile, quarantine some, and record the check."""
    numbers = {image: number for number, image in enumerate(images)}
    compared = [image for image in doubtable_images(session) if image in numbers]
    doubted = {image.sha256 for image in compared if doubts.doubted[numbers[image]]}
    changed = [image for image in (*compared, *waiting_images(session)) if image in numbers]
    for start in range(0, len(changed), _CHUNK):
        part = {image.sha256: numbers[image] for image in changed[start : start + _CHUNK]}
        for row in session.scalars(select(Image).where(Image.sha256.in_(part)).with_for_update()):
            number = part[row.sha256]
            if doubts.judged[number]:
                row.doubt = float(doubts.doubts[number])
            if row.sha256 in doubted:
                _quarantine(session, job_id, row, bundle.classes[doubts.suggested[number]], doubts.confidences[number])
    left = [image for image in compared if image.sha256 not in doubted]
    check = LabelCheck(len(compared), len(doubted), tuple(bundle.classes[number] for number in doubts.unjudged))
    detail = asdict(check) | {"champion": bundle.version, "left": _fingerprint(left, bundle.version)}
    record(session, job_id, _CHECKED, job_id, **detail)
    logger.info("%s: %s", job_id, check.sentence())
    return check


def _quarantine(session: Session, job_id: str, row: Image, suggested: str, confidence: float) -> None:
    """Let an image wait for a review; a held-out one leaves the open generation until then."""
    belief, other = format_percent(1 - (row.doubt or 0.0)), format_percent(confidence)
    reason = (
        f"By the model and the labels of other images, the label {row.label} is right with a probability of {belief}, "
        f"and {suggested} with {other}."
    )
    record(session, job_id, _DOUBTED, row.sha256, label=row.label, suggested=suggested, split=row.split)
    row.status, row.reason_code, row.reason = QUARANTINED, LABEL_DOUBTED, reason
    row.generation, row.changed_at = None, now()
