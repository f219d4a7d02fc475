"""Parts that the benches share: command line, facts about the machine, timing, tables and servers to measure."""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.table import Table

from lesion.core.commands import lesion_command
from lesion.core.cpu import available_cores
from serve.deploy.ports import free_port, page_answers, served_version
from serve.deploy.processes import running

REPOSITORY = Path(__file__).resolve().parents[2]
Result = TypeVar("Result")


def bench_parser(description: str | None, *, require: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of a bench's options; ``require`` is the help of ``--require``, where the bench has it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if require is not None:
        parser.add_argument("--require", action="store_true", help=require)
    return parser


def machine() -> str:
    """Describe the machine in its present state: cores, and how busy they are."""
    return f"{available_cores()} cores, load {os.getloadavg()[0]:.1f}"


def verdict(passed: bool) -> str:
    return "met" if passed else "NOT met"


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a function returns, and the seconds that it took."""
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def interleaved(measure: Callable[[], dict[str, float]], rounds: int) -> dict[str, list[float]]:
    """Measure all subjects in turns, so that a disturbance of the machine affects all of them; return their values."""
    results = [measure() for _ in range(rounds)]
    return {name: [values[name] for values in results] for name in results[0]}


def bench_table(title: str, columns: tuple[str, ...], *, left: int = 1) -> Table:
    """Return a table whose first columns (``left`` of them) hold text and whose others hold numbers."""
    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right")
    return table


def markdown_rows(*rows: Sequence[str]) -> list[str]:
    """Return lines of a Markdown table."""
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


@contextmanager
def api_server(folder: Path, *settings: str, port: int | None = None) -> Iterator[str]:
    """Run ``lesion serve`` until the block ends; yield its address once it predicts. Its log goes to ``folder``."""
    port = port or free_port()
    command = [*lesion_command("serve"), f"port={port}", *settings]
    log = folder / "server.log"
    with running("The server", command, log, lambda: served_version(port) is not None, folder=REPOSITORY):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def page_server(folder: Path, api: str) -> Iterator[str]:
    """Run the web page for an API until the block ends; yield its address once it answers."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [*lesion_command("ui"), "--api", api, "--port", str(port)]
    with running("The page", command, folder / "page.log", lambda: page_answers(address), folder=REPOSITORY):
        yield address
