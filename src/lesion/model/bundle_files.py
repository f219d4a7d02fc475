"""What may lie in a bundle: names on a list, types that cannot run code when they are read."""

import re
import zipfile
from collections.abc import Iterable, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion.core.errors import BundleError

REQUIRED = frozenset({"model.onnx", "model.safetensors", "golden.npz", "domain.npz", "MODEL_CARD.md"})
_OPTIONAL = re.compile(r"report/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}\.(html|json|csv|png)")
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy"})
_MAX_ARRAYS_BYTES = 256 * 2**20
_MAX_SAFETENSORS_HEADER = 100 * 2**20  # the format's own limit


def check_names(present: Set[str], listed: Iterable[str], facts_file: str) -> None:
    """Refuse a set of files that is not exactly the listed one, or a name that is not on the list of names.

    Args:
        present: Relative names of the files in the folder.
        listed: Relative names that the facts list.
        facts_file: The name of the file of facts, which is present and never listed.
    """
    names = set(listed)
    for name in sorted(names):
        if name not in REQUIRED and not _OPTIONAL.fullmatch(name):
            raise _unexpected(name)
    missing = sorted((names | REQUIRED) - present)
    if missing:
        raise BundleError(
            f"The bundle lacks {', '.join(missing)}. Copy it again as a whole, or export the model again.",
            code="bundle_file_missing",
        )
    extra = sorted(present - names - {facts_file})
    if extra:
        raise _unexpected(extra[0])


def check_content(path: Path, name: str) -> None:
    """Refuse a file whose content is not what its name says, above all a pickle under another name."""
    with path.open("rb") as file:
        head = file.read(16)
    if name == "model.onnx":
        _refuse_pickle(head, name)
        # An ONNX tensor may lie in another file, anywhere on the disk; its place is stored under the key "location".
        if b"\n\x08location" in path.read_bytes():
            raise BundleError(
                "model.onnx refers to data outside itself, which a bundle must not.", code="bundle_external_data"
            )
    elif name == "model.safetensors":
        _refuse_pickle(head, name)
        length = int.from_bytes(head[:8], "little")
        if head[8:9] != b"{" or length > min(path.stat().st_size - 8, _MAX_SAFETENSORS_HEADER):
            raise BundleError("model.safetensors is not a safetensors file.", code="bundle_file_invalid")


def read_golden(path: Path, size: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read the golden images and answers without unpickling.

    Args:
        path: ``golden.npz``.
        size: Side of the images in pixels.
        classes: The number of classes.

    Returns:
        (G, size, size, 3) uint8 images and (G, classes) float32 probabilities.

    Raises:
        BundleError: The file holds pickled objects (``bundle_pickle``), or not what it should
            (``bundle_file_invalid``).
    """
    arrays = read_arrays(path, ("images", "probabilities"))
    images, probabilities = arrays["images"], arrays["probabilities"]
    right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == (size, size, 3) and len(images) > 0
    if not right or probabilities.dtype != np.float32 or probabilities.shape != (len(images), classes):
        raise BundleError(
            f"golden.npz holds images {images.dtype}{images.shape} and probabilities {probabilities.dtype}"
            f"{probabilities.shape}; uint8 (G, {size}, {size}, 3) and float32 (G, {classes}) are needed.",
            code="bundle_file_invalid",
        )
    return images, probabilities


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` without unpickling.

    Args:
        path: The file.
        names: What it must hold, no more and no less.

    Raises:
        BundleError: The file holds pickled objects (``bundle_pickle``), or not what it should
            (``bundle_file_invalid``).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_ARRAYS_BYTES:
                raise BundleError(f"{path.name} unpacks to more than 256 MiB.", code="bundle_file_invalid")
        with np.load(path, allow_pickle=False) as arrays:
            if sorted(arrays.files) != sorted(names):
                raise BundleError(f"{path.name} must hold {', '.join(names)} alone.", code="bundle_file_invalid")
            return {name: arrays[name] for name in names}
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError, NotImplementedError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise BundleError(
                f"{path.name} holds Python objects, which are never unpickled.", code="bundle_pickle"
            ) from error
        raise BundleError(f"{path.name} cannot be read: {error}", code="bundle_file_invalid") from error


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
            f"The bundle holds {name!r}, a pickled file, which could run code. Bundles hold none: export the model "
            "with this version of Lesion.",
            code="bundle_pickle",
        )
    return BundleError(f"The bundle holds {name!r}, which does not belong to a bundle.", code="bundle_file_unexpected")
