"""Image and container types that Lesion does not decode, recognized to name them in an error."""

_SIGNATURES: tuple[tuple[int, bytes | tuple[bytes, ...], str], ...] = (  # position, signature or several, name
    (0, (b"GIF87a", b"GIF89a"), "GIF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0", "CUR"),
    (0, b"8BPS", "PSD"),
    (0, b"%!PS", "EPS or PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"\x1f\x8b", "gzip (perhaps a compressed NIfTI volume)"),
    (344, (b"n+1\0", b"ni1\0"), "NIfTI"),
    (0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    (0, (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"), "JPEG XL"),
    (0, (b"II\x2b\0", b"MM\0\x2b"), "BigTIFF"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"v/1\1", "OpenEXR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"DDS ", "DDS"),
    (0, b"icns", "ICNS"),
    (0, b"qoif", "QOI"),
    (0, b"FORM", "IFF"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"NRRD", "NRRD"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"/* XPM */", "XPM"),
)
# The brands of ISO media files that are pictures, the most exact first: a file names its main one and compatible ones.
_BRANDS = (
    ((b"avif", b"avis"), "AVIF"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    ((b"crx ",), "a camera's raw data (CR3)"),
    ((b"mif1", b"msf1", b"miaf"), "HEIF"),
)
_MAX_BRANDS = 64  # bytes


def other_image_type(data: bytes) -> str | None:
    """Return the name of a file's unsupported image type by its signature; None if the signature is unknown."""
    for offset, signature, name in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data[4:8] == b"ftyp":
        return _brand(data)
    if data[:1] == b"P" and data[1:2] in b"1234567Ff" and data[2:3].isspace():
        return "PNM"
    if b"<svg" in data[:1024].lower():
        return "SVG"
    return None


def _brand(data: bytes) -> str:
    """Return the type of an ISO media file, by its brands (ISO 14496-12, 4.3)."""
    end = min(int.from_bytes(data[:4], "big"), _MAX_BRANDS)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    return next((name for known, name in _BRANDS if brands.intersection(known)), "MP4 or another video")
