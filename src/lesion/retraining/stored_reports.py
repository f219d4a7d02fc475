"""The gate's reports; pictures are inserted when a report is read, so that deleted images disappear from it too."""

import base64
import re
from collections.abc import Iterable

from lesion.catalogue.thumbnails import thumbnail
from lesion.core.errors import ImageError, NotFoundError
from lesion.database.object_store import ObjectNotFoundError, StoreError
from lesion.database.storage import Storage
from lesion.imaging.heatmap import encode_png
from lesion.retraining.jobs import JobError, job

_SIDE = 128
_PNG = "data:image/png;base64,"
_BLANK = _PNG + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
_PLACEHOLDER = re.compile(re.escape(_PNG) + r"([A-Za-z0-9+/]{86}==)(?![A-Za-z0-9+/=])")  # the 64 letters of a hash


class ReportNotFoundError(NotFoundError, JobError):
    """The job has no report (yet)."""

    default_code = "report_missing"


def picture_placeholders(hashes: Iterable[str]) -> dict[str, bytes]:
    """Return what stands in a stored report for each picture: the image's hash instead of its pixels."""
    return {sha256: sha256.encode("ascii") for sha256 in hashes}


def save_report(storage: Storage, job_id: str, page: str) -> None:
    """Store a job's report; when the job runs again, its first report stays."""
    storage.store.put(_key(job_id), page.encode("utf-8"))


def load_report(storage: Storage, job_id: str) -> str:
    """Return a job's report with the pictures of all images that still exist.

    Raises:
        JobNotFoundError: There is no such job.
        ReportNotFoundError: It has no report.
        StoreError: The store does not answer.
    """
    state = job(storage, job_id).state
    try:
        page = storage.store.get(_key(job_id)).decode("utf-8")
    except ObjectNotFoundError as error:
        raise ReportNotFoundError(
            f"The retraining {job_id} has no report: it is {state}, and only the gate's decision makes one."
        ) from error
    return _PLACEHOLDER.sub(
        lambda match: _picture(storage, base64.b64decode(match[1]).decode("ascii", "replace")), page
    )


def _picture(storage: Storage, sha256: str) -> str:
    try:
        picture = encode_png(thumbnail(storage.store, sha256, _SIDE))
    except (StoreError, ImageError):  # it was deleted
        return _BLANK
    return _PNG + base64.b64encode(picture).decode("ascii")


def _key(job_id: str) -> str:
    return f"reports/{job_id}.html"
