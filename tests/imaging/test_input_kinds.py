"""The table of files that can be read: each row is true, and the page shows it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode
from lesion.imaging.file_types import is_image_name
from lesion.imaging.input_kinds import INPUT_KINDS
from lesion.imaging.limits import Limits
from scripts.dev.list_inputs import inputs_page
from tests.support.images.hostile import encode, gradient, hostile_images
from tests.support.images.png_files import png_file
from tests.support.images.tiff_files import Page, longs, tiff_file

COLOR = gradient()
PICTURE = Image.fromarray(COLOR)
SEVERAL = ("MPO", "PNG", "WEBP")  # kinds of files with several pictures
HOSTILE = {name: file.data for name, file in hostile_images().items()}


@cache
def samples() -> dict[str, bytes]:
    """A file for each row, by the beginning of its name."""
    jpeg = encode(COLOR, "JPEG")
    several = {kind: encode(PICTURE, kind, save_all=True, append_images=[PICTURE.rotate(9)]) for kind in SEVERAL}
    place = jpeg.index(b"\xff\xc0") + 4
    reduced = Page(COLOR[::2, ::2], 2, tags={254: longs(1)})
    files = {
        "JPEG: gray": jpeg,
        "JPEG without": jpeg[:-2],
        "JPEG with 12": jpeg[:place] + b"\x0c" + jpeg[place + 1 :],
        "MPO": several["MPO"],
        "PNG: gray": png_file(COLOR.astype(np.uint16) * 257, "RGB", 16, interlaced=True),
        "PNG without": encode(COLOR)[:-12],
        "APNG": several["PNG"],
        "WebP: lossy": encode(COLOR, "WEBP"),
        "WebP with": several["WEBP"],
        "BMP: 1": encode(COLOR, "BMP"),
        "BMP with": HOSTILE["run_lengths.bmp"],
        "TIFF: gray": tiff_file(Page(COLOR, 2, planar=True)),
        "TIFF with a thumbnail": tiff_file(reduced, Page(COLOR, 2)),
        "TIFF with several": tiff_file(Page(COLOR, 2), Page(COLOR, 2)),
        "TIFF with fractions": HOSTILE["float.tif"],
        "TIFF with values": HOSTILE["negative.tif"],
        "TIFF with a camera": tiff_file(Page(COLOR[..., :1], 32803)),
        "BigTIFF": b"II\x2b\0\x08\0\0\0" + bytes(200),
        "GIF": encode(PICTURE, "GIF"),
        "AVIF": HOSTILE["photo.avif"],
        "HEIC": HOSTILE["photo.heic"],
        "HEIF": b"\0\0\0\x14ftypmif1\0\0\0\0mif1" + bytes(200),
        "JPEG XL": b"\xff\x0a" + bytes(200),
        "JPEG 2000": encode(PICTURE, "JPEG2000"),
        "SVG": HOSTILE["drawing.svg"],
        "PDF": HOSTILE["page.pdf"],
        "PSD": HOSTILE["layers.psd"],
        "NIfTI": HOSTILE["volume.nii"],
        "a text": HOSTILE["web_page.png"],
        "an empty": b"",
        "a file that lacks": jpeg[:-40],
        "a file that contradicts": HOSTILE["two_sizes.png"],
        "more bytes": encode(COLOR) + bytes(20 * 2**20),
        "more pixels": HOSTILE["50000x50000.png"],
        "more than 6 bytes": HOSTILE["6000x6000.webp"],
        "a side": HOSTILE["thin.png"],
    }
    return files | dicom_samples()


def dicom_samples() -> dict[str, bytes]:
    try:
        from tests.support.images.dicom_files import dicom_file
    except ImportError:
        return {}
    gray = np.ascontiguousarray(COLOR[..., 0])
    frames = dicom_file(np.concatenate([gray, gray]).tobytes(), shape=gray.shape, NumberOfFrames=2)
    return {"DICOM with one": dicom_file(gray), "DICOM with several": frames}


@pytest.mark.parametrize("kind", INPUT_KINDS, ids=[kind.name[:24] for kind in INPUT_KINDS])
def test_each_row_is_true(kind):
    found = [data for name, data in samples().items() if kind.name.startswith(name)]
    if kind.name.startswith("DICOM") and not found:
        pytest.skip("the extra lesion[dicom] is optional")
    (data,) = found
    if kind.code is None:
        assert decode(data).shape == COLOR.shape
        return
    with pytest.raises(ImageError) as refusal:
        decode(data, Limits())
    assert refusal.value.code == kind.code


def test_every_refusal_of_the_decoder_is_in_the_table():
    codes = {file.code for file in hostile_images().values() if file.code}
    assert codes <= {kind.code for kind in INPUT_KINDS}


def test_the_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "inputs.md"
    assert page.read_text("utf-8") == inputs_page(), "run python scripts/dev/list_inputs.py"


def test_suffixes_of_refused_pictures():
    suffixes = [kind.suffix for kind in INPUT_KINDS if kind.suffix]
    assert len(suffixes) > 5
    assert not any(map(is_image_name, [f"x{suffix}" for suffix in suffixes]))
