"""Run a network over many images, in float32, as it is served."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from lesion.data.datamodule import ManifestDataset
from lesion.model.network import Network, NetworkOutputs


def run_network(network: Network, batches: Iterable[NDArray[np.uint8]]) -> NetworkOutputs:
    """Run batches of (B, S, S, 3) uint8 images through a network on its own device; return all outputs, on the CPU."""
    network.eval()
    device = network.classifier.weight.device
    results = []
    with torch.inference_mode():
        for images in batches:
            outputs = network(torch.from_numpy(np.ascontiguousarray(images)).to(device))
            results.append([output.cpu() for output in outputs])
    return NetworkOutputs(*(torch.cat(outputs) for outputs in zip(*results, strict=True)))


def dataset_logits(network: Network, dataset: ManifestDataset) -> NDArray[np.float32]:
    """Return the logits, (N, C), of a dataset's images in its order, without augmentation."""
    logits: NDArray[np.float32] = run_network(network, dataset.batches()).logits.numpy()
    return logits
