"""The 95 % intervals that others use, written here without Lesion, to be compared with it in ``coverage.py``."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Limits = tuple[float, float]

RESAMPLES = 400
BINS = 15
Z = float(stats.norm.ppf(0.975))


def wilson(share: float, size: float) -> Limits:
    middle, reach = share + Z**2 / (2 * size), Z * np.sqrt(share * (1 - share) / size + Z**2 / (4 * size**2))
    return float((middle - reach) / (1 + Z**2 / size)), float((middle + reach) / (1 + Z**2 / size))


def on_logit_scale(value: float, variance: float) -> Limits:
    """Return the limits of a share by the variance of its logit; the share itself where that is not defined."""
    if not 0 < value < 1:
        return value, value
    middle, reach = np.log(value / (1 - value)), Z * np.sqrt(variance) / (value * (1 - value))
    with np.errstate(over="ignore"):
        return float(1 / (1 + np.exp(reach - middle))), float(1 / (1 + np.exp(-reach - middle)))


def delong(score: Floats, positive: NDArray[np.bool_], groups: Ints) -> Limits:
    """Return the interval of an area under the ROC curve by DeLong's variance, summed by group (Obuchowski, 1997)."""
    ranks = stats.rankdata(score)
    own = np.empty(len(score))
    for side in (positive, ~positive):
        own[side] = stats.rankdata(score[side])
    m, n = int(positive.sum()), int((~positive).sum())
    placement = np.where(positive, (ranks - own) / n, 1 - (ranks - own) / m)
    area = float(placement[positive].mean())
    spread = np.bincount(groups, np.where(positive, (placement - area) / m, (placement - area) / n))
    return on_logit_scale(area, float(np.square(spread).sum()))


def effective(hit: NDArray[np.bool_], counted: NDArray[np.bool_], groups: Ints) -> tuple[float, float]:
    """Return a share, and the number of independent images that would vary as much as the groups do."""
    hits, sizes = np.bincount(groups, hit), np.bincount(groups, counted)
    share, number = float(hits.sum() / sizes.sum()), int((sizes > 0).sum())
    variance = float(np.square(hits - share * sizes).sum()) / float(sizes.sum()) ** 2 * number / (number - 1)
    size = share * (1 - share) / variance if variance else number
    return share, min(max(size, number), int(sizes.sum()))


def others(
    probabilities: Floats, labels: Ints, groups: Ints, rng: np.random.Generator
) -> Iterator[tuple[str, str, Limits]]:
    """Yield the metric, the method and the limits of intervals that others use."""
    number, classes = int(groups.max()) + 1, probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    labeled = probabilities[np.arange(len(labels)), labels]
    right = predicted == labels
    shares = {"acc": (right, np.ones_like(right))}
    for c in range(classes):
        shares[f"recall/{c}"] = (right, labels == c)
        shares[f"precision/{c}"] = (right, predicted == c)
        shares[f"specificity/{c}"] = (predicted != c, labels != c)
        shares[f"npv/{c}"] = (labels != c, predicted != c)
    for key, (hit, counted) in shares.items():
        if len(np.unique(groups[counted])) >= 3:
            yield key, "Wilson, groups as images", wilson(float(hit[counted].mean()), len(np.unique(groups[counted])))
            yield key, "Wilson, images", wilson(float(hit[counted].mean()), int(counted.sum()))
            yield key, "Wilson, design effect", wilson(*effective(hit & counted, counted, groups))
    losses = {
        "nll": -np.log(np.maximum(labeled, np.finfo(np.float32).tiny)),
        "brier": np.square(probabilities).sum(axis=1) - 2 * labeled + 1,
    }
    for key, values in losses.items():
        mean = float(values.mean())
        spread = np.bincount(groups, values - mean, number) / len(values)
        reach = stats.t.ppf(0.975, number - 1) * np.sqrt((spread**2).sum() * number / (number - 1))
        yield key, "t", (mean - reach, mean + reach)
        yield key, "t of the logarithm", (mean * float(np.exp(-reach / mean)), mean * float(np.exp(reach / mean)))
    for c in range(classes):
        positive = labels == c
        if min(len(np.unique(groups[side])) for side in (positive, ~positive)) >= 3:
            yield f"roc_auc/{c}", "DeLong, logit", delong(probabilities[:, c], positive, groups)
            value = float(average_precision_score(positive, probabilities[:, c]))
            yield f"pr_auc/{c}", "Boyd, logit", on_logit_scale(value, value * (1 - value) / positive.sum())
    yield from percentile_bootstrap(probabilities, labels, groups, losses, rng)


def percentile_bootstrap(
    probabilities: Floats, labels: Ints, groups: Ints, losses: dict[str, Floats], rng: np.random.Generator
) -> Iterator[tuple[str, str, Limits]]:
    """Yield the percentile intervals of the metrics that are sums over images, resampling groups."""
    number = int(groups.max()) + 1
    draws = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)

    def total(values: NDArray[np.generic], column: Ints | None = None, columns: int = 1) -> Floats:
        place = groups * columns + (0 if column is None else column)
        return np.asarray(draws @ np.bincount(place, values, number * columns).reshape(number, columns))

    images, classes = total(np.ones(len(labels))), probabilities.shape[1]
    ones = np.ones(len(labels))
    hits, labeled, said = (
        total(values, column, classes) for values, column in ((right, labels), (ones, labels), (ones, predicted))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {"acc": (total(right) / images)[:, 0], "balanced_acc": np.nanmean(hits / labeled, axis=1)}
        values["f1_macro"] = np.nanmean(2 * hits / (labeled + said), axis=1)
        values["precision_macro"] = np.nanmean(np.where(said > 0, hits / np.maximum(said, 1), 0), axis=1)
        values |= {f"recall/{c}": (hits / labeled)[:, c] for c in range(classes)}
        values |= {f"precision/{c}": (hits / said)[:, c] for c in range(classes)}
    values |= {key: (total(each) / images)[:, 0] for key, each in losses.items()}
    values["ece"] = np.abs(total(right - confidence, bins, BINS)).sum(axis=1) / images[:, 0]
    for key, each in values.items():
        if not np.isnan(each).all():
            low, high = np.nanquantile(each, [0.025, 0.975])
            yield key, "percentile bootstrap", (float(low), float(high))
