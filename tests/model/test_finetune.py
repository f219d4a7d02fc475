"""Which layers learn, and when."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from lesion.core.errors import ConfigError
from lesion.model.finetune import FineTuning, layers, set_trainable


def test_layers_count_as_keras_counts_them() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.Dropout(), nn.Identity(), nn.Linear(4, 2))
    assert [type(layer).__name__ for layer in layers(net)] == ["Conv2d", "BatchNorm2d", "ReLU6", "Linear"]


def test_mobilenetv2_has_its_139_layers() -> None:
    # 52 convolutions, 52 normalisations; 35 activations: two a block but one in the first, the stem's and the last.
    assert len(layers(timm.create_model("mobilenetv2_100", num_classes=0))) == 52 + 52 + 35


def test_last_layers_learn_and_frozen_statistics_stand_still() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    net.train()
    set_trainable(net, 2)
    assert [all(p.requires_grad for p in layer.parameters()) for layer in (net[0], net[1], net[3], net[4])] == [
        False, False, True, True,
    ]  # fmt: skip
    before = net.get_buffer("1.running_mean").clone(), net.get_buffer("4.running_mean").clone()
    net(torch.randn(8, 3, 4, 4) + 5)
    assert torch.equal(net.get_buffer("1.running_mean"), before[0])
    assert not torch.equal(net.get_buffer("4.running_mean"), before[1])


@pytest.mark.parametrize(("last", "trainable"), [(-1, 4), (0, 0), (100, 4), (1, 2)])
def test_how_many_parameters_learn(last: int, trainable: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    set_trainable(net, last)
    assert sum(p.requires_grad for p in net.parameters()) == trainable


def test_statistics_can_be_frozen_everywhere() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    set_trainable(net, -1, freeze_batch_norm=True)
    assert not net[1].training
    assert net[1].weight.requires_grad


def test_parameters_outside_layers_follow_the_whole() -> None:
    vit = timm.create_model("deit_tiny_patch16_224", num_classes=0)
    set_trainable(vit, 10)
    assert not vit.pos_embed.requires_grad
    set_trainable(vit, -1)
    assert vit.pos_embed.requires_grad


@pytest.mark.parametrize("arguments", [{"warmup_epochs": -1}, {"unfreeze_last": -2}])
def test_senseless_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="finetune"):
        FineTuning(**arguments)
