"""Meet each stage of the loop with each fault, by real processes on small data: a table of what became of it.

    python scripts/bench/faults/fault_matrix.py [--only kill full] [--stages train gate] [--markdown docs/faults.md]

A cell has a server, a retraining worker and a storage of its own, on a small disk in memory (which needs root). Clients
upload and predict all along. The fault comes in the middle of the stage, and goes after some seconds; a server that has
ended is started again, and nothing else is done. A cell is met if no acknowledged upload is lost, every file has its
hash, only known versions answered, a retraining ends promoted exactly once after one look, the champion of the ledger
is served, all that within 60 s after the fault, and a backup can then be made and verified. The exit status is 1 if one
is not.
"""

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil
import pytest

from lesion.backup.backup_manifest import verify_backup
from lesion.core.cli_errors import cli_errors
from lesion.registry.registry import Registry
from lesion.retraining.workflow import system_database
from scripts.bench.common import bench_parser, machine, markdown_rows, verdict
from scripts.bench.faults.fault_cell import Cell, make_template
from tests.support.servers.postgresql import postgresql
from tests.support.servers.slow_writes import file_of
from tests.support.small_disk import small_disk

DISK_MIB = 96
FAULT_S = 6.0
LOCKED_S = 35.0  # longer than a writer waits
MOST_S = 60.0  # in which all is done after the fault
RETRAINING = ("snapshot", "train", "evaluate", "register", "gate", "promote")
STAGES = ("upload", *RETRAINING, "swap", "backup")
# Over in a moment with PostgreSQL, whose writes are not made slow here; a backup would need PostgreSQL's programs.
LEFT_OUT = {("database", stage) for stage in ("gate", "promote", "backup")}
COLUMNS = ("fault", "stage", "uploads kept", "predictions answered", "s until done", "what went wrong", "")


@contextmanager
def kill(cell: Cell) -> Iterator[None]:
    """`kill -9` of every process."""
    for process in cell.processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cell.server.process.wait()
    yield
    cell.begin_server()


@contextmanager
def terminate(cell: Cell) -> Iterator[None]:
    """SIGTERM to the server, and to a backup."""
    for process in cell.processes():
        if process.pid == cell.server.process.pid or "backup.py" in " ".join(process.cmdline()):
            process.terminate()
    cell.server.process.wait(60)
    yield
    cell.begin_server()


@contextmanager
def full(cell: Cell) -> Iterator[None]:
    """The disk of database, store, cache and backup is full for 6 s."""
    cell.disk.fill()
    yield
    time.sleep(FAULT_S)
    cell.disk.free()


@contextmanager
def locked(cell: Cell) -> Iterator[None]:
    """Another program holds both databases for 35 s."""
    files = [file_of(url) for url in (cell.storage.database, system_database(cell.storage))]
    holders = [sqlite3.connect(file, timeout=60, isolation_level=None) for file in files]
    for holder in holders:
        holder.execute("BEGIN IMMEDIATE")
    yield
    time.sleep(LOCKED_S)
    for holder in holders:
        holder.close()


@contextmanager
def store_away(cell: Cell) -> Iterator[None]:
    """The store's folder is not there for 6 s, as a share whose server is away."""
    away = cell.files.with_name("away")
    cell.files.rename(away)
    cell.files.touch()
    yield
    time.sleep(FAULT_S)
    cell.files.unlink()
    away.rename(cell.files)


@contextmanager
def database_away(cell: Cell) -> Iterator[None]:
    """PostgreSQL is unreachable for 6 s."""
    assert cell.proxy is not None
    cell.proxy.cut()
    yield
    time.sleep(FAULT_S)
    cell.proxy.mend()


FAULTS: dict[str, Callable[[Cell], AbstractContextManager[None]]] = {
    "kill": kill,
    "terminate": terminate,
    "full": full,
    "locked": locked,
    "store": store_away,
    "database": database_away,
}


@dataclass(frozen=True)
class Row:
    """What became of a cell."""

    fault: str
    stage: str
    kept: int
    answered: str
    seconds: float
    wrong: Sequence[str]

    @property
    def cells(self) -> list[str]:
        wrong = "; ".join(self.wrong).replace("\n", " ")
        met = verdict(not self.wrong)
        return [self.fault, self.stage, str(self.kept), self.answered, f"{self.seconds:.1f}", wrong, met]


def run_cell(fault: str, stage: str, template: Path, folder: Path) -> Row:
    """Run one cell in a folder of its own."""
    folder.mkdir()
    with small_disk(folder / "disk", DISK_MIB) as disk, ExitStack() as stack:
        database = None
        if fault == "database":
            database = stack.enter_context(postgresql(folder / "pg"))
            template = folder / "template"
            make_template(template, database)
        cell = Cell(template, disk, folder, database)
        try:
            cell.wait(lambda: len(cell.kept) >= 2 and len(cell.answers) >= 2, "the first answers")
            _reach(cell, stage)
            before = len(cell.kept)
            with FAULTS[fault](cell):
                cell.let_training_go_on()
            healed = time.monotonic()
            wrong = _finish(cell, stage, before)
            seconds = time.monotonic() - healed
            wrong += cell.losses()
            if stage == "backup":
                wrong += _back_up(cell)
            if seconds > MOST_S:
                wrong.append(f"it took {seconds:.0f} s")
            answered = sum(status == 200 for status, _ in cell.answers)
            return Row(fault, stage, len(cell.kept), f"{answered} of {len(cell.answers)}", seconds, wrong)
        except (TimeoutError, OSError, RuntimeError) as error:
            print(cell.server.output()[-3000:], file=sys.stderr)
            return Row(fault, stage, len(cell.kept), "", 0.0, [f"{type(error).__name__}: {error}"])
        finally:
            cell.close()


def _reach(cell: Cell, stage: str) -> None:
    if stage in RETRAINING:
        if stage not in ("train", "evaluate"):
            cell.let_training_go_on()
        elif stage == "evaluate":
            (cell.folder / "train").touch()
        cell.request_retraining()
        cell.wait_for_stage(stage)
    elif stage == "swap":
        champion, *others = [model.version for model in Registry(cell.storage).models()]
        other = next(version for version in others if version != champion)
        cell.server.client.post(f"/models/{other}/promote", json={"reason": "bench"}).raise_for_status()
    elif stage == "backup":
        cell.begin_backup()
        cell.wait(lambda: cell.backup.is_dir(), "the backup's begin")


def _finish(cell: Cell, stage: str, kept_before: int) -> list[str]:
    """Wait until everything works again by itself, and return what does not."""
    wrong: list[str] = []
    if stage in RETRAINING:
        cell.wait(lambda: cell.query("SELECT 1 FROM jobs WHERE active IS NULL"), "the end of the retraining")
        wrong += cell.job_faults()
    cell.wait(cell.champion_is_served, "the champion's answer")
    cell.wait(lambda: len(cell.kept) > kept_before, "the next upload")
    return wrong


def _back_up(cell: Cell) -> list[str]:
    """Make the backup that the fault met, again, and read all of it."""
    if cell.begin_backup().wait(300):
        return ["the next backup failed"]
    verify_backup(cell.backup)
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), help="these faults")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="these stages")
    parser.add_argument("--markdown", type=Path, help="append the table to this file")
    options = parser.parse_args(arguments)
    rows = []
    with cli_errors(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_template(folder / "template")
        print(machine())
        cells = product(options.only, options.stages)
        for fault, stage in (cell for cell in cells if cell not in LEFT_OUT):
            try:
                rows.append(run_cell(fault, stage, folder / "template", folder / f"{fault}-{stage}"))
            except pytest.skip.Exception as reason:  # no small disk can be mounted
                print(reason, file=sys.stderr)
                return 2
            print(" | ".join(rows[-1].cells), flush=True)
    if options.markdown is not None:
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells for row in rows)]
        with options.markdown.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in markdown_rows(*lines))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
