"""A bundle measured on labeled images by one function."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import DataError
from lesion.data.manifest import Manifest
from lesion.evaluation.evaluation import Evaluation
from lesion.model.bundle import Bundle
from lesion.model.bundle_evaluation import evaluate
from lesion.model.predictor import Predictor
from tests.support.training_runs import Run


@pytest.fixture(scope="module")
def manifest(run: Run) -> Manifest:
    return Manifest.load(run.output / "manifest.parquet")


def test_the_test_split_gives_the_metrics_of_the_training_run(run: Run, manifest: Manifest) -> None:
    measured = run.objects["evaluation"]
    again = evaluate(Predictor.load(run.bundle_path, precision="f32"), manifest)
    assert again.paths == measured.paths
    assert again.calibration.temperature == measured.calibration.temperature
    assert again.metrics["test/acc"] == measured.metrics["test/acc"]
    assert again.metrics["test/nll"] == pytest.approx(measured.metrics["test/nll"], rel=1e-3)
    np.testing.assert_array_equal(again.confusion, measured.confusion)


def test_a_folder_of_classes_is_measured_whole(run: Run, manifest: Manifest, tmp_path: Path) -> None:
    table = manifest.split("test").groupby("label").head(3)
    for path, label in zip(table["path"], table["label"], strict=True):
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(manifest.root / path, tmp_path / label / Path(path).name)
    evaluation = evaluate(Bundle.open(run.bundle_path), tmp_path, group_pattern=r"(patient\d+)")
    assert isinstance(evaluation, Evaluation)
    assert len(evaluation.labels) == len(table)
    assert evaluation.classes == manifest.classes
    assert not any("atients" in note for note in evaluation.notes)
    unknown = evaluate(Bundle.open(run.bundle_path), tmp_path)
    assert unknown.notes[0].startswith("Patients unknown: ")
    assert unknown.notes[0].endswith("the scores are an upper bound.")
    low, high = evaluation.interval("acc")
    assert low <= evaluation.metrics["test/acc"] <= high


def test_classes_that_the_bundle_lacks_are_named(run: Run, manifest: Manifest, tmp_path: Path) -> None:
    for label, path in zip(("glioma", "fracture"), manifest.table["path"], strict=False):
        (tmp_path / label).mkdir()
        shutil.copy(manifest.root / path, tmp_path / label)
    with pytest.raises(DataError, match="fracture, which the bundle lacks"):
        evaluate(run.bundle_path, tmp_path)
