"""TIFF files: the page that is the picture, checked, and rewritten with only the tags that describe pixels."""

from lesion.imaging.formats.header import Header
from lesion.imaging.formats.sample_layout import SampleLayout
from lesion.imaging.formats.tiff_directory import (
    BITS,
    COMPRESSION,
    HEIGHT,
    PHOTOMETRIC,
    ROWS_PER_STRIP,
    SAMPLE_FORMAT,
    SAMPLES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    Directory,
    entries,
    first_place,
    read_directory,
    write_file,
)
from lesion.imaging.formats.tiff_places import check_places
from lesion.imaging.formats.tiff_samples import sample_layout
from lesion.imaging.orientation import first_orientation
from lesion.imaging.refusals import corrupt, unsupported

SIGNATURE = rb"II\*\0|MM\0\*"

# No compression, CCITT, LZW, JPEG, Deflate, PackBits.
_CODECS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
_CODEC_NAMES = {
    6: "old-style JPEG",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
_RAW_PHOTO = 32803  # the sensor's own pattern of colors
_UNCOMPRESSED, _YCBCR, _FLOAT = 1, 6, 3
_MAX_TILE = 2**28  # bytes
_MAX_SAMPLES = 6
_MAX_PAGES = 1024
_MAX_ENTRIES = 200_000  # of all pages together


def parse_tiff(data: bytes) -> Header:
    """Read and rewrite the full-size page of a classic (not Big) TIFF.

    Pages that call themselves reduced copies or masks are left out. Where the first page is a reduced copy and the only
    one, as in the files of cameras, the pages that belong to it are looked at.
    """
    order, _ = first_place(data)
    pages = full_pages(data)
    page = pages[0]
    _check(page)
    whole = check_places(data, page)
    values, layout = sample_layout(data, page)
    pixel_bytes, buffers = _memory(page, layout)
    return Header(
        "TIFF",
        page.number(WIDTH, 0),
        page.number(HEIGHT, 0),
        write_file(data, order, values),
        page.orientation or first_orientation(xmp=page.xmp),
        animated=len(pages) > 1,
        profile=page.profile,
        whole=whole,
        exif=data,
        layout=layout,
        pixel_bytes=pixel_bytes,
        buffers=buffers,
    )


def full_pages(data: bytes) -> list[Directory]:
    """Return the pages of full size, or all pages if none is; the first one is the picture."""
    order, place = first_place(data)
    pages = _pages(data, order, place)
    full = [page for page in pages if not page.reduced]
    if not full:
        below = [page for place in pages[0].below for page in _pages(data, order, place)]
        full = [page for page in below if not page.reduced]
    return full or pages


def _pages(data: bytes, order: str, place: int) -> list[Directory]:
    """Return the pages in their order; a page that was there before ends it."""
    pages, places, tags = list[Directory](), set[int](), 0
    while place and place not in places and len(places) < _MAX_PAGES:
        places.add(place)
        tags += len(entries(data, order, place))
        if tags > _MAX_ENTRIES:  # reading them would take many seconds
            raise corrupt("TIFF", f"its pages have more than {_MAX_ENTRIES:,} tags")
        pages.append(read_directory(data, order, place))
        place = pages[-1].following
    if not pages:
        raise corrupt("TIFF", "it has no page")
    return pages


def _memory(page: Directory, layout: SampleLayout | None) -> tuple[int, int]:
    """Return the bytes of one pixel while it is decoded, and those of the strip or tile that is unpacked at a time."""
    samples, bits = page.number(SAMPLES, 1), page.number(BITS, 1)
    if layout is not None:
        pixel_bytes = (len(layout.planes) or layout.stored) * layout.bits // 8
    else:
        pixel_bytes = 4 if samples > 1 else max(1, bits // 8)
    if page.number(COMPRESSION, 1) == _UNCOMPRESSED:
        return pixel_bytes, 0
    width, height = page.number(WIDTH, 0), page.number(HEIGHT, 0)
    rows = page.number(TILE_HEIGHT, min(page.number(ROWS_PER_STRIP, height), height))
    unpacked_bits = 32 if page.number(PHOTOMETRIC, 0) == _YCBCR else samples * bits
    return pixel_bytes, rows * page.number(TILE_WIDTH, width) * unpacked_bits // 8


def _check(page: Directory) -> None:
    compression = page.number(COMPRESSION, 1)
    if page.number(PHOTOMETRIC, 0) == _RAW_PHOTO:
        raise unsupported("TIFF", "the raw data of a camera")
    if compression not in _CODECS:
        name = _CODEC_NAMES.get(compression)
        raise unsupported("TIFF", f"{name} compression" if name else f"compression method {compression}")
    if page.number(SAMPLES, 1) > _MAX_SAMPLES:
        raise unsupported("TIFF", f"{page.number(SAMPLES, 1)} channels")
    if _FLOAT in page.values.get(SAMPLE_FORMAT, ()):
        raise unsupported("TIFF", "floating-point pixels, whose range is not known")
    depth = 2 if page.number(BITS, 1) > 8 else 1
    if page.number(TILE_WIDTH, 1) * page.number(TILE_HEIGHT, 1) * page.number(SAMPLES, 1) * depth > _MAX_TILE:
        raise corrupt("TIFF", "its tiles are absurdly large")
