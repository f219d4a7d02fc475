"""Write docs/inputs.md from the tables of the code: python scripts/dev/list_inputs.py [FILE]"""

import sys
from pathlib import Path

from lesion.imaging.decode import VERSION
from lesion.imaging.file_types import IMAGE_TYPES
from lesion.imaging.input_kinds import INPUT_KINDS
from lesion.imaging.limits import MAX_SAMPLE_BYTES
from lesion.imaging.pixels import ODD_SHARE

DOORS = (  # the door, which files it looks at, and what becomes of a refused one
    (
        "training from a folder or table",
        "those with a suffix of the next table, and DICOM files without a suffix; the log counts the others",
        "it is left out; the log and the manifest's facts name it with its code",
    ),
    ("upload of files or an archive", "all", "it is listed under `rejected`, with its code"),
    (
        "`lesion predict`",
        "all that are named; of folders as training, and `.gif`",
        "it is printed with its code",
    ),
    ("`POST /predict` and the page", "all", "413, 415 or 422 (400 for an empty file), with its code"),
)

HEAD = """# Which files can be read

<!-- Made by python scripts/dev/list_inputs.py from src/lesion/imaging/input_kinds.py and file_types.py. -->

All doors decode alike: what one reads, every other one reads, with the same pixels. What cannot be read right is
refused with a code that stays the same, and a sentence that tells what to do.

"""

RULES = f"""
## How pixels come about

- **Depth.** Pictures of more than 8 bits are scaled from the smallest of 8, 10, 12, 14 and 16 bits that holds all
  pixels but {ODD_SHARE * 1000:.0f} in a thousand (at least one): single hot pixels do not make the rest dark. Gray and
  color follow the same rule. Where both bytes of each value are the same, 8 bits were spread over 16, and they stay as
  they are. DICOM follows its own elements.
- **Transparency.** It is blended with black. A picture that is transparent everywhere is shown without transparency.
- **Orientation.** EXIF counts, otherwise XMP; in PNG also the raw profiles that ImageMagick and exiftool write.
- **Color.** An ICC profile becomes sRGB. One that is damaged or belongs to another kind of picture is left aside, and
  one that is sRGB already changes nothing.
- **Size.** Pictures of 16 bits may take {MAX_SAMPLE_BYTES:,} bytes once they are decoded: {MAX_SAMPLE_BYTES // 6:,}
  pixels in color. Pictures of more than 16 megapixels, other than DICOM, and JPEG of any size are reduced while they
  are decoded, to no less than twice what the network sees.

A bundle records the version of these rules, now {VERSION}, as `preprocessing.decoder`, which `GET /info` shows. A
bundle without it was trained with version 1; version 2 reduced only JPEG while it was decoded. It is served with
today's rules, which differ from those for color of 16
bits, hot pixels, pictures that are transparent everywhere, color profiles, and orientations outside of EXIF. Where the
training images were such, train again.
"""


def inputs_page() -> str:
    """Return the text of docs/inputs.md."""
    lines = ["| door | which files it looks at | what becomes of a refused one |", "|---|---|---|"]
    lines += [f"| {door} | {files} | {refused} |" for door, files, refused in DOORS]
    lines += ["", "## Suffixes", "", "| type | suffixes |", "|---|---|"]
    lines += [
        f"| {name} | {' '.join(f'`{suffix}`' for suffix in suffixes)} |" for name, suffixes in IMAGE_TYPES.items()
    ]
    lines += [
        "",
        "A file that is named one by one may be called anything: its content counts.",
        "",
        "## Kinds of files",
        "",
    ]
    lines += ["| kind | training | upload | predict and page | remark |", "|---|---|---|---|---|"]
    for kind in INPUT_KINDS:
        cell = "read" if kind.code is None else f"`{kind.code}`"
        training = f"left out by its suffix, or {cell}" if kind.suffix else cell
        lines.append(f"| {kind.name} | {training} | {cell} | {cell} | {kind.remark} |")
    return HEAD + "\n".join(lines) + "\n" + RULES


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "inputs.md"
    place.write_text(inputs_page(), "utf-8")
