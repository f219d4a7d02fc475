import copy

import numpy as np
import pytest

from lesion.training.measurement import evaluate_model, training_weights
from tests.support.training_runs import Run


def test_classes_that_count_alike_have_no_weights(run: Run) -> None:
    assert training_weights(run.objects["model"], run.objects["datamodule"]) is None


def test_weights_of_the_loss_and_of_drawing_are_multiplied(run: Run) -> None:
    model, datamodule = copy.deepcopy(run.objects["model"]), copy.copy(run.objects["datamodule"])
    classes = len(datamodule.classes)
    model.class_weights[0] = 3.0
    assert training_weights(model, datamodule) == [3.0, *[1.0] * (classes - 1)]
    datamodule.balanced = True
    counts = datamodule.class_counts()
    expected = np.array([3.0, *[1.0] * (classes - 1)]) * counts.sum() / counts
    assert training_weights(model, datamodule) == pytest.approx(expected.tolist())


def test_a_model_is_measured_for_a_prevalence(run: Run) -> None:
    """Its answers are the others with the odds of Bayes, and its scores those of images with such shares."""
    model, datamodule = run.objects["model"], run.objects["datamodule"]
    plain = evaluate_model(model, datamodule)
    classes = len(datamodule.classes)
    shares = np.array([0.7, *[0.3 / (classes - 1)] * (classes - 1)])
    there = evaluate_model(model, datamodule, shares.tolist())
    here = datamodule.class_counts() / datamodule.class_counts().sum()
    expected = plain.probabilities * shares / here
    np.testing.assert_allclose(there.probabilities, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    recalls = [there.metrics[f"test/recall/{name}"] for name in datamodule.classes]
    assert there.metrics["test/acc"] == pytest.approx(float(shares @ recalls))
    assert "70.0 %" in there.notes[0]
    assert there.to_json()["prevalence"] == pytest.approx(shares.tolist())
    assert plain.to_json()["prevalence"] is None
