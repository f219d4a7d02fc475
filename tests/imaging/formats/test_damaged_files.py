"""Damaged files of every format are decoded or refused: a small part of what scripts/dev/fuzz_decoder.py does."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode
from scripts.dev.fuzz_decoder import changed, fault_of
from tests.support.images.fuzz_seeds import fuzz_seeds
from tests.support.images.hostile import with_checksums


def test_seeds_are_of_every_format_and_most_are_sound():
    files = fuzz_seeds()
    beginnings = {data[:2] for data in files}
    assert {b"\xff\xd8", b"\x89P", b"RI", b"BM", b"II", b"MM"} <= beginnings
    outcomes = [fault_of(data) for data in files]
    assert [fault for _, fault in outcomes if fault] == []
    assert [outcome for outcome, _ in outcomes].count("decoded") > 100


def test_damaged_files_are_decoded_or_refused():
    files, rng = fuzz_seeds(), np.random.default_rng(11)
    outcomes = [fault_of(changed(files, rng)) for _ in range(2000)]
    assert [fault for _, fault in outcomes if fault] == []
    codes = {outcome for outcome, _ in outcomes}
    assert {"decoded", "image_corrupt", "image_truncated", "image_mode_not_supported"} <= codes


def test_checksums_are_made_right_again():
    buffer = io.BytesIO()
    Image.new("L", (32, 32), 9).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    place = data.index(b"IDAT")
    data[place + 4 : place + 8] = b"none"
    fixed = with_checksums(bytes(data))
    length = int.from_bytes(fixed[place - 4 : place], "big")
    checksum = int.from_bytes(fixed[place + 4 + length : place + 8 + length], "big")
    assert checksum == zlib.crc32(fixed[place : place + 4 + length])
    with pytest.raises(ImageError) as refusal:
        decode(fixed)
    assert refusal.value.code in ("image_corrupt", "image_truncated"), "the damage is found behind the checksum"
