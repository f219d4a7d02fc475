"""Checks that no record was changed, and none is missing."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from lesion.core.errors import DataError
from lesion.database.tables import AnswerRow, RecordChain
from lesion.records.answer_record import AnswerRecord
from lesion.records.chain import ChainKey, content_hash
from lesion.records.importing import looked_up

_BATCH = 2000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a chain, and from which of its records on."""

    chain: int
    number: int  # of the record; 0 for the chain itself
    fault: str


@dataclass(slots=True)
class Verification:
    """The result of a check of all chains."""

    chains: int
    records: int
    deleted: int  # records whose content was deleted on request
    faults: list[Fault]


def verify(session: Session, key: ChainKey) -> Verification:
    """Check every chain; of each chain the first fault is told, since what follows it cannot be judged."""
    result = Verification(0, 0, 0, [])
    before = 0
    for chain in session.scalars(select(RecordChain).order_by(RecordChain.number)).all():
        result.faults += [Fault(number, 0, "the chain is missing") for number in range(before + 1, chain.number)]
        before = chain.number
        result.chains += 1
        if fault := _fault_of(session, chain, key, result):
            result.faults.append(fault)
    return result


def _fault_of(session: Session, chain: RecordChain, key: ChainKey, result: Verification) -> Fault | None:
    link, number = bytes.fromhex(chain.before_first), chain.first_number - 1
    last = bytes.fromhex(chain.last_link)
    seal = key.seal(f"{chain.number}:{chain.id}", chain.first_number, link, chain.last_number, last)
    if seal != chain.seal:
        return Fault(chain.number, 0, "the chain's first or last record is not the one that was sealed")
    for row in _rows(session, chain.number):
        if row.number != number + 1:
            return Fault(chain.number, number + 1, "the record is missing")
        link = key.link(link, row.number, bytes.fromhex(row.content_hash))
        number = row.number
        if row.link != link.hex() or (row.content and not _is_unchanged(row)):
            return Fault(chain.number, number, "the record was changed")
        result.records += 1
        result.deleted += not row.content
    if number != chain.last_number:
        return Fault(chain.number, number + 1, "the record is missing")
    return None if link == last else Fault(chain.number, number, "the record was changed")


def _is_unchanged(row: AnswerRow) -> bool:
    if content_hash(row.content).hex() != row.content_hash:
        return False
    try:
        record = AnswerRecord.from_text(row.content)
    except DataError:
        return False
    return all(getattr(row, name) == value for name, value in looked_up(record).items())


def _rows(session: Session, chain: int) -> Iterator[AnswerRow]:
    last = 0
    while True:
        page = select(AnswerRow).where(AnswerRow.chain == chain, AnswerRow.number > last)
        rows = session.scalars(page.order_by(AnswerRow.number).limit(_BATCH)).all()
        yield from rows
        if len(rows) < _BATCH:
            return
        last = rows[-1].number
        session.expunge_all()
