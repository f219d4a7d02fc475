"""Champion and challenger on the gate's images: both are asked, the gate decides, its report is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.snapshots import frozen_generations, gate_images
from lesion.core.errors import ImageError
from lesion.database.object_store import StoreError, image_key
from lesion.database.storage import Storage
from lesion.database.tables import ACCEPTED, GATE, QUARANTINED, GateLook, Generation, Image
from lesion.model.bundle import Bundle
from lesion.model.predictor import Predictor
from lesion.promotion.alpha_spending import AlphaSpending
from lesion.promotion.gate import GateSet, GateSettings, Verdict, decide, spent
from lesion.promotion.gate_report import gate_report
from lesion.retraining.jobs import JobError
from lesion.retraining.stored_reports import keep_report, places

_BATCH = 32


def compare(
    storage: Storage,
    job_id: str,
    champion: Path,
    challenger: Path,
    settings: GateSettings,
    report_progress: Callable[[], None],
) -> dict[str, Any]:
    """Put a challenger before the gate.

    Args:
        storage: Where the loop keeps its state.
        job_id: The job that asks; however often, it has one look.
        champion: The champion's bundle.
        challenger: The challenger's bundle.
        settings: Of the gate.
        report_progress: Called now and then; what it raises ends the comparison.

    Returns:
        ``Verdict.to_json()``.

    Raises:
        JobError: There is nothing to compare on (``gate_empty``).
    """
    with storage.session() as session:
        images = {number: gate_images(session, number) for number in frozen_generations(session)}
        gathered, waiting = _gathered(session), _waiting(session)
    images = {number: rows for number, rows in images.items() if rows}
    if not images:
        raise JobError(
            "No generation of the gate set holds an image, so that nothing can be proved.", code="gate_empty"
        )
    newest = max(images)
    bundles = Bundle.open(champion), Bundle.open(challenger)
    if bundles[0].classes != bundles[1].classes:
        raise JobError("The challenger has other classes than the champion.", code="classes_differ")
    look = reserve_look(storage, newest, job_id, settings.spending)
    if look is None:
        verdict = spent(newest, settings, gathered)
    else:
        both = Predictor.load(champion, device="cpu"), Predictor.load(challenger, device="cpu")
        sets = [_gate_set(storage, number, rows, both, report_progress) for number, rows in sorted(images.items())]
        left = settings.spending.looks_left(look.number)
        verdict = decide(sets, bundles[0].classes, settings, look.alpha, left, gathered=gathered)
    _report(storage, job_id, verdict, bundles, waiting)
    return verdict.to_json()


def reserve_look(storage: Storage, generation: int, job_id: str, spending: AlphaSpending) -> GateLook | None:
    """Count a job's look at a generation, before anything is looked at.

    Returns:
        The look, the job's earlier one when it comes again; None when the generation is spent.
    """
    for _ in range(10):
        try:
            with storage.session() as session:
                had = session.scalar(select(GateLook).filter_by(generation=generation, job_id=job_id))
                if had is not None:
                    return had
                used = session.scalar(select(func.max(GateLook.number)).filter_by(generation=generation)) or 0
                if spending.exhausted(used):
                    return None
                alpha = spending.alpha(used + 1)
                look = GateLook(generation=generation, number=used + 1, job_id=job_id, alpha=alpha)
                session.add(look)
                session.flush()
                return look
        except IntegrityError:  # another job took that number at the same time
            continue
    raise JobError("No look at the gate set could be counted; try again.", code="gate_busy")


def _gathered(session: Session) -> int:
    held = select(func.count()).select_from(Image).join(Generation, Generation.number == Image.generation)
    held = held.where(Image.status == ACCEPTED, Image.split == GATE, Generation.status == "open")
    return session.scalar(held) or 0


def _waiting(session: Session) -> int:
    """Images in quarantine that would be held out for the gate."""
    return session.scalar(select(func.count()).where(Image.status == QUARANTINED, Image.split == GATE)) or 0


def _report(storage: Storage, job_id: str, verdict: Verdict, bundles: tuple[Bundle, Bundle], waiting: int) -> None:
    changed = {one.sha256 for comparison in verdict.comparisons for one in comparison.changed}
    page = gate_report(
        verdict,
        title=bundles[0].name,
        champion=bundles[0].version,
        challenger=bundles[1].version,
        job_id=job_id,
        pictures=places(changed),
        quarantined=waiting,
    )
    keep_report(storage, job_id, page)


def _gate_set(
    storage: Storage,
    generation: int,
    rows: Sequence[tuple[str, str, str]],
    both: tuple[Predictor, Predictor],
    report_progress: Callable[[], None],
) -> GateSet:
    """Ask both models about a generation's images; one that was deleted meanwhile is left out."""
    classes = both[0].bundle.classes
    kept: list[tuple[str, str, str]] = []
    answers: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for start in range(0, len(rows), _BATCH):
        report_progress()
        batch = [(row, data) for row in rows[start : start + _BATCH] if (data := _read(storage, row[0])) is not None]
        if not batch:
            continue
        contents = [data for _, data in batch]
        kept += [row for row, _ in batch]
        answers.append((_ask(both[0], contents), _ask(both[1], contents)))
    return GateSet(
        generation=generation,
        labels=np.array([classes.index(label) for _, label, _ in kept], np.int64),
        groups=np.array([group for _, _, group in kept]),
        champion=np.concatenate([champion for champion, _ in answers]),
        challenger=np.concatenate([challenger for _, challenger in answers]),
        names=[sha256 for sha256, _, _ in kept],
    )


def _read(storage: Storage, sha256: str) -> bytes | None:
    try:
        return storage.store.get(image_key(sha256))
    except StoreError as error:
        if error.code == "file_gone":
            return None
        raise


def _ask(predictor: Predictor, contents: Sequence[bytes]) -> NDArray[np.float32]:
    rows = []
    for prediction in predictor.predict(contents):
        if isinstance(prediction, ImageError):
            raise prediction
        rows.append(list(prediction.probabilities.values()))
    return np.array(rows, np.float32)
