"""What travels with a model version: its evaluation, its report and card for people, and the bundle as a whole."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse

from lesion.errors import LesionError
from lesion.loop.registry import Registry
from serve import access
from serve.access import require
from serve.packing import packed
from serve.routes.models import Version
from serve.state import registry_of

PAGE_POLICY = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
_METRICS, _REPORT, _CARD = "report/metrics.json", "report/report.html", "MODEL_CARD.md"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_REFUSALS = {
    404: "There is no such version, it came without this file, or this server has no storage.",
    422: "A parameter is not valid.",
    503: "The store does not answer, or the bundle in it is damaged.",
}

router = APIRouter(prefix="/models/{version}", tags=["models"], responses=access.refusals(_REFUSALS))


def artefact(registry: Registry, version: str, name: str) -> Path:
    """Return a file of a version's bundle, which is brought to this machine and verified.

    Raises:
        LesionError: There is no such version, or its bundle has no such file (``artefact_missing``).
    """
    path = registry.fetch(version) / name
    if not path.is_file():
        raise LesionError(
            f"The model {version} came without {name}. A model that scripts/train.py or a retraining made has it.",
            code="artefact_missing",
            status=404,
        )
    return path


@lru_cache(maxsize=16)  # a bundle never changes
def evaluation_of(registry: Registry, version: str) -> dict[str, Any]:
    """Return what a version's evaluation measured; ``curves`` is None where it kept none."""
    found: dict[str, Any] = json.loads(artefact(registry, version, _METRICS).read_bytes())
    return {"curves": None} | found


@router.get("/evaluation", summary="How good a version is", dependencies=[require("viewer")])
def evaluation(request: Request, version: Version) -> dict[str, Any]:
    """Give what was measured on the test split: metrics with intervals, confusion matrix, curves and definitions."""
    return evaluation_of(registry_of(request), version)


@router.get(
    "/report",
    summary="A version's report for people",
    dependencies=[require("viewer")],
    response_class=HTMLResponse,
)
def report(request: Request, version: Version) -> FileResponse:
    """Give the report of the training run as one page; it loads nothing and runs nothing."""
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
    """Give every file of the bundle as one ZIP archive; unpacked, it is a bundle again that any server serves."""
    registry = registry_of(request)
    row = registry.model(version)
    name = f"{_NOT_IN_NAMES.sub('-', row.name).strip('-')[:80] or 'model'}-{version}"
    content = packed(registry.fetch(version), row.files, name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(content, media_type="application/zip", headers=headers)
