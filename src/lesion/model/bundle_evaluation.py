"""Measure a bundle on labeled images that it was not trained on."""

from pathlib import Path

import numpy as np

from lesion.core.errors import DataError
from lesion.core.text import join_names
from lesion.data.cache import PixelCache
from lesion.data.datamodule import ManifestDataset
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders
from lesion.evaluation.evaluation import Evaluation, evaluate_logits
from lesion.evaluation.findings import patients_notes
from lesion.model.bundle import Bundle
from lesion.model.predictor import Predictor


def evaluate(
    bundle: Predictor | Bundle | Path | str,
    data: Manifest | Path | str,
    *,
    group_pattern: str | None = None,
) -> Evaluation:
    """Measure a bundle with its own calibration on labeled images, which should not be among its training images.

    Args:
        bundle: A bundle, its folder, or a predictor that runs it.
        data: A folder with a subfolder of images per class, or a manifest, whose test split is used. Of images with
            equal pixels in a folder, one counts.
        group_pattern: A regular expression whose group is the patient's name in the path of an image of the folder;
            images of one patient, and near-duplicates, have one vote together.

    Raises:
        BundleError: The bundle is not whole.
        DataError: The images cannot be used, or have classes that the bundle lacks.

    Examples:
        >>> evaluation = evaluate(bundle_path, image_path.parents[1])
        >>> 0 <= evaluation.metrics["test/acc"] <= 1
        True
        >>> low, high = evaluation.interval("acc")
    """
    if not isinstance(bundle, Predictor):
        bundle = Predictor.load(bundle.path if isinstance(bundle, Bundle) else bundle)
    if isinstance(data, Manifest):
        manifest, split = data, "test"
    else:
        rows = scan_folders(Path(data), group_pattern)
        manifest = build_manifest(
            "evaluation", Path(data), rows, fractions={"train": 1.0}, progress=False, limits=bundle.limits
        )
        split = "train"
    table, classes = manifest.split(split), bundle.bundle.classes
    if unknown := sorted(set(table["label"]) - set(classes)):
        raise DataError(
            f"The images have the classes {join_names(unknown)}, which the bundle lacks: it has {join_names(classes)}."
        )
    dataset = ManifestDataset(manifest, table, PixelCache(None, bundle.bundle.preprocessing, manifest.limits))
    return evaluate_logits(
        np.concatenate([bundle.engine(batch).logits for batch in dataset.batches()]),
        np.array([classes.index(label) for label in table["label"]]),
        table["group"].to_numpy(),
        classes,
        bundle.bundle.calibration,
        paths=table["path"].tolist(),
        notes=patients_notes(len(table), int((table["patient"] != "").sum())),
    )
