"""Class-activation maps by any method of pytorch-grad-cam, for reports and for checking the closed-form map."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import (
    AblationCAM,
    AblationLayer,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from lesion.core.errors import ConfigError

_CLASSES: dict[str, Any] = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "eigencam": EigenCAM,
    "eigengradcam": EigenGradCAM,
    "scorecam": ScoreCAM,
    "ablationcam": AblationCAM,
}
METHODS = tuple(_CLASSES)
SLOW_METHODS = ("scorecam", "ablationcam")
"""These run the network once a channel: about 1,280 times an image for MobileNetV2."""


def class_activation_maps(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    class_indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor,
    method: str = "gradcam",
) -> NDArray[np.float32]:
    """Explain each image's given class by where in the picture its evidence lies.

    Works on frozen parameters and inside ``no_grad`` or ``inference_mode``, and leaves modes, gradients,
    ``requires_grad`` and hooks of the model as they were.

    Args:
        model: Gives logits ``(B, C)``; it is run in evaluation mode.
        layer: The module of ``model`` whose output is explained, usually the last activation.
        images: ``(B, 3, S, S)`` float, normalised as the model expects.
        class_indices: B classes to explain.
        method: One of ``METHODS``.

    Returns:
        ``(B, S, S)`` in [0, 1]: each map is rectified, scaled to its own range and resized bilinearly, so maps compare
        places within an image and not strengths between images. All zero where nothing speaks for the class.

    Raises:
        ConfigError: An unknown method, or not one class index an image.
    """
    name = check_method(method)
    targets = [ClassifierOutputTarget(int(c)) for c in class_indices]
    if images.ndim != 4 or len(targets) != len(images):
        raise ConfigError(
            f"{len(targets)} classes were to be explained on images of shape {tuple(images.shape)}; give a batch "
            "(B, 3, S, S) and one class index an image."
        )
    extra = {"ablation_layer": AblationLayer()} if name == "ablationcam" else {}
    # ScoreCAM multiplies every image with every channel at once, 770 MB an image of 224 pixels; a backward pass keeps
    # some 80 MB an image.
    step = 1 if name in SLOW_METHODS else 16
    with borrowed(model), torch.inference_mode(False), torch.enable_grad(), _silent(name in SLOW_METHODS):
        cam = _CLASSES[name](model=model, target_layers=[layer], **extra)
        try:
            # A clone, because a tensor made in inference mode cannot take part in autograd.
            inputs = images.detach().clone()
            maps = [
                cam(inputs[i : i + step].requires_grad_(), targets[i : i + step]) for i in range(0, len(images), step)
            ]
        finally:
            cam.activations_and_grads.release()
    stacked = np.concatenate(maps) if maps else np.empty((0, *images.shape[2:]))
    return np.asarray(np.clip(np.nan_to_num(stacked), 0, 1), dtype=np.float32)


def check_method(method: str) -> str:
    """Return the method's name as in ``METHODS``, ignoring case and hyphens.

    Raises:
        ConfigError: There is no such method.
    """
    name = method.lower().replace("-", "").replace("_", "")
    if name not in _CLASSES:
        raise ConfigError(f"There is no explanation method {method!r}; choose one of: {', '.join(METHODS)}.")
    return name


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Freeze the model in evaluation mode, and give it back with its modes and gradients as they were.

    Gradients flow from the images, so parameters need none; pytorch-grad-cam would otherwise clear those in use.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


@contextlib.contextmanager
def _silent(wanted: bool) -> Iterator[None]:
    """Hide the progress bar that the slow methods print for every image, with no way to turn it off."""
    with contextlib.redirect_stderr(io.StringIO()) if wanted else contextlib.nullcontext():
        yield
