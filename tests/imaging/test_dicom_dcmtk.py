"""DICOM as OFFIS DCMTK shows it, an independent implementation in C++ (Debian's package dcmtk)."""

import io
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lesion.imaging import decode
from tests.support.images.dicom_files import dicom_file, table
from tests.support.images.hostile import gradient

pytestmark = [
    pytest.mark.slow,  # a process for each picture
    pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="there is no dcmtk (apt-get install dcmtk)"),
]

PICTURE = gradient() // 2 + np.random.default_rng(1).integers(0, 100, (48, 64, 3), dtype=np.uint8)
GRAY = np.ascontiguousarray(PICTURE[..., 0])
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def shown_by_dcmtk(data: bytes, folder: Path, *options: str) -> np.ndarray:
    """The picture as uint8 (H, W, 3)."""
    (folder / "in.dcm").write_bytes(data)
    program = "dcml2pnm" if b"1.2.840.10008.1.2.4.8" in data[:600] else "dcmj2pnm"
    run(program, *options, "--write-raw-pnm", folder / "in.dcm", folder / "out.pnm")
    return np.asarray(Image.open(io.BytesIO((folder / "out.pnm").read_bytes())).convert("RGB"))


def assert_same(data: bytes, folder: Path, *options: str, tolerance: int = 1) -> None:
    ours, theirs = decode.decode(data).astype(int), shown_by_dcmtk(data, folder, *options).astype(int)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance


def deep(bits: int, signed: bool) -> np.ndarray:
    values = np.round(GRAY * ((2**bits - 1) / 255)).astype(np.int32) - (2 ** (bits - 1) if signed else 0)
    pixels: np.ndarray = values.astype(np.int16 if signed else np.uint16)
    return pixels


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("bits", "syntax", "share", "rescale"),
    [
        (10, ExplicitVRLittleEndian, 1.0, {}),
        (12, ImplicitVRLittleEndian, 0.6, {"RescaleSlope": 2, "RescaleIntercept": -1024}),
        (16, ExplicitVRBigEndian, 0.2, {"RescaleSlope": 0.5, "RescaleIntercept": 3}),
    ],
)
def test_windows(
    kind: str, signed: bool, bits: int, syntax: str, share: float, rescale: dict[str, float], tmp_path: Path
):
    slope, intercept = rescale.get("RescaleSlope", 1), rescale.get("RescaleIntercept", 0)
    pixels = deep(bits, signed)
    data = dicom_file(
        pixels.byteswap() if syntax == ExplicitVRBigEndian else pixels,
        syntax=syntax,
        BitsStored=bits,
        PhotometricInterpretation=kind,
        WindowCenter=[(0 if signed else 2 ** (bits - 1)) * slope + intercept, 1],
        WindowWidth=[round(share * 2**bits * slope), 1],
        **rescale,
    )
    assert_same(data, tmp_path, "+Wi", "1")


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_sigmoid_windows(kind: str, tmp_path: Path):
    for center, width in itertools.product((1000, 2048), (500, 3000)):
        window = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": "SIGMOID"}
        data = dicom_file(deep(12, False), BitsStored=12, PhotometricInterpretation=kind, **window)
        assert_same(data, tmp_path, "+Wi", "1", "+Wfs")


@pytest.mark.parametrize(
    ("kind", "shape"), [("MONOCHROME2", "IDENTITY"), ("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "INVERSE")]
)
def test_presentation_shapes(kind: str, shape: str, tmp_path: Path):
    assert_same(dicom_file(GRAY, PhotometricInterpretation=kind, PresentationLUTShape=shape), tmp_path)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_tables_of_values_of_interest(bits: int, tmp_path: Path):
    entries = np.round(np.sqrt(np.arange(4096) / 4095) * (2**bits - 1)).astype(np.uint16)
    data = dicom_file(deep(12, False), BitsStored=12, VOILUTSequence=[table(entries, bits=bits)])
    assert_same(data, tmp_path, "+Wl", "1", tolerance=1 if bits > 8 else 2)


def test_modality_tables(tmp_path: Path):
    entries = np.round((1 - np.arange(4096) / 4095) * 65_535).astype(np.uint16)
    window = {"WindowCenter": 30_000, "WindowWidth": 40_000}
    data = dicom_file(deep(12, False), BitsStored=12, ModalityLUTSequence=[table(entries)], **window)
    assert_same(data, tmp_path, "+Wi", "1")


@pytest.mark.parametrize("high_bit", [11, 13, 15])
def test_bits_that_are_no_pixels(high_bit: int, tmp_path: Path):
    noise = np.random.default_rng(2).integers(0, 2**16, GRAY.shape, dtype=np.uint16)
    low = high_bit - 11
    stored = (noise & ~np.uint16(4095 << low)) | (deep(12, False) << low)
    data = dicom_file(stored, BitsStored=12, HighBit=high_bit, WindowCenter=2048, WindowWidth=4096)
    assert_same(data, tmp_path, "+Wi", "1")


def test_8_bits_without_a_window(tmp_path: Path):
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        assert_same(dicom_file(GRAY, PhotometricInterpretation=kind), tmp_path)
    assert_same(dicom_file((GRAY.astype(int) - 128).astype(np.int8)), tmp_path)
    assert_same(dicom_file(GRAY.astype(np.uint16), BitsStored=8), tmp_path)


def test_colors(tmp_path: Path):
    planes = np.ascontiguousarray(PICTURE.transpose(2, 0, 1)).tobytes()
    assert_same(dicom_file(PICTURE), tmp_path)
    assert_same(dicom_file(planes, shape=PICTURE.shape, PlanarConfiguration=1), tmp_path)
    # DCMTK cuts where pydicom and Lesion round.
    assert_same(dicom_file(PICTURE, PhotometricInterpretation="YBR_FULL"), tmp_path, tolerance=2)
    options = {"shape": PICTURE.shape, "PlanarConfiguration": 1, "PhotometricInterpretation": "YBR_FULL"}
    assert_same(dicom_file(planes, **options), tmp_path, tolerance=2)
    halved = np.ascontiguousarray(PICTURE.reshape(-1, 6)[:, [0, 3, 1, 2]]).tobytes()
    assert_same(
        dicom_file(halved, shape=PICTURE.shape, PhotometricInterpretation="YBR_FULL_422"), tmp_path, tolerance=2
    )
    assert_same(dicom_file(PICTURE.astype(np.uint16) << 8), tmp_path)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes(bits: int, tmp_path: Path):
    scale = 1 if bits == 8 else 257
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for index, color in enumerate(("Red", "Green", "Blue")):
        entries = np.arange(256) * (index + 3) % 256 * scale
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{color}PaletteColorLookupTableData"] = entries.astype("<u2").tobytes()
    assert_same(dicom_file(GRAY, **elements), tmp_path)


ENCODERS = {
    "baseline": ("dcmcjpeg", "+eb"),
    "baseline-420": ("dcmcjpeg", "+eb", "+s2"),
    "baseline-rgb": ("dcmcjpeg", "+eb", "+cr"),
    "extended": ("dcmcjpeg", "+ee"),
    "spectral-selection": ("dcmcjpeg", "+es"),
    "progressive": ("dcmcjpeg", "+ep"),
    "lossless-14": ("dcmcjpeg", "+el"),
    "lossless-sv1": ("dcmcjpeg", "+e1"),
    "jpeg-ls": ("dcmcjpls", "+el"),
    "jpeg-ls-near": ("dcmcjpls", "+en"),
    "jpeg-ls-planes": ("dcmcjpls", "+el", "+in"),
    "jpeg-ls-lines": ("dcmcjpls", "+el", "+il"),
    "rle": ("dcmcrle",),
    "deflated": ("dcmconv", "+td"),
    "big-endian": ("dcmconv", "+tb"),
    "implicit": ("dcmconv", "+ti"),
}


def encoded(data: bytes, folder: Path, command: tuple[str, ...]) -> bytes:
    (folder / "plain.dcm").write_bytes(data)
    run(*command, folder / "plain.dcm", folder / "encoded.dcm")
    return (folder / "encoded.dcm").read_bytes()


def identified(pixels: np.ndarray, **elements: Any) -> bytes:
    identifiers = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "SOPInstanceUID": "1.2.3"}
    return dicom_file(pixels, **identifiers, **elements)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_dcmtk_compressed(name: str, tmp_path: Path):
    """Gray of 8, color of 8 and gray of 12 bits, each as DCMTK decodes it itself."""
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    files = [identified(GRAY), identified(PICTURE)]
    if "baseline" not in name and name != "spectral-selection" and name != "progressive":
        files.append(identified(deep(12, False), BitsStored=12, **window))
    for number, plain in enumerate(files):
        data = encoded(plain, tmp_path, ENCODERS[name])
        assert_same(data, tmp_path, *(("+Wi", "1") if number == 2 else ()), tolerance=2 if "420" in name else 1)


@pytest.mark.parametrize("name", ["lossless-14", "lossless-sv1", "jpeg-ls", "jpeg-ls-planes", "jpeg-ls-lines", "rle"])
def test_what_dcmtk_compressed_without_loss(name: str, tmp_path: Path):
    for pixels in (GRAY, PICTURE):
        shown = decode.decode(encoded(identified(pixels), tmp_path, ENCODERS[name]))
        assert np.array_equal(shown, pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1))
    signed = identified(deep(16, True), WindowCenter=0, WindowWidth=65_536)
    assert np.array_equal(decode.decode(encoded(signed, tmp_path, ENCODERS[name])), decode.decode(signed))
