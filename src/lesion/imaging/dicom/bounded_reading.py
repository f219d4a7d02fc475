"""Bounds on what pydicom reads of a file: how many elements, how long their values are, and of which kind.

pydicom makes an object of each element, each item of a sequence and each number or text of a value, which takes it some
twenty microseconds: a file of 20 MB could keep it busy for minutes.
"""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesion.imaging.refusals import corrupt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_READS = 2**14  # of a file: one to three for each element and each item; files with one picture have some hundreds
MAX_NESTED_READS = 2**12  # of a sequence that is read by itself
MAX_FRAGMENTS = 2**16  # of compressed pixels
_MAX_SEQUENCE = 2**18  # bytes; a table of 65,536 entries has half of it
_MAX_SHORT = 2**12  # bytes of numbers and of names of character sets
_CHARACTER_SET, _FILE_INFORMATION = 0x00080005, 0x0002
# Kinds whose values pydicom takes as they are, or that are short.
_BYTES = frozenset({"OB", "OW", "OF", "OD", "UN", "US", "SS"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """The elements that somebody looks at, by the numbers of their tags."""

    short: frozenset[int]  # numbers and codes
    sequences: frozenset[int]
    long: Mapping[int, int]  # pixels and tables: the most bytes of each


class BoundedFile(io.BytesIO):
    """A file that pydicom reads elements from; what exceeds the bounds is refused (image_corrupt).

    Values that nobody looks at may have any length, but those that pydicom itself looks at are short.
    """

    def __init__(self, data: bytes, bounds: Bounds, reads: int = MAX_READS) -> None:
        super().__init__(data)
        self._most = dict.fromkeys(bounds.short | {_CHARACTER_SET}, _MAX_SHORT) | dict(bounds.long)
        self._most |= dict.fromkeys(bounds.sequences, _MAX_SEQUENCE)
        self._reads = self._left = reads
        self._head = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes: the head of an element, its length, or its value."""
        self._left -= 1
        if self._left < 0:
            raise corrupt("DICOM", f"it has more than {self._reads:,} elements, as only files of many frames have")
        if size is None or size < 0:  # to inflate them, without a bound
            raise corrupt("DICOM", "its elements are deflated in an unusual way")
        if size > _MAX_SHORT:
            self._check_length(size)
        found = super().read(size)
        if size == 8:
            self._head = found
        return found

    def _check_length(self, size: int) -> None:
        for order in "<>":
            group, number = struct.unpack_from(order + "HH", self._head.ljust(4, b"\0"))
            most = _MAX_SHORT if group == _FILE_INFORMATION else self._most.get(group << 16 | number, size)
            if size > most:
                raise corrupt("DICOM", f"its element ({group:04X},{number:04X}) has {size:,} bytes")


def read_nested(dataset: "Dataset", bounds: Bounds) -> None:
    """Read the sequences that somebody looks at, and those within them, with bounds.

    pydicom would read them without, as soon as somebody looks at them.
    """
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.filereader import read_sequence

    for tag in bounds.sequences.intersection(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            if element.VR not in (None, "SQ", "UN"):
                continue
            value = element.value or b""
            file = BoundedFile(value, bounds, MAX_NESTED_READS)
            items = read_sequence(file, element.is_implicit_VR, element.is_little_endian, len(value), "iso8859")
            dataset[tag] = element = DataElement(tag, "SQ", items)
        if element.VR == "SQ":
            for item in element.value:
                read_nested(item, bounds)


def check_kinds(dataset: "Dataset", bounds: Bounds) -> None:
    """Refuse (image_corrupt) long values that pydicom would take for texts, numbers or sequences."""
    for tag in bounds.long:
        element = dataset.get_item(tag) if tag in dataset else None
        if element is not None and element.VR and not _BYTES.issuperset(element.VR.split(" or ")):
            raise corrupt("DICOM", f"its element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is of the kind {element.VR}")
