"""The network as it is trained, exported and served: from pixels to logits, features and class-activation maps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesion.core.errors import ConfigError


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
        elif activation.shape[1] != channels:  # (B, h, w, D), such as Swin's
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

    def check(self, size: int) -> None:
        """Run one blank image of ``size`` × ``size`` pixels through the network.

        A backbone that does not accept it, or gives no feature map, is a ConfigError.
        """
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                self(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=self.mean.device))
        except (RuntimeError, AttributeError, TypeError, AssertionError, IndexError) as error:
            raise ConfigError(
                f"This backbone gives no feature map for images of {size} pixels: {error}. "
                "Choose another data.size or another model.backbone."
            ) from error
        finally:
            self.train(was_training)


class PixelClassifier(nn.Module):
    """A network as a plain function from (B, 3, H, W) float pixels in [0, 1] to (B, C) logits, for outside tools."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        return self.network.logits(pixels)
