"""Measure what holds for networks of many families, and write docs/networks.md: python scripts/dev/list_networks.py

Each network is built with random weights for small images, trained for a step in float32 and in bfloat16, exported, and
run in OpenVINO. Networks that are named as arguments replace the list; --output names another file.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from lesion.core.errors import ConfigError
from lesion.evaluation.probabilities import softmax
from lesion.model.backbones import default_size
from lesion.model.engines import OpenVINOEngine
from lesion.model.export import AGREEMENT, export_onnx
from lesion.model.network import Network
from lesion.model.weights import create_network

# One small network of each family, and the size in pixels that it is measured at.
NETWORKS = {
    "mobilenetv2_035": 96,
    "mobilenetv3_small_050": 96,
    "mobilenetv4_conv_small_035": 96,
    "resnet10t": 96,
    "resnext26ts": 96,
    "convnext_atto": 96,
    "efficientnet_b0": 96,
    "tf_efficientnetv2_b0": 96,
    "regnety_002": 96,
    "repvit_m0_9": 96,
    "edgenext_xx_small": 96,
    "ghostnet_050": 96,
    "densenet121": 96,
    "mobilevit_xxs": 96,
    "vit_tiny_patch16_224": 96,
    "deit_tiny_distilled_patch16_224": 96,
    "vit_small_patch14_dinov2": 112,
    "swin_tiny_patch4_window7_224": 96,
    "levit_128s": 96,
    "pit_ti_224": 224,
}
CLASSES, IMAGES = 3, 4
HEADER = """\
# Networks

`model.backbone` takes the name of any network of [timm](https://huggingface.co/docs/timm). The images have the size
that it was made for, unless `data.size` sets another; a network of a fixed size, such as one with a position
embedding, is built for that size. What timm cannot build for it is refused in a sentence before the training.

Each row was measured by `python scripts/dev/list_networks.py`, with random weights and small images on a CPU. It shows
whether a network works, not how good it is. All sizes are sides in pixels.

- **own size**: what is used without `data.size`; **size**: what was measured.
- **trains**: the loss of a batch is lower after a few steps of training.
- **map**: the positions of the class-activation map. It is exact: its mean plus the bias is the logit. Where the
  image is changed, the map changes most, unless the network mixes places: then do not rely on where it points.
- **export**: the largest difference of a probability between torch and the exported graph in OpenVINO, both in float32;
  at most {agreement:.0e}. It depends on the weights, so that a network near that limit may be refused or not.
- **bfloat16**: the largest difference of a probability between bfloat16 and float32, after a step of training in it.

| network | million parameters | own size | size | trains | map | export | bfloat16 |
|---|---|---|---|---|---|---|---|
"""
FOOTER = """
Parallel branches, such as RepViT's, are fused before the export. A network whose map has a single position is refused:
it cannot show where the evidence is.
"""


@dataclass(frozen=True)
class Row:
    """What was measured for one network."""

    name: str
    parameters: float
    size: int
    trains: str
    map: str
    export: str
    bfloat16: str

    def line(self) -> str:
        """Return the row as Markdown."""
        cells = (f"`{self.name}`", f"{self.parameters:.1f}", default_size(self.name), self.size)
        return "| " + " | ".join(map(str, (*cells, self.trains, self.map, self.export, self.bfloat16))) + " |\n"


def measure(name: str, size: int) -> Row:
    """Train, explain and export one network; a refusal is told in the column of the map."""
    torch.manual_seed(0)
    network, _, _ = create_network(name, CLASSES, size=size)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    try:
        network.check(size)
    except ConfigError as error:
        reason = "a single position" if "single position" in error.message else error.message.partition(".")[0]
        return Row(name, millions, size, "–", f"refused: {reason}", "–", "–")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, size, size, 3), np.uint8)
    trains = "yes" if losses_fall(network, images) else "no"
    spread_logits(network, images)
    positions = exact_map(network, images)
    exported = export_difference(network, images)
    export = f"{exported:.0e}" if exported <= AGREEMENT else f"refused: {exported:.1e}"
    return Row(name, millions, size, trains, positions, export, f"{bfloat16_difference(network, images):.0e}")


def train_step(network: Network, images: np.ndarray, optimizer: torch.optim.Optimizer, bfloat16: bool = False) -> float:
    """Train one step and return the loss before it."""
    network.train()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    labels = torch.arange(len(images)) % CLASSES
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        loss = functional.cross_entropy(network.logits(pixels), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss)


def losses_fall(network: Network, images: np.ndarray) -> bool:
    """Return whether a few steps on one batch lower its loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4)
    losses = [train_step(network, images, optimizer) for _ in range(8)]
    return bool(np.isfinite(losses).all()) and losses[-1] < losses[0]


def spread_logits(network: Network, images: np.ndarray) -> None:
    """Scale the classifier so that probabilities are neither equal nor 0 and 1, which would hide differences."""
    network.eval()
    torch.nn.init.normal_(network.classifier.weight)
    with torch.no_grad():
        network.classifier.weight /= network(torch.from_numpy(images)).logits.std()


def exact_map(network: Network, images: np.ndarray) -> str:
    """Return the shape of the map, after checking that it is exact and in the right place."""
    network.eval()
    with torch.inference_mode():
        logits, _, cams = network(torch.from_numpy(images))
        error = float((cams.mean((2, 3)) + network.classifier.bias - logits).abs().max())
        changed = torch.from_numpy(images[:1].copy())
        quarter = images.shape[1] // 4
        changed[:, :quarter, -quarter:] = 255 - changed[:, :quarter, -quarter:]
        before, after = (
            network.activation(each.permute(0, 3, 1, 2) / 255) for each in (torch.from_numpy(images[:1]), changed)
        )
    height, width = cams.shape[2:]
    place = int((after - before).abs().sum(1).flatten().argmax())
    row, column = divmod(place, width)
    there = row < (height + 1) // 2 and column >= width // 2
    remark = "" if there else ", mixes places" if error < 1e-4 else ", not exact"
    return f"{height} × {width}{remark}"


def export_difference(network: Network, images: np.ndarray) -> float:
    """Return the largest difference of a probability between torch and the exported graph."""
    network.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(network, path, images.shape[1])
        answers = OpenVINOEngine(path, precision="f32")(images).logits
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).logits.numpy()
    return float(np.abs(softmax(answers, 1.0) - softmax(expected, 1.0)).max())


def bfloat16_difference(network: Network, images: np.ndarray) -> float:
    """Train a step in bfloat16, and return how far its probabilities are from those of float32."""
    train_step(network, images, torch.optim.SGD(network.parameters(), lr=1e-4), bfloat16=True)
    network.eval()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        exact = network.logits(pixels).numpy()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network.logits(pixels).float().numpy()
    return float(np.abs(softmax(rounded, 1.0) - softmax(exact, 1.0)).max())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="timm's names; those of all families when left out")
    parser.add_argument("--output", type=Path, default=Path("docs/networks.md"))
    options = parser.parse_args(arguments)
    lines = []
    for name in options.networks or NETWORKS:
        lines.append(measure(name, NETWORKS.get(name) or default_size(name)).line())
        print(lines[-1], end="", flush=True)
    options.output.write_text(HEADER.format(agreement=AGREEMENT) + "".join(lines) + FOOTER, "utf-8")


if __name__ == "__main__":
    main()
