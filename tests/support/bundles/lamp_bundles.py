"""Bundles that tell bright pictures from dark ones, made in milliseconds without torch, and pictures for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.numpy import save

from lesion.data.manifest import Manifest
from lesion.domain.domain import Descriptions, Domain
from lesion.evaluation.probabilities import softmax
from lesion.model.bundle import seal
from lesion.model.domain_file import save_domain
from tests.support.images.loop_images import manifest_of
from tests.support.images.pictures import picture

CLASSES = ["bright", "dark"]
SIZE = 32


def lamp(folder: Path, gain: float, **facts: object) -> Path:
    """A bundle that is always right with a positive gain, and always wrong with a negative one."""
    folder.mkdir(parents=True)
    weights = np.array([[gain, -gain]] * 3, np.float32) / 3
    bias = np.array([-127 * gain, 127 * gain], np.float32)
    _save_graph(folder / "model.onnx", weights, bias)
    images = np.stack([np.full((SIZE, SIZE, 3), value, np.uint8) for value in (40, 200)])
    answers = softmax(images.mean((1, 2)) @ weights + bias, 1.0).astype(np.float32)
    np.savez(folder / "golden.npz", images=images, probabilities=answers)
    known = np.stack([lamp_picture(number, SIZE) for number in range(200)])
    described = Descriptions.of(known.mean((1, 2), dtype=np.float32), known)
    training, calibration = (Descriptions(*(part[start::2] for part in described)) for start in (0, 1))
    domain = Domain.fit(training, calibration)
    # so wide that no picture of a test is foreign by chance
    wide = replace(domain, known=tuple(values + 1.5 for values in domain.known))
    save_domain(wide, folder / "domain.npz")
    (folder / "model.safetensors").write_bytes(save({"weight": weights}))
    (folder / "MODEL_CARD.md").write_text("# lamp\n")
    made = {
        "name": "lamp",
        "classes": CLASSES,
        "preprocessing": {"size": SIZE, "fit": "pad", "interpolation": "bilinear"},
        "model": {"backbone": "none", "model_kwargs": {}, "mean": [0.5] * 3, "std": [0.2] * 3, "gain": gain},
        "calibration": {"temperature": 1.0, "images": 10},
        "metrics": {},
    }
    return seal(folder, made | facts).path


def lamp_pictures(root: Path, count: int) -> Manifest:
    """So many different pictures of each class, split."""
    for number in range(2 * count):
        label = CLASSES[number % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(lamp_picture(number)).save(root / label / f"{number:03}.png")
    return manifest_of(root)


def lamp_picture(number: int, side: int = 48) -> np.ndarray:
    """A pattern: bright if the number is even, else dark."""
    return (picture(number, side) * 0.4 + (0 if number % 2 else 150)).astype(np.uint8)


def _save_graph(path: Path, weights: np.ndarray, bias: np.ndarray) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "sides"], ["features"], keepdims=0),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
        helper.make_node("Unsqueeze", ["logits", "ends"], ["cams"]),
    ]
    constants = {"weights": weights, "bias": bias, "sides": np.array([1, 2]), "ends": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "lamp",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("cams", TensorProto.FLOAT, ["batch", 2, 1, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
