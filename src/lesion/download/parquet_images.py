"""Write the images of the Hugging Face hub's Parquet tables as files, in one folder per class."""

import json
from pathlib import Path
from typing import Any

from lesion.core.errors import DataError

_ROWS = 64  # images in memory at a time
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}


def extract(table: Path, folder: Path) -> None:
    """Write each row's image to ``folder/<split>/<class>/<number>.<type>``.

    The split is the first word of the table's name (``train-00000-of-00001.parquet``). The class comes from the column
    ``label`` and the names that the ``datasets`` library stores in the metadata; rows without a label are skipped. A
    table that is damaged or lacks ``image`` (a struct with ``bytes``) or ``label`` is a DataError (download_layout).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            names = _class_names(file.schema_arrow.metadata or {})
            number = 0
            for batch in file.iter_batches(_ROWS, columns=["image.bytes", "label"]):
                for row in batch.to_pylist():
                    _write(row, names, folder / table.name.split("-")[0], f"{table.stem}-{number:06d}")
                    number += 1
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{table.name} is not a table of labeled images ({error}); choose another mirror.", code="download_layout"
        ) from error


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    if b"huggingface" not in metadata:
        return None
    names = json.loads(metadata[b"huggingface"])["info"]["features"]["label"].get("names")
    return [str(name) for name in names] if names else None


def _write(row: dict[str, Any], names: list[str] | None, folder: Path, stem: str) -> None:
    data, label = row["image"]["bytes"], row["label"]
    if label is None or data is None or (isinstance(label, int) and label < 0):  # −1 means no label as well
        return
    name = names[label] if names and isinstance(label, int) else str(label)
    class_folder = folder / name.replace("/", "_").replace("\\", "_").strip(".")
    class_folder.mkdir(parents=True, exist_ok=True)
    (class_folder / (stem + _SUFFIXES.get(data[:2], ".bin"))).write_bytes(data)
