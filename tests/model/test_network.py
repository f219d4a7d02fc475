"""The network's outputs and its initial weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lesion.core.errors import ConfigError
from lesion.model.network import Network
from lesion.model.weights import create_network, timm_state

IMAGES = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "resnet10t", "convnext_atto", "deit_tiny_patch16_224"])
def test_maps_average_to_the_logits_on_any_backbone(backbone: str) -> None:
    network, record, _ = create_network(backbone, 3)
    size = 224 if "patch16" in backbone else 64
    images = torch.nn.functional.interpolate(pixels(IMAGES), size).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    network.eval()
    torch.nn.init.normal_(network.classifier.weight)
    with torch.no_grad():
        logits, features, cams = network(images)
        rebuilt = cams.mean((2, 3)) + network.classifier.bias
        torch.testing.assert_close(rebuilt, logits, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(network.logits(pixels(images)), logits, rtol=1e-4, atol=1e-4)
    assert features.shape == (2, network.classifier.in_features)
    assert record.source == "none"


def test_normalisation_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _ = create_network("mobilenetv2_035", 2)
    seen: list[torch.Tensor] = []

    def record(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 1280, 1, 1)

    monkeypatch.setattr(network.backbone, "forward_features", record)
    network(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]  # ImageNet's mean and std
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_of_a_bundle_come_back_whole(tmp_path: Path) -> None:
    first, _, _ = create_network("mobilenetv2_035", 4)
    save_file(timm_state(first), tmp_path / "model.safetensors")
    second, record, _ = create_network("mobilenetv2_035", 4, str(tmp_path / "model.safetensors"))
    assert record.head
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=0, atol=0)


def test_other_classes_get_a_new_head_and_that_is_recorded(tmp_path: Path) -> None:
    first, _, _ = create_network("mobilenetv2_035", 4)
    save_file(timm_state(first), tmp_path / "model.safetensors")
    second, record, _ = create_network("mobilenetv2_035", 5, str(tmp_path / "model.safetensors"))
    assert not record.head
    assert "new classifier" in record.sentence()
    stems = [network.backbone.get_parameter("conv_stem.weight") for network in (first, second)]
    assert torch.equal(*stems)


def test_tensorflow_weights_get_tensorflow_padding(tmp_path: Path) -> None:
    network, _, _ = create_network("mobilenetv2_035", 4)
    path = tmp_path / "mobilenetv2_035.tf_in1k.safetensors"
    save_file(timm_state(network), path)
    assert create_network("mobilenetv2_035", 4, str(path))[2] == {"pad_type": "same"}
    assert create_network("mobilenetv2_035", 4, str(path), pad_type="")[2] == {}
    assert create_network("mobilenetv2_035", 4)[2] == {}


@pytest.mark.parametrize(
    ("weights", "words"),
    [("missing.safetensors", "does not exist"), ("model.pth", "can hold code"), ("text.safetensors", "cannot be read")],
)
def test_unusable_weights_are_refused(tmp_path: Path, weights: str, words: str) -> None:
    (tmp_path / "model.pth").write_bytes(b"\x80\x04.")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ConfigError, match=words):
        create_network("mobilenetv2_035", 2, str(tmp_path / weights))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    network, _, _ = create_network("mobilenetv2_035", 4)
    save_file(timm_state(network), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="does not fit the network"):
        create_network("mobilenetv2_050", 4, str(tmp_path / "model.safetensors"))


def test_unknown_backbone_names_similar_ones() -> None:
    with pytest.raises(ConfigError, match="mobilenetv2_100"):
        create_network("mobilenetv2_101", 2)


def test_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"model\.weights=none"):
        create_network("mobilenetv2_035", 2, "hub")


def test_wrong_image_size_is_refused() -> None:
    network, _, _ = create_network("deit_tiny_patch16_224", 2)
    with pytest.raises(ConfigError, match="64 pixels"):
        network.check(64)


@pytest.mark.real
def test_real_weights_are_recorded(real_weights: Path) -> None:
    network, record, arguments = create_network("mobilenetv2_100", 4, str(real_weights))
    assert isinstance(network, Network)
    assert record.sha256.startswith("2a3fa042494e")
    assert arguments == {"pad_type": "same"}
