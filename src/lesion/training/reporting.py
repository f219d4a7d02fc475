"""The results of a run for users: explained examples, the report's leakage section, and the summary on the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lesion.data.datamodule import DataModule, ManifestDataset
from lesion.data.image_sources import predictability, sources_of
from lesion.data.leakage import Leakage, contact_sheet
from lesion.data.manifest import Manifest
from lesion.evaluation.cross_validation import CrossValidation
from lesion.evaluation.evaluation import Evaluation, correct_examples, finite, worst_errors
from lesion.evaluation.findings import TITLES, leakage_finding
from lesion.evaluation.intervals.estimates import Sample
from lesion.evaluation.intervals.proportions import share
from lesion.evaluation.views import Example
from lesion.explanation.faithfulness import Faithfulness, faithfulness
from lesion.explanation.heat_locations import Placement, placements
from lesion.explanation.methods import heat_maps
from lesion.imaging.heatmap import overlay
from lesion.model.network import Network, PixelClassifier
from lesion.model.weights import WeightsRecord


@dataclass(frozen=True, eq=False)
class Explanations:
    """The explained images of a run."""

    errors: tuple[Example, ...]  # the most confident mistakes
    examples: tuple[Example, ...]  # correct answers, some of each class
    faithfulness: tuple[Faithfulness, ...]  # how well each method's maps point at what the network uses
    placements: tuple[Placement, ...]  # where the heat of each method's maps lies


def explain_run(
    network: Network,
    datamodule: DataModule,
    evaluation: Evaluation,
    *,
    methods: Sequence[str],
    road_images: int,
    errors: int,
    examples: int,
    placed_images: int = 48,  # recipes of earlier versions lack it
) -> Explanations:
    """Explain a run's most confident mistakes and some correct answers per class, and measure the methods.

    The overlays are those of the first method. Without images to measure them on, faithfulness (``road_images``) and
    where the heat lies (``placed_images``) are left out.
    """
    dataset = datamodule.dataset("test")
    sample = np.random.default_rng(0).permutation(len(dataset))[:road_images]
    classifier = PixelClassifier(network).eval()
    return Explanations(
        errors=_explained(classifier, dataset, evaluation, worst_errors(evaluation, errors), methods[0]),
        examples=_explained(classifier, dataset, evaluation, correct_examples(evaluation, examples), methods[0]),
        faithfulness=tuple(
            faithfulness(
                classifier,
                network.last_activation,
                _pixels(dataset, sample, network),
                evaluation.predictions[sample],
                list(methods),
                limit=road_images,
            )
            if len(sample)
            else ()
        ),
        placements=tuple(_placed(classifier, dataset, evaluation, methods, placed_images)),
    )


def _placed(
    classifier: PixelClassifier, dataset: ManifestDataset, evaluation: Evaluation, methods: Sequence[str], count: int
) -> list[Placement]:
    """Measure where the heat lies that speaks for the labels of some test images, as many of each class if possible."""
    seen, ranks = Counter[int](), dict[int, int]()
    rows = np.random.default_rng(1).permutation(len(dataset)).tolist()
    for row in rows:
        label = int(dataset.labels[row])
        ranks[row], seen[label] = seen[label], seen[label] + 1
    chosen = np.array(sorted(rows, key=lambda row: ranks[row])[:count], np.int64)
    if not len(chosen):
        return []
    network = classifier.network
    images, labels = _pixels(dataset, chosen, network), evaluation.labels[chosen]
    maps = {method: heat_maps(classifier, network.last_activation, images, labels, method) for method in methods}
    return placements(
        maps,
        np.stack([dataset.pixels(int(row)) for row in chosen]),
        [dataset.mask(int(row)) for row in chosen],
        [evaluation.classes[label] for label in labels],
        evaluation.groups[chosen].tolist(),
    )


def _explained(
    classifier: PixelClassifier, dataset: ManifestDataset, evaluation: Evaluation, rows: NDArray[np.int64], method: str
) -> tuple[Example, ...]:
    if not len(rows):
        return ()
    network = classifier.network
    maps = heat_maps(
        classifier, network.last_activation, _pixels(dataset, rows, network), evaluation.predictions[rows], method
    )
    images = [dataset.pixels(int(row)) for row in rows]
    return tuple(
        Example.of(evaluation, int(row), image, overlay(image, heat))
        for row, image, heat in zip(rows, images, maps, strict=True)
    )


def _pixels(dataset: ManifestDataset, rows: NDArray[np.int64], network: Network) -> torch.Tensor:
    images = np.stack([dataset.pixels(int(row)) for row in rows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).to(network.mean.device)


def without_file_names(
    explanations: Explanations, facts: Mapping[str, Any], manifest: Manifest
) -> tuple[Explanations, dict[str, Any]]:
    """Return copies in which images are named by the beginning of their SHA-256: names of files may name persons.

    ``facts`` are the manifest's. Files that were refused have no hash there, and are numbered.
    """
    hashes = dict(zip(manifest.table["path"], manifest.table["sha256"], strict=True))

    def short(path: str) -> str:
        return f"image {hashes[path][:12]}" if path in hashes else ""

    def unnamed(examples: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(example, path=short(example.path)) for example in examples)

    refused = [
        {**each, "path": f"file {number}", "reason": each["code"]} for number, each in enumerate(facts["refused"], 1)
    ]
    conflicts = [{**each, "path": short(each["path"])} for each in facts["conflicts"]]
    copied = replace(explanations, errors=unnamed(explanations.errors), examples=unnamed(explanations.examples))
    return copied, {**facts, "refused": refused, "conflicts": conflicts}


def leakage_section(
    manifest: Manifest, leakage: Leakage | None, folder: Evaluation | None, epochs: int | None = None
) -> dict[str, Any] | None:
    """Return the report's section about the split that came with the data; None without such a split.

    ``folder`` is the evaluation of a model that was trained and tested on that split, in ``epochs`` if fewer than the
    run's.
    """
    if leakage is None:
        return None
    section = leakage.to_dict() | {"contact_sheet_png": contact_sheet(manifest, leakage), "folder_epochs": epochs}
    if folder is None:
        return section | {"folder_score": None}
    accuracies = leakage.accuracies(folder.paths, folder.predictions == folder.labels)
    section["folder_score"] = folder.all_metrics()
    section["folder_accuracy_leaked"], section["folder_accuracy_others"] = finite(accuracies)
    return section


def source_section(manifest: Manifest, evaluation: Evaluation) -> dict[str, Any] | None:
    """Return the scores of the images of each source, and how well the source tells the class; None with one source."""
    used = manifest.used()
    sources = sources_of(used)
    if sources.nunique() < 2:
        return None
    told, guessed = predictability(sources.tolist(), used["label"].tolist(), used["group"].tolist())
    place = dict(zip(used["path"], sources, strict=True))
    tested = np.array([place[path] for path in evaluation.paths])
    sample, correct = Sample.of(evaluation.groups), evaluation.predictions == evaluation.labels
    rows = []
    for name, count in sources.value_counts().items():
        accuracy = share(sample, correct, tested == name)
        frequent = used.loc[sources == name, "label"].value_counts(normalize=True)
        rows.append({
            "source": name, "images": int(count), "test_images": int((tested == name).sum()),
            "acc": accuracy.value, "low": accuracy.low, "high": accuracy.high,
            "most_frequent": frequent.index[0], "most_frequent_share": float(frequent.iloc[0]),
        })  # fmt: skip
    return {"rows": rows, "class_told": told, "class_guessed": guessed}


def print_summary(
    evaluation: Evaluation,
    weights: WeightsRecord,
    leakage: Mapping[str, Any] | None,
    validation: CrossValidation | None,
    output: Path,
) -> None:
    """Print the headline metrics with their intervals, those of other splits, notes, and the files."""
    console = Console()
    folder, epochs = (leakage or {}).get("folder_score") or {}, (leakage or {}).get("folder_epochs")
    table = Table("metric, one vote a group", "grouped test split" if leakage else "test split", "95 % interval")
    if folder:
        table.add_column("folder split (leaks" + (f", {epochs} epochs)" if epochs else ")"))
    for key, title in TITLES.items():
        name = f"{evaluation.prefix}/{key}"
        low, high = evaluation.interval(key)
        limits = "too few to say" if np.isnan(low) else f"{low:.4f} – {high:.4f}"
        cells = [title, f"{evaluation.metrics[name]:.4f}", limits]
        table.add_row(*cells, *([f"{folder[name]:.4f}"] if folder else []))
    console.print(table)
    if validation:
        console.print(validation.finding())
    if leakage:
        console.print(leakage_finding(leakage))
    for note in (weights.sentence(), *evaluation.notes):
        console.print(note)
    for name in ("report.html", "metrics.json", "bundle"):
        console.print(f"{name:12} {output / name}", soft_wrap=True, markup=False)
