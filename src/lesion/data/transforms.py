"""Augmentation of training images with torchvision's v2 transforms."""

from torch import nn
from torchvision.transforms import InterpolationMode, v2


def augmentation(
    *,
    horizontal_flip: float = 0.0,
    vertical_flip: float = 0.0,
    rotation: float = 0.0,
    translation: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    erasing: float = 0.0,
) -> nn.Sequential:
    """Compose an augmentation of (3, S, S) uint8 images; a strength of 0 omits its step.

    Args:
        horizontal_flip: Probability of mirroring left to right.
        vertical_flip: Probability of mirroring top to bottom; 0 where up and down have a meaning, as in MRI.
        rotation: Greatest angle in degrees, to either side.
        translation: Greatest shift as a share of the side.
        scale: Range of the zoom.
        brightness: Greatest relative change, as in ``ColorJitter``.
        contrast: Greatest relative change.
        saturation: Greatest relative change; without effect on gray images.
        hue: Greatest shift, at most 0.5; without effect on gray images.
        erasing: Probability of erasing a random rectangle.
    """
    steps: list[nn.Module] = []
    if horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(horizontal_flip))
    if vertical_flip:
        steps.append(v2.RandomVerticalFlip(vertical_flip))
    if rotation or translation or tuple(scale) != (1.0, 1.0):
        shift = (translation, translation)
        steps.append(v2.RandomAffine(rotation, shift, tuple(scale), interpolation=InterpolationMode.BILINEAR))
    if brightness or contrast or saturation or hue:
        steps.append(v2.ColorJitter(brightness, contrast, saturation, hue))
    if erasing:
        steps.append(v2.RandomErasing(erasing, scale=(0.02, 0.15)))
    return nn.Sequential(*steps)
