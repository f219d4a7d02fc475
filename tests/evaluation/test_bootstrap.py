import numpy as np
import pytest

from lesion.core.errors import DataError
from lesion.evaluation import bootstrap
from lesion.evaluation.bootstrap import bootstrap_intervals
from lesion.evaluation.calibration import softmax
from lesion.evaluation.findings import TITLES
from lesion.evaluation.metrics import compute_metrics


def clustered(groups=60, size=10, seed=0):
    """Images of a group share their luck: all easy or all hard."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(3, size=groups), size)
    strength = np.repeat(rng.choice([-0.5, 4.0], size=groups, p=[0.3, 0.7]), size)
    logits = rng.normal(0, 0.5, (groups * size, 3))
    logits[np.arange(groups * size), labels] += strength
    return softmax(logits), labels, np.repeat(np.arange(groups) * 7 + 3, size)


def test_every_replicate_equals_the_metrics_of_the_resampled_images():
    """The fast sums and weighted curves must be compute_metrics on the images that were drawn, ties included."""
    probabilities, labels, groups = clustered(groups=12, size=3)
    probabilities = np.round(probabilities, 1)
    probabilities[:, 2] = (1 - probabilities[:, :2].sum(axis=1)).clip(0)
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    names, index = np.unique(groups, return_inverse=True)
    drawn = bootstrap._draws(len(names), 25, np.random.default_rng(5))
    values = bootstrap._replicate_counts(probabilities, labels, index, drawn)
    values |= bootstrap._replicate_areas(probabilities, labels, index, drawn)
    assert set(values) == set(TITLES)
    for replicate, counts in enumerate(drawn):
        rows = np.repeat(np.arange(len(labels)), counts[index].astype(int))
        expected = compute_metrics(probabilities[rows], labels[rows], "abc")
        for key in TITLES:
            assert values[key][replicate] == pytest.approx(expected[f"test/{key}"], abs=1e-5, nan_ok=True), key


def test_chunks_do_not_change_the_areas(monkeypatch):
    data = clustered(groups=10, size=2)
    whole = bootstrap_intervals(*data, replicates=50)
    monkeypatch.setattr(bootstrap, "_CELLS", 60)
    assert bootstrap_intervals(*data, replicates=50) == whole


def test_groups_widen_the_interval_of_clustered_data():
    probabilities, labels, groups = clustered()
    by_group = bootstrap_intervals(probabilities, labels, groups)
    by_image = bootstrap_intervals(probabilities, labels, np.arange(len(labels)))
    for key in ("test/acc", "test/f1_macro", "test/roc_auc", "test/nll"):
        wide, narrow = np.diff(by_group[key])[0], np.diff(by_image[key])[0]
        assert wide > 2 * narrow, key


def test_interval_of_accuracy_is_the_binomial_one():
    """Independent images: the standard error of a share p is √(p(1 − p)/n)."""
    n = 1000
    labels = np.zeros(n, int)
    right = np.arange(n) < 800
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    low, high = bootstrap_intervals(probabilities, labels, np.arange(n), replicates=4000)["test/acc"]
    margin = 1.96 * np.sqrt(0.8 * 0.2 / n)
    assert low == pytest.approx(0.8 - margin, abs=0.003)
    assert high == pytest.approx(0.8 + margin, abs=0.003)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Over 200 datasets of 150 images with a true accuracy of 0.8, about 95 % of intervals hold it."""
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        right = rng.random(150) < 0.8
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        low, high = bootstrap_intervals(probabilities, np.zeros(150, int), np.arange(150), replicates=200, seed=seed)[
            "test/acc"
        ]
        covered += low <= 0.8 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_seed_decides():
    data = clustered(groups=20, size=2)
    assert bootstrap_intervals(*data, seed=1, replicates=100) == bootstrap_intervals(*data, seed=1, replicates=100)
    assert bootstrap_intervals(*data, seed=1, replicates=100) != bootstrap_intervals(*data, seed=2, replicates=100)


def test_one_group_gives_no_interval():
    probabilities, labels, _ = clustered(groups=3)
    intervals = bootstrap_intervals(probabilities, labels, np.zeros(len(labels), int), replicates=10, prefix="val")
    assert set(intervals) == {f"val/{key}" for key in TITLES}
    assert np.isnan(list(intervals.values())).all()


@pytest.mark.parametrize(("groups", "replicates"), [(np.zeros(2, int), 10), (np.zeros(30, int), 0)])
def test_refuses(groups, replicates):
    probabilities, labels, _ = clustered(groups=3)
    with pytest.raises(DataError):
        bootstrap_intervals(probabilities, labels, groups, replicates=replicates)
