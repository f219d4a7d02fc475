"""Files of a bundle, made in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from lesion.model.bundle import seal
from lesion.model.domain_file import save_domain
from tests.support.bundles.domains import fit_features

SIZE = 16


DOMAIN = fit_features(np.random.default_rng(0).normal(size=(40, 4)), np.random.default_rng(1).normal(size=(9, 4)))


GOLDEN = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)


FACTS = {
    "name": "made",
    "classes": ["glioma", "notumor", "Läsion"],
    "preprocessing": {"size": SIZE, "fit": "pad", "interpolation": "bilinear"},
    "model": {"backbone": "mobilenetv2_100", "model_kwargs": {}, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    "calibration": {"temperature": 2.0, "images": 10},
    "metrics": {"test/acc": 0.9},
}


def write_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    (folder / "model.safetensors").write_bytes(save({"weight": np.zeros((3, 4), np.float32)}))
    np.savez(folder / "golden.npz", images=np.zeros((2, SIZE, SIZE, 3), np.uint8), probabilities=GOLDEN)
    save_domain(DOMAIN, folder / "domain.npz")
    (folder / "MODEL_CARD.md").write_text("# made\n")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("<html></html>")
    return folder


MEASURED = {"split": "test", "metrics": {"test/acc": 0.9}, "confusion_matrix": [[3]], "definitions": {}, "notes": ["n"]}


def bundle_with(folder: Path, measured: dict[str, Any] | None, **facts: object) -> Path:
    """A bundle that opens but runs nowhere, with what its evaluation measured."""
    write_files(folder)
    if measured is not None:
        (folder / "report" / "metrics.json").write_text(json.dumps(measured))
    return seal(folder, FACTS | facts).path
