"""Initial weights: from timm's hub, from a safetensors file, or random; and a record of their origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lesion.core.errors import ConfigError
from lesion.core.files import file_sha256
from lesion.model.backbones import check_backbone, resized_state, size_arguments
from lesion.model.network import Network

HEAD = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """The weights of a network before training."""

    # ``hub`` (timm's pretrained weights), ``path`` (a file) or ``none`` (random numbers).
    source: Literal["hub", "path", "none"]
    name: str = ""  # the hub's identifier or the file's name; empty for ``none``
    sha256: str = ""  # the file's hash, hex; empty unless ``source`` is ``path``
    head: bool = False  # whether the weights include the classifier; otherwise it starts from random numbers

    def sentence(self) -> str:
        """Return in one sentence what the network starts from."""
        if self.source == "none":
            return "RANDOM INITIAL WEIGHTS: nothing was learned before this training (model.weights=none)."
        head = "classifier included" if self.head else "with a new classifier"
        return f"Initial weights: {self.name} ({self.source}), {head}."


def create_network(
    backbone: str,
    num_classes: int,
    weights: str = "none",
    *,
    drop_rate: float = 0.0,
    pad_type: str | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[Network, WeightsRecord, dict[str, Any]]:
    """Build a network for ``num_classes`` classes on a timm backbone and fill it with ``weights``.

    Args:
        backbone: A timm model name, with or without its pretrained tag.
        num_classes: The number of classes, at least 2.
        weights: ``hub``, ``none`` or the path of a ``.safetensors`` file with timm's parameter names, such as the one
            in a bundle.
        drop_rate: Dropout before the classifier.
        pad_type: ``same`` for TensorFlow's padding, ``""`` for timm's own. By default it follows timm's rule for names:
            weights whose tag begins with ``tf`` were trained with ``same``.
        size: Side in pixels of the images, for backbones that are built for one size; None for the backbone's own.
        mean: The mean of each channel of pixels in [0, 1]; None for the backbone's own.
        std: Their deviation; None for the backbone's own.

    Returns:
        The network, the record of its weights, and the keyword arguments that rebuild the backbone with
        ``timm.create_model``.

    Raises:
        ConfigError: The backbone is unknown, the hub cannot be reached, or the file does not fit the network.
    """
    check_backbone(backbone)
    path = None if weights in ("hub", "none") else Path(weights)
    same = pad_type == "same" or (pad_type is None and path is not None and _tag(path).startswith("tf"))
    arguments: dict[str, Any] = ({"pad_type": "same"} if same else {}) | size_arguments(backbone, size)
    body = _build(backbone, weights == "hub", arguments)
    own: dict[str, Any] = body.pretrained_cfg  # type: ignore[assignment]
    network = Network(
        body, num_classes, own["mean"] if mean is None else mean, own["std"] if std is None else std, drop_rate
    )
    if path is not None:
        return network, load_weights(network, path), arguments
    if weights == "hub":
        config: dict[str, Any] = network.backbone.pretrained_cfg  # type: ignore[assignment]
        return network, WeightsRecord("hub", str(config.get("hf_hub_id") or backbone)), arguments
    return network, WeightsRecord("none"), arguments


def timm_state(network: Network) -> dict[str, Tensor]:
    """Return the network's tensors under timm's names: those of the backbone, then ``classifier.*``."""
    state = {name: tensor.contiguous() for name, tensor in network.backbone.state_dict().items()}
    return state | {name: network.state_dict()[name].contiguous() for name in HEAD}


def load_weights(network: Network, path: Path) -> WeightsRecord:
    """Fill a network from a ``.safetensors`` file; a classifier for other classes is left out, as the record says.

    A missing or other file, and one that was made for another network, is a ConfigError.
    """
    target = timm_state(network)
    state = resized_state(network.backbone, _read_state(path))
    fits = {name for name in target if name in state and state[name].shape == target[name].shape}
    head = fits.issuperset(HEAD)
    needed = [name for name in target if head or name not in HEAD]
    if misfits := [name for name in needed if name not in fits]:
        raise ConfigError(
            f"model.weights='{path.name}' does not fit the network: {len(misfits)} of {len(target)} tensors are "
            f"missing or of another shape (first: {misfits[0]}). Give the backbone that these weights were made for."
        )
    network.backbone.load_state_dict({name: state[name] for name in needed if name not in HEAD})
    if head:
        network.load_state_dict({name: state[name] for name in HEAD}, strict=False)
    return WeightsRecord("path", path.name, file_sha256(path), head=head)


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"model.weights='{path}' is not 'hub', 'none' or a .safetensors file. Other formats can hold code; "
            "convert the file with safetensors.torch.save_file first."
        )
    if not path.is_file():
        raise ConfigError(f"model.weights='{path}' does not exist. Give an existing .safetensors file, hub or none.")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"model.weights='{path}' cannot be read as safetensors: {error}.") from error


def _build(backbone: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        body: nn.Module = timm.create_model(backbone, pretrained=pretrained, num_classes=0, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        advice = "set model.pad_type='' or leave out" if "pad_type" in arguments else "leave out"
        raise ConfigError(
            f"timm's '{backbone}' does not take {arguments}: {error}. Choose another model.backbone, "
            f"{advice} data.size."
        ) from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"model.weights=hub could not fetch the weights of '{backbone}': {error}. Without a network, give "
            "model.weights=<path of a .safetensors file>, or model.weights=none to start from random numbers."
        ) from error
    return body


def _tag(path: Path) -> str:
    """Return the pretrained tag in a file name of timm's form ``<model>.<tag>.safetensors``; empty without one."""
    parts = path.name.split(".")
    return parts[1] if len(parts) > 2 else ""
