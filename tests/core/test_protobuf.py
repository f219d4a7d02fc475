"""Fields of Protocol Buffers, against the encoder of the onnx package; and messages that are broken."""

import pytest
from onnx import TensorProto

from lesion.core.protobuf import read_fields, read_packed


def test_fields_are_those_that_were_written() -> None:
    tensor = TensorProto(dims=[3, 300], data_type=1, raw_data=b"abc", name="weights", double_data=[1.5])
    found = [(number, value if isinstance(value, int) else bytes(value)) for number, value in encoded(tensor)]
    shape, width = b"\x03\xac\x02", b"\x00\x00\x00\x00\x00\x00\xf8\x3f"
    by_number = dict(found)
    assert by_number[2] == 1
    assert (by_number[8], by_number[9], by_number[10]) == (b"weights", b"abc", width)
    dims = [value for number, value in encoded(tensor) if number == 1]
    assert [each for value in dims for each in read_packed(value)] == [3, 300]
    assert read_packed(memoryview(shape)) == [3, 300]


def encoded(tensor: TensorProto) -> list[tuple[int, int | memoryview]]:
    return list(read_fields(memoryview(tensor.SerializeToString())))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x0a\x05abc", "has 5 bytes, of which 3 are there"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "of which 0 are there"),
        (b"\x08" + b"\xff" * 12, "does not end"),
        (b"\x08\x80", "does not end"),
        (b"\x0b", "unknown type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x0d\x00\x00", "has 4 bytes, of which 2 are there"),
    ],
)
def test_a_broken_message_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(read_fields(memoryview(message)))
