"""timm's backbones by name: which there are, which image size each takes, and whether it gives a map."""

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import Tensor, nn

from lesion.core.errors import ConfigError

_DEFAULT_SIZE = 224  # of backbones whose own timm does not tell


def check_backbone(name: object) -> str:
    """Return the name of a timm backbone, with or without its pretrained tag; an unknown one is a ConfigError."""
    base, _, tag = str(name).partition(".")
    if not isinstance(name, str) or not timm.is_model(base):
        known = {model.lower(): model for model in timm.list_models()}
        close = [known[model] for model in get_close_matches(base.lower(), known, n=5)]
        raise ConfigError(
            f"model.backbone={name}: timm has no model '{name}'. Similar names: {', '.join(close) or 'none'}."
        )
    tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        close = get_close_matches(tag, tags, n=3) or tags
        raise ConfigError(
            f"model.backbone={name}: timm has no weights '{tag}' of {base}. It has: {', '.join(close) or 'none'}."
        )
    return name


def default_size(name: str) -> int:
    """Return the side in pixels of the images that a backbone was made for; 224 if timm does not tell.

    >>> default_size("mobilenetv2_100"), default_size("vit_small_patch14_dinov2")
    (224, 518)
    """
    config = timm.get_pretrained_cfg(check_backbone(name))
    return int(config.input_size[-1]) if config is not None and config.input_size else _DEFAULT_SIZE


def size_arguments(name: str, size: int | None) -> dict[str, Any]:
    """Return timm's arguments that make a backbone take images of ``size`` pixels: none for what takes any size.

    Backbones of a fixed size, such as transformers with a position embedding, are built for another one on request.

    >>> size_arguments("resnet18", 96), size_arguments("vit_tiny_patch16_224", 96)
    ({}, {'img_size': 96})
    """
    config = timm.get_pretrained_cfg(check_backbone(name))
    fixed = config is not None and config.fixed_input_size
    return {"img_size": size} if fixed and size not in (None, default_size(name)) else {}


def resized_state(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in the shapes of a backbone that was built for another image size than they were.

    timm resamples position embeddings with a function that each of its modules with such embeddings has.
    """
    target = backbone.state_dict()
    resized = {name: tensor for name, tensor in state.items() if name in target}
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None or all(tensor.shape == target[name].shape for name, tensor in resized.items()):
        return dict(state)
    return dict(state) | dict(convert(resized, backbone))


def check_patches(backbone: nn.Module, size: int) -> None:
    """Refuse a size that a backbone's patches do not fill: it would leave the images' border out."""
    side = _patch_side(backbone)
    if side and size % side and getattr(backbone, "pretrained_cfg", {}).get("fixed_input_size"):
        raise ConfigError(
            f"This backbone sees images as patches of {side} pixels, which do not fill images of {size} pixels. "
            f"{size_advice(backbone)}"
        )


def size_advice(backbone: nn.Module) -> str:
    """Return what to do about an image size that a backbone does not take."""
    config: dict[str, Any] = getattr(backbone, "pretrained_cfg", {})
    size = config.get("input_size", (3, _DEFAULT_SIZE, _DEFAULT_SIZE))[-1]
    side = _patch_side(backbone)
    multiple = f", or another multiple of {side}" if side else ""
    return f"It was made for {size} pixels: set data.size={size}{multiple}, or choose another model.backbone."


def gives_larger_map(backbone: nn.Module, size: int) -> bool:
    """Return whether a backbone whose map of ``size`` pixels is a single position gives more for larger images."""
    with torch.no_grad():
        try:
            larger: Tensor = backbone.forward_features(torch.zeros(1, 3, 4 * size, 4 * size))  # type: ignore[operator]
        except (RuntimeError, AssertionError, ValueError):
            return False
    return larger.ndim == 4 and larger.numel() > int(backbone.num_features)  # type: ignore[arg-type]


def _patch_side(backbone: nn.Module) -> int:
    """Return the side in pixels of the patches that a transformer divides an image into; 0 for other backbones."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple) and patch else patch
    return side if isinstance(side, int) and side > 1 else 0
