"""Heat maps of a torch network for reports: by occlusion, and by any method of pytorch-grad-cam."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_grad_cam as cams
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from lesion.core.errors import ConfigError
from lesion.explanation.occlusion import Odds, occlusion_map

_CLASSES: dict[str, Any] = {
    "gradcam": cams.GradCAM,
    "gradcam++": cams.GradCAMPlusPlus,
    "hirescam": cams.HiResCAM,
    "xgradcam": cams.XGradCAM,
    "layercam": cams.LayerCAM,
    "eigencam": cams.EigenCAM,
    "eigengradcam": cams.EigenGradCAM,
    "scorecam": cams.ScoreCAM,
    "ablationcam": cams.AblationCAM,
}
OCCLUSION = "occlusion"
METHODS = (OCCLUSION, *_CLASSES)
SLOW_METHODS = ("scorecam", "ablationcam")  # one pass per channel: about 1,280 passes per image for MobileNetV2


def heat_maps(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    class_indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor,
    method: str = OCCLUSION,
) -> NDArray[np.float32]:
    """Show for each image where the answer for one class comes from, by any of ``METHODS``.

    Occlusion is that of `lesion.explanation.occlusion`, which answers of a server have. Its images must be in [0, 1].
    The arguments and the result are those of `class_activation_maps`.
    """
    if check_method(method) != OCCLUSION:
        return class_activation_maps(model, layer, images, class_indices, method)
    pixels = (images.detach() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

    def odds(copies: NDArray[np.uint8], index: int) -> Odds:
        batch = torch.from_numpy(copies).permute(0, 3, 1, 2).to(images.device).float() / 255
        probabilities = model(batch).double().softmax(dim=1).cpu().numpy()
        return np.stack([probabilities[:, index], np.delete(probabilities, index, axis=1).sum(axis=1)], axis=1)

    with frozen(model), torch.no_grad():
        maps = [
            occlusion_map(image, partial(odds, index=int(c))).heat
            for image, c in zip(pixels, class_indices, strict=True)
        ]
    return np.stack(maps) if maps else np.empty((0, *images.shape[2:]), np.float32)


def class_activation_maps(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    class_indices: Sequence[int] | NDArray[np.integer[Any]] | Tensor,
    method: str = "gradcam",
) -> NDArray[np.float32]:
    """Show for each image where the evidence for one class lies.

    Works on frozen parameters and inside ``no_grad`` or ``inference_mode``, and leaves modes, gradients,
    ``requires_grad`` and hooks of the model unchanged.

    Args:
        model: Returns logits ``(B, C)``; it is run in evaluation mode.
        layer: The module of ``model`` whose output is explained, usually the last activation.
        images: ``(B, 3, S, S)`` float, in the range that ``model`` takes.
        class_indices: B classes to explain.
        method: One of ``METHODS`` but occlusion.

    Returns:
        ``(B, S, S)`` in [0, 1]: each map is rectified, scaled to its own range and resized bilinearly, so it compares
        places within an image but not strengths between images. A map is all zeros where nothing speaks for the class.

    Raises:
        ConfigError: The method is unknown, or there is not one class index per image.
    """
    name = check_method(method)
    if name == OCCLUSION:
        raise ConfigError("Occlusion gives no class activation map; call heat_maps.")
    targets = [ClassifierOutputTarget(int(c)) for c in class_indices]
    if images.ndim != 4 or len(targets) != len(images):
        raise ConfigError(
            f"{len(targets)} classes were to be explained on images of shape {tuple(images.shape)}; give a batch "
            "(B, 3, S, S) and one class index per image."
        )
    extra = {"ablation_layer": cams.AblationLayer()} if name == "ablationcam" else {}
    # ScoreCAM multiplies every image with every channel at once, 770 MB per image of 224 pixels; a backward pass keeps
    # about 80 MB per image.
    step = 1 if name in SLOW_METHODS else 16
    # The slow methods print a progress bar for every image, which cannot be turned off.
    quiet = contextlib.redirect_stderr(io.StringIO()) if name in SLOW_METHODS else contextlib.nullcontext()
    with frozen(model), torch.inference_mode(False), torch.enable_grad(), quiet:
        cam = _CLASSES[name](model=model, target_layers=[layer], **extra)
        try:
            # a clone, because a tensor made in inference mode cannot take part in autograd
            inputs = images.detach().clone()
            maps = [
                cam(inputs[i : i + step].requires_grad_(), targets[i : i + step]) for i in range(0, len(images), step)
            ]
        finally:
            cam.activations_and_grads.release()
    stacked = np.concatenate(maps) if maps else np.empty((0, *images.shape[2:]))
    return np.asarray(np.clip(np.nan_to_num(stacked), 0, 1), dtype=np.float32)


def check_method(method: str) -> str:
    """Return the method's name as in ``METHODS``, ignoring case and hyphens; an unknown one is a ConfigError."""
    name = method.lower().replace("-", "").replace("_", "")
    if name not in METHODS:
        raise ConfigError(f"There is no explanation method {method!r}; choose one of: {', '.join(METHODS)}.")
    return name


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Freeze a model in evaluation mode, and restore its modes and gradients afterwards.

    Only the images need gradients, not the parameters; pytorch-grad-cam would clear gradients that are in use.
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
