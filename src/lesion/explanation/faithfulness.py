"""Faithfulness of explanations: whether maps point at what the model uses, and depend on what it has learned.

The first is measured by ROAD, in comparison with random maps, the second by maps of the same network with its weights
shuffled.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from lesion.core.errors import ConfigError
from lesion.explanation.methods import check_method, frozen, heat_maps

RANDOM = "random"
PERCENTILES = (50, 70, 90)
_RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Faithfulness:
    """How faithful the maps of one method are."""

    method: str  # its name; "random" for the control
    score: float  # mean ROAD over the images, in [-1, 1]; higher is better, and a random map gets about 0
    difference: float  # mean difference from the score of the random map on the same image; 0 for the control
    low: float  # of the 95 % bootstrap interval of the difference
    high: float
    images: int  # the number of images measured
    seconds: float  # time to explain one image
    # How similar its maps are to those of the network with shuffled weights: the mean rank correlation of their places,
    # in [-1, 1], with its 95 % bootstrap interval; NaN for the control. Near 1, maps do not show what was learned.
    similarity: float = float("nan")
    similarity_low: float = float("nan")
    similarity_high: float = float("nan")


def faithfulness(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    class_indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor,
    methods: Sequence[str] = ("gradcam", "gradcam++", "layercam", "eigencam"),
    *,
    limit: int = 16,
    percentiles: Sequence[int] = PERCENTILES,
    seed: int = 0,
) -> list[Faithfulness]:
    """Compare explanation methods with a random map by ROAD (Rong et al., ICML 2022, "remove and debias").

    Pixels are removed, once the most relevant first and once the least relevant first, and filled in from their
    neighbors; the score is half the difference of the class's probability between the two. The random map is noise on
    the layer's grid, resized like the maps of the methods, so it differs in where it points but not in how smooth it
    is. Takes about 1.3 s per image and method on one core at 224 pixels.

    Every map is also compared with that of the same network whose weights are shuffled within each layer (Adebayo et
    al., "Sanity checks for saliency maps", NeurIPS 2018).

    Args:
        model: Returns logits ``(B, C)``.
        layer: The module to explain, as in ``class_activation_maps``.
        images: ``(B, 3, S, S)`` float, normalized; the first ``limit`` are used.
        class_indices: B classes to explain, usually the predicted ones.
        methods: Names of ``METHODS``.
        limit: The most images to use.
        percentiles: Shares of pixels that stay, in percent; the score is the mean over them.
        seed: Of the random maps, the noise of filled-in pixels and the order of ties.

    Returns:
        One row per method, the best first, and the random control last.

    Raises:
        ConfigError: A method is unknown, or there is no image.
    """
    names = list(dict.fromkeys(check_method(method) for method in methods))
    images = images.detach()[:limit].clone()
    indices = [int(c) for c in class_indices][: len(images)]
    if not len(images) or limit < 1:
        raise ConfigError("Faithfulness needs at least one image; give some, and a limit of 1 or more.")
    scores, seconds, similarities = {}, {RANDOM: 0.0}, {}
    untrained = with_shuffled_weights(model, seed)
    its_layer = untrained.get_submodule(next(name for name, module in model.named_modules() if module is layer))
    for name in names:
        start = time.perf_counter()
        maps = heat_maps(model, layer, images, indices, name)
        seconds[name] = (time.perf_counter() - start) / len(images)
        scores[name] = _road(model, images, indices, maps, percentiles, seed)
        similarities[name] = _similarity(maps, heat_maps(untrained, its_layer, images, indices, name))
    rng = np.random.default_rng(seed)
    scores[RANDOM] = _road(model, images, indices, _random_maps(model, layer, images, rng), percentiles, seed)
    return _compare(scores, seconds, similarities, rng)


def with_shuffled_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of a model that has learned nothing: the numbers of each weight tensor in random order."""
    copied, generator = copy.deepcopy(model).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
    return copied


def _similarity(maps: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Spearman's rank correlation of each pair of maps, ``(B,)``; 0 where one of them is the same everywhere."""
    pairs = [(one.ravel(), other.ravel()) for one, other in zip(maps, others, strict=True)]
    return np.array([spearmanr(*pair).statistic if np.ptp(pair[0]) and np.ptp(pair[1]) else 0.0 for pair in pairs])


def _compare(
    scores: Mapping[str, NDArray[np.float64]],
    seconds: Mapping[str, float],
    similarities: Mapping[str, NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[Faithfulness]:
    """Summarize the scores ``(B,)`` of each method, and bootstrap their differences from the random map's."""
    n = len(scores[RANDOM])
    resampled = rng.integers(n, size=(_RESAMPLES, n))
    rows = []
    for method, score in scores.items():
        difference = score - scores[RANDOM]
        low, high = np.quantile(difference[resampled].mean(axis=1), [0.025, 0.975])
        row = Faithfulness(
            method, float(score.mean()), float(difference.mean()), float(low), float(high), n, seconds[method]
        )
        if method in similarities:
            similar = similarities[method]
            low, high = np.quantile(similar[resampled].mean(axis=1), [0.025, 0.975])
            row = replace(row, similarity=float(similar.mean()), similarity_low=float(low), similarity_high=float(high))
        rows.append(row)
    return sorted(rows, key=lambda row: (row.method == RANDOM, -row.score))


def _road(
    model: nn.Module,
    images: Tensor,
    indices: Sequence[int],
    maps: NDArray[np.float32],
    percentiles: Sequence[int],
    seed: int,
) -> NDArray[np.float64]:
    """Return the ROAD score of each image, ``(B,)``: the mean of both orders of removal."""
    rng = np.random.default_rng(seed)
    metric = ROADCombined(percentiles=list(percentiles))
    scores = []
    with frozen(model), torch.random.fork_rng(devices=[]):  # the metric draws its noise from torch's global generator
        torch.manual_seed(seed)
        for image, index, relevance in zip(images, indices, maps, strict=True):
            ranks = _ranks(relevance, rng)[None]
            scores.append(metric(image[None], ranks, [ClassifierOutputSoftmaxTarget(index)], model)[0])
    return np.asarray(scores, dtype=np.float64)


def _ranks(relevance: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Replace the values of a map ``(S, S)`` by their ranks in [0, 1), with ties in random order.

    ROAD only uses the order, but its threshold needs distinct values: of a rectified map that is zero over most of the
    image it would remove every pixel, and then there is none left to fill in from.
    """
    order = np.lexsort((rng.random(relevance.size), relevance.ravel()))
    ranks = np.empty(relevance.size, dtype=np.float32)
    ranks[order] = np.arange(relevance.size, dtype=np.float32) / relevance.size
    return ranks.reshape(relevance.shape)


def _random_maps(model: nn.Module, layer: nn.Module, images: Tensor, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw uniform noise on the grid of the layer's output, and resize it to ``(B, S, S)``."""
    shapes: list[torch.Size] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    try:
        with frozen(model), torch.no_grad():
            model(images[:1])
    finally:
        handle.remove()
    noise = torch.from_numpy(rng.random((len(images), 1, *shapes[0][-2:]), dtype=np.float32))
    resized = F.interpolate(noise, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return np.asarray(resized[:, 0].numpy(), dtype=np.float32)
