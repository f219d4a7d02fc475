"""One limit for one thing: what a server took can be trained on, and each door knows the same settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from lesion.catalogue.images import limits_of_accepted
from lesion.catalogue.import_run import import_manifest
from lesion.core.errors import ConfigError, DataError
from lesion.core.files import bytes_sha256
from lesion.data.cache import PixelCache
from lesion.data.datamodule import DataModule
from lesion.data.inspection import ImageRecord, inspect
from lesion.data.manifest import Manifest, build_manifest
from lesion.data.scan import scan_folders
from lesion.imaging.file_types import IMAGE_SUFFIXES, IMAGE_TYPES, readable_types
from lesion.imaging.limits import DEFAULT_LIMITS, Limits
from lesion.imaging.preprocessing import Preprocessing
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from serve.settings import ServerSettings
from tests.support.images.loop_images import new_storage, put_picture
from tests.support.paths import CONFIGS

FRACTIONS = {"train": 0.4, "val": 0.2, "calibration": 0.2, "test": 0.2}
WIDE = Limits(max_bytes=40 * 2**20, max_pixels=100_000_000, min_side=4)


def draw(path: Path, seed: int, width: int = 24, height: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path, compress_level=0)
    return path


def folder_with(root: Path, width: int, height: int) -> Path:
    """Two classes of small images, and in the first one an image of another size."""
    for number in range(12):
        draw(root / "ab"[number % 2] / f"{number:02}.png", number)
    draw(root / "a" / "other.png", 99, width, height)
    return root


SIZES = {"many bytes": (2800, 2600), "many pixels": (64, 64), "small": (8, 40)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIZES)
def test_a_manifest_of_accepted_images_can_be_trained_on(kind: str, tmp_path: Path) -> None:
    root, limits = folder_with(tmp_path / "data", *SIZES[kind]), WIDE
    if kind == "many pixels":  # under a server whose usual limit is lower than that of the manifest
        assert inspect(root / "a" / "other.png", Limits(max_pixels=4000)).code == "image_too_many_pixels"  # type: ignore[union-attr]
    rows = scan_folders(root)
    manifest = build_manifest("x", root, rows, fractions=FRACTIONS, progress=False, limits=limits)
    assert not manifest.refused
    saved = manifest.save(tmp_path / "manifest.parquet")
    module = DataModule("x", root, manifest=saved, size=16, batch_size=2)  # as a retraining does, without limits
    for split in ("train", "val", "calibration", "test"):
        dataset = module.dataset(split)
        assert all(dataset.pixels(row).shape == (16, 16, 3) for row in range(len(dataset)))


@pytest.mark.parametrize(("limits", "code"), [
    ({"max_image_bytes": 10_000}, "image_too_many_bytes"),
    ({"max_pixels": 3000}, "image_too_many_pixels"),
    ({"min_side": 20}, ""),
])  # fmt: skip
def test_a_training_refuses_by_its_settings(limits: dict[str, int], code: str, tmp_path: Path) -> None:
    root = folder_with(tmp_path, 64, 64)
    module = DataModule("x", root, size=16, batch_size=2, fractions=FRACTIONS, limits=limits)
    assert [(row["path"], row["code"]) for row in module.manifest.refused] == ([("a/other.png", code)] if code else [])


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_bytes": 5}, "data.limits has no setting max_bytes; it has max_image_bytes, max_pixels, min_side"),
        ({"min_side": 0}, "data.limits.min_side=0 must be a whole number, more than 0"),
        ({"max_pixels": "5"}, "data.limits.max_pixels=5 must be a whole number"),
        ({"max_image_bytes": True}, "data.limits.max_image_bytes=True must be a whole number"),
    ],
)
def test_limits_that_cannot_be_used_are_refused(limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits.from_settings(limits)
    assert sentence in caught.value.message


def test_all_doors_have_the_same_limits() -> None:
    server = OmegaConf.load(CONFIGS / "serve.yaml").server
    assert ServerSettings().image_limits == DEFAULT_LIMITS == Limits.from_settings({})
    assert Limits(server.max_image_bytes, server.max_pixels, server.min_side) == DEFAULT_LIMITS
    assert OmegaConf.load(CONFIGS / "data" / "image_folder.yaml").limits == {}
    assert not [name for name in IntakeSettings.__dataclass_fields__ if "side" in name or "bytes" in name]


def test_a_larger_image_fits_into_a_body() -> None:
    usual = ServerSettings()
    assert ServerSettings.from_config({"max_image_bytes": usual.max_image_bytes}) == usual
    large = ServerSettings.from_config({"max_image_bytes": 100 * 2**20})
    for size in (large.max_body_bytes, large.max_upload_bytes, large.max_held_bytes):
        assert size == 101 * 2**20
    some = ServerSettings.from_config({"max_image_bytes": 40 * 2**20, "max_body_bytes": 2**30})
    assert (some.max_body_bytes, some.max_upload_bytes) == (2**30, 64 * 2**20)
    assert ServerSettings(max_body_bytes=5).max_body_bytes == 5  # a server may also take less than its images may have


def test_the_catalogue_knows_what_was_accepted(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    with storage.session() as session:
        assert limits_of_accepted(session) == DEFAULT_LIMITS
    put_picture(storage, tmp_path, 1, bytes=30 * 2**20, width=70_000, height=50_000)
    put_picture(storage, tmp_path, 2, width=300, height=9)
    put_picture(storage, tmp_path, 3, width=3, height=3, status="quarantined")
    with storage.session() as session:
        assert limits_of_accepted(session) == Limits(30 * 2**20, 3_500_000_000, 9)


@pytest.mark.slow
def test_a_run_with_large_images_is_imported(tmp_path: Path) -> None:
    root = folder_with(tmp_path / "data", *SIZES["many bytes"])
    rows = scan_folders(root)
    manifest = build_manifest("x", root, rows, fractions=FRACTIONS, progress=False, limits=WIDE)
    storage = new_storage(tmp_path)
    import_manifest(storage, manifest, progress=False)
    with storage.session() as session:
        assert limits_of_accepted(session).max_bytes > DEFAULT_LIMITS.max_bytes


def test_the_cache_of_pixels_has_the_limits_of_its_data(tmp_path: Path) -> None:
    path = draw(tmp_path / "x.png", 1, 40, 8)
    record = inspect(path, WIDE)
    assert isinstance(record, ImageRecord)
    pixels = PixelCache(None, Preprocessing(16), WIDE).get(path, bytes_sha256(path.read_bytes()))
    assert pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("facts", "limits"),
    [
        ({}, DEFAULT_LIMITS),
        ({"config": {"data": {"limits": None}}}, DEFAULT_LIMITS),
        ({"config": {"data": {"limits": {"max_image_bytes": 5, "min_side": 3}}}}, Limits(max_bytes=5, min_side=3)),
    ],
)
def test_a_bundle_predicts_within_the_limits_of_its_training(facts: Any, limits: Limits, tmp_path: Path) -> None:
    assert Bundle(tmp_path, facts).limits == limits


def test_the_table_of_types_is_the_only_one() -> None:
    assert {suffix for suffixes in IMAGE_TYPES.values() for suffix in suffixes} == IMAGE_SUFFIXES
    assert [name for name in IMAGE_TYPES if name != "DICOM"] == [name for name in readable_types() if name != "DICOM"]


def test_a_manifest_without_images_has_the_usual_limits(tmp_path: Path) -> None:
    root = folder_with(tmp_path, 24, 24)
    with pytest.raises(DataError, match="None of the 13 images"):
        build_manifest("x", root, scan_folders(root), fractions=FRACTIONS, progress=False, limits=Limits(min_side=100))
    manifest = build_manifest("x", root, scan_folders(root), fractions=FRACTIONS, progress=False)
    empty = Manifest("x", root, manifest.table.iloc[:0], ("a", "b"), "grouped", 0)
    assert (manifest.limits, empty.limits) == (DEFAULT_LIMITS, DEFAULT_LIMITS)
