"""Measure which foreign images a model recognizes: ``python scripts/bench/foreign_images.py --run outputs/demo/…``.

The run's test images count the false alarms. Drawn and changed pictures, others than those of the trial in the bundle,
crops of three photographs that come with Python packages, and the images of any ``--foreign NAME=FOLDER`` count what is
recognized. The domain is then fitted again, with the run's own images and one foreign image among each hundred
calibration images, to see how far such strays widen it. Intervals are exact binomial ones.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import sklearn
from hydra.utils import instantiate
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from lesion.data.datamodule import DataModule
from lesion.domain.domain import LEVEL, Descriptions, Domain
from lesion.domain.foreign_images import KINDS, foreign_images
from lesion.imaging.decode import decode
from lesion.model.bundle import Bundle
from lesion.model.engines import OpenVINOEngine
from lesion.training.packaging import describe_domain, describe_images, spread_images
from scripts.bench.common import bench_parser, bench_table, machine, verdict

SEED = 1  # the trial in a bundle has 0
PHOTOGRAPHS = (
    Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg",
    Path(sklearn.__file__).parent / "datasets" / "images" / "flower.jpg",
    Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
)
LEAST = dict.fromkeys(
    ("noise", "blank", "text", "color_texture", "leaf", "x_ray", "photograph", "inverted"), 0.95
) | {"upside_down": 0.6}  # fmt: skip
MOST_FALL = 0.03
Images = NDArray[np.uint8]


def main() -> int:
    parser = bench_parser(__doc__, require="exit with 1 unless all that is asked is reached")
    parser.add_argument("--run", type=Path, required=True, help="the folder of a training")
    parser.add_argument("--foreign", action="append", default=[], metavar="NAME=FOLDER", help="more foreign images")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    options = parser.parse_args()
    bundle = Bundle.open(options.run / "bundle")
    data = bundle.facts["config"]["data"] | {"manifest": str(options.run / "manifest.parquet")}
    datamodule: DataModule = instantiate(data, _convert_="all")
    engine = OpenVINOEngine(bundle.onnx, precision="f32")

    def describe(images: Images) -> Descriptions:
        return describe_images(engine, (images[start : start + 64] for start in range(0, len(images), 64)))

    own = spread_images(datamodule, 10**6)
    foreign = {name: describe(images) for name, images in pictures(bundle, own, options).items()}
    training, calibration, groups = describe_domain(engine, datamodule)
    plain = Domain.fit(training, calibration, groups)
    strays = np.random.default_rng(SEED)
    every = Descriptions(*map(np.concatenate, zip(*foreign.values(), strict=True)))
    chosen = strays.choice(len(every.features), max(1, len(calibration.features) // 100), replace=False)
    joined = Descriptions(*(np.concatenate([a, b[chosen]]) for a, b in zip(calibration, every, strict=True)))
    widened = Domain.fit(training, joined, groups)
    console = Console(width=150)
    console.print(
        f"{machine()}; {bundle.name}, {bundle.preprocessing.size} pixels; {len(calibration.features)} calibration "
        f"images, {len(chosen)} strays"
    )
    return 0 if show(console, plain, widened, describe(own), foreign) or not options.require else 1


def pictures(bundle: Bundle, own: Images, options: argparse.Namespace) -> dict[str, Images]:
    """Return pictures of each kind as the model sees them."""
    rng = np.random.default_rng(SEED)
    found = foreign_images(own, options.count, SEED)
    photographs = [np.asarray(Image.open(path).convert("RGB")) for path in PHOTOGRAPHS]
    crops = [crop(rng, photographs[place % len(photographs)]) for place in range(options.count)]
    found["photograph"] = np.stack([bundle.preprocessing(each) for each in crops])
    for name, folder in (each.split("=", 1) for each in options.foreign):
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".png"))
        places = np.linspace(0, len(paths) - 1, min(options.count, len(paths))).round().astype(int)
        found[name] = np.stack([bundle.preprocessing(decode(paths[place].read_bytes())) for place in places])
    return found


def crop(rng: np.random.Generator, image: Images) -> Images:
    """Return a square of a photograph, a third to all of its shorter side wide."""
    side = int(min(image.shape[:2]) * rng.uniform(0.33, 1))
    top, left = (rng.integers(0, length - side + 1) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def show(console: Console, plain: Domain, widened: Domain, own: Descriptions, foreign: dict[str, Descriptions]) -> bool:
    """Print what each domain calls foreign; return whether it is what is asked."""
    columns = ("images", "called foreign", "asked", "", "with strays", "")
    table = bench_table(f"At a level of {LEVEL:.0%}, with 95 % intervals", ("kind", *columns))
    called = foreign_in(plain, own), foreign_in(widened, own)
    met = [called[0].mean() <= LEVEL]
    table.add_row("own test images", *row(called[0]), f"≤ {LEVEL}", verdict(met[0]), f"{called[1].mean():.3f}", "")
    for kind, described in foreign.items():
        before, after = foreign_in(plain, described), foreign_in(widened, described)
        cells = [*row(before), "", "", f"{after.mean():.3f}", ""]
        if (least := LEAST.get(kind)) is not None:
            found, stays = before.mean() >= least, before.mean() - after.mean() < MOST_FALL
            cells[2:4] = f"≥ {least}", verdict(found)
            cells[-1] = verdict(stays)
            met += [found, stays]
        table.add_row(KINDS.get(kind, kind), *cells)
    console.print(table)
    return all(met)


def foreign_in(domain: Domain, images: Descriptions) -> NDArray[np.bool_]:
    return ~domain.judge_descriptions(images).inside


def row(called: NDArray[np.bool_]) -> tuple[str, str]:
    low, high = binomtest(int(called.sum()), len(called)).proportion_ci()
    return f"{len(called):,}", f"{called.mean():.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
