"""Small ICC profiles, written by hand: a matrix and a power for color, a power for gray (ISO 15076-1)."""

import struct

# Red, green and blue in XYZ under the light D50.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
WIDE = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))  # ProPhoto RGB


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _power(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _text(text: bytes) -> bytes:
    body = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)
    return body + bytes(-len(body) % 4)


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", between: bytes = b"XYZ ") -> bytes:
    """A profile of version 2 with these tags."""
    tags = {b"desc": _text(b"test"), b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": _xyz((0.9642, 1.0, 0.8249))} | tags
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02400000, kind, space, between)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(map(_fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + table + body


def _matrix(colors: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    tags = {name: _xyz(color) for name, color in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colors, strict=True)}
    return profile(b"RGB ", tags | {name: _power(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def adobe_rgb() -> bytes:
    """The colors of Adobe RGB (1998)."""
    return _matrix(ADOBE, 2.2)


def wide_rgb() -> bytes:
    """The colors of ProPhoto RGB."""
    return _matrix(WIDE, 1.8)


def gray_inks() -> bytes:
    """A printer whose inks are all gray: of L*, cyan, magenta and yellow take a third each, and black takes it all."""
    tones = bytes(range(256))
    lightness = [(1 - (c + m + y) / 3) * (1 - k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = b"".join(bytes([round(255 * value), 128, 128]) for value in lightness)
    one = b"".join(_fixed(float(row == column)) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + one + tones * 4 + grid + tones * 3
    return profile(b"CMYK", {b"A2B0": table}, b"prtr", b"Lab ")


def gray_gamma(gamma: float) -> bytes:
    """Gray with a power other than that of sRGB."""
    return profile(b"GRAY", {b"kTRC": _power(gamma)})
