"""One self-contained HTML page that says how good a model is, why it decides, and on what data that was seen."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lesion.evaluation import findings, views
from lesion.evaluation.evaluation import Evaluation, write_text
from lesion.evaluation.metrics import TITLES
from lesion.evaluation.views import Example
from lesion.explanation.faithfulness import Faithfulness

__all__ = ["TITLES", "Example", "write_report"]

RANDOM_WEIGHTS = (
    "The network started from random weights, not from ones pretrained on a large image collection. Its scores are "
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
    warnings: Sequence[str] = (),
    errors: Sequence[Example] = (),
    examples: Sequence[Example] = (),
    faithfulness: Sequence[Faithfulness] = (),
    facts: Mapping[str, Any] | None = None,
    leakage: Mapping[str, Any] | None = None,
    history: Path | None = None,
    config: str | None = None,
    lineage: Mapping[str, Any] | None = None,
    created: datetime | None = None,
) -> Path:
    """Write the report as one HTML file that needs nothing else: no script, no network, images inside.

    Sections whose data is left out do not appear.

    Args:
        path: The file to write; its folder is made, and an older file replaced.
        evaluation: What ``evaluate`` returned.
        title: The dataset's or run's name, as a heading.
        model: Facts of the model by name, nested at will; ``weights.source`` of "none" is warned about.
        warnings: Sentences for the top of the page.
        errors: Misclassified images, as ``worst_errors`` orders them.
        examples: Rightly classified images, as ``right_examples`` draws them.
        faithfulness: What ``faithfulness`` returned.
        facts: ``Manifest.facts()``.
        leakage: ``Leakage.to_dict()`` with, if there are any, ``contact_sheet_png`` (bytes) and ``folder_score`` (the
            metrics on the split that came with the data; after ``folder_epochs``, where those were fewer).
        history: ``metrics.csv`` of Lightning's CSV logger.
        config: The run's configuration as YAML.
        lineage: Where the model comes from: versions, commit, parent.
        created: Now when left out.

    Returns:
        ``path``.
    """
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            created=(created or datetime.now(UTC)).strftime("%d %B %Y, %H:%M %Z"),
            warnings=[*warnings, *_weights_warning(model), *evaluation.notes],
            findings=[
                findings.headline_finding(evaluation),
                findings.weakest_finding(evaluation),
                findings.calibration_finding(evaluation),
            ],
            tiles=[views.headline_row(evaluation, key) for key in views.TILES],
            headline=[views.headline_row(evaluation, key) for key in TITLES],
            per_class=views.per_class(evaluation),
            per_class_titles=views.PER_CLASS,
            figures=views.figures(evaluation, facts, history),
            calibration=views.calibration(evaluation),
            errors=[views.card(example) for example in errors],
            error_count=int((evaluation.predictions != evaluation.labels).sum()),
            examples=[views.card(example) for example in examples],
            faithfulness=faithfulness,
            faithfulness_finding=findings.faithfulness_finding(faithfulness),
            model=views.flat(model),
            facts=facts,
            fact_rows=views.flat({title: (facts or {}).get(key) for key, title in views.FACTS.items()}),
            conflicts=views.conflicts(facts),
            leakage=views.leakage(leakage, evaluation),
            config=config,
            lineage=views.flat(lineage or {}),
            disclaimer=DISCLAIMER,
        )
    )
    write_text(path, page)
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lesion.evaluation"),
        autoescape=True,  # by file name would leave a .j2 file unescaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": findings.percent, "number": views.decimals}
    return environment


def _weights_warning(model: Mapping[str, Any]) -> list[str]:
    weights = model.get("weights")
    source = weights.get("source") if isinstance(weights, Mapping) else weights
    return [RANDOM_WEIGHTS] if source == "none" else []
