"""Meet each stage of the loop with each fault, by real processes on small data: a table of what became of it.

    python scripts/bench/faults/fault_matrix.py [--only kill full] [--stages train gate] [--at-once 3] [--markdown FILE]

A cell has a server, a retraining worker and a storage of its own, on a small disk in memory (which needs root). Clients
upload and predict all along. The fault comes in the middle of the stage, and goes after some seconds; a server that has
ended is started again, and nothing else is done. A cell is met if no acknowledged upload is lost, every file has its
hash, only known versions answered, a retraining ends promoted exactly once after one look, the champion of the ledger
is served, all that within 60 s after the fault, and a backup can then be made and verified. The exit status is 1 if one
is not.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pytest

from lesion.backup.backup_manifest import verify_backup
from lesion.core.cli_errors import cli_errors
from lesion.registry.registry import Registry
from scripts.bench.common import bench_parser, machine, markdown_rows, verdict
from scripts.bench.faults.cell_storage import local_storage, make_template, shared_storage
from scripts.bench.faults.fault_cell import Cell
from scripts.bench.faults.fault_kinds import FAULTS, SHARED
from scripts.bench.faults.final_state import job_faults, losses
from tests.support.small_disk import small_disk

DISK_MIB = 96
MOST_S = 60.0  # in which all is done after the fault
RETRAINING = ("snapshot", "train", "evaluate", "register", "gate", "promote")
STAGES = ("upload", *RETRAINING, "swap", "backup")
COLUMNS = ("fault", "stage", "uploads kept", "predictions answered", "s until done", "what went wrong", "")


class CannotRunError(Exception):
    """This machine has no small disk, no PostgreSQL or no S3 store for a cell."""


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
    """Run one cell in a folder of its own; what cannot run on this machine is a ``CannotRunError``."""
    try:
        return _run_cell(fault, stage, template, folder)
    except pytest.skip.Exception as reason:  # it cannot travel between processes
        raise CannotRunError(f"{fault}, {stage}: {reason}") from None


def _run_cell(fault: str, stage: str, template: Path, folder: Path) -> Row:
    folder.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        disk = stack.enter_context(small_disk(folder / "disk", DISK_MIB))
        shared = fault in SHARED
        place = stack.enter_context(
            shared_storage(folder / "servers", disk.folder) if shared else local_storage(template, disk.folder)
        )
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {"LESION_STAND_IN": "", **place.environment}.items():
            patch.setenv(name, value)
        cell = Cell(place, disk, folder)
        stack.callback(cell.close)
        try:
            return _meet(cell, fault, stage)
        except (TimeoutError, OSError, RuntimeError) as error:
            print(cell.server.output()[-3000:], file=sys.stderr)
            return Row(fault, stage, len(cell.kept), "", 0.0, [f"{type(error).__name__}: {error}"])


def _meet(cell: Cell, fault: str, stage: str) -> Row:
    """Bring a cell into a stage, let the fault happen there, and return what became of it."""
    cell.wait(lambda: len(cell.kept) >= 2 and len(cell.answers) >= 2, "the first answers")
    _reach(cell, stage)
    before = len(cell.kept)
    with FAULTS[fault](cell):
        cell.let_training_go_on()
    healed = time.monotonic()
    wrong = _finish(cell, stage, before)
    seconds = time.monotonic() - healed
    wrong += losses(cell.storage, cell.kept, cell.answers)
    if stage == "backup":
        wrong += _back_up(cell)
    if seconds > MOST_S:
        wrong.append(f"it took {seconds:.0f} s")
    answered = sum(status == 200 for status, _ in cell.answers)
    return Row(fault, stage, len(cell.kept), f"{answered} of {len(cell.answers)}", seconds, wrong)


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
        cell.wait(lambda: any(cell.backup.glob("database/*")), "the backup's begin")


def _finish(cell: Cell, stage: str, kept_before: int) -> list[str]:
    """Wait until everything works again by itself, and return what does not."""
    wrong: list[str] = []
    if stage in RETRAINING:
        cell.wait(lambda: cell.query("SELECT 1 FROM jobs WHERE active IS NULL"), "the end of the retraining")
        wrong += job_faults(cell.storage)
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
    parser.add_argument("--at-once", type=int, default=1, help="how many cells run at the same time (default: 1)")
    parser.add_argument("--markdown", type=Path, help="append the table to this file")
    options = parser.parse_args(arguments)
    rows = []
    with (
        cli_errors(),
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(options.at_once, get_context("spawn")) as pool,
    ):
        folder = Path(name)
        make_template(folder / "template")
        print(machine())
        cells = product(options.only, options.stages)
        running = [pool.submit(run_cell, *cell, folder / "template", folder / "-".join(cell)) for cell in cells]
        for future in running:
            try:
                rows.append(future.result())
            except CannotRunError as reason:
                print(reason, file=sys.stderr)
                pool.shutdown(cancel_futures=True)
                return 2
            print(" | ".join(rows[-1].cells), flush=True)
    if options.markdown is not None:
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells for row in rows)]
        with options.markdown.open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in markdown_rows(*lines))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
