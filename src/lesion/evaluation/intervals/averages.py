"""Intervals of averages over classes."""

from collections.abc import Sequence

import numpy as np

from lesion.evaluation.intervals.estimates import Estimate


def macro(estimates: Sequence[Estimate]) -> Estimate:
    """Average the estimates of all classes with equal weights, and combine their intervals.

    The distances of each class's limits from its value are combined as standard errors are, with the correlations that
    the groups show (Zou and Donner, 2008: "method of variance estimates recovery"). A class without errors thus
    contributes the uncertainty of its interval, where a bootstrap would see none. If a class has no interval, the
    average has none.
    """
    values = np.array([estimate.value for estimate in estimates])
    defined = values[~np.isnan(values)]
    value = float(defined.mean()) if defined.size else float("nan")
    if not all(estimate.has_interval for estimate in estimates):
        return Estimate(value)
    share = 1 / len(estimates)
    below = share * (values - [estimate.low for estimate in estimates])
    above = share * ([estimate.high for estimate in estimates] - values)
    influence = np.stack([estimate.influence for estimate in estimates], axis=1)
    correlation = _correlations(influence)
    down, up = (np.sqrt(max(float(side @ correlation @ side), 0.0)) for side in (below, above))
    return Estimate(value, value - float(down), value + float(up), share * influence.sum(axis=1))


def _correlations(influence: np.ndarray) -> np.ndarray:
    """Return the correlations ``(C, C)`` of classes, from how groups move their values, ``(G, C)``."""
    lengths = np.sqrt(np.square(influence).sum(axis=0))
    scaled = influence / np.where(lengths > 0, lengths, np.inf)
    correlations = scaled.T @ scaled
    np.fill_diagonal(correlations, 1.0)
    return correlations
