"""Champion and challenger on the gate's images: both predict them, the gate decides, and its report is stored."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from lesion.database.storage import Storage
from lesion.database.tables import GateLook
from lesion.model.bundle import Bundle
from lesion.promotion.change_plan import ChangePlan
from lesion.promotion.gate import Verdict, decide, reject_exhausted
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.gate_report import gate_report
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.summary.evidence import Gathering
from lesion.promotion.summary.verdict_summary import summarize_other_classes, summarize_without_images
from lesion.registry.gate_looks import deciding_since, recorded_looks
from lesion.registry.plan_adoption import state_plan
from lesion.retraining.gate.gate_images import GateImages
from lesion.retraining.gate.gate_predictions import GatePredictors
from lesion.retraining.jobs import CHOICES, JobError
from lesion.retraining.label_check.doubtful_labels import find_check
from lesion.retraining.label_check.reviewed_answers import count_by_review
from lesion.retraining.stored_reports import picture_placeholders, save_report

_RESERVE_ATTEMPTS = 10


def compare(
    storage: Storage,
    job_id: str,
    folders: tuple[Path, Path],
    settings: GateSettings,
    report_progress: Callable[[], None],
) -> Verdict:
    """Let the gate decide between champion and challenger, and store its report.

    However often a job calls this, it uses one look. ``folders`` are the bundles of champion and challenger;
    ``report_progress`` is called before each batch, and an error that it raises ends the comparison. A JobError tells
    that there are no images to compare on (``gate_empty``), or the models have different classes (``classes_differ``).
    """
    with storage.session() as session:
        images, check = GateImages.read(session), find_check(session, job_id)
    gathering = images.gathering(settings.renew_images)
    champion, challenger = bundles = Bundle.open(folders[0]), Bundle.open(folders[1])
    if not images.frozen:
        raise JobError(summarize_without_images(gathering.unreviewed).text, code="gate_empty")
    if champion.classes != challenger.classes:
        raise JobError(summarize_other_classes(champion.classes, challenger.classes).text, code="classes_differ")
    with storage.session() as session:
        statement = state_plan(session, ChangePlan.of(challenger.facts, settings, CHOICES), job_id)
    newest = max(images.frozen)
    look = reserve_look(storage, newest, job_id, settings.levels)
    if look is None:
        with storage.session() as session:
            ever = not settings.levels.next_level(recorded_looks(session), newest + 1)
        verdict = reject_exhausted(newest, settings, gathering.gathered, unreviewed=gathering.unreviewed, ever=ever)
    else:
        predictors = GatePredictors.load(storage, bundles, images.limits, report_progress)
        verdict = _decide(predictors, images, settings, look.alpha, gathering)
    verdict = replace(verdict, plan=statement, label_check=check.sentence() if check else "")
    _save_report(storage, job_id, verdict, bundles)
    return verdict


def _decide(
    predictors: GatePredictors, images: GateImages, settings: GateSettings, level: float, gathering: Gathering
) -> Verdict:
    """Decide on all images since the last promotion, and count what images that nobody reviewed change."""
    storage, selections = predictors.storage, images.selections
    predicted = [predictors.gate_set(number, rows, selections.get(number)) for number, rows in images.frozen.items()]
    sets = [one for one in predicted if one is not None]
    if not sets:  # all were deleted meanwhile
        raise JobError(summarize_without_images(gathering.unreviewed).text, code="gate_empty")
    with storage.session() as session:
        looks = recorded_looks(session)
    numbers = [gate_set.generation for gate_set in sets]
    verdict = decide(
        sets,
        predictors.champion.bundle.classes,
        settings,
        level,
        settings.levels.looks_left(looks, max(numbers)),
        gathered=gathering.gathered,
        unreviewed=gathering.unreviewed,
        deciding_since=deciding_since(looks, numbers),
    )
    # Newer images matter only where some of them wait for a review.
    newer = predictors.gate_set(max(numbers) + 1, [*images.gathered, *images.waiting]) if images.waiting else None
    decided = [one for one in sets if one.generation in verdict.comparisons[-1].generations]
    waiting = {sha256 for sha256, _, _ in images.waiting}
    return replace(verdict, review=count_by_review(storage, decided, [newer] if newer else [], waiting))


def reserve_look(storage: Storage, generation: int, job_id: str, levels: GateLevels) -> GateLook | None:
    """Record a job's look at a generation, before its images are read; None when the generation is exhausted.

    A job that runs again gets its earlier look. If other jobs took the number each time, raise a JobError
    (``gate_busy``).
    """
    for _ in range(_RESERVE_ATTEMPTS):
        try:
            with storage.session() as session:
                earlier = session.scalar(select(GateLook).filter_by(generation=generation, job_id=job_id))
                if earlier is not None:
                    return earlier
                used = session.scalar(select(func.max(GateLook.number)).filter_by(generation=generation)) or 0
                alpha = levels.next_level(recorded_looks(session), generation)
                if not alpha:
                    return None
                look = GateLook(generation=generation, number=used + 1, job_id=job_id, alpha=alpha)
                session.add(look)
                session.flush()
                return look
        except IntegrityError:  # another job took that number at the same time
            continue
    raise JobError("No look at the gate set could be recorded; try again.", code="gate_busy")


def _save_report(storage: Storage, job_id: str, verdict: Verdict, bundles: tuple[Bundle, Bundle]) -> None:
    changed = {image.sha256 for comparison in verdict.comparisons for image in comparison.changed}
    page = gate_report(
        verdict,
        title=bundles[0].name,
        champion=bundles[0].version,
        challenger=bundles[1].version,
        job_id=job_id,
        pictures=picture_placeholders(changed),
    )
    save_report(storage, job_id, page)
