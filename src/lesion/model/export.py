"""Write a trained network as a bundle, provided that the exported graph gives the network's answers."""

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.utils.model import reparameterize_model

from lesion.core.errors import BundleError, LesionError
from lesion.evaluation.probabilities import Calibration
from lesion.model.bundle import Bundle, seal
from lesion.model.engines import OpenVINOEngine
from lesion.model.inference import run_network
from lesion.model.network import Network
from lesion.model.weights import timm_state

AGREEMENT = 1e-4  # the largest difference of a probability between the exported graph and torch, both in float32
GOLDEN = 8  # golden answers in a bundle


def export_bundle(
    folder: Path,
    network: Network,
    images: NDArray[np.uint8],
    calibration: Calibration,
    facts: Mapping[str, Any],
    extras: Callable[[Path], None] | None = None,
) -> Bundle:
    """Export a network to ``folder`` as an immutable bundle, and return it, verified.

    The bundle is built in a temporary folder next to ``folder`` and renamed when it is complete, so that a killed
    export leaves no incomplete bundle.

    Args:
        folder: The bundle's folder; must not exist.
        network: The trained network.
        images: (N, S, S, 3) uint8 preprocessed real images, N at least 1: the graph is compared with torch on all of
            them, and the first 8 become the golden answers.
        calibration: How the network's logits become probabilities.
        facts: The sections of ``bundle.json`` that the export does not add itself: name, classes, preprocessing, model,
            calibration, metrics, data, lineage.
        extras: Writes further files (domain, model card, report) into the folder, which holds the graph already,
            before it is sealed.

    Raises:
        BundleError: ``folder`` exists, or there are no images.
        LesionError: The graph's probabilities differ from torch's by more than 1e-4 (``bundle_disagrees``).
    """
    if folder.exists():
        raise BundleError(f"'{folder}' exists already. A bundle is never overwritten: choose another folder.")
    if len(images) == 0:
        raise BundleError("A bundle needs at least one real image to compare the exported graph with torch.")
    network = network.float().cpu().eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / "bundle"
        unfinished.mkdir()
        export_onnx(network, unfinished / "model.onnx", images.shape[1])
        save_file(timm_state(network), unfinished / "model.safetensors")
        expected = calibration.probabilities(run_network(network, [images]).logits.numpy())
        difference = _largest_difference(unfinished / "model.onnx", images, expected, calibration)
        probabilities = expected[:GOLDEN].astype(np.float32)
        np.savez_compressed(unfinished / "golden.npz", images=images[:GOLDEN], probabilities=probabilities)
        if extras is not None:
            extras(unfinished)
        agreement = {"onnx_torch_max_difference": difference, "images": len(images)}
        seal(unfinished, dict(facts) | {"agreement": agreement})
        unfinished.rename(folder)
    return Bundle.open(folder)


def export_onnx(network: Network, path: Path, size: int) -> None:
    """Write the network as one ONNX file for (B, size, size, 3) uint8 images with a dynamic batch."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    network = deepcopy(network)
    # The parallel branches of RepViT, RepVGG and the like become one.
    network.backbone = reparameterize_model(network.backbone, inplace=True)
    for module in network.modules():
        if "inplace" in vars(module):
            vars(module)["inplace"] = False  # the same values, but traced in two thirds of the time
    output = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(output), redirect_stderr(output):
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecations
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            input_names=["images"],
            output_names=["logits", "features", "cams"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}},
            verbose=False,
        )
    if program is None:
        raise BundleError("torch.onnx.export gave no program.")
    program.save(path, external_data=False)


def _largest_difference(
    onnx: Path, images: NDArray[np.uint8], expected: NDArray[np.floating[Any]], calibration: Calibration
) -> float:
    engine = OpenVINOEngine(onnx, precision="f32")
    answers = [engine(images[start : start + GOLDEN]).logits for start in range(0, len(images), GOLDEN)]
    difference = float(np.abs(calibration.probabilities(np.concatenate(answers)) - expected).max())
    if not difference <= AGREEMENT:
        raise LesionError(
            f"The exported graph differs from torch by {difference:.2e} in a probability (at most {AGREEMENT:.0e}), "
            f"on {len(images)} images. The bundle was not written.",
            code="bundle_disagrees",
        )
    return difference
