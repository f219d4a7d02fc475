"""The gate's reports; pictures are inserted when a report is read, so that deleted images disappear from it too."""

import base64
import re
from collections.abc import Iterable

from lesion.catalogue.images import limits_of_accepted
from lesion.catalogue.thumbnails import thumbnail
from lesion.core.errors import ImageError
from lesion.database.object_store import DamagedFileError, ObjectNotFoundError, StoreError
from lesion.database.storage import Storage
from lesion.imaging.heatmap import encode_png
from lesion.imaging.limits import Limits
from lesion.retraining.jobs import JobNotFoundError, job

_SIDE = 128
_PNG = "data:image/png;base64,"
_BLANK = _PNG + "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
_PLACEHOLDER = re.compile(re.escape(_PNG) + r"([A-Za-z0-9+/]{86}==)(?![A-Za-z0-9+/=])")  # the 64 letters of a hash


def picture_placeholders(hashes: Iterable[str]) -> dict[str, bytes]:
    """Return what stands in a stored report for each picture: the image's hash instead of its pixels."""
    return {sha256: sha256.encode("ascii") for sha256 in hashes}


def save_report(storage: Storage, job_id: str, page: str) -> None:
    """Store a job's report; when the job runs again, its first report stays."""
    storage.store.put(_key(job_id), page.encode("utf-8"))


def load_report(storage: Storage, job_id: str) -> str:
    """Return a job's report with the pictures of all images that still exist.

    A JobNotFoundError tells that there is no such job, or it has no report (``report_missing``).
    """
    state = job(storage, job_id).state
    try:
        page = storage.store.get(_key(job_id)).decode("utf-8")
    except ObjectNotFoundError as error:
        raise JobNotFoundError(
            f"The retraining {job_id} has no report: it is {state}, and only the gate's decision makes one.",
            code="report_missing",
        ) from error
    with storage.reading() as session:
        limits = limits_of_accepted(session)
    return _PLACEHOLDER.sub(
        lambda match: _picture(storage, base64.b64decode(match[1]).decode("ascii", "replace"), limits), page
    )


def _picture(storage: Storage, sha256: str, limits: Limits) -> str:
    try:
        picture = encode_png(thumbnail(storage.store, sha256, _SIDE, limits))
    except (StoreError, DamagedFileError, ImageError):  # it was deleted, or replaced by another
        return _BLANK
    return _PNG + base64.b64encode(picture).decode("ascii")


def _key(job_id: str) -> str:
    return f"reports/{job_id}.html"
