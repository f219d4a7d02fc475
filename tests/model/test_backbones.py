"""Networks other than the default: the size of their images, their maps, their weights."""

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from lesion.core.errors import ConfigError
from lesion.model.backbones import check_backbone, default_size, size_arguments
from lesion.model.classifier import ImageClassifier
from lesion.model.engines import OpenVINOEngine
from lesion.model.export import export_onnx
from lesion.model.inference import run_network
from lesion.model.weights import create_network, timm_state
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("mobilenetv2_100", 96, {}),
        ("convnext_atto", 96, {}),
        ("regnety_002", 320, {}),
        ("vit_tiny_patch16_224", 96, {"img_size": 96}),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 112, {"img_size": 112}),
        ("vit_tiny_patch16_224", 224, {}),
        ("vit_tiny_patch16_224", None, {}),
        ("swin_tiny_patch4_window7_224", 96, {"img_size": 96}),
        ("vit_small_patch14_dinov2", 224, {"img_size": 224}),
        ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64}),
    ],
)
def test_only_networks_of_a_fixed_size_are_built_for_another(
    name: str, size: int | None, arguments: dict[str, Any]
) -> None:
    assert size_arguments(name, size) == arguments


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv2_100", 224), ("vit_small_patch14_dinov2", 518), ("inception_v3", 299), ("edgenext_xx_small", 256)],
)
def test_the_size_is_the_one_that_the_network_was_made_for(name: str, size: int) -> None:
    assert default_size(name) == size


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet-18", "Similar names: resnet18"),
        ("VIT_TINY", "vit_tiny"),
        ("xyzzy", "Similar names: none"),
        ("resnet18.imagenet", "timm has no weights 'imagenet' of resnet18"),
        (None, "model.backbone=None"),
    ],
)
def test_a_name_that_timm_does_not_know_gets_similar_ones(name: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_backbone(name)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("vit_tiny_patch16_224", 96, (6, 6)),
        ("deit_tiny_distilled_patch16_224", 64, (4, 4)),
        ("vit_small_patch14_reg4_dinov2", 56, (4, 4)),
        ("swin_tiny_patch4_window7_224", 96, (3, 3)),
        ("mobilenetv4_conv_small_035", 96, (3, 3)),
    ],
)
def test_a_network_takes_the_size_that_is_set(name: str, size: int, grid: tuple[int, int]) -> None:
    model = ImageClassifier(["a", "b", "c"], backbone=name, weights="none", size=size)
    model.network.check(size)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    outputs = run_network(model.network, [images])
    assert outputs.cams.shape == (2, 3, *grid)
    rebuilt = outputs.cams.mean((2, 3)) + model.network.classifier.bias.detach()
    torch.testing.assert_close(rebuilt, outputs.logits, rtol=1e-4, atol=1e-4)
    assert model.facts()["model_kwargs"] == size_arguments(name, size)  # a bundle rebuilds the same network


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vit_tiny_patch16_224", 100, "It was made for 224 pixels: set data.size=224, or another multiple of 16"),
        ("vit_small_patch14_dinov2", 96, "set data.size=518, or another multiple of 14"),
        ("efficientformer_l1", 96, "It was made for 224 pixels: set data.size=224"),
    ],
)
def test_a_size_that_does_not_fit_tells_which_does(name: str, size: int, words: str) -> None:
    network, _, _ = create_network(name, 2, size=size)
    with pytest.raises(ConfigError, match=re.escape(words)):
        network.check(size)


@pytest.mark.parametrize(("name", "size"), [("pit_ti_224", 224), ("pit_ti_224", 96), ("vit_tiny_patch16_224", 16)])
def test_a_network_whose_map_has_one_position_is_refused(name: str, size: int) -> None:
    network, _, _ = create_network(name, 2, size=size)
    with pytest.raises(ConfigError, match="heat map of a single position") as refused:
        network.check(size)
    assert "\n" not in str(refused.value)


def test_images_that_are_too_small_for_a_map_are_told(caplog: pytest.LogCaptureFixture) -> None:
    network, _, _ = create_network("mobilenetv2_035", 2)
    with caplog.at_level(logging.WARNING):
        network.check(32)
    assert "images of 32 pixels are too small for this network. Set data.size=64 or more." in caplog.text
    caplog.clear()
    network.check(64)
    assert not caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_weights_of_another_size_are_resampled(tmp_path: Path, name: str) -> None:
    first, _, _ = create_network(name, 2)
    save_file(timm_state(first), tmp_path / "model.safetensors")
    second, record, arguments = create_network(name, 2, str(tmp_path / "model.safetensors"), size=96)
    assert record.head
    assert arguments == {"img_size": 96}
    states = [network.backbone.state_dict() for network in (first, second)]
    same = [key for key in states[0] if states[0][key].shape == states[1][key].shape]
    assert len(same) > 0.8 * len(states[0])
    for key in same:
        torch.testing.assert_close(*(state[key] for state in states), rtol=0, atol=0)
    second.check(96)


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ([123.7, 116.3, 103.5], None, "model.mean=[123.7, 116.3, 103.5] must be three numbers, one for each channel"),
        (None, [58.4, 57.1, 57.4], "Divide them by 255."),
        ([0.5], None, "model.mean=[0.5] must be three numbers"),
        (None, [0.2, 0.0, 0.2], "model.std=[0.2, 0.0, 0.2]"),
        (None, [0.2, -0.2, 0.2], "Leave it out for the backbone's own."),
        ([float("nan")] * 3, None, "must be three numbers"),
    ],
)
def test_normalization_of_another_range_is_refused(
    mean: Sequence[float] | None, std: Sequence[float] | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        create_network("mobilenetv2_035", 2, mean=mean, std=std)


def test_normalization_can_be_set_and_is_kept_in_the_bundle() -> None:
    model = ImageClassifier(
        ["a", "b"], backbone="mobilenetv2_035", weights="none", mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6]
    )
    assert model.facts()["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert model.facts()["std"] == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize(("name", "used"), [("mobilenetv2_035", True), ("mobilenetv3_small_050", False)])
def test_parameters_that_the_logits_do_not_need_are_found(name: str, used: bool) -> None:
    network, _, _ = create_network(name, 2)
    network.train()
    assert network.uses_all_parameters(64) == used
    assert network.training


@pytest.mark.slow
def test_branches_are_fused_in_the_exported_graph(tmp_path: Path) -> None:
    network, _, _ = create_network("repvit_m0_9", 3)
    network.train()
    with torch.no_grad():  # statistics that are not 0 and 1
        network.logits(torch.rand(4, 3, 64, 64))
    network.eval()
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    export_onnx(network, tmp_path / "model.onnx", 64)
    nodes = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "BatchNormalization" not in nodes
    assert nodes.count("Conv") < convolutions
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    answers = OpenVINOEngine(tmp_path / "model.onnx", precision="f32")(images)
    np.testing.assert_allclose(answers.logits, run_network(network, [images]).logits.numpy(), atol=1e-4)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == convolutions  # as it was


@pytest.mark.slow
@pytest.mark.long
def test_the_table_of_networks_is_made_by_its_script(tmp_path: Path) -> None:
    names = ["resnet10t", "vit_tiny_patch16_224", "pit_ti_224"]
    command = [sys.executable, "scripts/dev/list_networks.py", *names, "--output", str(tmp_path / "networks.md")]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=300)
    rows = [line.split(" | ") for line in (tmp_path / "networks.md").read_text().splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == names
    assert [row[4:6] for row in rows[:2]] == [["yes", "3 × 3"], ["yes", "6 × 6"]]
    assert "single position" in rows[2][5]
    assert all(float(row[6]) <= 1e-4 and float(row[7].rstrip(" |")) < 0.1 for row in rows[:2])


def test_the_table_has_a_row_for_each_family() -> None:
    text = (REPOSITORY / "docs" / "networks.md").read_text()
    script = (REPOSITORY / "scripts" / "dev" / "list_networks.py").read_text()
    names = re.findall(r'^    "(\w+)": \d+,$', script, re.MULTILINE)
    assert len(names) >= 15
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == names
