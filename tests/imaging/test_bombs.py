"""Files that would keep a decoder busy: refused, or decoded, after a work that is counted."""

from pathlib import Path

import pydicom
import pydicom.filereader
import pytest

from lesion.core.errors import ImageError
from lesion.imaging.decode import decode, probe
from lesion.imaging.dicom.bounded_reading import MAX_NESTED_READS, MAX_READS, BoundedFile
from tests.support.images.bombs import DECODED, REFUSED, j2k_dicom, nested, nested_with_lengths, tiles
from tests.support.images.decoding_memory import decode_in_child
from tests.support.images.dicom_files import dicom_file
from tests.support.images.hostile import encode, gradient

SMALL = 0.02  # of the largest; still many times what is allowed
WARM_UP = {
    ".dcm": dicom_file(gradient()),
    ".tif": tiles(256),
    ".jpg": encode(gradient(), "JPEG"),
    ".png": encode(gradient()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bombs_are_refused(name: str) -> None:
    make, code, message = REFUSED[name]
    data = make(SMALL)
    for refuse in (probe, decode):
        with pytest.raises(ImageError, match=message) as refusal:
            refuse(data)
        assert refusal.value.code == code


@pytest.mark.parametrize("name", [name for name in REFUSED if name.endswith(".dcm")])
def test_pydicom_makes_few_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, of_item, counts = BoundedFile.read, pydicom.filereader.read_sequence_item, {"reads": 0, "items": 0}

    def counted_read(self: BoundedFile, size: int | None = -1, /) -> bytes:
        counts["reads"] += 1
        return read(self, size)

    def counted_item(*arguments: object) -> object:
        counts["items"] += 1
        return of_item(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(BoundedFile, "read", counted_read)
    monkeypatch.setattr(pydicom.filereader, "read_sequence_item", counted_item)
    with pytest.raises(ImageError):
        probe(REFUSED[name][0](SMALL))
    assert 0 < counts["reads"] <= MAX_READS + MAX_NESTED_READS + 2
    assert counts["items"] <= MAX_READS


def test_a_usual_cut_of_a_picture_is_no_bomb() -> None:
    """It goes to the decoder, which finds no data."""
    assert probe(j2k_dicom(4096, tile=4096, block=4, levels=5)).width == 4096
    assert probe(j2k_dicom(4096, tile=256, block=4, levels=5)).width == 4096
    assert probe(j2k_dicom(4096, tile=4096, block=3, precinct=0x88, levels=5)).width == 4096


def test_a_deep_sequence_of_few_levels_is_read() -> None:
    expected = decode(dicom_file(gradient()[..., 0].copy()))
    for data in (nested(1), nested_with_lengths(3)):
        assert decode(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", DECODED)
def test_what_is_within_the_counts_is_decoded(name: str) -> None:
    assert probe(DECODED[name]()).width >= 64


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REFUSED, *(f"decoded {name}" for name in DECODED)])
def test_no_bomb_takes_much_memory(name: str, tmp_path: Path) -> None:
    decoded = name.removeprefix("decoded ")
    data = DECODED[decoded]() if decoded != name else REFUSED[name][0](1)
    assert len(data) < 20 * 2**20
    answer, growth = decode_in_child(data, tmp_path, WARM_UP[Path(name).suffix])
    assert answer.startswith("image_") or decoded != name
    assert growth < 300 * 10**6
