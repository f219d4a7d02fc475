"""The model report: one self-contained HTML page about a model's quality, its explanations and its data."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lesion.core.files import write_atomically
from lesion.core.text import format_percent
from lesion.evaluation import findings, views
from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.evaluation import Evaluation
from lesion.evaluation.findings import CLASS_TITLES, TITLES
from lesion.evaluation.rendering import load_template
from lesion.explanation.faithfulness import RANDOM, Faithfulness
from lesion.explanation.heat_locations import Placement

RANDOM_WEIGHTS = (
    "The network started from random weights, not from weights pretrained on a large image collection. Its scores are "
    "probably lower than the same data allows."
)
DISCLAIMER = (
    "This report describes a statistical model on one collection of images. The model is not a medical device, has not "
    "been assessed by any authority, and must not be used to diagnose or treat anyone. Its scores hold for images like "
    "those it was tested on; other scanners, clinics, populations and diseases can give very different ones. Heat maps "
    "show what the model used, not where a disease is."
)


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    model: Mapping[str, Any],
    errors: Sequence[views.Example] = (),
    examples: Sequence[views.Example] = (),
    faithfulness: Sequence[Faithfulness] = (),
    placements: Sequence[Placement] = (),
    facts: Mapping[str, Any] | None = None,
    leakage: Mapping[str, Any] | None = None,
    validation: CrossValidation | None = None,
    sources: Mapping[str, Any] | None = None,
    history: Path | None = None,
    config: str | None = None,
    lineage: Mapping[str, Any] | None = None,
    created: datetime | None = None,
    measurements: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report as one HTML file that needs no other file, no script and no network; return its path.

    Sections whose data is left out do not appear.

    Args:
        path: The file to write; its folder is created, and an older file replaced.
        evaluation: The measurements.
        title: The dataset's or run's name, as a heading.
        model: Facts of the model by name, which may be nested; ``weights.source`` of "none" gives a warning.
        errors: Misclassified images, as ``worst_errors`` orders them.
        examples: Correctly classified images, as ``correct_examples`` draws them.
        faithfulness: The result of ``faithfulness``.
        placements: The result of ``placements``.
        facts: ``Manifest.facts()``.
        leakage: ``Leakage.to_dict()``, optionally with ``contact_sheet_png`` (bytes) and ``folder_score`` (the metrics
            on the split that came with the data; after ``folder_epochs``, if those were fewer).
        validation: The cross-validation, if there was one.
        sources: The result of ``lesion.training.reporting.source_section``.
        history: ``metrics.csv`` of Lightning's CSV logger.
        config: The run's configuration as YAML.
        lineage: The origin of the model: versions, commit, parent.
        created: The time of creation; now by default.
        measurements: The result of ``draw_measurements``, for several reports of one evaluation.
    """
    weights = model.get("weights")
    source = weights.get("source") if isinstance(weights, Mapping) else weights
    percent = partial(format_percent, decimals=1)
    content = load_template("report.html.j2", "lesion.evaluation", percent=percent).render(
        title=title,
        created=(created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z"),
        warnings=[*([RANDOM_WEIGHTS] if source == "none" else []), *evaluation.notes],
        **(measurements or draw_measurements(evaluation, facts, history)),
        errors=[views.card(example) for example in errors],
        examples=[views.card(example) for example in examples],
        faithfulness=faithfulness,
        faithfulness_finding=findings.faithfulness_finding([row for row in faithfulness if row.method != RANDOM]),
        placements=placements,
        overlay_method=placements[0].method if placements else "",
        placement_finding=findings.placement_finding(placements),
        facts=facts,
        fact_rows=views.flat({name: (facts or {}).get(key) for key, name in views.FACTS.items()}),
        conflicts=views.conflicts(facts),
        leakage=views.leakage(leakage, evaluation),
        validation=validation,
        sources=sources,
        sources_finding=findings.sources_finding(sources["class_told"], sources["class_guessed"]) if sources else "",
        validation_rows=[] if validation is None else views.cross_validation(validation),
        model=views.flat(model),
        config=config,
        lineage=views.flat(lineage or {}),
        disclaimer=DISCLAIMER,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def draw_measurements(
    evaluation: Evaluation, facts: Mapping[str, Any] | None = None, history: Path | None = None
) -> dict[str, Any]:
    """Return what a report's sections about the numbers show, with their figures."""
    record = evaluation.to_json()
    weakest, calibration = findings.weakest_finding(record), findings.calibration_finding(record)
    return {
        "headline_finding": findings.headline_finding(record),
        "weakest_finding": weakest,
        "calibration_finding": calibration,
        "tiles": [views.headline_row(evaluation, key) for key in views.TILES],
        "headline": [views.headline_row(evaluation, key) for key in TITLES],
        "per_class": views.per_class(evaluation),
        "per_class_titles": CLASS_TITLES,
        "answer_rules": views.answer_rules(evaluation),
        "operating": views.operating_points(evaluation),
        "figures": views.evaluation_figures(evaluation, weakest, calibration) | views.run_figures(facts, history),
        "calibration": views.calibration(evaluation),
        "error_count": int((evaluation.predictions != evaluation.labels).sum()),
    }
