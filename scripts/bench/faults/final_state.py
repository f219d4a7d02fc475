"""What must hold at the end of a cell of the fault matrix."""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.database.tables import GateLook, Image, Job
from lesion.registry.registry import Registry
from lesion.retraining.jobs import job

_REFUSALS = (0, 503, 507)  # a prediction may be refused while a fault lasts; 0 stands for a connection that failed


def losses(storage: Storage, kept: Collection[str], answers: Sequence[tuple[int, str]]) -> list[str]:
    """Return what was lost or is half done; empty if nothing is.

    Args:
        storage: The cell's storage.
        kept: The hashes of uploads that were answered as kept.
        answers: For each prediction that was asked for the HTTP status, and the model version or the error's code.
    """
    found = []
    with storage.reading() as session:
        catalogue = set(session.scalars(select(Image.sha256)))
    if missing := set(kept) - catalogue:
        found.append(f"{len(missing)} acknowledged uploads are not in the catalogue")
    for sha256 in catalogue:
        try:
            storage.store.get_image(sha256)
        except LesionError as error:
            found.append(error.message)
    known = {model.version for model in Registry(storage).models()}
    if strange := {version for status, version in answers if status == 200} - known:
        found.append(f"unknown versions answered: {strange}")
    if odd := {f"{status} {code}" for status, code in answers if status not in (200, *_REFUSALS)}:
        found.append(f"predictions were answered {odd}")
    return found


def job_faults(storage: Storage) -> list[str]:
    """Return what is wrong with the end of the only retraining: it must be promoted once, after one look."""
    found = []
    with storage.reading() as session:
        (job_id,) = session.scalars(select(Job.id))
        looks = len(list(session.scalars(select(GateLook))))
    ended = job(storage, job_id)
    if ended.state != "promoted":
        found.append(f"the job is {ended.state}: {ended.reason[:200]}")
    if [row.job_id for row in Registry(storage).history()].count(job_id) != 1:
        found.append("it is not in the ledger once")
    if looks != 1:
        found.append(f"it used {looks} looks")
    return found
