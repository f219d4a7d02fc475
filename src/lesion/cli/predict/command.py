"""Predict image files with a bundle.

lesion predict scan.png more/ --bundle outputs/bundle
lesion predict more/ --csv --top-k 2 > answers.csv
cat scan.png | lesion predict - --json --overlay overlays/
"""

import argparse
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from lesion.cli.predict.inputs import STDIN, Item, batches, expand_folders, printable, read_all, read_names
from lesion.cli.predict.writers import Row, write_csv, write_json, write_tables
from lesion.core.cli_errors import cli_errors
from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError, DataError, ImageError
from lesion.core.files import bytes_sha256, write_atomically
from lesion.core.paths import latest_bundle
from lesion.domain.domain import LEVEL
from lesion.explanation.explanation import METHODS, Method
from lesion.imaging.heatmap import encode_png
from lesion.model.predictor import Prediction, Predictor

_BATCH = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when every image was predicted, 1 when one was refused.

    Wrong usage, a broken bundle and a full disk exit with 2, after the predictions that were made.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # so that any file name is printable, whatever the locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with cli_errors():
            return predict(options, sys.stdin.buffer, sys.stdout)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        _discard(sys.stdout)
        return 1
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError:  # Python would try to write it again at exit, and print an error
            _discard(sys.stdout)
        raise


def predict(options: argparse.Namespace, stdin: BinaryIO, out: IO[str]) -> int:
    """Predict the images of the options and write the predictions to ``out``; see :func:`main`."""
    predictor = Predictor.load(
        options.bundle or latest_bundle(),
        options.device,
        options.threads,
        options.precision,
        decoders=options.threads,
        domain_level=options.domain_level,
    )
    classes = predictor.bundle.classes
    if options.overlay_class is not None and options.overlay_class not in classes:
        raise ConfigError(f"The model has no class {options.overlay_class!r}. Its classes are {', '.join(classes)}.")
    if options.overlay is not None:
        _create_folder(options.overlay)
    names = read_names(stdin) if options.stdin_list else iter(options.images)
    items = read_all(expand_folders(names), predictor.limits, stdin)
    counts = Counter[str]()
    overlay_file = partial(_overlay, predictor, options.overlay_class, options.overlay_method)
    rows = _rows(predictor, items, options.overlay, overlay_file, counts)
    try:
        if options.json:
            write_json(rows, out, options.top_k)
        elif options.csv:
            write_csv(rows, out, classes, options.top_k)
        else:
            write_tables(rows, out, predictor.bundle.class_names, options.top_k)
    finally:  # the predictions made so far are shown, whatever ended it
        out.flush()
    if not counts:
        raise DataError(
            "There is no image to predict: the folders contain no image files, or the list is empty.", code="no_images"
        )
    if refused := counts["refused"]:
        print(f"{refused} of {counts.total()} images were refused.", file=sys.stderr)
    return 1 if refused else 0


def _rows(
    predictor: Predictor,
    items: Iterator[Item],
    overlays: Path | None,
    overlay_file: Callable[[Prediction], bytes],
    counts: Counter[str],
) -> Iterator[Row]:
    """Predict images batch by batch, and count those that are ``predicted`` and ``refused``.

    An overlay that cannot be written ends this after its batch.
    """
    failure: OSError | None = None
    for batch in batches(items, _BATCH):
        readable = [item.content for item in batch if isinstance(item.content, bytes)]
        answers = iter(predictor.predict(readable))
        for item in batch:
            answer = item.content if isinstance(item.content, ImageError) else next(answers)
            overlay = ""
            if overlays is not None and failure is None and isinstance(answer, Prediction):
                path = overlays / overlay_name(item.name)
                try:
                    write_atomically(path, overlay_file(answer), durable=False)
                    overlay = str(path)
                except OSError as error:
                    failure = error
            counts["predicted" if isinstance(answer, Prediction) else "refused"] += 1
            yield Row(item.name, answer, overlay)
        if failure is not None:
            raise failure


def _overlay(predictor: Predictor, class_name: str | None, method: Method, prediction: Prediction) -> bytes:
    """Return the heat map of a class over the image, as a PNG file."""
    return encode_png(predictor.explain(prediction, class_name, method).overlay(prediction.image))


def _create_folder(overlays: Path) -> None:
    """Create the folder of the overlays, and check that files can be written to it, before anything is computed."""
    try:
        overlays.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=overlays):
            pass
    except OSError as error:
        raise ConfigError(
            f"--overlay {printable(str(overlays))} cannot be written to: {error.strerror}. Give another folder."
        ) from error


def overlay_name(name: str) -> str:
    """Return a file name for an image's overlay: readable, safe on any disk, and different for different paths."""
    stem = "stdin" if name == STDIN else Path(name).stem
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in stem)[:60]
    return f"{safe.lstrip('.')}-{bytes_sha256(os.fsencode(name))[:8]}.png"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lesion predict",
        description="Predict images with a bundle: calibrated probabilities and, on request, heat maps.",
        epilog="Exit status: 0 all predicted, 1 some images refused, 2 wrong usage, a broken bundle or a full disk.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "images", nargs="*", default=[], metavar="IMAGE", help="files, folders, or - for one image on standard input"
    )
    source.add_argument("--stdin-list", action="store_true", help="read paths from standard input, one per line")
    parser.add_argument("--bundle", type=Path, help="the bundle's folder (default: the newest below outputs/)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument("--csv", action="store_true", help="CSV")
    parser.add_argument("--top-k", type=_positive, metavar="K", help="name the K most probable classes")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write each image with its heat map to DIR")
    parser.add_argument(
        "--overlay-method",
        default=METHODS[0],
        choices=METHODS,
        help="how heat maps are made: by covering places of the image, 41 passes each, or at no cost, but coarse "
        "(default: %(default)s)",
    )
    parser.add_argument("--overlay-class", metavar="NAME", help="the class to explain (default: the predicted one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or torch")
    parser.add_argument("--precision", default="auto", choices=("auto", "f32", "bf16", "f16"))
    parser.add_argument(
        "--domain-level",
        type=_share,
        default=LEVEL,
        metavar="SHARE",
        help="share of images like the training images that may be called unlike them (default: %(default)s)",
    )
    parser.add_argument("--threads", type=_positive, default=available_cores(), metavar="N", help="CPU threads")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 0.5")
    return share


def _discard(stream: IO[str]) -> None:
    """Discard everything that is still written to a stream."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
