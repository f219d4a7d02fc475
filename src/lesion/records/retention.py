"""Records whose time is over are removed, and single ones are deleted on request; their chains stay whole."""

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from lesion.core.errors import InvalidValueError, NotFoundError
from lesion.database.audit import record
from lesion.database.tables import AnswerRow, RecordChain
from lesion.records.answer_record import moment_text
from lesion.records.chain import ChainKey
from lesion.records.importing import seal_chain

DELETED = "record.deleted"  # an action of the audit log


def remove_before(session: Session, key: ChainKey, moment: datetime) -> int:
    """Remove the records of before a moment, and return their number.

    A chain loses records from its beginning only: where the clock was set back, some stay until those after them go.
    """
    removed = 0
    limit = moment_text(moment)
    old = select(AnswerRow.chain).where(AnswerRow.at < limit, AnswerRow.content != "").distinct()
    for number in session.scalars(old).all():
        chain = session.scalars(select(RecordChain).where(RecordChain.number == number).with_for_update()).one()
        of_chain = AnswerRow.chain == chain.number
        newer = select(func.min(AnswerRow.number)).where(of_chain, AnswerRow.at >= limit, AnswerRow.content != "")
        last = (session.scalar(newer) or chain.last_number + 1) - 1
        if last < chain.first_number:
            continue
        link = session.scalars(select(AnswerRow.link).where(of_chain, AnswerRow.number == last)).one()
        session.execute(delete(AnswerRow).where(of_chain, AnswerRow.number <= last))
        removed += last + 1 - chain.first_number
        chain.first_number, chain.before_first = last + 1, link
        seal_chain(chain, key)
    return removed


def delete_records(session: Session, actor: str, reason: str, *, request_id: str = "", image: str = "") -> int:
    """Delete the content of the records of a request or of an image (its keyed hash), and return their number.

    What stays of each is the hash by which it stands in its chain, from which nothing can be read.

    Raises:
        InvalidValueError: The reason is empty, or neither a request nor an image is given.
        NotFoundError: There is no such record.
    """
    if not reason.strip():
        raise InvalidValueError("Give a reason for the readers of the audit log.", code="reason_missing")
    if bool(request_id) == bool(image):
        raise InvalidValueError("Give the id of a request, or an image, and not both.", code="record_not_named")
    named = AnswerRow.request_id == request_id if request_id else AnswerRow.image == image
    rows = session.scalars(select(AnswerRow).where(named, AnswerRow.content != "").with_for_update()).all()
    if not rows:
        raise NotFoundError("There is no record of this request or image.", code="record_unknown")
    for row in rows:
        record(session, actor, DELETED, f"{row.chain}.{row.number}", reason=reason)
        row.content = row.request_id = row.at = row.image = row.model_version = ""
    return len(rows)
