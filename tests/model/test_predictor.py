"""The Predictor: calibrated answers, honest times, and one bad image that fails alone."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import BundleError, ImageError
from lesion.imaging import heatmap
from lesion.imaging.limits import Limits
from lesion.model import predictor as module
from lesion.model.bundle import Bundle
from lesion.model.engines import Engine, Outputs, Precision, load_engine
from lesion.model.predictor import Prediction, Predictor
from tests.support.images.hostile import encode, gradient, hostile_images


@pytest.fixture(scope="module")
def predictor(bundle_path: Path) -> Predictor:
    return Predictor.load(bundle_path, device="cpu", precision="f32")


class FakeEngine:
    """Gives the mean of each channel as a logit."""

    name = "fake"
    precision = "f32"

    def __init__(self, bundle: Bundle, seconds: float = 0.0) -> None:
        self.classes, self.seconds, self.calls = len(bundle.classes), seconds, 0
        self.width = len(bundle.domain().features.mean)
        self.scale = 1.0

    def __call__(self, images: np.ndarray) -> Outputs:
        self.calls += 1
        time.sleep(self.seconds)
        logits = np.zeros((len(images), self.classes), np.float32)
        logits[:, :3] = images.mean((1, 2)) / 32.0 * self.scale
        return Outputs(
            logits,
            np.zeros((len(images), self.width), np.float32),
            np.zeros((len(images), self.classes, 2, 2), np.float32),
        )


def test_golden_images_give_golden_answers(predictor: Predictor) -> None:
    images, expected = predictor.bundle.golden()
    answers = predictor.predict([encode(image) for image in images])
    for answer, row in zip(answers, expected, strict=True):
        assert isinstance(answer, Prediction)
        np.testing.assert_allclose(list(answer.probabilities.values()), row, atol=1e-3)
        assert answer.predicted_class == predictor.bundle.classes[int(row.argmax())]
        assert answer.confidence == max(answer.probabilities.values())
        assert sum(answer.probabilities.values()) == pytest.approx(1.0, abs=1e-6)
        assert answer.model_version == predictor.bundle.version
        assert tuple(answer.probabilities) == predictor.bundle.classes


def test_one_bad_image_fails_alone(predictor: Predictor) -> None:
    good = [encode(gradient(40 + index, 60)) for index in range(15)]
    alone = predictor.predict(good)
    mixed = predictor.predict([*good[:7], b"no image", *good[7:]])
    error = mixed.pop(7)
    assert isinstance(error, ImageError)
    assert error.code == "image_not_recognised"
    for one, other in zip(alone, mixed, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert one.probabilities == other.probabilities


def test_hostile_files_are_refused_or_predicted_as_the_decoder_says(predictor: Predictor) -> None:
    files = hostile_images()
    answers = predictor.predict([file.data for file in files.values()])
    for (name, file), answer in zip(files.items(), answers, strict=True):
        assert (answer.code if isinstance(answer, ImageError) else None) == file.code, name


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert len(predictor.predict([b""])) == 1


def test_the_temperature_is_applied(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 64  # a logit of 2 for the first class, 0 for the others
    answer = Predictor(bundle, FakeEngine(bundle)).predict([encode(red)])[0]
    assert isinstance(answer, Prediction)
    weight = np.exp(2.0 / bundle.calibration.temperature)
    assert answer.confidence == pytest.approx(weight / (weight + len(bundle.classes) - 1), abs=1e-6)


def test_the_time_is_the_engines_alone(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    slow = Predictor(bundle, FakeEngine(bundle, seconds=0.05))
    for answer in slow.predict([encode(gradient(900, 900))] * 3):
        assert isinstance(answer, Prediction)
        assert 50.0 <= answer.inference_time_ms < 200.0


def test_an_explanation_needs_no_forward_pass(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    engine = FakeEngine(bundle)
    answer = Predictor(bundle, engine).predict([encode(gradient())])[0]
    assert isinstance(answer, Prediction)
    for name in (None, *bundle.classes):
        answer.explain(name)
    assert engine.calls == 1


def test_an_explanation_is_the_map_of_its_class_over_what_the_network_saw(predictor: Predictor) -> None:
    answer = predictor.predict([encode(gradient())])[0]
    assert isinstance(answer, Prediction)
    size = predictor.bundle.preprocessing.size
    for index, name in enumerate(predictor.bundle.classes):
        heat = heatmap.gradcam(answer.cams[index], (size, size))
        np.testing.assert_array_equal(answer.gradcam(name), heat)
        np.testing.assert_array_equal(answer.explain(name).overlay(answer.image), heatmap.overlay(answer.image, heat))
    np.testing.assert_array_equal(answer.gradcam(), answer.gradcam(answer.predicted_class))
    np.testing.assert_array_equal(answer.image, predictor.bundle.preprocessing.read(encode(gradient())))
    with pytest.raises(KeyError):
        answer.gradcam("no such class")


def test_top_names_the_most_probable_first() -> None:
    empty = np.zeros((3, 1, 1), np.float32)
    made = Prediction(
        "b", 0.5, {"a": 0.2, "b": 0.5, "c": 0.3}, 1.0, "v", 0.5, True, 0.4, empty, np.zeros((1, 1, 3), np.uint8)
    )
    assert list(made.top().items()) == [("b", 0.5), ("c", 0.3), ("a", 0.2)]
    assert list(made.top(2)) == ["b", "c"]


def test_decoding_in_threads_keeps_the_order(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    shades = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in range(0, 250, 10)]
    answers = Predictor(bundle, FakeEngine(bundle), decoders=4).predict([encode(shade) for shade in shades])
    confidences = [answer.confidence for answer in answers if isinstance(answer, Prediction)]
    assert len(confidences) == len(shades)
    assert confidences == sorted(confidences)


def test_limits_are_the_callers(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    strict = Predictor(bundle, FakeEngine(bundle), Limits(max_pixels=1000))
    answer = strict.predict([encode(gradient())])[0]
    assert isinstance(answer, ImageError)
    assert answer.code == "image_too_many_pixels"


def test_auto_serves_in_f32_where_half_precision_misses_the_golden_answers(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def rough(bundle: Bundle, device: str, threads: int, precision: Precision) -> Engine:
        if precision == "f32":
            return load_engine(bundle, device, threads, precision)
        engine = FakeEngine(bundle)
        engine.precision, engine.scale = "bf16", 1e6
        return engine

    monkeypatch.setattr(module, "load_engine", rough)
    assert Predictor.load(bundle_path, "cpu").engine.precision == "f32"
    assert "f32" in caplog.text
    with pytest.raises(BundleError) as caught:
        Predictor.load(bundle_path, "cpu", precision="bf16")
    assert caught.value.code == "bundle_golden_mismatch"
