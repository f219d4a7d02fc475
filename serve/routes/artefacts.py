"""What travels with a model version: its evaluation, its report and card for people, and the bundle as a whole."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse

from lesion.core.errors import LesionError
from lesion.registry.registry import Registry
from serve.http import auth
from serve.http.auth import require
from serve.http.dependencies import registry_of
from serve.http.zip_stream import packed
from serve.routes.models import Version

PAGE_POLICY = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
_METRICS, _REPORT, _CARD = "report/metrics.json", "report/report.html", "MODEL_CARD.md"
# What everybody may know of an evaluation. Of the files that were refused or that contradict each other it is how many
# there are: their names may be patients'.
_MEASURED = (
    "split", "classes", "images", "groups", "temperature", "calibration_images", "metrics", "confusion_matrix",
    "curves", "definitions", "notes", "leakage",
)  # fmt: skip
_DATA = (
    "name", "fingerprint", "policy", "images", "groups", "duplicate_groups", "duplicate_images", "patients",
    "excluded", "copies",
)  # fmt: skip
_FILES = ("refused", "conflicts")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_REFUSALS = {
    404: "There is no such version, it came without this file, or this server has no storage.",
    422: "A parameter is not valid.",
    503: "The store does not answer, or the bundle in it is damaged.",
}

router = APIRouter(prefix="/models/{version}", tags=["models"], responses=auth.refusals(_REFUSALS))


def artefact(registry: Registry, version: str, name: str) -> Path:
    """Return a file of a version's bundle, which is brought to this machine and verified.

    Raises:
        LesionError: There is no such version, or its bundle has no such file (``artefact_missing``).
    """
    path = registry.folder(version) / name
    if not path.is_file():
        raise LesionError(
            f"The model {version} came without {name}. A model that scripts/train.py or a retraining made has it.",
            code="artefact_missing",
            status=404,
        )
    return path


@lru_cache(maxsize=16)  # a bundle never changes
def evaluation_of(registry: Registry, version: str) -> dict[str, Any]:
    """Return what a version's evaluation measured, without names of files; ``curves`` is None where it kept none."""
    found: dict[str, Any] = json.loads(artefact(registry, version, _METRICS).read_bytes())
    told = {"curves": None} | {name: found[name] for name in _MEASURED if name in found}
    if data := found.get("data"):
        told["data"] = {name: data[name] for name in _DATA if name in data}
        told["data"] |= {name: len(data[name]) for name in _FILES if name in data}
    return told


@router.get("/evaluation", summary="How good a version is", dependencies=[require("viewer")])
def evaluation(request: Request, version: Version) -> dict[str, Any]:
    """Give what was measured on the test split: metrics with intervals, confusion matrix, curves and definitions.

    Of the data it gives counts; no image is named.
    """
    return evaluation_of(registry_of(request), version)


@router.get(
    "/report",
    summary="A version's report for people",
    dependencies=[require("viewer")],
    response_class=HTMLResponse,
)
def report(request: Request, version: Version) -> FileResponse:
    """Give the report of the training run as one page; it loads nothing and runs nothing.

    It names files (of the images that it shows, and of those whose labels contradict each other) and the folders of the
    machine that trained: file names should say nothing of patients.
    """
    path = artefact(registry_of(request), version, _REPORT)
    return FileResponse(path, media_type="text/html", headers=PAGE_POLICY)


@router.get(
    "/card",
    summary="A version's model card",
    dependencies=[require("viewer")],
    response_class=FileResponse,
    responses={200: {"content": {"text/markdown": {}}, "description": "Markdown."}},
)
def card(request: Request, version: Version) -> FileResponse:
    """Give the model card: what the model is for, what it was made from and how good it is."""
    return FileResponse(artefact(registry_of(request), version, _CARD), media_type="text/markdown")


@router.get(
    "/bundle",
    summary="A version's bundle",
    dependencies=[require("contributor")],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}, "description": "A ZIP archive with one folder."}},
)
def bundle(request: Request, version: Version) -> StreamingResponse:
    """Give every file of the bundle as one ZIP archive; unpacked, it is a bundle again that any server serves.

    It holds the report, and names files as that does.
    """
    registry = registry_of(request)
    row = registry.model(version)
    name = f"{_NOT_IN_NAMES.sub('-', row.name).strip('-')[:80] or 'model'}-{version}"
    content = packed(registry.folder(version), row.files, name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(content, media_type="application/zip", headers=headers)
