"""Champion and challenger on the gate's images: both predict them, the gate decides, and its report is stored."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.catalogue.images import frozen_generations, gate_images, limits_of_accepted, open_generation
from lesion.core.errors import BundleError, ImageError
from lesion.database.object_store import ObjectNotFoundError
from lesion.database.storage import Storage
from lesion.database.tables import GATE, GateLook, Generation
from lesion.imaging.limits import Limits
from lesion.model.bundle import Bundle
from lesion.model.predictor import Predictor
from lesion.promotion.change_plan import ChangePlan
from lesion.promotion.comparison import GateSet, Selection
from lesion.promotion.gate import Verdict, decide, reject_exhausted
from lesion.promotion.gate_levels import GateLevels
from lesion.promotion.gate_report import gate_report
from lesion.promotion.gate_settings import GateSettings
from lesion.promotion.summary.evidence import Gathering
from lesion.promotion.summary.verdict_summary import summarize_other_classes, summarize_without_images
from lesion.registry.deployments import UnknownVersionError
from lesion.registry.gate_looks import best_versions, deciding_since, first_champion, recorded_looks
from lesion.registry.plan_adoption import state_plan
from lesion.registry.registry import Registry
from lesion.retraining.jobs import CHOICES, JobError
from lesion.retraining.label_check.doubtful_labels import find_check
from lesion.retraining.label_check.reviewed_answers import count_by_review
from lesion.retraining.label_check.unreviewed_images import waiting_images
from lesion.retraining.stored_reports import picture_placeholders, save_report

logger = logging.getLogger(__name__)

_BATCH = 32
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
        generations = {number: gate_images(session, number) for number in frozen_generations(session)}
        selections = _selections(session)
        gathered = gate_images(session, open_generation(session).number)
        held_out = [image for image in waiting_images(session) if image.split == GATE]
        check = find_check(session, job_id)
        limits = limits_of_accepted(session)
    gathering = Gathering(len(gathered), settings.renew_images, len(held_out))
    generations = {number: images for number, images in generations.items() if images}
    if not generations:
        raise JobError(summarize_without_images(gathering.unreviewed).text, code="gate_empty")
    newest = max(generations)
    champion, challenger = (Bundle.open(folder) for folder in folders)
    if champion.classes != challenger.classes:
        raise JobError(summarize_other_classes(champion.classes, challenger.classes).text, code="classes_differ")
    with storage.session() as session:
        statement = state_plan(session, ChangePlan.of(challenger.facts, settings, CHOICES), job_id)
    look = reserve_look(storage, newest, job_id, settings.levels)
    if look is None:
        with storage.session() as session:
            ever = not settings.levels.next_level(recorded_looks(session), newest + 1)
        verdict = reject_exhausted(newest, settings, gathering.gathered, unreviewed=gathering.unreviewed, ever=ever)
    else:
        predictors = [Predictor.load(folder, device="cpu", limits=limits) for folder in folders]
        best = _best_predictors(storage, champion, limits)
        sets = [
            _gate_set(storage, number, images, predictors, best, report_progress)
            for number, images in sorted(generations.items())
        ]
        sets = [replace(one, selection=selections.get(one.generation)) for one in sets]
        verdict = _decide(storage, sets, champion.classes, settings, look.alpha, gathering)
        waiting = [(image.sha256, image.label, image.group_key) for image in held_out]
        newer = [*gathered, *waiting] if waiting else []
        unused = [_gate_set(storage, newest + 1, newer, predictors, {}, report_progress)] if newer else []
        decided = [one for one in sets if one.generation in verdict.comparisons[-1].generations]
        review = count_by_review(storage, decided, unused, {image.sha256 for image in held_out})
        verdict = replace(verdict, review=review)
    verdict = replace(verdict, plan=statement, label_check=check.sentence() if check else "")
    _save_report(storage, job_id, verdict, (champion, challenger))
    return verdict


def _decide(
    storage: Storage,
    sets: Sequence[GateSet],
    classes: Sequence[str],
    settings: GateSettings,
    level: float,
    gathering: Gathering,
) -> Verdict:
    """Decide on all images since the last promotion."""
    with storage.session() as session:
        looks = recorded_looks(session)
    numbers = [gate_set.generation for gate_set in sets]
    return decide(
        sets,
        classes,
        settings,
        level,
        settings.levels.looks_left(looks, max(numbers)),
        gathered=gathering.gathered,
        unreviewed=gathering.unreviewed,
        deciding_since=deciding_since(looks, numbers),
    )


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


def _selections(session: Session) -> dict[int, Selection]:
    """Return by which rule the images of each frozen generation were chosen."""
    rules = session.execute(select(Generation.number, Generation.selection))
    return {number: Selection(name) for number, name in rules if name is not None}


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


def _gate_set(
    storage: Storage,
    generation: int,
    images: Sequence[tuple[str, str, str]],
    predictors: Sequence[Predictor],
    best: Mapping[str, Predictor],
    report_progress: Callable[[], None],
) -> GateSet:
    """Predict a generation's images with both models; an image that was deleted meanwhile is left out.

    ``best`` has the best model so far for each class for which that is not the champion.
    """
    classes = predictors[0].bundle.classes
    read: list[tuple[str, str, str]] = []
    probabilities: list[list[NDArray[np.float32]]] = []
    best_hits: dict[str, bool] = {}
    for start in range(0, len(images), _BATCH):
        report_progress()
        batch = [(row, data) for row in images[start : start + _BATCH] if (data := _read(storage, row[0])) is not None]
        if batch:
            read += [row for row, _ in batch]
            probabilities.append([_predict(predictor, [data for _, data in batch]) for predictor in predictors])
            best_hits |= _hits(batch, best)
    champion, challenger = (np.concatenate(batches) for batches in zip(*probabilities, strict=True))
    labels = np.array([classes.index(label) for _, label, _ in read], np.int64)
    champion_hits = champion.argmax(axis=1) == labels
    hits = [best_hits.get(sha256, hit) for (sha256, _, _), hit in zip(read, champion_hits, strict=True)]
    return GateSet(
        generation=generation,
        labels=labels,
        groups=np.array([group for _, _, group in read]),
        champion=champion,
        challenger=challenger,
        hashes=[sha256 for sha256, _, _ in read],
        best_hits=np.array(hits, np.bool_) if best else None,
    )


def _hits(batch: Sequence[tuple[tuple[str, str, str], bytes]], best: Mapping[str, Predictor]) -> dict[str, bool]:
    """Return, by hash, whether the best model so far is right, for the images of the classes in ``best``."""
    hits: dict[str, bool] = {}
    for label, predictor in best.items():
        images = {sha256: data for (sha256, name, _), data in batch if name == label}
        if images:
            given = _predict(predictor, list(images.values())).argmax(axis=1)
            right = given == predictor.bundle.classes.index(label)
            hits |= dict(zip(images, map(bool, right), strict=True))
    return hits


def _best_predictors(storage: Storage, champion: Bundle, limits: Limits) -> dict[str, Predictor]:
    """Load the best model so far for each class for which it is not the champion.

    Where a bundle cannot be had any more, does not load (servers refuse such a champion), or has other classes, the
    champion stands for it.
    """
    with storage.session() as session:
        proved, first = best_versions(session), first_champion(session)
    versions = {label: proved.get(label, first) for label in champion.classes}
    loaded: dict[str, Predictor] = {}
    for version in sorted({version for version in versions.values() if version and version != champion.version}):
        try:
            bundle = Registry(storage).fetch(version)
            if Bundle.open(bundle).classes == champion.classes:
                loaded[version] = Predictor.load(bundle, device="cpu", limits=limits)
        except (UnknownVersionError, BundleError) as error:
            logger.warning("the gate compares with the champion in place of %s: %s", version, error)
    return {label: loaded[version] for label, version in versions.items() if version in loaded}


def _read(storage: Storage, sha256: str) -> bytes | None:
    try:
        return storage.store.get_image(sha256)
    except ObjectNotFoundError:
        return None


def _predict(predictor: Predictor, contents: Sequence[bytes]) -> NDArray[np.float32]:
    rows = []
    for prediction in predictor.predict(contents):
        if isinstance(prediction, ImageError):
            raise prediction
        rows.append(list(prediction.probabilities.values()))
    return np.array(rows, np.float32)
