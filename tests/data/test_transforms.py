"""Augmentation: each step does what its argument says, and nothing else."""

from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lesion.data.transforms import augmentation
from tests.support.paths import REPOSITORY

CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs" / "augmentation").glob("*.yaml"))
IMAGE = torch.arange(3 * 32 * 32, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(3, 32, 32)


def configured(name: str):
    return instantiate(OmegaConf.load(REPOSITORY / "configs" / "augmentation" / f"{name}.yaml"), _convert_="all")


def test_no_strength_changes_nothing():
    assert torch.equal(augmentation()(IMAGE), IMAGE)
    as_yaml_has_it: Any = [1.0, 1.0]
    assert torch.equal(augmentation(scale=as_yaml_has_it)(IMAGE), IMAGE)
    assert torch.equal(configured("none")(IMAGE), IMAGE)


def test_flips():
    assert torch.equal(augmentation(horizontal_flip=1.0)(IMAGE), IMAGE.flip(2))
    assert torch.equal(augmentation(vertical_flip=1.0)(IMAGE), IMAGE.flip(1))


def test_flips_come_up_as_often_as_asked():
    torch.manual_seed(0)
    flip = augmentation(horizontal_flip=0.25)
    flipped = sum(not torch.equal(flip(IMAGE), IMAGE) for _ in range(800))
    assert 160 <= flipped <= 240  # 200 ± 12 (one standard deviation)


def test_brightness_stays_within_its_range():
    torch.manual_seed(0)
    flat = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    values = {int(augmentation(brightness=0.2)(flat)[0, 0, 0]) for _ in range(200)}
    assert min(values) in range(79, 85)
    assert max(values) in range(116, 121)


def test_translation_stays_within_its_range():
    torch.manual_seed(0)
    dot = torch.zeros((3, 40, 40), dtype=torch.uint8)
    dot[:, 20, 20] = 255
    shifts = []
    for _ in range(60):
        place = augmentation(translation=0.1)(dot)[0].nonzero()
        assert len(place) == 1
        shifts.append((place[0] - 20).abs().max().item())
    assert max(shifts) in (3, 4)


def test_erasing_blackens_a_rectangle_of_2_to_15_per_cent():
    torch.manual_seed(0)
    white = torch.full((3, 50, 50), 255, dtype=torch.uint8)
    shares = [(augmentation(erasing=1.0)(white)[0] == 0).float().mean().item() for _ in range(50)]
    assert min(shares) > 0.015
    assert max(shares) < 0.16


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_keeps_shape_and_type_and_follows_the_seed(name):
    augment = configured(name)
    torch.manual_seed(5)
    first = augment(IMAGE)
    torch.manual_seed(5)
    assert torch.equal(first, augment(IMAGE))
    assert (first.shape, first.dtype) == (IMAGE.shape, torch.uint8)


def test_mri_is_never_stood_on_its_head_nor_coloured():
    upside_down, mirrored, coloured = turns("mri")
    assert upside_down == 0
    assert 70 <= mirrored <= 130
    assert coloured == 0


def test_photos_are_turned_both_ways_and_grey_stays_grey():
    upside_down, mirrored, coloured = turns("photo")
    assert 70 <= upside_down <= 130
    assert 70 <= mirrored <= 130
    assert coloured == 0


def turns(name: str) -> tuple[int, int, int]:
    """Of 200 augmented pictures, how many were stood on their head, mirrored, or no longer grey."""
    torch.manual_seed(0)
    augment = configured(name)
    head = torch.full((3, 64, 64), 20, dtype=torch.uint8)
    head[:, 16:28, 16:28] = 120  # in the upper left, and nowhere else
    upside_down = mirrored = coloured = 0
    for _ in range(200):
        image = augment(head)
        light = image[0].clamp(min=40).float() - 40
        upside_down += bool(light[32:].sum() > light[:32].sum())
        mirrored += bool(light[:, 32:].sum() > light[:, :32].sum())
        coloured += not (torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]))
    return upside_down, mirrored, coloured
