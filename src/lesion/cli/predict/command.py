"""The command line of ``scripts/predict.py``."""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from lesion.cli.predict.inputs import STDIN, Item, batches, find, listed, printable, read_all
from lesion.cli.predict.writers import CsvWriter, JsonWriter, Row, TableWriter, Writer
from lesion.core.cli_errors import cli_errors, latest_bundle
from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError, DataError, ImageError
from lesion.imaging.decode import Limits
from lesion.model.predictor import Prediction, Predictor

BATCH = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 when every image was predicted, 1 when one was refused. Wrong usage, a broken bundle and a full disk exit with
        2, after the answers that were had.
    """
    options = _parser().parse_args(arguments)
    _utf8(sys.stdout)
    _utf8(sys.stderr)
    try:
        with cli_errors():
            return predict(options, sys.stdin.buffer, sys.stdout)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        _let_go(sys.stdout)
        return 1
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError:  # what cannot be written would be tried again at the end, and complained of
            _let_go(sys.stdout)
        raise


def predict(options: argparse.Namespace, stdin: BinaryIO, out: IO[str]) -> int:
    """Predict what the options name and write the answers to ``out``; see :func:`main`."""
    limits = Limits()
    predictor = Predictor.load(
        options.bundle or latest_bundle(), options.device, options.threads, options.precision, limits, options.threads
    )
    classes = predictor.bundle.classes
    if options.overlay_class is not None and options.overlay_class not in classes:
        raise ConfigError(f"The model knows no class {options.overlay_class!r}; it knows {', '.join(classes)}.")
    if options.overlay is not None:
        _prepare(options.overlay)
    names = listed(stdin) if options.stdin_list else iter(options.images)
    writer = _writer(options, classes, out)
    images = refused = 0
    try:
        for row in _rows(predictor, read_all(find(names), limits, stdin), options.overlay, options.overlay_class):
            writer.write(row)
            images += 1
            refused += isinstance(row.answer, ImageError)
    finally:  # whatever ended it: what was answered is shown
        writer.close()
        out.flush()
    if images == 0:
        raise DataError(
            "There is no image to predict: the folders hold no image files, or the list is empty.", code="no_images"
        )
    if refused:
        print(f"{refused} of {images} images were refused.", file=sys.stderr)
    return 1 if refused else 0


def _rows(
    predictor: Predictor, items: Iterator[Item], overlays: Path | None, overlay_class: str | None
) -> Iterator[Row]:
    """Answer images batch by batch; when an overlay cannot be written, end after the answers that are there already."""
    failure: OSError | None = None
    for batch in batches(items, BATCH):
        readable = [item.content for item in batch if isinstance(item.content, bytes)]
        answers = iter(predictor.predict(readable))
        for item in batch:
            answer = item.content if isinstance(item.content, ImageError) else next(answers)
            overlay = ""
            if overlays is not None and failure is None and isinstance(answer, Prediction):
                path = overlays / overlay_name(item.name)
                try:
                    _write_whole(path, answer.overlay_png(overlay_class))
                    overlay = str(path)
                except OSError as error:
                    failure = error
            yield Row(item.name, answer, overlay)
        if failure is not None:
            raise failure


def _prepare(overlays: Path) -> None:
    """Make the folder of the overlays, and see that it takes a file, before anything is computed."""
    try:
        overlays.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=overlays):
            pass
    except OSError as error:
        raise ConfigError(
            f"--overlay {printable(str(overlays))} cannot be written to: {error.strerror}. Give a folder that can."
        ) from error


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def overlay_name(name: str) -> str:
    """Return a file name for an image's overlay: readable, safe on any disk, and different for different paths."""
    stem = "stdin" if name == STDIN else Path(name).stem
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in stem)[:60]
    return f"{safe.lstrip('.')}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}.png"


def _writer(options: argparse.Namespace, classes: Sequence[str], out: IO[str]) -> Writer:
    if options.json:
        return JsonWriter(out, options.top_k)
    if options.csv:
        return CsvWriter(out, classes, options.top_k)
    return TableWriter(out, options.top_k)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict.py",
        description="Predict images with a bundle: calibrated probabilities and, on request, Grad-CAM overlays.",
        epilog="Exit status: 0 all predicted, 1 some images refused, 2 wrong usage, a broken bundle or a full disk.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "images", nargs="*", default=[], metavar="IMAGE", help="files, folders, or - for one image on standard input"
    )
    source.add_argument("--stdin-list", action="store_true", help="read paths from standard input, one a line")
    parser.add_argument("--bundle", type=Path, help="the bundle's folder (default: the newest below outputs/)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="CSV")
    parser.add_argument("--top-k", type=_positive, metavar="K", help="name the K most probable classes")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write a Grad-CAM overlay of each image to DIR")
    parser.add_argument("--overlay-class", metavar="NAME", help="the class to explain (default: the predicted one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or torch")
    parser.add_argument("--precision", default="auto", choices=("auto", "f32", "bf16", "f16"))
    parser.add_argument("--threads", type=_positive, default=available_cores(), metavar="N", help="CPU threads")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _let_go(stream: IO[str]) -> None:
    """Lead what is left in a stream nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _utf8(stream: IO[str]) -> None:
    """Let any file name be printed, whatever the locale."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace")
