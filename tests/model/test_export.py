"""Writing bundles: only what gives the network's answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lesion.core.errors import BundleError, LesionError
from lesion.evaluation.probabilities import Calibration
from lesion.model import export
from lesion.model.bundle import Bundle
from lesion.model.domain_file import save_domain
from lesion.model.engines import OpenVINOEngine
from lesion.model.export import export_bundle
from lesion.model.network import Network
from lesion.model.weights import create_network
from tests.support.bundles.domains import fit_features

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


def facts() -> dict[str, object]:
    return {
        "name": "test",
        "classes": ["a", "b", "c"],
        "preprocessing": {"size": 64, "fit": "pad", "interpolation": "bicubic"},
        "model": {
            "backbone": "mobilenetv2_035",
            "model_kwargs": {},
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "weights": {"source": "none"},
            "parameters": 1,
        },
        "calibration": {"temperature": 2.0, "images": 3},
        "metrics": {},
        "data": {},
        "lineage": {},
    }


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    network, _, _ = create_network("mobilenetv2_035", 3)
    torch.nn.init.normal_(network.classifier.weight, std=0.02)
    return network


def card(folder: Path) -> None:
    """What the caller owes; the graph is there already, for the domain to be told with it."""
    images = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), np.uint8)
    features = OpenVINOEngine(folder / "model.onnx", precision="f32")(images).features
    save_domain(fit_features(features[:4], features[4:]), folder / "domain.npz")
    (folder / "MODEL_CARD.md").write_text("# card")


def test_bundle_round_trip(network: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    bundle = export_bundle(tmp_path / "bundle", network, images, Calibration(2.0), facts(), card)
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.version == bundle.version
    golden_images, golden = opened.golden()
    assert np.array_equal(golden_images, images[:8])
    with torch.no_grad():
        expected = (network.eval()(torch.from_numpy(images[:8])).logits / 2.0).softmax(1).numpy()
    np.testing.assert_allclose(golden, expected, atol=1e-6)
    assert bundle.facts["agreement"]["images"] == 9
    assert bundle.facts["agreement"]["onnx_torch_max_difference"] < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_graph_that_disagrees_is_not_written(
    network: Network, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.export_onnx

    def altered(network: Network, path: Path, size: int) -> None:
        with torch.no_grad():
            network.classifier.bias[0] += 0.1
        real(network, path, size)
        with torch.no_grad():
            network.classifier.bias[0] -= 0.1

    monkeypatch.setattr(export, "export_onnx", altered)
    with pytest.raises(LesionError, match="differs from torch"):
        export_bundle(tmp_path / "bundle", network, images, Calibration(2.0), facts(), card)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(network: Network, images: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        export_bundle(tmp_path / "bundle", network, images, Calibration(2.0), facts(), card)


def test_without_images_nothing_can_be_proved(network: Network, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="at least one real image"):
        export_bundle(tmp_path / "bundle", network, np.empty((0, 64, 64, 3), np.uint8), Calibration(2.0), facts(), card)
