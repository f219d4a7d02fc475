"""Lookup tables of DICOM: modality, values of interest, and palettes (PS3.3 C.11.1, C.11.2 and C.7.9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion.imaging.refusals import corrupt, unsupported

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAX_ENTRIES = 2**16
_CHANNELS = ("Red", "Green", "Blue")
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2  # kinds of segments
_SEGMENT_WORDS = 6  # the longest segment for a single entry


@dataclass(frozen=True, slots=True)
class LookupTable:
    """Numbers by index, the first of which belongs to the value ``first``."""

    first: int
    entries: NDArray[np.uint16]  # (n,)
    bits: int  # of an entry, 1 to 16

    @property
    def highest(self) -> int:
        """The largest number that an entry may have."""
        declared: int = 2**self.bits - 1
        return max(declared, int(self.entries.max()))

    def look_up(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the entries of values of any shape; those below and above the table get its first and last one."""
        first = self.first
        if first >= 2**15 and values.min() < 0:  # a negative number that was written without its sign
            first -= 2**16
        indices = np.clip(np.floor(values) - first, 0, len(self.entries) - 1).astype(np.int32)
        found: NDArray[np.float64] = self.entries[indices].astype(np.float64)
        return found


def read_table(item: "Dataset", little_endian: bool) -> LookupTable:
    """Read the table of an item of a Modality or VOI LUT Sequence; a damaged one is refused (image_corrupt)."""
    count, first, bits = _descriptor(item, "LUTDescriptor")
    return LookupTable(first, _entries(item["LUTData"].value, count, little_endian), bits)


def read_palette(dataset: "Dataset", little_endian: bool) -> tuple[int, NDArray[np.uint8]]:
    """Read the palette of a PALETTE COLOR picture, whose channels are tables of numbers or of segments.

    Return the stored value of the first color, and the colors, uint8 (n, 3).
    """
    count, first, bits = _descriptor(dataset, "RedPaletteColorLookupTableDescriptor")
    channels = []
    for channel in _CHANNELS:
        name = f"{channel}PaletteColorLookupTableData"
        if name in dataset:
            channels.append(_entries(dataset[name].value, count, little_endian))
        elif f"Segmented{name}" in dataset:
            channels.append(expand_segments(dataset[f"Segmented{name}"].value, count, bits, little_endian))
        else:
            raise corrupt("DICOM", f"its palette has no entries for {channel.lower()}")
    colors = np.stack(channels, axis=-1)
    if bits > 8 and colors.max() > 255:  # otherwise the upper byte is not in use, whatever the descriptor says
        colors >>= 8
    return first, colors.astype(np.uint8)


def expand_segments(data: bytes, count: int, bits: int, little_endian: bool) -> NDArray[np.uint16]:
    """Expand a segmented table to its ``count`` entries, uint16, in work and memory that are limited by them.

    Segments are runs of numbers, straight lines to a number, and references to earlier segments (PS3.3 C.7.9.2).
    """
    size = 1 if bits <= 8 else 2  # bytes of a number
    data = data[: min(len(data) // size, _SEGMENT_WORDS * count) * size]
    words: list[int] = np.frombuffer(data, _kind(size, little_endian)).tolist()
    entries: list[int] = []
    position = 0
    while position + 1 < len(words) and len(entries) < count:  # the last byte may be there to make the length even
        if words[position] != _INDIRECT:
            position = _append_segment(words, position, entries, count)
            continue
        after = position + 2 + 4 // size
        offset = sum(word << (8 * size * place) for place, word in enumerate(words[position + 2 : after]))
        earlier = offset // size
        for _ in range(words[position + 1]):
            earlier = _append_segment(words, earlier, entries, count)
        position = after
    if len(entries) != count:
        raise corrupt("DICOM", f"its palette has {len(entries):,} instead of {count:,} entries")
    return np.array(entries, np.uint16)


def _append_segment(words: list[int], position: int, entries: list[int], count: int) -> int:
    """Append the numbers of one segment to the entries, and return the position of the next one."""
    kind, length, *numbers = words[position : position + 3]
    if not length or not numbers or len(entries) >= count:
        raise corrupt("DICOM", "a segment of its palette is damaged")
    if kind == _DISCRETE:
        entries += words[position + 2 : position + 2 + length]
        return position + 2 + length
    if kind != _LINEAR or not entries:
        raise corrupt("DICOM", "a segment of its palette is damaged")
    line = np.linspace(entries[-1], numbers[0], min(length, count) + 1)[1:]
    entries += np.round(line).astype(int).tolist()
    return position + 3


def _descriptor(item: "Dataset", name: str) -> tuple[int, int, int]:
    """Return the number of entries, the first value and the bits of an entry."""
    if name not in item or len(item[name].value) != 3:
        raise corrupt("DICOM", f"its {name} is not three numbers")
    count, first, bits = (int(value) for value in item[name].value)
    if not 1 <= bits <= 16:
        raise unsupported("DICOM", f"a lookup table with {bits} bits per entry")
    return count % _MAX_ENTRIES or _MAX_ENTRIES, first, bits


def _entries(data: bytes | Sequence[int] | int, count: int, little_endian: bool) -> NDArray[np.uint16]:
    """Return ``count`` entries of a table, which are numbers already, or bytes with one or two for each entry."""
    if isinstance(data, bytes):
        size = 2 if len(data) >= 2 * count else 1
        numbers = np.frombuffer(data[: len(data) // size * size], _kind(size, little_endian))
    else:
        numbers = np.atleast_1d(np.asarray(data))
    if len(numbers) < count:
        raise corrupt("DICOM", f"a lookup table has {len(numbers):,} of {count:,} entries")
    return numbers[:count].astype(np.uint16)


def _kind(size: int, little_endian: bool) -> str:
    return f"{'<' if little_endian else '>'}u{size}"
