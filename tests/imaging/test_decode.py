"""The decoder: what it must decode, what it must refuse, and that nothing else can happen."""

import io
import os
import resource
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from lesion.core.errors import ImageError, NotFoundError, TooLargeError, UnsupportedTypeError
from lesion.core.files import bytes_sha256
from lesion.data.inspection import examine
from lesion.imaging import decode
from lesion.imaging.limits import Limits
from lesion.imaging.pixels import depth_table
from lesion.imaging.refusals import EmptyImageError, UnreadableFileError
from tests.support.images.hostile import (
    HostileImage,
    chunk,
    corner,
    encode,
    gradient,
    hostile_images,
    mutated,
    oriented,
    pixel_hash,
    png,
    with_checksums,
)

FILES = hostile_images()
REFUSED = {name: file for name, file in FILES.items() if file.code}
DECODED = {name: file for name, file in FILES.items() if not file.code}
KINDS = {
    "image_empty": [EmptyImageError],
    "image_too_many_pixels": [TooLargeError],
    "image_not_recognised": [UnsupportedTypeError],
    "image_type_not_supported": [UnsupportedTypeError],
}
NEEDS_DECODING = {"truncated.bmp", "truncated.tif", "not_deflated.png", "negative.tif"}  # their headers are sound


def test_there_are_many_hostile_files():
    assert len(REFUSED) >= 25
    assert {file.code for file in REFUSED.values()} == {
        "image_empty",
        "image_not_recognised",
        "image_type_not_supported",
        "image_too_many_pixels",
        "image_too_small",
        "image_animated",
        "image_truncated",
        "image_corrupt",
        "image_mode_not_supported",
    }


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str):
    with pytest.raises(ImageError) as refusal:
        decode.decode(FILES[name].data)
    error = refusal.value
    assert error.code == FILES[name].code
    kinds = [kind for kind in (EmptyImageError, TooLargeError, UnsupportedTypeError) if isinstance(error, kind)]
    assert kinds == KINDS.get(error.code, []), "the HTTP status follows from them"
    assert error.message.endswith(".")
    assert error.message.count(";") == 1, "what was given and why; what to do"


@pytest.mark.parametrize("name", DECODED)
def test_decodes(name: str):
    file = DECODED[name]
    assert file.shape is not None
    assert file.pixels is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode.decode(file.data)
    assert image.dtype == np.uint8
    assert image.shape == (*file.shape, 3)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    for place, value in file.pixels.items():
        difference = np.abs(image[place].astype(int) - value).max()
        assert difference <= file.tolerance, f"{place}: {image[place]} is not {value}"


@pytest.mark.parametrize("name", FILES)
def test_probe_agrees_with_decode(name: str):
    file = FILES[name]
    if file.code and name not in NEEDS_DECODING:
        with pytest.raises(ImageError) as refusal:
            decode.probe(file.data)
        assert refusal.value.code == file.code
        return
    facts = decode.probe(file.data)
    assert facts.bytes == len(file.data)
    assert facts.format in decode.FORMATS
    if file.shape:
        assert (facts.height, facts.width) == file.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_pillows(orientation: int):
    data = encode(gradient(), exif=oriented(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode.decode(data), expected)


def test_limits_are_those_given():
    data = encode(gradient())  # 64 × 48
    assert decode.decode(data, Limits(max_bytes=len(data), max_pixels=64 * 48, min_side=48)).shape == (48, 64, 3)
    for limits, code in (
        (Limits(max_bytes=len(data) - 1), "image_too_many_bytes"),
        (Limits(max_pixels=64 * 48 - 1), "image_too_many_pixels"),
        (Limits(min_side=49), "image_too_small"),
    ):
        with pytest.raises(ImageError) as refusal:
            decode.probe(data, limits)
        assert refusal.value.code == code


def test_16_bits_are_scaled_from_the_smallest_depth():
    assert depth_table(255)[[0, 128, 255]].tolist() == [0, 128, 255]
    assert depth_table(256)[[0, 511, 512, 1023]].tolist() == [0, 127, 128, 255]  # 10 bits: 511 · 255 / 1023 = 127.4
    assert depth_table(4095)[[0, 1000, 4095]].tolist() == [0, 62, 255]  # 12 bits: 62.3
    assert depth_table(4096)[[16383]].tolist() == [255]
    assert depth_table(65535)[[0, 32768, 65535]].tolist() == [0, 128, 255]  # 127.502


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_either_byte_order(order: str):
    values = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(order + "u2")
    header = b"II*\0" if order == "<" else b"MM\0*"
    tags = [
        (256, 3, 50),
        (257, 3, 40),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (279, 4, 4000),
    ]
    u2, u4 = np.dtype(order + "u2"), np.dtype(order + "u4")
    entries = b""
    for tag, kind, value in tags:
        stored = np.array([value], u2).tobytes() + b"\0\0" if kind == 3 else np.array([value], u4).tobytes()
        entries += np.array([tag, kind], u2).tobytes() + np.array([1], u4).tobytes() + stored
    directory = np.array([len(tags)], u2).tobytes() + entries + bytes(4)
    data = header + np.array([8 + 4000], u4).tobytes() + values.tobytes() + directory
    image = decode.decode(data)
    assert np.array_equal(image[..., 0], np.round(values.astype(float) * 255 / 65535).astype(np.uint8))
    assert np.array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16"])
def test_every_mode_agrees_with_pillow(mode: str):
    source = Image.fromarray(gradient())
    picture = source.convert("L").convert(mode) if mode.startswith("I") else source.convert(mode)
    if mode == "PA":
        picture = source.convert("P").convert("PA")
    data = encode(picture, "TIFF")
    expected = picture.convert("L").convert("RGB") if mode.startswith("I") else picture.convert("RGB")
    assert np.abs(decode.decode(data).astype(int) - np.asarray(expected)).max() <= (2 if mode == "YCbCr" else 0)
    assert decode.probe(data).mode == mode


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4", None]
)
def test_tiff_compressions(compression: str | None):
    picture = Image.fromarray(gradient()[..., 0])
    picture = picture.convert("1") if compression in ("group3", "group4") else picture
    image = decode.decode(encode(picture, "TIFF", compression=compression))
    difference = np.abs(image[..., 0].astype(int) - np.asarray(picture.convert("L")))
    assert difference.max() <= (12 if compression == "jpeg" else 0)


def test_tiff_of_colour_jpeg():
    data = encode(gradient(), "TIFF", compression="jpeg", quality=95)
    assert np.abs(decode.decode(data).astype(int) - gradient()).mean() < 3


def test_a_bmp_stored_from_the_top():
    data = bytearray(encode(gradient()[::-1], "BMP"))
    data[22:26] = (-48).to_bytes(4, "little", signed=True)
    assert np.array_equal(decode.decode(bytes(data)), gradient())


def test_partial_transparency_is_mixed_with_black():
    picture = np.zeros((16, 16, 4), np.uint8)
    picture[...] = (200, 100, 50, 128)
    assert decode.decode(encode(picture))[0, 0].tolist() == [100, 50, 25]


def test_bands_change_nothing(monkeypatch: pytest.MonkeyPatch):
    names = ["plain.jpg", "16_bit.png", "palette_alpha.png", "cmyk.tif", "turned_6.png"]
    whole = [decode.decode(FILES[name].data) for name in names]
    monkeypatch.setattr("lesion.imaging.pixels._BAND_PIXELS", 130)
    for name, image in zip(names, whole, strict=True):
        assert np.array_equal(decode.decode(FILES[name].data), image)


def test_an_mpo_photo_is_its_first_picture():
    data = encode(gradient(), "MPO", save_all=True, append_images=[Image.new("RGB", (300, 300))])
    assert decode.decode(data).shape == (48, 64, 3)
    assert decode.probe(data).format == "JPEG"


def test_a_jpeg_with_a_film_behind_it_is_decoded():
    film = np.random.default_rng(1).integers(0, 256, 2**22, np.uint8).tobytes() + b"\xff\xda" * 200
    assert decode.decode(encode(gradient(), "JPEG") + film).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_cut_is_refused(kind: str):
    noise = np.random.default_rng(2).integers(0, 256, (24, 24, 3), np.uint8)
    data = encode(noise, kind)
    for length in range(1, int(len(data) * 0.98), 7):
        with pytest.raises(ImageError) as refusal:
            decode.decode(data[:length])
        assert refusal.value.code in {"image_truncated", "image_corrupt", "image_not_recognised"}, length


def test_a_draft_is_smaller_but_large_enough():
    data = encode(np.kron(gradient(), np.ones((16, 16, 1), np.uint8)), "JPEG")  # 1024 × 768
    assert decode.decode(data).shape == (768, 1024, 3)
    assert decode.decode(data, target_side=384).shape == (384 * 2, 512 * 2, 3)
    assert decode.decode(data, target_side=192).shape == (384, 512, 3)
    assert decode.decode(data, target_side=96).shape == (192, 256, 3)
    assert decode.decode(data, target_side=16).shape == (96, 128, 3), "an eighth is the least"
    assert decode.decode(encode(gradient()), target_side=16).shape == (48, 64, 3), "only JPEG"


def test_hashes_are_stable():
    assert bytes_sha256(b"lesion") == "cd5f70ca8d37802a502d296b42bedf5c4f2aba1bf69461031c9509a559d6a937"
    image = gradient()
    kinds = [examine(encode(image, kind)) for kind in ("PNG", "BMP")]
    assert {record.pixel_sha256 for record in kinds} == {pixel_hash(image)}
    turned = examine(encode(np.ascontiguousarray(image.reshape(64, 48, 3))))
    assert turned.pixel_sha256 != pixel_hash(image), "the shape counts"


def test_perceptual_hash_survives_recompression_and_scaling():
    rng = np.random.default_rng(3)
    one, other = (
        np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((128, 128))) for _ in range(2)
    )
    again = decode.decode(encode(Image.fromarray(one).resize((90, 90)), "JPEG", quality=50))
    value = decode.perceptual_hash(one)
    assert 0 <= value < 2**64
    assert (value ^ decode.perceptual_hash(again)).bit_count() <= 6
    assert (value ^ decode.perceptual_hash(other)).bit_count() >= 16


def test_read(tmp_path: Path):
    file = tmp_path / "scan.png"
    file.write_bytes(encode(gradient()))
    assert decode.read(file) == encode(gradient())
    (tmp_path / "link.png").symlink_to(file)
    assert decode.read(tmp_path / "link.png") == encode(gradient())
    os.mkfifo(tmp_path / "pipe")
    cases = [
        (tmp_path, UnreadableFileError, "image_not_a_file"),
        (tmp_path / "pipe", UnreadableFileError, "image_not_a_file"),
        (tmp_path / "missing.png", NotFoundError, "image_not_found"),
        (file / "below", NotFoundError, "image_not_found"),
        (Path("nul\0byte"), UnreadableFileError, "image_unreadable"),
    ]
    for path, kind, code in cases:
        with pytest.raises(kind) as refusal:
            decode.read(path)
        assert isinstance(refusal.value, ImageError)
        assert refusal.value.code == code
    with pytest.raises(ImageError) as refusal:
        decode.read(file, Limits(max_bytes=10))
    assert isinstance(refusal.value, TooLargeError)
    assert refusal.value.code == "image_too_many_bytes"


def test_large_text_is_dropped_but_large_pictures_are_kept():
    """A picture of 49 million pixels in 48 KB is within the limits, one row more is not."""
    row = b"\0" + bytes(7000)
    flat = chunk(b"IDAT", zlib.compress(row * 7000))
    image = decode.decode(png(7000, 7000, flat, colour=0))
    assert image.shape == (7000, 7000, 3)
    assert not image.any()
    with pytest.raises(ImageError, match="50,000,000"):
        decode.decode(png(7000, 7143, flat, colour=0))


MEMORY = """
import resource
from tests.support.images.hostile import hostile_images
from lesion.imaging.decode import decode
from lesion.core.errors import ImageError
files = hostile_images()
decode(files["plain.png"].data)
decode(files["plain.webp"].data)
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 160 * 2**20, -1))
for name, file in files.items():
    try:
        image = decode(file.data)
        assert file.code is None and image.shape == (*file.shape, 3), name
    except ImageError as error:
        assert error.code == file.code, (name, error)
print("bounded")
"""


def test_memory_is_bounded():
    """Every hostile file gives what it must within 160 MiB of address space."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "bounded", done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_threads_and_pillow_settings():
    """Many threads decode at once, and what Pillow was set to stays."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    expected = {name: decode.decode(file.data) for name, file in DECODED.items()}
    wrong: list[str] = []

    def work() -> None:
        for name, file in FILES.items():
            try:
                if not np.array_equal(decode.decode(file.data), expected[name]):
                    wrong.append(name)
            except ImageError as error:
                if error.code != file.code:
                    wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def fuzz(seed: int, rounds: int) -> dict[str, int]:
    """Decode ``rounds`` mutated files; returns how often each code came."""
    rng, limits = np.random.default_rng(seed), Limits(max_pixels=10**6)
    files = [file.data for file in FILES.values() if 40 < len(file.data) < 20_000]
    seen: dict[str, int] = {}
    for _ in range(rounds):
        data = mutated(files[int(rng.integers(len(files)))], rng)
        data = with_checksums(data) if data.startswith(b"\x89PNG") and rng.integers(4) else data
        try:
            image = decode.decode(data, limits, target_side=int(rng.integers(1, 64)))
            assert image.dtype == np.uint8
            assert image.ndim == 3
            code = "decoded"
        except ImageError as error:
            code = error.code
        seen[code] = seen.get(code, 0) + 1
    return seen


def test_fuzz():
    """Whatever the bytes: an array or an ImageError, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = fuzz(seed=0, rounds=3000)
    assert seen["decoded"] > 200
    assert seen["image_corrupt"] > 200
    assert seen["image_truncated"] > 200


def test_hostile_images_say_what_they_expect():
    assert all((file.code is None) == (file.shape is not None) for file in FILES.values())
    assert isinstance(FILES["plain.png"], HostileImage)
    assert corner()[0, 0].tolist() == [255, 0, 0]
