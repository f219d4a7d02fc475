"""Brings the records of this machine's logs into the database, in the background.

Each record is imported once, however often this is interrupted or done by several processes at once: a chain's row has
the number of its last record, and changes in the same transaction.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from lesion.core.errors import DataError
from lesion.database.storage import Storage
from lesion.database.tables import AnswerRow, RecordChain
from lesion.records.answer_record import AnswerRecord
from lesion.records.chain import ChainKey, content_hash
from lesion.records.record_log import SUFFIX

logger = logging.getLogger(__name__)

_BATCH = 2000  # records in one transaction
_DAMAGED = ".damaged"  # added to the name of a file that does not continue its chain


@dataclass(frozen=True, slots=True)
class Line:
    """A record in a log, and how many bytes of the file end with it."""

    number: int
    link: bytes
    content: str
    end: int


@dataclass(eq=False)
class LogImporter:
    """Imports the logs of a folder: those of the chain ``own``, and those whose processes have ended."""

    storage: Storage
    folder: Path
    key: ChainKey
    own: str = ""
    _read: dict[Path, int] = field(default_factory=dict, init=False)  # bytes of each file that are imported

    def import_all(self) -> int:
        """Import all records that are there; return their number.

        Raises:
            SQLAlchemyError: The database does not answer; what is not imported stays in the logs.
        """
        chains: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            chains.setdefault(path.name.partition("-")[0], []).append(path)
        return sum(self._import_chain(chain, paths) for chain, paths in chains.items())

    def _import_chain(self, chain: str, paths: list[Path]) -> int:
        """Import a chain's files in their order, unless another process writes or imports it."""
        with _unused(paths[-1]) as ended:
            if not ended and chain != self.own:
                return 0
            return sum(self._import_file(chain, path, ended or path != paths[-1]) for path in paths)

    def _import_file(self, chain: str, path: Path, complete: bool) -> int:
        imported = 0
        try:
            while lines := list(_lines(path, self._read.get(path, 0))):
                imported += self._import_lines(chain, lines)
                self._read[path] = lines[-1].end
        except FileNotFoundError:  # another process imported it
            return imported
        except DataError as error:
            logger.error("%s is not imported, and kept as %s%s: %s", path, path.name, _DAMAGED, error.message)
            path.rename(path.with_name(path.name + _DAMAGED))
            return imported
        if complete:
            if path.stat().st_size > self._read.get(path, 0):
                logger.warning("the last record in %s is not complete; its answer was not given", path)
            path.unlink(missing_ok=True)
            self._read.pop(path, None)
        return imported

    def _import_lines(self, chain_id: str, lines: list[Line]) -> int:
        with self.storage.session() as session:
            chain = _open_chain(session, chain_id, self.key)
            link, number, rows = bytes.fromhex(chain.last_link), chain.last_number, []
            for line in lines:
                if line.number <= number:  # imported already, by another process or before an interruption
                    continue
                link = self.key.link(link, number + 1, content_hash(line.content))
                if line.number != number + 1 or line.link != link:
                    raise DataError(f"record {line.number} does not follow record {number}.", code="record_damaged")
                number = line.number
                rows.append(_row(chain.number, line))
            if rows:
                session.execute(insert(AnswerRow), rows)
                chain.last_number, chain.last_link = number, link.hex()
                seal_chain(chain, self.key)
            return len(rows)


def seal_chain(chain: RecordChain, key: ChainKey) -> None:
    """Write the seal that belongs to the first and the last record of a chain."""
    before, last = bytes.fromhex(chain.before_first), bytes.fromhex(chain.last_link)
    chain.seal = key.seal(f"{chain.number}:{chain.id}", chain.first_number, before, chain.last_number, last)


def _open_chain(session: Session, chain_id: str, key: ChainKey) -> RecordChain:
    """Return the row of a chain, locked; a new chain gets the next number, so that a removed one leaves a gap."""
    chain = session.scalar(select(RecordChain).where(RecordChain.id == chain_id).with_for_update())
    if chain is None:
        number = (session.scalar(select(func.max(RecordChain.number))) or 0) + 1
        beginning = key.beginning(chain_id).hex()
        chain = RecordChain(
            number=number,
            id=chain_id,
            host=socket.gethostname()[:200],
            first_number=1,
            before_first=beginning,
            last_number=0,
            last_link=beginning,
        )
        seal_chain(chain, key)
        session.add(chain)
        session.flush()
    return chain


def _row(chain: int, line: Line) -> Mapping[str, object]:
    record = AnswerRecord.from_text(line.content)
    return {
        "chain": chain,
        "number": line.number,
        "link": line.link.hex(),
        "content_hash": content_hash(line.content).hex(),
        "content": line.content,
        **looked_up(record),
    }


def looked_up(record: AnswerRecord) -> dict[str, str]:
    """Return the columns by which records are found; they repeat what the content has."""
    return {
        "request_id": record.request_id,
        "at": record.at,
        "image": record.image,
        "model_version": record.model_version,
    }


def _lines(path: Path, start: int) -> Iterator[Line]:
    """Yield the whole lines of a file from a byte on, at most one batch of them."""
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(_BATCH):
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                number, link, content = line.decode("ascii").rstrip("\n").split(" ", 2)
                yield Line(int(number), bytes.fromhex(link), content, start)
            except ValueError as error:
                raise DataError(f"the line before byte {start} is no record.", code="record_damaged") from error


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Tell whether the process that wrote a log has ended; until the block ends, no other one imports it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)
