"""Records of answers: their logs, chains and imports, and that no change or gap stays unseen."""

import errno
import hashlib
import hmac
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from lesion.core.errors import DataError, InvalidValueError, NotFoundError
from lesion.database.storage import Storage
from lesion.database.tables import AnswerRow, AuditEntry, RecordChain
from lesion.records import record_log
from lesion.records.answer_record import AnswerRecord, moment_text
from lesion.records.chain import ChainKey
from lesion.records.chain_check import Fault, verify
from lesion.records.importing import LogImporter
from lesion.records.queries import list_records, newest_record
from lesion.records.record_log import RecordLog, RecordsFullError
from lesion.records.retention import delete_records, remove_before
from tests.support.images.loop_images import new_storage

KEY = ChainKey(b"k" * 32)
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def answer(number: int, **changes: object) -> AnswerRecord:
    record = AnswerRecord(
        request_id=f"request-{number}",
        at=moment_text(BEGAN + timedelta(days=number)),
        image=f"{number:064x}",
        key_id="",
        model_version="0123456789ab",
        engine="openvino:cpu",
        precision="f32",
        domain_level=0.05,
        predicted_class="a",
        probabilities=[0.1 + number / 1000, 0.9 - number / 1000],
        coverage=None,
        prediction_set=None,
        in_domain=True,
        domain_distance=1 / 3,
        domain_p_value=None,
        abstain_reason=None,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path)


def importer(storage: Storage, own: str = "") -> LogImporter:
    return LogImporter(storage, storage.cache / "records", KEY, own)


def recorded(storage: Storage, count: int, **settings: object) -> RecordLog:
    """A log of so many records, imported while its process goes on."""
    log = RecordLog(storage.cache / "records", KEY, **settings)  # type: ignore[arg-type]
    for number in range(1, count + 1):
        log.append(answer(number).to_text())
    assert importer(storage, log.chain).import_all() == count
    return log


def faults(storage: Storage) -> list[Fault]:
    with storage.reading() as session:
        return verify(session, KEY).faults


def test_a_record_is_written_so_that_the_same_numbers_come_back() -> None:
    record = answer(7, probabilities=[0.1, 1 / 3, 5e-324], domain_p_value=2 / 3, prediction_set=["é", "b"])
    assert AnswerRecord.from_text(record.to_text()) == record
    assert "\n" not in record.to_text()
    for damaged in ("", "{}", record.to_text() + " ", record.to_text().replace("engine", "motor")):
        with pytest.raises(DataError, match="no record"):
            AnswerRecord.from_text(damaged)


def test_links_are_hmacs_of_all_that_came_before(storage: Storage) -> None:
    log = recorded(storage, 2)

    def hashed(*parts: bytes) -> bytes:
        return hmac.new(b"k" * 32, b"\0".join(parts), hashlib.sha256).digest()

    link = hashed(b"beginning", log.chain.encode())
    for number in (1, 2):
        digest = hashlib.sha256(answer(number).to_text().encode()).digest()
        link = hashed(b"link", link, number.to_bytes(8, "big"), digest)
    with storage.reading() as session:
        assert [row.number for row in session.scalars(select(AnswerRow))] == [1, 2]
        assert session.scalars(select(RecordChain.last_link)).one() == link.hex()


def test_records_are_found_again(storage: Storage) -> None:
    recorded(storage, 3)
    with storage.reading() as session:
        assert [record.request_id for _, record in list_records(session)] == ["request-1", "request-2", "request-3"]
        [(_, record)] = list_records(session, image=f"{2:064x}")
        assert record == answer(2) == newest_record(session, "request-2")
        assert list_records(session, model_version="ffffffffffff") == []
        with pytest.raises(NotFoundError, match="no record of the request 'other'"):
            newest_record(session, "other")


def test_imports_repeat_nothing_and_leave_only_the_file_in_use(storage: Storage) -> None:
    log = recorded(storage, 5, segment_bytes=1)
    again, folder = importer(storage, log.chain), storage.cache / "records"
    assert again.import_all() == 0
    assert [path.name for path in folder.iterdir()] == [f"{log.chain}-000004.log"]
    log.append(answer(6).to_text())
    assert importer(storage).import_all() == 0  # another process leaves it alone
    assert again.import_all() == 1
    log.append(answer(7).to_text())
    log.close()
    assert importer(storage).import_all() == 1  # its process has ended
    assert list(folder.iterdir()) == []
    assert faults(storage) == []
    with storage.reading() as session:
        assert len(list_records(session)) == 7


def test_two_processes_that_import_at_once_import_each_record_once(storage: Storage) -> None:
    for _ in range(4):
        log = RecordLog(storage.cache / "records", KEY, segment_bytes=200)
        for number in range(1, 51):
            log.append(answer(number).to_text())
        log.close()
    counts: list[int] = []

    def run() -> None:
        counts.append(importer(storage).import_all())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.append(importer(storage).import_all())
    assert sum(counts) == 200
    assert faults(storage) == []


def test_a_killed_process_loses_no_record(storage: Storage, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from tests.records.test_record_chains import KEY, answer; "
        "from lesion.records.record_log import RecordLog\n"
        "log = RecordLog(pathlib.Path(sys.argv[1]), KEY)\n"
        "for number in range(1, 10**9):\n"
        "    log.append(answer(number).to_text()); print(number, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(storage.cache / "records")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(200):
            last = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        last = int((process.stdout.read().splitlines() or [str(last)])[-1])
    assert importer(storage).import_all() >= last >= 200
    assert faults(storage) == []


def test_an_incomplete_last_line_is_no_record(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    log = RecordLog(storage.cache / "records", KEY)
    for number in (1, 2):
        log.append(answer(number).to_text())
    log.close()
    [path] = (storage.cache / "records").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert importer(storage).import_all() == 1
    assert "not complete" in caplog.text
    assert faults(storage) == []


@pytest.mark.parametrize(
    "damage", [lambda text: text.replace("request-2", "request-9"), lambda text: text.replace("2 ", "3 ", 1)]
)
def test_a_log_that_was_changed_is_kept_and_not_imported(
    storage: Storage, damage: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    log = RecordLog(storage.cache / "records", KEY)
    for number in (1, 2, 3):
        log.append(answer(number).to_text())
    log.close()
    [path] = (storage.cache / "records").iterdir()
    head, *rest = path.read_text().splitlines(keepends=True)
    path.write_text(head + damage(rest[0]) + rest[1])
    assert importer(storage).import_all() == 0
    assert path.with_name(path.name + ".damaged").exists()
    assert "record_damaged" not in caplog.text
    assert "is not imported" in caplog.text


def test_a_full_disk_delays_records_and_loses_none(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recorded(storage, 1)
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 20:
            return write(file, data[:20])  # a part fits
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        patched.setattr(record_log, "_MOST_UNWRITTEN", 2)
        log.append(answer(2).to_text())
        log.check_room()
        log.append(answer(3).to_text())
        assert log.unwritten == 2
        with pytest.raises(RecordsFullError, match="could not be recorded"):
            log.check_room()
    assert importer(storage, log.chain).import_all() == 0
    log.append(answer(4).to_text())
    assert log.unwritten == 0
    assert importer(storage, log.chain).import_all() == 3
    assert faults(storage) == []


def _change(session: Session, **values: object) -> None:
    session.execute(update(AnswerRow).where(AnswerRow.number == 2).values(**values))


CHANGES: dict[str, tuple[Callable[[Session], object], Fault]] = {
    "content": (lambda s: _change(s, content=answer(9).to_text()), Fault(1, 2, "the record was changed")),
    "content and its hash": (
        lambda s: _change(
            s, content=answer(9).to_text(), content_hash=hashlib.sha256(answer(9).to_text().encode()).hexdigest()
        ),
        Fault(1, 2, "the record was changed"),
    ),
    "what it is found by": (lambda s: _change(s, request_id="other"), Fault(1, 2, "the record was changed")),
    "link": (lambda s: _change(s, link="0" * 64), Fault(1, 2, "the record was changed")),
    "removed": (
        lambda s: s.execute(delete(AnswerRow).where(AnswerRow.number == 2)),
        Fault(1, 2, "the record is missing"),
    ),
    "first removed": (
        lambda s: s.execute(delete(AnswerRow).where(AnswerRow.number == 1)),
        Fault(1, 1, "the record is missing"),
    ),
    "last removed": (
        lambda s: s.execute(delete(AnswerRow).where(AnswerRow.number == 3)),
        Fault(1, 3, "the record is missing"),
    ),
    "moved": (
        lambda s: s.execute(update(AnswerRow).where(AnswerRow.number == 3).values(number=4)),
        Fault(1, 3, "the record is missing"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_or_removed_record_is_found(storage: Storage, name: str) -> None:
    recorded(storage, 3)
    assert faults(storage) == []
    change, fault = CHANGES[name]
    with storage.session() as session:
        change(session)
    assert faults(storage) == [fault]


def test_a_chain_that_was_cut_is_found_although_its_row_fits(storage: Storage) -> None:
    recorded(storage, 3)
    with storage.session() as session:
        session.execute(delete(AnswerRow).where(AnswerRow.number == 3))
        link = session.scalars(select(AnswerRow.link).where(AnswerRow.number == 2)).one()
        session.execute(update(RecordChain).values(last_number=2, last_link=link))
    assert faults(storage) == [Fault(1, 0, "the chain's first or last record is not the one that was sealed")]


def test_a_removed_chain_is_found(storage: Storage) -> None:
    for _ in range(3):
        recorded(storage, 2)
    with storage.session() as session:
        session.execute(delete(AnswerRow).where(AnswerRow.chain == 2))
        session.execute(delete(RecordChain).where(RecordChain.number == 2))
    assert faults(storage) == [Fault(2, 0, "the chain is missing")]


def test_old_records_go_and_the_chain_stays_whole(storage: Storage) -> None:
    recorded(storage, 5)
    recorded(storage, 2)
    with storage.session() as session:
        assert remove_before(session, KEY, BEGAN + timedelta(days=3)) == 4
    with storage.reading() as session:
        assert [record.request_id for _, record in list_records(session)] == ["request-3", "request-4", "request-5"]
        verified = verify(session, KEY)
    assert (verified.chains, verified.records, verified.faults) == (2, 3, [])
    with storage.session() as session:
        assert remove_before(session, KEY, BEGAN + timedelta(days=3)) == 0
        session.execute(delete(AnswerRow).where(AnswerRow.number == 3))
    assert faults(storage) == [Fault(1, 3, "the record is missing")]


def test_a_record_is_deleted_on_request_and_its_place_stays(storage: Storage) -> None:
    recorded(storage, 3)
    with storage.session() as session:
        with pytest.raises(InvalidValueError, match="reason"):
            delete_records(session, "ann", " ", request_id="request-2")
        with pytest.raises(InvalidValueError, match="not both"):
            delete_records(session, "ann", "asked", request_id="request-2", image="0" * 64)
        assert delete_records(session, "ann", "asked", image=f"{2:064x}") == 1
        with pytest.raises(NotFoundError, match="no record"):
            delete_records(session, "ann", "asked", request_id="request-2")
    with storage.reading() as session:
        verified = verify(session, KEY)
        assert [record.request_id for _, record in list_records(session)] == ["request-1", "request-3"]
        row = session.scalars(select(AnswerRow).where(AnswerRow.number == 2)).one()
        entry = session.scalars(select(AuditEntry)).one()
    assert (verified.records, verified.deleted, verified.faults) == (3, 1, [])
    assert {row.content, row.request_id, row.at, row.image, row.model_version} == {""}
    assert (entry.actor, entry.action, entry.subject, entry.detail) == (
        "ann",
        "record.deleted",
        "1.2",
        {"reason": "asked"},
    )
