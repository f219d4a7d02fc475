"""Tells DICOM files by their first bytes, with or without the preamble; needs no other package."""

import struct

HEAD_BYTES = 512  # of a file, enough to tell
_MARK_POSITION = 128  # after the preamble, which holds anything
_GROUPS = (0x0002, 0x0008)  # a file without the preamble starts with its file information or with its identification
_MAX_LENGTH = 256  # bytes of one of the first elements, which are codes, dates and identifiers
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(b"OB OW SQ UC UN UR UT".split())  # their length has 4 bytes, after 2 of filling


def is_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, by its first ``HEAD_BYTES`` or all of it.

    That is a preamble of 128 bytes with the mark DICM behind it or, as old scanners and archives write them, a file
    that begins with its elements at once.
    """
    if head[_MARK_POSITION : _MARK_POSITION + 4] == b"DICM":
        return True
    return _starts_with_elements(head, "<") or _starts_with_elements(head, ">")


def _starts_with_elements(head: bytes, order: str) -> bool:
    """Return whether two small elements in ascending order come first, in the byte order of ``struct``."""
    position, previous = 0, (0, -1)
    for _ in range(2):
        if position + 12 > len(head):
            return False
        group, number = struct.unpack_from(order + "HH", head, position)
        size, length = _element_size(head, position, order)
        if group not in _GROUPS or (group, number) <= previous or length % 2 or length > _MAX_LENGTH:
            return False
        previous, position = (group, number), position + size + length
    return True


def _element_size(head: bytes, position: int, order: str) -> tuple[int, int]:
    """Return the bytes of an element's own header, and of its value."""
    kind = head[position + 4 : position + 6]
    if kind in _SHORT:
        return 8, int(struct.unpack_from(order + "H", head, position + 6)[0])
    if kind in _LONG:
        return 12, int(struct.unpack_from(order + "I", head, position + 8)[0])
    if order == ">":  # big endian always names the kind of a value
        return 8, _MAX_LENGTH + 1
    return 8, int(struct.unpack_from("<I", head, position + 4)[0])
