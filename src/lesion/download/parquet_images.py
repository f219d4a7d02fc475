"""Images that the Hugging Face hub keeps in Parquet tables, written out as files in folders of one class each."""

import json
from pathlib import Path
from typing import Any

from lesion.core.errors import DataError

_ROWS = 64  # images in memory at a time
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}


def extract(table: Path, folder: Path) -> int:
    """Write each row's image to ``folder/<split>/<class>/<number>.<type>``.

    The split is the first word of the table's name (``train-00000-of-00001.parquet``). The class comes from the column
    ``label`` and the names that the ``datasets`` library stores in the metadata; rows without a label are left out.

    Args:
        table: A Parquet file with the columns ``image`` (a struct with ``bytes``) and ``label``.
        folder: Where to.

    Returns:
        The number of images written.

    Raises:
        DataError: download_layout, if the table is damaged or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            names = _class_names(file.schema_arrow.metadata or {})
            rows = written = 0
            for batch in file.iter_batches(_ROWS, columns=["image.bytes", "label"]):
                for row in batch.to_pylist():
                    written += _write(row, names, folder / table.name.split("-")[0], f"{table.stem}-{rows:06d}")
                    rows += 1
            return written
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{table.name} is no table of labelled images ({error}); choose another mirror.", code="download_layout"
        ) from error


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    if b"huggingface" not in metadata:
        return None
    names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"].get("names")
    return [str(name) for name in names] if names else None


def _write(row: dict[str, Any], names: list[str] | None, folder: Path, stem: str) -> int:
    data, label = row["image"]["bytes"], row["label"]
    if label is None or data is None or (isinstance(label, int) and label < 0):  # −1 stands for none as well
        return 0
    name = names[label] if names and isinstance(label, int) else str(label)
    place = folder / name.replace("/", "_").replace("\\", "_").strip(".")
    place.mkdir(parents=True, exist_ok=True)
    (place / (stem + _SUFFIXES.get(data[:2], ".bin"))).write_bytes(data)
    return 1
