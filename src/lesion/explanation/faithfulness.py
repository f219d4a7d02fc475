"""Whether explanations point at what the model uses: ROAD of each method against random maps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn
from torch.nn import functional as F

from lesion.core.errors import ConfigError
from lesion.explanation.methods import borrowed, check_method, class_activation_maps

RANDOM = "random"
PERCENTILES = (50, 70, 90)


@dataclass(frozen=True)
class Faithfulness:
    """How faithful one method's maps are.

    Attributes:
        method: Its name; "random" for the control.
        score: Mean ROAD over the images, in [-1, 1]; higher is better, about 0 is what a random map gets.
        difference: Mean of this method's score minus the random map's on the same image; 0 for the control.
        low: Lower end of the 95 % bootstrap interval of ``difference``.
        high: Its upper end.
        images: How many images were measured.
        seconds: Time to explain one image.
    """

    method: str
    score: float
    difference: float
    low: float
    high: float
    images: int
    seconds: float


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

    Pixels are removed most relevant first, and least relevant first, and filled in from their neighbours; the score is
    half the difference of the class's probability between the two. The random map is noise on the layer's own grid,
    resized as the methods' maps are, so that it differs in where it points and not in how smooth it is. Costs about
    1.3 s an image and method on one core at 224 pixels.

    Args:
        model: Gives logits ``(B, C)``.
        layer: The module to explain, as in ``class_activation_maps``.
        images: ``(B, 3, S, S)`` float, normalised; the first ``limit`` are used.
        class_indices: B classes to explain, usually the predicted ones.
        methods: Names of ``METHODS``.
        limit: Most images to use.
        percentiles: Shares of pixels kept, in per cent, that the score averages over.
        seed: Of the random maps, the imputed noise and the breaking of ties.

    Returns:
        One row a method, the best first, and the random control last.

    Raises:
        ConfigError: An unknown method, or no image.
    """
    names = list(dict.fromkeys(check_method(method) for method in methods))
    images = images.detach()[:limit].clone()
    indices = [int(c) for c in class_indices][: len(images)]
    if not len(images) or limit < 1:
        raise ConfigError("Faithfulness needs at least one image; give some, and a limit of 1 or more.")
    rows, scores, seconds = [], {}, {RANDOM: 0.0}
    rng = np.random.default_rng(seed)
    for name in names:
        start = time.perf_counter()
        maps = class_activation_maps(model, layer, images, indices, name)
        seconds[name] = (time.perf_counter() - start) / len(images)
        scores[name] = _road(model, images, indices, maps, percentiles, seed)
    control = _random_maps(model, layer, images, rng)
    scores[RANDOM] = _road(model, images, indices, control, percentiles, seed)
    resampled = rng.integers(len(images), size=(1000, len(images)))
    for name, score in scores.items():
        difference = score - scores[RANDOM]
        low, high = np.quantile(difference[resampled].mean(axis=1), [0.025, 0.975])
        rows.append(
            Faithfulness(
                method=name,
                score=float(score.mean()),
                difference=float(difference.mean()),
                low=float(low),
                high=float(high),
                images=len(images),
                seconds=seconds[name],
            )
        )
    return sorted(rows, key=lambda row: (row.method == RANDOM, -row.score))


def _road(
    model: nn.Module,
    images: Tensor,
    indices: Sequence[int],
    maps: NDArray[np.float32],
    percentiles: Sequence[int],
    seed: int,
) -> NDArray[np.float64]:
    """ROAD, the mean of both orders of removal, of each image, ``(B,)``."""
    rng = np.random.default_rng(seed)
    metric = ROADCombined(percentiles=list(percentiles))
    scores = []
    # The imputer draws its noise from torch's global generator.
    with borrowed(model), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for image, index, relevance in zip(images, indices, maps, strict=True):
            ranks = _ranks(relevance, rng)[None]
            scores.append(metric(image[None], ranks, [ClassifierOutputSoftmaxTarget(index)], model)[0])
    return np.asarray(scores, dtype=np.float64)


def _ranks(relevance: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Replace a map ``(S, S)`` by its ranks in [0, 1), ties broken at random.

    ROAD looks at the order alone, but its threshold needs distinct values: of a rectified map that is zero over most of
    the image it would remove every pixel, and then has none left to fill in from.
    """
    order = np.lexsort((rng.random(relevance.size), relevance.ravel()))
    ranks = np.empty(relevance.size, dtype=np.float32)
    ranks[order] = np.arange(relevance.size, dtype=np.float32) / relevance.size
    return ranks.reshape(relevance.shape)


def _random_maps(model: nn.Module, layer: nn.Module, images: Tensor, rng: np.random.Generator) -> NDArray[np.float32]:
    """Uniform noise on the grid of the layer's output, resized to ``(B, S, S)``."""
    shapes: list[torch.Size] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(output.shape))
    try:
        with borrowed(model), torch.no_grad():
            model(images[:1])
    finally:
        handle.remove()
    noise = torch.from_numpy(rng.random((len(images), 1, *shapes[0][-2:]), dtype=np.float32))
    resized = F.interpolate(noise, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return np.asarray(resized[:, 0].numpy(), dtype=np.float32)
