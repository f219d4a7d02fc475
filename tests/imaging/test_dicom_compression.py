"""Compressed DICOM: each stream made by an encoder, and compared with what went in."""

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lesion.core.errors import ImageError
from lesion.imaging import decode
from lesion.imaging.limits import Limits
from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import encode, gradient

pydicom = pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
from pydicom.pixels.utils import pixel_array  # noqa: E402

PICTURE = gradient()
SMOOTH = np.ascontiguousarray(PICTURE[..., 0])
DEEP = np.round(SMOOTH * (4095 / 255)).astype(np.uint16)
NOISE = PICTURE // 2 + np.random.default_rng(0).integers(0, 64, PICTURE.shape, dtype=np.uint8)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
SIGNED_WINDOW = {"WindowCenter": 0, "WindowWidth": 4096}


def compressed(frame: bytes, like: np.ndarray, syntax: UID, *, fragments: int = 1, **elements: Any) -> bytes:
    """A file of one compressed picture, whose elements are those of the picture ``like``."""
    bits = like.dtype.itemsize * 8
    options = {"BitsAllocated": bits, "PixelRepresentation": int(like.dtype.kind == "i")}
    options["BitsStored"] = elements.get("BitsStored", bits)
    options["HighBit"] = options["BitsStored"] - 1
    data = encapsulate([frame], fragments_per_frame=fragments)
    return dicom_file(data, shape=like.shape, syntax=syntax, **options | elements)


def renamed(data: bytes, syntax: str) -> bytes:
    """The file of the syntax JPEG 2000, under another one that pydicom may not know."""
    return data.replace(b"UI" + _value(JPEG2000.encode()), b"UI" + _value(syntax.encode()))


def _value(text: bytes) -> bytes:
    even = text + bytes(len(text) % 2)
    return struct.pack("<H", len(even)) + even


def gray(data: bytes) -> np.ndarray:
    return decode.decode(data)[..., 0]


def code(data: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode.decode(data, Limits(max_pixels=10**7))
    return refused.value.code


def jpeg_ls(picture: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpegls_encode(picture, **options))


def jpeg_2000(picture: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(picture, level=0, codecformat="j2k", **options))


def high_throughput(picture: np.ndarray) -> bytes:
    """By OpenJPH, while OpenJPEG decodes it."""
    return bytes(imagecodecs.htj2k_encode(picture))


def lossless_jpeg(picture: np.ndarray, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(picture, lossless=True, **options))


LOSSLESS = [
    (jpeg_ls, JPEGLSLossless),
    (jpeg_ls, JPEGLSNearLossless),
    (jpeg_2000, JPEG2000Lossless),
    (jpeg_2000, JPEG2000),
    (high_throughput, HTJ2KLossless),
    (high_throughput, HTJ2KLosslessRPCL),
    (high_throughput, HTJ2K),
    (lossless_jpeg, JPEGLossless),
    (lossless_jpeg, JPEGLosslessSV1),
]
NAMES = [f"{syntax.name} by {encoder.__name__}" for encoder, syntax in LOSSLESS]


@pytest.mark.parametrize(("encoder", "syntax"), LOSSLESS, ids=NAMES)
def test_lossless_compressions_give_back_what_went_in(encoder, syntax: UID):
    assert np.array_equal(gray(compressed(encoder(SMOOTH), SMOOTH, syntax)), SMOOTH)
    assert np.array_equal(decode.decode(compressed(encoder(NOISE), NOISE, syntax)), NOISE)
    deep = compressed(encoder(DEEP), DEEP, syntax, **WINDOW)
    assert np.array_equal(gray(deep), gray(dicom_file(DEEP, **WINDOW)))
    assert decode.probe(deep).mode == "I;16"


@pytest.mark.parametrize(("encoder", "syntax"), LOSSLESS, ids=NAMES)
def test_signed_pixels(encoder, syntax: UID):
    """JPEG and JPEG-LS know no sign: there, as in many files of JPEG 2000, the same bits are stored without one."""
    signed = DEEP.astype(np.int16) - 2048
    expected = gray(dicom_file(signed, **SIGNED_WINDOW))
    assert np.array_equal(gray(compressed(encoder(signed.view(np.uint16)), signed, syntax, **SIGNED_WINDOW)), expected)
    if encoder is jpeg_2000:
        assert np.array_equal(gray(compressed(encoder(signed), signed, syntax, **SIGNED_WINDOW)), expected)


def test_12_bits_signed_in_a_stream_without_a_sign():
    signed = DEEP.astype(np.int16) - 2048
    stream = lossless_jpeg(signed.view(np.uint16) & 0xFFF, bitspersample=12)
    data = compressed(stream, signed, JPEGLosslessSV1, BitsStored=12, **SIGNED_WINDOW)
    assert np.array_equal(gray(data), gray(dicom_file(signed, **SIGNED_WINDOW)))


@pytest.mark.parametrize("predictor", range(1, 8))
def test_all_predictors_of_lossless_jpeg(predictor: int):
    stream = lossless_jpeg(DEEP, bitspersample=12, predictor=predictor)
    data = compressed(stream, DEEP, JPEGLossless, BitsStored=12, **WINDOW)
    assert np.array_equal(gray(data), gray(dicom_file(DEEP, **WINDOW)))


def test_12_bits_of_extended_jpeg():
    stream = bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=98))
    data = compressed(stream, DEEP, JPEGExtended12Bit, BitsStored=12, **WINDOW)
    assert np.abs(gray(data).astype(int) - gray(dicom_file(DEEP, **WINDOW))).max() <= 2


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_gray_jpeg(kind: str):
    stream = encode(SMOOTH, "JPEG", quality=98, progressive=kind == "progressive")
    syntax = JPEGBaseline8Bit if kind == "baseline" else UID("1.2.840.10008.1.2.4.55")  # retired, and still around
    assert np.abs(gray(compressed(stream, SMOOTH, syntax)).astype(int) - SMOOTH).max() <= 3


def plain_jpeg(**options: Any) -> bytes:
    """A JPEG without any marker about its colors."""
    stream = encode(PICTURE, "JPEG", quality=95, **options)
    (length,) = struct.unpack_from(">H", stream, 4)
    assert stream[2:4] == b"\xff\xe0"
    return stream[:2] + stream[4 + length :]


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


@pytest.mark.parametrize("interpretation", ["YBR_FULL_422", "YBR_FULL", "RGB"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_colors_of_a_jpeg_are_those_that_its_markers_name(interpretation: str, subsampling: str):
    """Luma and color differences with the marker of JFIF or of Adobe, whatever the elements of the file name."""
    for stream in (
        encode(PICTURE, "JPEG", quality=95, subsampling=subsampling),
        b"\xff\xd8" + ADOBE + b"\1" + plain_jpeg(subsampling=subsampling)[2:],
    ):
        data = compressed(stream, PICTURE, JPEGBaseline8Bit, PhotometricInterpretation=interpretation)
        assert np.abs(decode.decode(data).astype(int) - PICTURE).max() <= 16
        assert np.abs(decode.decode(data).astype(int) - decode.decode(stream)).max() <= 2


def rgb_jpeg(*, names: bytes = b"\1\2\3", marker: bytes = b"") -> bytes:
    """A JPEG of red, green and blue as they are, whose components have other names or a marker."""
    stream = encode(PICTURE, "JPEG", quality=95, keep_rgb=True)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    body = bytearray(stream[20 if stream[2:4] == b"\xff\xe0" else 2 :])
    offset = len(stream) - len(body)
    for index in range(3):
        body[frame - offset + 10 + 3 * index] = names[index]
        body[scan - offset + 5 + 2 * index] = names[index]
    return b"\xff\xd8" + marker + bytes(body)


def test_a_jpeg_of_rgb():
    for stream, interpretation in (
        (rgb_jpeg(), "RGB"),
        (rgb_jpeg(names=b"RGB"), "RGB"),
        (rgb_jpeg(names=b"RGB"), "YBR_FULL_422"),
        (rgb_jpeg(marker=ADOBE + b"\0"), "RGB"),
        (rgb_jpeg(marker=ADOBE + b"\0"), "YBR_FULL"),
    ):
        data = compressed(stream, PICTURE, JPEGBaseline8Bit, PhotometricInterpretation=interpretation)
        assert np.abs(decode.decode(data).astype(int) - PICTURE).max() <= 8, interpretation


def test_a_jpeg_without_markers_has_the_colors_that_the_file_names():
    data = compressed(plain_jpeg(), PICTURE, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")
    assert np.abs(decode.decode(data).astype(int) - PICTURE).max() <= 16
    assert np.array_equal(decode.decode(data), pixel_array(pydicom.dcmread(io.BytesIO(data))))


@pytest.mark.parametrize("interpretation", ["YBR_RCT", "YBR_ICT", "RGB"])
def test_the_color_transformation_of_jpeg_2000_is_undone_once(interpretation: str):
    stream = encode(PICTURE, "JPEG2000", irreversible=False, no_jp2=True, mct=1)
    data = compressed(stream, PICTURE, JPEG2000Lossless, PhotometricInterpretation=interpretation)
    assert np.array_equal(decode.decode(data), PICTURE)
    assert np.array_equal(decode.decode(data), pixel_array(pydicom.dcmread(io.BytesIO(data))))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_color_differences_in_a_lossless_stream(syntax: UID):
    differences: dict[str, Any] = {"PhotometricInterpretation": "YBR_FULL"}
    if syntax == RLELossless:
        data = rle(NOISE, **differences)
    else:
        stream = jpeg_2000(NOISE, mct=False) if syntax == JPEG2000Lossless else jpeg_ls(NOISE)
        data = compressed(stream, NOISE, syntax, **differences)
    assert np.array_equal(decode.decode(data), decode.decode(dicom_file(NOISE, **differences)))


def test_a_palette_is_compressed_too():
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for index, color in enumerate(("Red", "Green", "Blue")):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        elements[f"{color}PaletteColorLookupTableData"] = bytes((np.arange(256) * (index + 1) % 256).astype(np.uint8))
    expected = np.stack([SMOOTH, SMOOTH * 2, SMOOTH * 3], -1)
    assert np.array_equal(decode.decode(compressed(jpeg_ls(SMOOTH), SMOOTH, JPEGLSLossless, **elements)), expected)
    assert np.array_equal(decode.decode(rle(SMOOTH, **elements)), expected)


# ---------------------------------------------------------------- RLE


def rle(picture: np.ndarray, **elements: Any) -> bytes:
    """A file whose pixels pydicom compressed."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(picture, **elements)))
    dataset.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("picture", [SMOOTH, NOISE[..., 0], NOISE, SMOOTH[:47, :63], np.zeros((40, 50), np.uint8)])
def test_rle_of_8_bits(picture: np.ndarray):
    picture = np.ascontiguousarray(picture)
    shown = decode.decode(rle(picture))
    assert np.array_equal(shown if picture.ndim == 3 else shown[..., 0], picture)


def test_rle_of_more_bits():
    signed = DEEP.astype(np.int16) - 2048
    assert np.array_equal(gray(rle(signed, **SIGNED_WINDOW)), gray(dicom_file(signed, **SIGNED_WINDOW)))
    colors = NOISE.astype(np.uint16) * 257
    assert np.array_equal(decode.decode(rle(colors)), NOISE)
    assert np.array_equal(gray(rle(DEEP, BitsStored=12, **WINDOW)), gray(dicom_file(DEEP, **WINDOW)))


def test_damaged_rle_is_refused():
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    for frame in (
        b"ab",
        header,
        header + b"\x81\0",  # 128 pixels of 3072
        struct.pack("<16I", 3, 64, 66, 68, *[0] * 12) + b"\x81\0" * 30,
        struct.pack("<16I", 1, 10, *[0] * 14) + b"\x81\0" * 30,
        struct.pack("<16I", 2**31, *[64] * 15) + b"\x81\0" * 30,
        header + b"\x81\0" * 10**5,  # 12 million pixels of 3072
    ):
        data = compressed(frame + bytes(len(frame) % 2), SMOOTH, RLELossless)
        assert code(data) in {"image_corrupt", "image_truncated"}


# ---------------------------------------------------------------- how the stream is wrapped


def test_a_picture_in_several_fragments():
    data = compressed(jpeg_ls(NOISE), NOISE, JPEGLSLossless, fragments=5)
    assert np.array_equal(decode.decode(data), NOISE)


@pytest.mark.parametrize("has_table", [True, False])
def test_several_pictures_under_the_number_one(has_table: bool):
    """The number of frames is missing or wrong, but the fragments are those of three pictures."""
    for stream, syntax in ((jpeg_ls(SMOOTH), JPEGLSLossless), (encode(SMOOTH, "JPEG"), JPEGBaseline8Bit)):
        data = encapsulate([stream] * 3, has_bot=has_table)
        assert code(dicom_file(data, shape=SMOOTH.shape, syntax=syntax)) == "image_animated"
    frame = pydicom.dcmread(io.BytesIO(rle(SMOOTH))).PixelData
    (length,) = struct.unpack_from("<I", frame, frame.index(b"\xfe\xff\x00\xe0", 4) + 4)
    pieces = [frame[-length:]] * 2
    data = encapsulate(pieces, has_bot=has_table)
    assert code(dicom_file(data, shape=SMOOTH.shape, syntax=RLELossless)) == "image_animated"


def test_a_picture_without_the_table_of_offsets():
    data = encapsulate([jpeg_ls(SMOOTH)], has_bot=False)
    assert data.startswith(b"\xfe\xff\x00\xe0\0\0\0\0")
    assert np.array_equal(gray(dicom_file(data[8:], shape=SMOOTH.shape, syntax=JPEGLSLossless)), SMOOTH)


@pytest.mark.parametrize("declared", [JPEGBaseline8Bit, JPEG2000, JPEGLSLossless, HTJ2K, ExplicitVRLittleEndian])
@pytest.mark.parametrize("encoder", [jpeg_ls, jpeg_2000, lossless_jpeg, high_throughput])
def test_the_stream_itself_is_believed(encoder, declared: UID):
    """Another transfer syntax than the one declared is common after a conversion."""
    data = renamed(compressed(encoder(NOISE), NOISE, JPEG2000), declared)
    assert np.array_equal(decode.decode(data), NOISE)


def test_jpeg_2000_in_its_container():
    stream = encode(SMOOTH, "JPEG2000", irreversible=False)
    assert stream[4:8] == b"jP  "
    assert np.array_equal(gray(compressed(stream, SMOOTH, JPEG2000Lossless)), SMOOTH)


def test_a_stream_without_its_end_marker():
    for stream, syntax in (
        (jpeg_ls(SMOOTH), JPEGLSLossless),
        (jpeg_2000(SMOOTH), JPEG2000Lossless),
        (encode(SMOOTH, "JPEG", quality=100), JPEGBaseline8Bit),
    ):
        assert stream[-2:] == b"\xff\xd9"
        assert np.array_equal(
            gray(compressed(stream[:-2], SMOOTH, syntax)), gray(compressed(stream, SMOOTH, syntax))
        ), syntax.name


@pytest.mark.parametrize(("encoder", "syntax"), LOSSLESS, ids=NAMES)
def test_half_a_stream_is_refused(encoder, syntax: UID):
    stream = encoder(NOISE[..., 0].copy())
    assert code(compressed(stream[: len(stream) // 4 * 2], SMOOTH, syntax)) in {"image_truncated", "image_corrupt"}
    half = encode(NOISE, "JPEG")
    assert code(compressed(half[: len(half) // 2], NOISE, JPEGBaseline8Bit)) == "image_truncated"


def test_a_large_picture_behind_a_small_header_is_refused():
    large = np.zeros((4000, 4000), np.uint8)
    for stream in (
        encode(large, "JPEG"),
        encode(large, "JPEG2000", no_jp2=True),
        jpeg_ls(large),
        lossless_jpeg(large),
        high_throughput(large),
    ):
        assert code(compressed(stream, SMOOTH[:32, :32], JPEG2000Lossless)) == "image_corrupt"
    assert code(compressed(jpeg_ls(SMOOTH), NOISE, JPEGLSLossless)) == "image_corrupt"


def test_many_scans_are_refused():
    stream = encode(PICTURE, "JPEG", progressive=True)
    scan = stream.index(b"\xff\xda")
    end = stream.index(b"\xff", scan + 14)
    bomb = stream[:end] + stream[scan:end] * 500 + stream[end:]
    assert code(compressed(bomb, PICTURE, JPEGBaseline8Bit)) == "image_corrupt"


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.4.100",  # MPEG2
        "1.2.840.10008.1.2.4.102",  # H.264
        "1.2.840.10008.1.2.4.107",  # HEVC
        "1.2.840.10008.1.2.4.110",  # JPEG XL
        "1.2.840.10008.1.2.1.98",  # encapsulated, not compressed
        "1.2.840.10008.1.2.8.1",  # deflated frames
        "1.2.840.113619.5.2",  # big endian of GE
    ],
)
def test_what_is_not_supported_is_named(syntax: str):
    data = renamed(compressed(b"something else than pixels", SMOOTH, JPEG2000), syntax)
    with pytest.raises(ImageError) as refused:
        decode.decode(data)
    assert refused.value.code == "image_mode_not_supported"
    assert UID(syntax).name in str(refused.value)
    assert "save it as" in str(refused.value)


def test_pixels_that_are_not_wrapped():
    data = dicom_file(SMOOTH, syntax=ExplicitVRLittleEndian).replace(
        ExplicitVRLittleEndian.encode() + b"\0", b"1.2.840.10008.1.2.5\0"
    )
    assert code(data) == "image_corrupt"
