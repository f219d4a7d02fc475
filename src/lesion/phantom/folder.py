"""Writes phantoms as a plain image folder, one subfolder per class."""

import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError, DataError
from lesion.phantom.lesions import CLASSES
from lesion.phantom.patient import MAX_SIZE, MAX_SLICES, MIN_SIZE, Patient

PARAMETERS_FILE = ".phantom.json"
VERSION = 1  # increase it when the same parameters give other pixels, so that older folders are not reused
MAX_PATIENTS = 9999


def generate(
    root: Path,
    *,
    patients: int = 240,
    slices: int = 4,
    size: int = 224,
    seed: int = 0,
    low_field: bool = False,
    masks: bool = False,
    workers: int | None = None,
) -> Path:
    """Write phantoms to ``root/<class>/patient0007_slice02.png``, and return ``root``.

    Each picture depends only on ``seed``, the patient's number and the slice: with more patients the first ones stay
    the same, and neither ``workers`` nor the order changes a byte. The folder appears only when it is complete.

    Args:
        root: The folder to create; one that was created with the same parameters is used as it is.
        patients: The number of patients; the four classes alternate.
        slices: The number of slices of each patient.
        size: Side of the images in pixels.
        seed: Of the random numbers.
        masks: Write where the tumor is as well, as ``root/masks/<class>/patient0007_slice02.png``.
        low_field: Use another scanner, on which a model trained with the usual one performs worse.
        workers: The number of processes; by default one per processor core.

    Raises:
        ConfigError: A number is out of range.
        DataError: ``root`` contains something else.
    """
    parameters = {"version": VERSION, "patients": patients, "slices": slices, "size": size, "seed": seed}
    parameters |= {"low_field": True} if low_field else {}
    parameters |= {"masks": True} if masks else {}
    _check(patients, slices, size, seed, workers)
    root = Path(root)
    if _exists(root, parameters):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    partial_root = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        for name in CLASSES:
            (partial_root / name).mkdir()
        write = partial(_write_patient, partial_root, slices, size, seed, low_field, masks)
        _write_all(write, patients, workers or available_cores())
        (partial_root / PARAMETERS_FILE).write_text(json.dumps(parameters) + "\n", encoding="utf-8")
        partial_root.chmod(0o755)  # mkdtemp lets only the owner in
        try:
            partial_root.rename(root)
        except OSError:  # another process was faster: use its folder if it is the same
            if not _exists(root, parameters):
                raise
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)
    return root


def _check(patients: int, slices: int, size: int, seed: int, workers: int | None) -> None:
    for name, value, low, high in (
        ("patients", patients, len(CLASSES), MAX_PATIENTS),
        ("slices", slices, 1, MAX_SLICES),
        ("size", size, MIN_SIZE, MAX_SIZE),
        ("seed", seed, 0, 2**63 - 1),
        ("workers", 1 if workers is None else workers, 1, 256),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(
                f"Phantoms cannot be made with {name}={value!r}: choose a whole number from {low} to {high}."
            )


def _exists(root: Path, parameters: dict[str, Any]) -> bool:
    """Return whether ``root`` contains exactly these phantoms; refuse a folder with anything else in it."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        existing = json.loads((root / PARAMETERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{root} exists and contains something other than phantoms: choose another folder.") from None
    if existing != parameters:
        raise DataError(
            f"{root} contains phantoms made with {existing}, but {parameters} are requested: choose another folder, or "
            "delete it."
        )
    return True


def _write_all(write: Callable[[int], None], patients: int, workers: int) -> None:
    if workers == 1:
        _keep_freed_memory()
        list(map(write, range(patients)))
        return
    # spawn: the caller may have threads (torch, OpenVINO) that a fork would copy in an unusable state
    with ProcessPoolExecutor(min(workers, patients), get_context("spawn"), _keep_freed_memory) as pool:
        list(pool.map(write, range(patients), chunksize=4))


def _keep_freed_memory() -> None:
    """Halve the time: otherwise each temporary array comes from the kernel, which clears it page by page.

    Up to the size of the largest block freed so far, glibc keeps freed memory (M_MMAP_THRESHOLD in mallopt(3)).
    """
    np.empty(2**24, dtype=np.uint8)


def _write_patient(root: Path, slices: int, size: int, seed: int, low_field: bool, masks: bool, number: int) -> None:
    patient = Patient.sample(seed, number, low_field)
    for index in range(slices):
        image, mask = patient.slice(index, slices=slices, size=size)
        name = f"patient{number:04d}_slice{index:02d}.png"
        Image.fromarray(image).save(root / patient.label / name, compress_level=1)
        if masks and mask.any():
            folder = root / "masks" / patient.label
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(folder / name, compress_level=1)
