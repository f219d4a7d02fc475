"""The gate's reports; pictures are put in when one is read, so that a deleted image is gone there too."""

import base64
import re
from collections.abc import Iterable

from lesion.catalogue.thumbnails import thumbnail
from lesion.core.errors import ImageError
from lesion.database.object_store import StoreError
from lesion.database.storage import Storage
from lesion.imaging.heatmap import png
from lesion.retraining.jobs import JobError, job

_SIDE = 128
_PNG = "data:image/png;base64,"
_BLANK = _PNG + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
_PLACE = re.compile(re.escape(_PNG) + r"([A-Za-z0-9+/]{86}==)(?![A-Za-z0-9+/=])")  # of the 64 letters of a hash


def places(hashes: Iterable[str]) -> dict[str, bytes]:
    """Return what stands in a report for pictures: instead of each file's content, its hash."""
    return {sha256: sha256.encode("ascii") for sha256 in hashes}


def keep_report(storage: Storage, job_id: str, page: str) -> None:
    """Keep a job's report; the first one, when the job comes again."""
    storage.store.put(_key(job_id), page.encode("utf-8"))


def report_of(storage: Storage, job_id: str) -> str:
    """Return a job's report with the pictures that there still are.

    Raises:
        JobError: There is no such job (``job_unknown``), or it has no report (``report_missing``).
        StoreError: The store does not answer.
    """
    state = job(storage, job_id).state
    try:
        page = storage.store.get(_key(job_id)).decode("utf-8")
    except StoreError as error:
        if error.code != "file_gone":
            raise
        raise JobError(
            f"The retraining {job_id} has no report: it is {state}, and only the gate's decision makes one.",
            code="report_missing",
            status=404,
        ) from error
    return _PLACE.sub(lambda match: _picture(storage, base64.b64decode(match[1]).decode("ascii", "replace")), page)


def _picture(storage: Storage, sha256: str) -> str:
    try:
        picture = png(thumbnail(storage.store, sha256, _SIDE))
    except (StoreError, ImageError):  # it was deleted
        return _BLANK
    return _PNG + base64.b64encode(picture).decode("ascii")


def _key(job_id: str) -> str:
    return f"reports/{job_id}.html"
