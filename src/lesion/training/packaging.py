"""From a finished run to its bundle: the images that prove the export, the facts of the run, the model card."""

import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.cpu import available_cores
from lesion.data.datamodule import DataModule
from lesion.domain.domain import Descriptions, Domain
from lesion.domain.trial import DomainTrial
from lesion.evaluation import views
from lesion.evaluation.evaluation import Evaluation, finite
from lesion.evaluation.findings import TITLES
from lesion.evaluation.probabilities import Calibration
from lesion.evaluation.rendering import literal_markdown, load_template
from lesion.model.bundle import Bundle
from lesion.model.classifier import ImageClassifier
from lesion.model.domain_file import save_domain
from lesion.model.engines import Engine, OpenVINOEngine
from lesion.model.export import export_bundle

AGREEMENT_IMAGES = 16  # images of the test split on which the exported graph must agree with torch
DOMAIN_IMAGES = 2000  # of the train split; more images hardly change the border of the domain
_CALIBRATION_IMAGES = 1000  # of the splits val and calibration each
_TRIAL_IMAGES = 400


def write_bundle(
    output: Path,
    name: str,
    model: ImageClassifier,
    datamodule: DataModule,
    evaluation: Evaluation,
    metrics: Mapping[str, float],
    data: Mapping[str, Any],
    lineage: Mapping[str, Any],
    config: Mapping[str, Any],
    documents: Path,
) -> Bundle:
    """Export a run as ``output/bundle``, with the report.html and metrics.json in ``documents``, and a model card.

    ``data`` is ``Manifest.facts()``, ``config`` the resolved config, from which a retraining starts. If the exported
    graph does not give the model's answers, raise a LesionError (``bundle_disagrees``).
    """
    facts: dict[str, Any] = {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "classes": list(datamodule.classes),
        "class_names": datamodule.class_names,
        "preprocessing": datamodule.preprocessing.to_dict(),
        "model": model.facts(),
        "calibration": calibration_facts(evaluation.calibration),
        "answer_rules": None if evaluation.answer_rules is None else evaluation.answer_rules.to_json(),
        "answer_frequencies": [each.to_json() for each in evaluation.answer_frequencies],
        "metrics": finite(dict(metrics)),
        "notes": list(evaluation.notes),
        "data": {key: data[key] for key in ("name", "fingerprint", "policy", "images", "groups", "patients")},
        "lineage": dict(lineage),
        "config": dict(config),
    }

    def extras(folder: Path) -> None:
        engine = OpenVINOEngine(folder / "model.onnx", available_cores(), "f32")
        domain = fit_domain(engine, datamodule)
        save_domain(domain, folder / "domain.npz")
        tested = spread_images(datamodule, _TRIAL_IMAGES)
        trial = DomainTrial.run(domain, lambda pictures: engine(pictures).features, tested)
        facts["domain_trial"] = trial.to_json()
        card = model_card(facts | {"data": data}, evaluation, trial, model.weights.sentence())
        (folder / "MODEL_CARD.md").write_text(card, "utf-8")
        (folder / "report").mkdir()
        for file in ("report.html", "metrics.json"):
            shutil.copy(documents / file, folder / "report" / file)

    images = spread_images(datamodule, AGREEMENT_IMAGES)
    return export_bundle(output / "bundle", model.network, images, evaluation.calibration, facts, extras)


def calibration_facts(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as a bundle's facts hold it."""
    per_class = {"bias": calibration.bias, "prevalence": calibration.prevalence}
    lists = {name: None if values is None else list(values) for name, values in per_class.items()}
    return {"temperature": calibration.temperature, "images": calibration.images} | lists


def spread_images(datamodule: DataModule, count: int, split: str = "test") -> NDArray[np.uint8]:
    """Return at most ``count`` preprocessed images spread evenly over a split and its classes, (N, S, S, 3) uint8."""
    dataset = datamodule.dataset(split)
    return np.stack([dataset.pixels(row) for row in _spread(dataset.labels, count)])


def fit_domain(engine: Engine, datamodule: DataModule) -> Domain:
    """Fit the domain of a model's training images to the features that its engine gives; see :meth:`Domain.fit`."""
    return Domain.fit(*describe_domain(engine, datamodule))


def describe_domain(
    engine: Engine, datamodule: DataModule
) -> tuple[Descriptions, Descriptions, NDArray[np.integer[Any]]]:
    """Return the descriptions of training and of calibration images, and the group of each training image.

    The calibration images are those of the splits val and calibration, which did not train the network.
    """
    training = datamodule.dataset("train")
    rows = _spread(training.labels, DOMAIN_IMAGES)
    held_out = [datamodule.dataset(split) for split in ("val", "calibration")]
    calibration = chain.from_iterable(each.batches(_spread(each.labels, _CALIBRATION_IMAGES)) for each in held_out)
    groups = datamodule.manifest.split("train")["group"].to_numpy()[rows]
    return describe_images(engine, training.batches(rows)), describe_images(engine, calibration), groups


def describe_images(engine: Engine, batches: Iterable[NDArray[np.uint8]]) -> Descriptions:
    """Return the descriptions of all images of batches, (B, S, S, 3) uint8 each."""
    parts = [Descriptions.of(engine(batch).features, batch) for batch in batches]
    return Descriptions(*map(np.concatenate, zip(*parts, strict=True)))


def _spread(labels: NDArray[np.int64], count: int) -> list[int]:
    """Return at most ``count`` rows, spread evenly over the classes."""
    by_class = np.argsort(labels, kind="stable")
    places = np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).round().astype(int))
    return [int(row) for row in by_class[places]]


def model_card(facts: Mapping[str, Any], evaluation: Evaluation, trial: DomainTrial, weights: str) -> str:
    """Fill in the template of the model card with a run's facts."""
    # Not escaped: it is Markdown, not HTML.
    card = load_template("MODEL_CARD.md.j2", "lesion.model", autoescape=False, literal=literal_markdown)
    return card.render(
        **facts,
        weights=weights,
        domain_sentences=trial.sentences(),
        test_images=len(evaluation.labels),
        test_groups=len(np.unique(evaluation.groups)),
        headline=[views.headline_row(evaluation, key) for key in TITLES],
        per_class=views.per_class(evaluation),
    )
