"""The faults of the fault matrix: each begins when its block is entered, and is over when the block has ended."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil

from lesion.retraining.workflow import system_database
from scripts.bench.faults.fault_cell import Cell
from scripts.bench.faults.fault_proxy import FaultProxy
from scripts.bench.faults.slow_folder import SlowFolder
from tests.support.servers.slow_writes import file_of

FAULT_S = 6.0
LOCKED_S = 35.0  # longer than a writer waits
PAUSE_S, SLOW_S = 2.0, 10.0  # how slow a slow store is, and how long before it does not answer at all


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
def _moved_away(folder: Path) -> Iterator[None]:
    """Give a folder another name while the block lasts, which has to leave its place free."""
    away = folder.rename(folder.with_name("away"))
    yield
    away.rename(folder)


@contextmanager
def store_away(cell: Cell) -> Iterator[None]:
    """The store's folder is not there for 6 s, as a share whose server is away."""
    with _moved_away(cell.files):
        cell.files.touch()
        yield
        time.sleep(FAULT_S)
        cell.files.unlink()


@contextmanager
def store_unmounted(cell: Cell) -> Iterator[None]:
    """The store's folder is empty for 6 s, as a share that is not mounted; nothing may be written to it."""
    with _moved_away(cell.files):
        cell.files.mkdir()
        yield
        time.sleep(FAULT_S)
        if written := list(cell.files.rglob("*")):
            raise RuntimeError(f"{len(written)} files and folders were written to the empty folder")
        cell.files.rmdir()


@contextmanager
def store_slow(cell: Cell) -> Iterator[None]:
    """Each opening of a file in the store's folder takes 2 s, for 10 s; then none is answered for 6 s."""
    slow = SlowFolder(cell.files, PAUSE_S)
    try:
        yield
        time.sleep(SLOW_S)
        slow.halt()
        time.sleep(FAULT_S)
    finally:
        slow.close()


@contextmanager
def s3_away(cell: Cell) -> Iterator[None]:
    """The S3 store is unreachable for 6 s."""
    yield from _cut(cell.place.s3_proxy)


@contextmanager
def s3_slow(cell: Cell) -> Iterator[None]:
    """Each piece of a request to the S3 store waits 2 s, for 10 s; then none is answered for 6 s."""
    proxy = cell.place.s3_proxy
    assert proxy is not None
    proxy.pause_s = PAUSE_S
    yield
    time.sleep(SLOW_S)
    proxy.halt()
    time.sleep(FAULT_S)
    proxy.release()


@contextmanager
def database_away(cell: Cell) -> Iterator[None]:
    """PostgreSQL is unreachable for 6 s."""
    yield from _cut(cell.place.database_proxy)


def _cut(proxy: FaultProxy | None) -> Iterator[None]:
    assert proxy is not None
    proxy.cut()
    yield
    time.sleep(FAULT_S)
    proxy.mend()


FAULTS: dict[str, Callable[[Cell], AbstractContextManager[None]]] = {
    "kill": kill,
    "terminate": terminate,
    "full": full,
    "locked": locked,
    "store": store_away,
    "unmounted": store_unmounted,
    "slow": store_slow,
    "database": database_away,
    "s3": s3_away,
    "s3-slow": s3_slow,
}
SHARED = ("database", "s3", "s3-slow")  # those of a storage that several machines share
