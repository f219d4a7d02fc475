"""Engines: the same outputs from OpenVINO and torch, whatever the batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lesion.core.errors import BundleError, ConfigError
from lesion.model.bundle import Bundle
from lesion.model.engines import OpenVINOEngine, Precision, TorchEngine, check_golden, load_engine


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(scope="module")
def images(bundle: Bundle) -> np.ndarray:
    golden, _ = bundle.golden()
    noise = np.random.default_rng(0).integers(0, 256, (3, *golden.shape[1:]), np.uint8)
    return np.concatenate([golden, noise])


def test_openvino_and_torch_agree_on_every_output(bundle: Bundle, images: np.ndarray) -> None:
    fast = load_engine(bundle, "cpu", precision="f32")
    slow = load_engine(bundle, "torch")
    assert (fast.name, fast.precision) == ("openvino:cpu", "f32")
    assert (slow.name, slow.precision) == ("torch:cpu", "f32")
    for name, ours, theirs in zip(("logits", "features", "cams"), fast(images), slow(images), strict=True):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-3, err_msg=name)


def test_logits_are_the_mean_of_the_maps_plus_the_bias(bundle: Bundle, images: np.ndarray) -> None:
    outputs = load_engine(bundle, "cpu", precision="f32")(images)
    bias = outputs.logits - outputs.cams.mean((2, 3))
    np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), atol=1e-3)


@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_an_answer_does_not_depend_on_the_batch(bundle: Bundle, images: np.ndarray, precision: Precision) -> None:
    engine = load_engine(bundle, "cpu", precision=precision)
    together = engine(images)
    for index in range(len(images)):
        alone = engine(images[index : index + 1])
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[index], part[0])


def test_results_stay_as_they_are_when_the_engine_is_used_again(bundle: Bundle, images: np.ndarray) -> None:
    engine = load_engine(bundle, "cpu")
    first = engine(images[:1])
    before = [output.copy() for output in first]
    engine(images[1:2])
    for output, copy in zip(first, before, strict=True):
        np.testing.assert_array_equal(output, copy)


def test_no_images_give_no_outputs(bundle: Bundle, images: np.ndarray) -> None:
    logits, features, cams = load_engine(bundle, "cpu")(images[:0])
    assert logits.shape == (0, len(bundle.classes))
    assert len(features) == len(cams) == 0


def test_torch_cuts_long_batches(bundle: Bundle, images: np.ndarray) -> None:
    whole = TorchEngine(bundle, "cpu")(images)
    cut = TorchEngine(bundle, "cpu", max_batch=2)(images)
    np.testing.assert_allclose(whole.logits, cut.logits, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("precision", ["f32", "bf16", "auto"])
def test_every_engine_gives_the_golden_answers(bundle: Bundle, device: str, precision: Precision) -> None:
    try:
        engine = load_engine(bundle, device, precision=precision)
    except ConfigError as error:  # not every processor computes in bfloat16
        pytest.skip(error.message)
    check_golden(bundle, engine)


def test_unknown_devices_and_precisions_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="tpu"):
        load_engine(bundle, "tpu")
    with pytest.raises(ConfigError, match="f16"):
        OpenVINOEngine(bundle.onnx, precision="f16")


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a not a graph")
    with pytest.raises(BundleError, match="OpenVINO"):
        OpenVINOEngine(path)


def test_without_torch_the_torch_engine_says_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"lesion\[train\]"):
        TorchEngine(bundle, "cpu")


def test_engines_that_come_and_go_leave_signals_alone(bundle_path: Path) -> None:
    """OpenVINO's cores leave a freed signal stack behind when two of them go; ours must not end the process."""
    code = f"""
import gc, pathlib, signal, subprocess
from lesion.model.engines import OpenVINOEngine
signal.signal(signal.SIGCHLD, lambda *arguments: None)
first = OpenVINOEngine(pathlib.Path({str(bundle_path / "model.onnx")!r}))
second = OpenVINOEngine(pathlib.Path({str(bundle_path / "model.onnx")!r}))
del first; gc.collect()
del second; gc.collect()
subprocess.run(["true"], check=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
