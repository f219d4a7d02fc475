"""The network as it is trained, exported and served: from pixels to logits, features and class-activation maps."""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion.core.errors import ConfigError
from lesion.model.backbones import check_patches, gives_larger_map, size_advice

logger = logging.getLogger(__name__)


class NetworkOutputs(NamedTuple):
    """The outputs of one forward pass."""

    logits: Tensor  # (B, C) float32
    features: Tensor  # (B, D) float32, the last activation averaged over positions
    # (B, C, h, w) float32, the class-activation map of each class: its weights applied to the last activation, not
    # rectified.
    cams: Tensor


class Network(nn.Module):
    """A timm backbone with one head: global average pooling, dropout, one linear layer. It normalizes its input itself.

    With this head the gradient of a logit with respect to the last activation is the class's weight vector over
    h·w, so Grad-CAM (Selvaraju et al. 2017) before rectification is the classifier applied at every position (CAM,
    Zhou et al. 2016): no backward pass is needed, and the maps can be an output of the exported graph. MobileNetV2,
    EfficientNet and ResNet have this head anyway; the tokens of transformers are arranged as a grid.

    The ``backbone`` is a timm network built with ``num_classes=0``; ``mean`` and ``std`` are those of each channel of
    pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, num_classes: int, mean: Sequence[float], std: Sequence[float], drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        check_normalization("mean", mean)
        check_normalization("std", std)
        self.backbone = backbone
        self.drop_rate = drop_rate
        self.last_activation = nn.Identity()  # a layer for hooks, the same for every backbone
        self.classifier = nn.Linear(int(backbone.num_features), num_classes)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def activation(self, pixels: Tensor) -> Tensor:
        """Return the backbone's last activation, (B, D, h, w), for (B, 3, H, W) float pixels in [0, 1]."""
        normalized = (pixels - self.mean) / self.std
        activation: Tensor = self.backbone.forward_features(normalized)  # type: ignore[operator]
        channels = self.classifier.in_features
        if activation.ndim == 3:  # (B, tokens, D), the class token and registers first
            tokens = activation[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :]
            side = int(tokens.shape[1] ** 0.5)
            activation = tokens.transpose(1, 2).reshape(-1, channels, side, side)
        elif getattr(self.backbone, "output_fmt", "NCHW") == "NHWC" or activation.shape[1] != channels:
            # (B, h, w, D), such as Swin's
            activation = activation.permute(0, 3, 1, 2)
        activation = self.last_activation(activation)
        return activation

    def logits(self, pixels: Tensor) -> Tensor:
        """Return (B, C) logits of (B, 3, H, W) float pixels in [0, 1], for training."""
        features = self.activation(pixels).mean((2, 3))
        logits: Tensor = self.classifier(functional.dropout(features, self.drop_rate, self.training))
        return logits

    def forward(self, images: Tensor) -> NetworkOutputs:
        """Return every output for (B, H, W, 3) uint8 RGB images, for the bundle."""
        activation = self.activation(images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255)
        features = activation.mean((2, 3))
        cams = torch.einsum("bdhw,cd->bchw", activation, self.classifier.weight)
        return NetworkOutputs(self.classifier(features).float(), features.float(), cams.float())

    def uses_all_parameters(self, size: int) -> bool:
        """Return whether the logits of ``size`` × ``size`` pixels depend on every parameter.

        Some backbones keep layers for their own classifier, such as MobileNetV3's last convolution.
        """
        was_training = self.training
        self.eval()  # nothing is dropped out, and no statistics change
        with torch.enable_grad():
            loss = self.logits(torch.zeros(1, 3, size, size, device=self.mean.device)).sum()
            found = torch.autograd.grad(loss, list(self.parameters()), allow_unused=True)
        self.train(was_training)
        return all(gradient is not None for gradient in found)

    def check(self, size: int) -> None:
        """Run one blank image of ``size`` × ``size`` pixels through the network.

        A backbone that does not accept it, gives no feature map, or gives one of a single position for images of any
        size, is a ConfigError. If only these images are too small for more, a warning is logged.
        """
        check_patches(self.backbone, size)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                cams = self(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=self.mean.device)).cams
        except (RuntimeError, AttributeError, TypeError, AssertionError, IndexError, ValueError) as error:
            raise ConfigError(
                f"This backbone gives no feature map for images of {size} pixels: {error}. {size_advice(self.backbone)}"
            ) from error
        finally:
            self.train(was_training)
        if cams.shape[2] * cams.shape[3] > 1:
            return
        if not gives_larger_map(self.backbone, size):
            raise ConfigError(
                f"This backbone gives a heat map of a single position for images of {size} pixels, which does not show "
                "where the evidence is. Choose another model.backbone, such as a mobilenet, resnet, convnext or vit."
            )
        logger.warning(
            "The heat maps of this model have a single position, so that they do not show where the evidence is: "
            "images of %d pixels are too small for this network. Set data.size=%d or more.", size, 2 * size
        )  # fmt: skip


def check_normalization(name: Literal["mean", "std"], values: Sequence[float]) -> None:
    """Refuse a mean or deviation that is not one of pixels in [0, 1], such as one of pixels up to 255."""
    low = -1.0 if name == "mean" else 1e-3
    three = len(values) == 3 and all(isinstance(value, int | float) for value in values)
    if not three or not all(low <= value <= 1 for value in values):
        of_bytes = three and all(0 <= value <= 255 for value in values) and max(values) > 1
        advice = "Divide them by 255." if of_bytes else "Leave it out for the backbone's own."
        raise ConfigError(
            f"model.{name}={list(values)} must be three numbers, one for each channel of pixels from 0 to 1. {advice}"
        )


class PixelClassifier(nn.Module):
    """A network as a plain function from (B, 3, H, W) float pixels in [0, 1] to (B, C) logits, for outside tools."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        return self.network.logits(pixels)
