"""Download a reference dataset, check it and lay it out; ``lesion.download.sources`` lists the sources.

```
data/brain_tumor_mri                       data/cassava
├── Training/{glioma,…,pituitary}/*.jpg    ├── train.csv, label_num_to_disease_map.json
├── Testing/{glioma,…,pituitary}/*.jpg     ├── train_images/*.jpg
└── .download.json                         └── .download.json
```

Everything is prepared in ``<folder>.part`` and renamed when it is complete, so that the folder is never incomplete. To
continue a download that was stopped, run the same command again. ``.download.json`` records the source and the SHA-256
of every file; another run verifies them.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn, track

from lesion.core.errors import ConfigError, DataError
from lesion.core.files import file_sha256
from lesion.core.text import format_count, join_names
from lesion.download import parquet_images
from lesion.download.archives import ArchiveRefusedError, unpack
from lesion.download.sources import RECIPES, Origin, Recipe, from_hub, from_kaggle, kaggle_credentials
from lesion.download.transfer import Report, fetch

Source = Literal["auto", "kaggle", "hub", "url"]

_CONSOLE = Console(stderr=True)
_RECORD = ".download.json"


def download(
    name: str,
    to: Path,
    *,
    source: Source = "auto",
    mirror: str | None = None,
    url: str | None = None,
    sha256: str | None = None,
) -> dict[str, int]:
    """Download a dataset into a folder, or verify it if it is there; write progress to standard error.

    Args:
        name: ``brain_tumor_mri`` or ``cassava``.
        to: The folder to create.
        source: ``auto`` uses the given ``url`` or ``mirror``, otherwise Kaggle if it has credentials, otherwise the
            public source that needs none. A failure is never followed by another source.
        mirror: A dataset on the Hugging Face hub, ``owner/name``, to use instead of the default one.
        url: A ZIP archive to use instead of the default one.
        sha256: The checksum of that archive.

    Returns:
        The number of images of each class.

    Raises:
        ConfigError: The name is unknown or the settings contradict each other.
        DataError: The source cannot be used (download_credentials, download_network, download_refused), the content is
            wrong (download_checksum, download_layout, archive_refused, download_damaged), or there is no place for it
            (disk_full, download_exists).
    """
    if name not in RECIPES:
        raise ConfigError(f"There is no dataset {name!r}; choose one of {', '.join(RECIPES)}.")
    to = to.absolute()
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        return verify(to)
    recipe, part = RECIPES[name], to.with_name(to.name + ".part")
    kind, address = _choose_source(recipe, source, mirror, url)
    if kind != "kaggle" and not (mirror or url):
        reason = "No Kaggle credentials: using" if source == "auto" else "Using"
        _CONSOLE.print(f"{reason} the public source. {recipe.note}")
    _CONSOLE.print(f"Downloading {address} ({kind}).")
    raw, origin = _fetch(recipe, kind, address, sha256 if url else recipe.sha256, part)
    ready = part / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    counts = recipe.lay_out(_unpack_all(raw, part), ready)
    files = _checksums(ready, "Checksums")
    downloaded = datetime.now(UTC).isoformat(timespec="seconds")
    record = asdict(origin) | {"dataset": name, "downloaded": downloaded, "images": counts, "files": files}
    (ready / _RECORD).write_text(json.dumps(record, indent=1))
    ready.replace(to)
    shutil.rmtree(part, ignore_errors=True)
    _CONSOLE.print(f"{sum(counts.values()):,} images in {to}: {', '.join(f'{c} {n:,}' for c, n in counts.items())}")
    return counts


def verify(folder: Path) -> dict[str, int]:
    """Compare a folder that ``download`` created with its record, and return the number of images of each class.

    Without a record this is a DataError (download_exists); download_damaged names the files that differ.
    """
    try:
        record = json.loads((folder / _RECORD).read_text())
        expected, counts = dict(record["files"]), dict(record["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} exists already, but has no record of a download; use it as it is, or name another folder.",
            code="download_exists",
        ) from error
    actual = _checksums(folder, "Verifying")
    wrong = sorted(name for name, checksum in expected.items() if actual.get(name) != checksum)
    if wrong:
        raise DataError(
            f"{len(wrong):,} of {format_count(len(expected), 'file')} in {folder} are missing or altered "
            f"({join_names(wrong, 3)}); delete the folder and download it again.",
            code="download_damaged",
        )
    _CONSOLE.print(f"{folder} is complete and unaltered: {len(expected):,} files from {record.get('address')}.")
    return counts


def _choose_source(recipe: Recipe, source: Source, mirror: str | None, url: str | None) -> tuple[Source, str]:
    """Return the kind and the address of the source to use; refuse settings that would be ignored."""
    if (mirror and url) or (mirror and source not in ("auto", "hub")) or (url and source not in ("auto", "url")):
        raise ConfigError("Give one source: --mirror for the hub, --url for an archive, or neither.")
    if source == "auto" and (mirror or url):
        source = "hub" if mirror else "url"
    elif source == "auto":
        source = "kaggle" if kaggle_credentials() else "hub" if recipe.hub else "url"
    address = {"kaggle": recipe.kaggle, "hub": mirror or recipe.hub, "url": url or recipe.url}[source]
    if address is None:
        option = "--mirror owner/name" if source == "hub" else "--url"
        raise ConfigError(f"No dependable public source of the kind {source!r} is known; name one with {option}.")
    return source, address


def _fetch(recipe: Recipe, kind: Source, address: str, sha256: str | None, part: Path) -> tuple[Path, Origin]:
    """Download what is missing into a folder of the source, so that two sources never mix."""
    if kind == "kaggle":
        return from_kaggle(recipe)
    if kind == "hub":
        raw = part / ("hub-" + address.replace("/", "--"))
        return raw, from_hub(address, raw)
    raw = part / ("url-" + hashlib.sha256(address.encode()).hexdigest()[:12])
    with _progress() as report:
        checksum = fetch(address, raw / "archive.zip", sha256=sha256, report=report)
    return raw, Origin("url", address, checksum)


def _unpack_all(raw: Path, part: Path) -> Path:
    """Unpack archives and tables, one level deep, and return the folder of the images."""
    archives, tables = sorted(raw.rglob("*.zip")), sorted(raw.rglob("*.parquet"))
    if not archives and not tables:
        return raw
    unpacked = part / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in archives:
        try:
            unpack(archive, unpacked / archive.stem)
        except ArchiveRefusedError:
            archive.unlink()  # so that the next run downloads it again
            raise
    for table in tables:
        parquet_images.extract(table, unpacked)
    return unpacked


def _checksums(folder: Path, title: str) -> dict[str, str]:
    """Return the SHA-256 of every file except the record, by its path in the folder; ``title`` names the progress."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    tracked = track(paths, title, console=_CONSOLE, transient=True)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in tracked}


@contextmanager
def _progress() -> Iterator[Report]:
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=_CONSOLE, transient=True) as progress:
        task = progress.add_task("Downloading", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
