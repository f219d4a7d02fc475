"""Finds records."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import NotFoundError
from lesion.database.tables import AnswerRow
from lesion.records.answer_record import AnswerRecord


def list_records(
    session: Session,
    *,
    request_id: str = "",
    image: str = "",
    model_version: str = "",
    after: int = 0,
    limit: int = 100,
) -> list[tuple[int, AnswerRecord]]:
    """Return one page of records with their ids, the oldest first, without deleted ones.

    ``image`` is a keyed hash, and ``after`` the last id of the page before.
    """
    statement = select(AnswerRow.id, AnswerRow.content).where(AnswerRow.id > after, AnswerRow.content != "")
    wanted = ((AnswerRow.request_id, request_id), (AnswerRow.image, image), (AnswerRow.model_version, model_version))
    for column, value in wanted:
        if value:
            statement = statement.where(column == value)
    rows = session.execute(statement.order_by(AnswerRow.id).limit(limit))
    return [(number, AnswerRecord.from_text(content)) for number, content in rows]


def newest_record(session: Session, request_id: str) -> AnswerRecord:
    """Return the record of a request, the last one if several have its id; none is a NotFoundError."""
    rows = select(AnswerRow.content).where(AnswerRow.request_id == request_id, AnswerRow.content != "")
    content = session.scalar(rows.order_by(AnswerRow.id.desc()).limit(1))
    if content is None:
        raise NotFoundError(
            f"There is no record of the request '{request_id[:64]}'. Records appear some seconds after the answer, and "
            "only on servers with a storage.",
            code="record_unknown",
        )
    return AnswerRecord.from_text(content)
