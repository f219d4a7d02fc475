"""What a run shows to people: explained examples, the report, and the summary at the end of the command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lesion.data.datamodule import DataModule, ManifestDataset
from lesion.data.leakage import Leakage, contact_sheet
from lesion.data.manifest import Manifest
from lesion.evaluation.evaluation import Evaluation, finite, right_examples, worst_errors
from lesion.evaluation.findings import leakage_finding
from lesion.evaluation.report import TITLES, Example, write_report
from lesion.explanation.faithfulness import Faithfulness, faithfulness
from lesion.explanation.methods import class_activation_maps
from lesion.imaging.heatmap import overlay
from lesion.model.network import Network, PixelClassifier
from lesion.model.weights import WeightsRecord


@dataclass(frozen=True, eq=False)
class Explanations:
    """The explained images of a run.

    Attributes:
        errors: The most confident mistakes.
        examples: Right answers, some of each class.
        faithfulness: How well each method's maps point to what the network uses.
    """

    errors: tuple[Example, ...]
    examples: tuple[Example, ...]
    faithfulness: tuple[Faithfulness, ...]


def explain_run(
    network: Network,
    datamodule: DataModule,
    evaluation: Evaluation,
    *,
    methods: Sequence[str],
    road_images: int,
    errors: int,
    examples: int,
) -> Explanations:
    """Explain a run's most confident mistakes and some right answers, and measure the methods.

    Args:
        network: The trained network.
        datamodule: Its data.
        evaluation: Its evaluation on the test split.
        methods: Methods to compare; the overlays are the first's.
        road_images: Images to measure faithfulness on; 0 leaves it out.
        errors: Mistakes to show.
        examples: Right answers to show, a class.
    """
    dataset = datamodule.dataset("test")
    spread = np.random.default_rng(0).permutation(len(dataset))[:road_images]
    classifier = PixelClassifier(network).eval()
    return Explanations(
        errors=_explained(classifier, dataset, evaluation, worst_errors(evaluation, errors), methods[0]),
        examples=_explained(classifier, dataset, evaluation, right_examples(evaluation, examples), methods[0]),
        faithfulness=tuple(
            faithfulness(
                classifier,
                network.last_activation,
                _pixels(dataset, spread, network),
                evaluation.predictions[spread],
                list(methods),
                limit=road_images,
            )
            if len(spread)
            else ()
        ),
    )


def _explained(
    classifier: PixelClassifier, dataset: ManifestDataset, evaluation: Evaluation, rows: NDArray[np.int64], method: str
) -> tuple[Example, ...]:
    if not len(rows):
        return ()
    network = classifier.network
    maps = class_activation_maps(
        classifier,
        network.last_activation,
        _pixels(dataset, rows, network),
        evaluation.predictions[rows],
        method,
    )
    images = [dataset.pixels(int(row)) for row in rows]
    return tuple(
        Example.of(evaluation, int(row), image, overlay(image, heat))
        for row, image, heat in zip(rows, images, maps, strict=True)
    )


def _pixels(dataset: ManifestDataset, rows: NDArray[np.int64], network: Network) -> torch.Tensor:
    images = np.stack([dataset.pixels(int(row)) for row in rows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).to(network.mean.device)


def leakage_section(
    manifest: Manifest, leakage: Leakage | None, folder: Evaluation | None, epochs: int | None = None
) -> dict[str, Any] | None:
    """Return what the report says of the split that came with the data; None if none came with it.

    Args:
        manifest: The data.
        leakage: What ``find_leakage`` found in it.
        folder: A model that was trained and tested on that split.
        epochs: How many epochs it was trained for, if fewer than the run itself.
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


def write_run_report(path: Path, evaluation: Evaluation, *, explanations: Explanations, **sections: Any) -> Path:  # noqa: ANN401
    """Write ``report.html``; ``sections`` are further arguments of ``write_report``."""
    return write_report(
        path,
        evaluation,
        errors=explanations.errors,
        examples=explanations.examples,
        faithfulness=explanations.faithfulness,
        **sections,
    )


def print_summary(
    evaluation: Evaluation, weights: WeightsRecord, leakage: Mapping[str, Any] | None, output: Path
) -> None:
    """Print the headline numbers with their intervals, what the split that came with the data would say, and paths."""
    console = Console()
    folder, epochs = (leakage or {}).get("folder_score") or {}, (leakage or {}).get("folder_epochs")
    table = Table("metric", "grouped test split" if leakage else "test split", "95 % interval")
    if folder:
        table.add_column("folder split (leaks" + (f", {epochs} epochs)" if epochs else ")"))
    for key, title in TITLES.items():
        name = f"{evaluation.prefix}/{key}"
        low, high = evaluation.intervals.get(name, (float("nan"), float("nan")))
        cells = [title, f"{evaluation.metrics[name]:.4f}", f"{low:.4f} – {high:.4f}"]
        table.add_row(*cells, *([f"{folder[name]:.4f}"] if folder else []))
    console.print(table)
    if leakage:
        console.print(leakage_finding(leakage))
    for note in (weights.sentence(), *evaluation.notes):
        console.print(note)
    for name in ("report.html", "metrics.json", "bundle"):
        console.print(f"{name:12} {output / name}", soft_wrap=True)
