"""What belongs to a model version: its evaluation, report and card, and the bundle as a whole."""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse

from lesion.core.errors import NotFoundError
from lesion.registry.registry import Registry
from serve.http.dependencies import KeyFirstRoute, RegistryDep, require
from serve.http.openapi import refusals
from serve.routes.models import Version

PAGE_POLICY = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
_METRICS, _REPORT, _CARD = "report/metrics.json", "report/report.html", "MODEL_CARD.md"
# What every viewer may see of an evaluation. Of files that were refused or that contradict each other only the number,
# since their names may identify patients.
_EVALUATION = (
    "split", "classes", "images", "groups", "temperature", "bias", "prevalence", "calibration_images",
    "metrics", "confusion_matrix", "curves", "definitions", "notes", "leakage",
)  # fmt: skip
_DATA = (
    "name", "fingerprint", "policy", "images", "groups", "duplicate_groups", "duplicate_images", "patients",
    "excluded", "copies",
)  # fmt: skip
_FILES = ("refused", "conflicts")
_ZIP_BLOCK = 2**16  # what a client that reads nothing may hold of a download, about
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # ZIP's earliest, for every file: the same files give the same archive
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_REFUSALS = {
    404: "There is no such version, it came without this file, or this server has no storage.",
    422: "A parameter is not valid.",
    503: "The store does not answer, or the bundle in it is damaged.",
}

router = APIRouter(
    route_class=KeyFirstRoute, prefix="/models/{version}", tags=["models"], responses=refusals(_REFUSALS)
)


class ArtefactMissingError(NotFoundError):
    """A version whose bundle lacks a file."""

    default_code = "artefact_missing"


def artefact(registry: Registry, version: str, name: str) -> Path:
    """Return a file of a version's bundle, which is fetched to this machine and verified.

    There may be no such version (NotFoundError), or no such file (ArtefactMissingError).
    """
    path = registry.folder(version) / name
    if not path.is_file():
        raise ArtefactMissingError(
            f"The model {version} came without {name}. A model of 'lesion train' or of a retraining has it."
        )
    return path


@lru_cache(maxsize=16)  # a bundle never changes
def evaluation_of(registry: Registry, version: str) -> dict[str, Any]:
    """Return a version's evaluation without names of files; ``curves`` is None if it has none."""
    metrics: dict[str, Any] = json.loads(artefact(registry, version, _METRICS).read_bytes())
    public = {"curves": None} | {name: metrics[name] for name in _EVALUATION if name in metrics}
    if data := metrics.get("data"):
        public["data"] = {name: data[name] for name in _DATA if name in data}
        public["data"] |= {name: len(data[name]) for name in _FILES if name in data}
    return public


@router.get("/evaluation", summary="How good a version is", dependencies=[require("viewer")])
def evaluation(registry: RegistryDep, version: Version) -> dict[str, Any]:
    """Return what was measured on the test split: metrics with intervals, confusion matrix, curves and definitions.

    Of the data it returns counts; it names no image.
    """
    return evaluation_of(registry, version)


@router.get(
    "/report",
    summary="A version's report for users",
    dependencies=[require("viewer")],
    response_class=HTMLResponse,
)
def report(registry: RegistryDep, version: Version) -> FileResponse:
    """Return the report of the training run as one page without scripts and remote assets.

    It names files (of the images that it shows, and of those whose labels contradict each other) and the folders of the
    machine that trained: file names should not identify patients.
    """
    path = artefact(registry, version, _REPORT)
    return FileResponse(path, media_type="text/html", headers=PAGE_POLICY)


@router.get(
    "/card",
    summary="A version's model card",
    dependencies=[require("viewer")],
    response_class=FileResponse,
    responses={200: {"content": {"text/markdown": {}}, "description": "Markdown."}},
)
def card(registry: RegistryDep, version: Version) -> FileResponse:
    """Return the model card: what the model is for, what it was made from and how good it is."""
    return FileResponse(artefact(registry, version, _CARD), media_type="text/markdown")


@router.get(
    "/bundle",
    summary="A version's bundle",
    dependencies=[require("contributor")],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}, "description": "A ZIP archive with one folder."}},
)
def bundle(registry: RegistryDep, version: Version) -> StreamingResponse:
    """Return every file of the bundle as one ZIP archive; unpacked, it is a bundle that any server can serve.

    It contains the report, which names files.
    """
    row = registry.model(version)
    name = f"{_NOT_IN_NAMES.sub('-', row.name).strip('-')[:80] or 'model'}-{version}"
    content = zip_files(registry.folder(version), row.files, name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(content, media_type="application/zip", headers=headers)


class _Buffer(io.RawIOBase):
    """Keeps the bytes that are written until they are taken. It cannot seek, and ``zipfile`` adapts to that."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        block = bytes(self._bytes)
        self._bytes.clear()
        return block


def zip_files(folder: Path, names: Iterable[str], top: str) -> Iterator[bytes]:
    """Pack files of a folder into an archive that unpacks to one folder, ``top``; yield the archive in blocks.

    They are not compressed, since weights hardly shrink.
    """
    buffer = _Buffer()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(f"{top}/{name}", _ZIP_DATE)
            entry.external_attr = 0o644 << 16
            entry.file_size = (folder / name).stat().st_size  # ZIP needs another form for 4 GiB and more
            with (folder / name).open("rb") as source, archive.open(entry, "w") as target:
                while block := source.read(_ZIP_BLOCK):
                    target.write(block)
                    yield buffer.take()
    yield buffer.take()
