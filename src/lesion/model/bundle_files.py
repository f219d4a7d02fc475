"""The files of a bundle: names on a list, and types that cannot run code when they are read."""

import math
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError
from lesion.core.files import FileFacts, file_sha256
from lesion.core.protobuf import read_fields, read_packed
from lesion.model.bundle_facts import FACTS_FILE

REQUIRED = frozenset({"model.onnx", "model.safetensors", "golden.npz", "domain.npz", "MODEL_CARD.md"})
_OPTIONAL = re.compile(r"report/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}\.(html|json|csv|png)")
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy"})
_MAX_ARRAYS_BYTES = 256 * 2**20
_MAX_SAFETENSORS_HEADER = 100 * 2**20  # the format's own limit
# ONNX (onnx.proto3): the fields of each message that have tensors, operators, or messages with such.
_PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_NODE_DOMAIN, _OPERATOR_DOMAINS = 7, (b"", b"ai.onnx")
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_DATA, _TENSOR_ELSEWHERE, _TENSOR_PLACE = 1, 2, 9, 13, 14
_TENSOR_WIDTHS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # bytes, by type
_MOST_NESTED = 32


class BundleFileError(BundleError):
    """A file of a bundle whose content is not what its name says."""

    default_code = "bundle_file_invalid"


def list_files(folder: Path) -> set[str]:
    """Return every file under a folder as a relative name; links and special files are refused, not followed."""
    names = set()
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                    raise BundleError(
                        f"{name!r} is a link or a special file; a bundle holds only plain files.", code="bundle_link"
                    )
                else:
                    names.add(name)
    return names


def check_names(present: Set[str], listed: Iterable[str]) -> None:
    """Refuse a set of files that is not exactly the listed one, or a name that does not belong to a bundle.

    Both are relative names; ``bundle.json`` itself is never listed.
    """
    names = set(listed)
    for name in sorted(names):
        if name not in REQUIRED and not _OPTIONAL.fullmatch(name):
            raise _unexpected(name)
    if missing := sorted((names | REQUIRED) - present):
        raise BundleError(
            f"The bundle lacks {', '.join(missing)}. Copy the whole bundle again, or export the model again.",
            code="bundle_file_missing",
        )
    if extra := sorted(present - names - {FACTS_FILE}):
        raise _unexpected(extra[0])


def check_file(path: Path, name: str, expected: FileFacts) -> None:
    """Refuse a file whose size, hash or type is not as its bundle's facts and its name say."""
    fault = ""
    if (size := path.stat().st_size) != expected["bytes"]:
        fault = f"has {size} bytes instead of {expected['bytes']}: it is truncated or was edited"
    elif file_sha256(path) != expected["sha256"]:
        fault = "was edited after the bundle was sealed"
    if fault:
        raise BundleError(f"{name} {fault}. Copy or export the bundle again.", code="bundle_file_altered")
    check_content(path, name)


def check_content(path: Path, name: str) -> None:
    """Refuse a file whose content is not what its name says, in particular a pickle under another name."""
    with path.open("rb") as file:
        head = file.read(16)
    if name == "model.onnx":
        _refuse_pickle(head, name)
        try:
            _check_graph(memoryview(path.read_bytes()), "model")
        except ValueError as error:
            raise BundleFileError(f"model.onnx is not a whole ONNX file: {error}.") from error
    elif name == "model.safetensors":
        _refuse_pickle(head, name)
        length = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or length > min(path.stat().st_size - 8, _MAX_SAFETENSORS_HEADER):
            raise BundleFileError("model.safetensors is not a safetensors file.")


def _check_graph(message: memoryview, kind: str, depth: int = 0) -> None:
    """Refuse a part of an ONNX file with data outside of it, tensors of a wrong size, or operators of others."""
    if depth > _MOST_NESTED:
        raise ValueError(f"its parts are nested more than {_MOST_NESTED} deep")
    if kind == "tensor":
        _check_tensor(message)
        return
    for number, value in read_fields(message):
        if kind == "node" and number == _NODE_DOMAIN and bytes(_bytes(value)) not in _OPERATOR_DOMAINS:
            raise BundleFileError(f"model.onnx needs operators of {bytes(_bytes(value))[:80]!r}, which ONNX has not.")
        if (inner := _PARTS[kind].get(number)) is not None:
            _check_graph(_bytes(value), inner, depth + 1)


def _check_tensor(message: memoryview) -> None:
    """Refuse a tensor whose data is elsewhere or has another size than its shape.

    An ONNX tensor may be in another file, anywhere on the disk; ONNX runtimes take some of its places for addresses of
    their own memory.
    """
    count, width, data = 1, None, None
    for number, value in read_fields(message):
        if number == _TENSOR_ELSEWHERE or (number == _TENSOR_PLACE and value != 0):
            raise BundleError(
                "model.onnx refers to data in other files, which is not allowed in a bundle.",
                code="bundle_external_data",
            )
        if number == _TENSOR_SHAPE:
            count *= math.prod(read_packed(value))
        elif number == _TENSOR_TYPE and isinstance(value, int):
            width = _TENSOR_WIDTHS.get(value)
        elif number == _TENSOR_DATA:
            data = len(_bytes(value))
    if data is not None and width is not None and data != count * width:
        raise ValueError(f"a tensor has {data} bytes instead of {count * width}")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a text or a part is expected")
    return value


def read_golden(path: Path, size: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read the golden images, (G, size, size, 3) uint8, and answers, (G, classes) float32, without unpickling.

    A file that does not hold exactly these arrays is a BundleError.
    """
    arrays = read_arrays(path, ("images", "probabilities"))
    images, probabilities = arrays["images"], arrays["probabilities"]
    valid = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == (size, size, 3) and len(images) > 0
    if not valid or probabilities.dtype != np.float32 or probabilities.shape != (len(images), classes):
        raise BundleFileError(
            f"golden.npz holds images {images.dtype}{images.shape} and probabilities {probabilities.dtype}"
            f"{probabilities.shape}; uint8 (G, {size}, {size}, 3) and float32 (G, {classes}) are needed."
        )
    return images, probabilities


def read_arrays(path: Path, names: Sequence[str], *others: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read exactly the named arrays of an ``.npz``, or ``others``, without unpickling; or raise a BundleError."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_ARRAYS_BYTES:
                raise BundleFileError(f"{path.name} unpacks to more than 256 MiB.")
        with np.load(path, allow_pickle=False) as arrays:
            if sorted(arrays.files) not in [sorted(each) for each in (names, *others)]:
                raise BundleFileError(f"{path.name} must hold exactly {', '.join(names)}.")
            return {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError, NotImplementedError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            message = f"{path.name} holds Python objects, which are never unpickled."
            raise BundleError(message, code="bundle_pickle") from error
        raise BundleFileError(f"{path.name} cannot be read: {error}") from error


def _refuse_pickle(head: bytes, name: str) -> None:
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}):
        # safetensors may start with 0x80 when its header is 128 + 256k bytes long; then a brace follows at byte 8
        if name.endswith(".safetensors") and head[8:9] == b"{":
            return
        raise BundleError(
            f"{name} is a Python pickle or a torch archive under another name; those are never opened.",
            code="bundle_pickle",
        )


def _unexpected(name: str) -> BundleError:
    if PurePosixPath(name).suffix.lower() in _PICKLE_SUFFIXES:
        return BundleError(
            f"The bundle holds {name!r}, a pickled file, which could run code. Bundles never do: export the model with "
            "this version of Lesion.",
            code="bundle_pickle",
        )
    return BundleError(f"The bundle holds {name!r}, which does not belong to a bundle.", code="bundle_file_unexpected")
