"""Attack a server while eight steady clients use it, and measure what these notice: a table of all attacks.

    python scripts/bench/hostile.py --bundle outputs/bundle [--only json tiles] [--markdown docs/attacks.md]

Each attack has a server of its own, with the default settings, two inference workers, API keys and no proxy in front.
The clients send an image of 128 pixels every 0.1 s each. An attack is met if all of them are answered (500 requests and
more), their 99th percentile is at most 5 times that of quiet seconds or 300 ms, the server's memory grows by at most
300 MiB, all is normal within 10 s of the end, and the attack was answered as it should be. The exit status is 1 if one
is not met. Everything stays on 127.0.0.1.
"""

import http.client
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np
import psutil

from lesion.core.cli_errors import cli_errors
from lesion.core.commands import lesion_command
from lesion.core.paths import latest_bundle
from scripts.bench.attacks import connection_attacks, file_attacks, request_attacks
from scripts.bench.attacks.target import Attack, Target
from scripts.bench.common import REPOSITORY, bench_parser, machine, markdown_rows, verdict
from serve.deploy.ports import free_port, served_version
from serve.deploy.processes import running
from serve.load.samples import encode, scan
from tests.support.servers.traffic import InThreads

ATTACKS = (*connection_attacks.ATTACKS, *request_attacks.ATTACKS, *file_attacks.ATTACKS)
CLIENTS = 8
EVERY_S = 0.1
PATIENCE_S = 8.0  # after which a steady client is not answered
WARM_UP_S, QUIET_S, ATTACK_S, RECOVERY_S = 2.0, 4.0, 9.0, 10.0
LAST_S = 4.0  # of the recovery, in which all must be normal
MEMORY_EVERY_S = 0.5
MOST_MS, MOST_TIMES, MOST_MIB = 300.0, 5.0, 300.0
COLUMNS = ("attack", "what it does", "answered", "requests", "p99 ms quiet / during / after", "MiB", "its answers", "")


@dataclass(frozen=True)
class Sent:
    """A request of a steady client."""

    began: float  # by the monotonic clock, in seconds
    ended: float
    answered: bool


@dataclass(frozen=True)
class Result:
    """What an attack did to the steady clients and to the server."""

    attack: Attack
    quiet: list[Sent]
    during: list[Sent]
    after: list[Sent]
    growth_mib: float
    answers: Counter[str]

    @property
    def met(self) -> bool:
        """Whether nobody noticed the attack."""
        bound = max(MOST_MS, MOST_TIMES * p99_ms(self.quiet))
        calm = p99_ms(self.during) <= bound and p99_ms(self.after) <= bound
        everybody = all(sent.answered for sent in (*self.during, *self.after))
        return calm and everybody and self.growth_mib <= MOST_MIB and not self.attack.wrong_answers(self.answers)

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        share = sum(sent.answered for sent in self.during) / len(self.during)
        times = " / ".join(f"{p99_ms(sent):.0f}" for sent in (self.quiet, self.during, self.after))
        answers = ", ".join(f"{count:,} × {answer}" for answer, count in self.answers.most_common())
        cells = (self.attack.name, self.attack.about, f"{share:.1%}", f"{len(self.during):,}", times)
        return (*cells, f"{self.growth_mib:+.0f}", answers or "none", verdict(self.met))


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--only", nargs="+", choices=[attack.name for attack in ATTACKS], metavar="ATTACK")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    with cli_errors():
        bundle = (options.bundle or latest_bundle()).resolve()
        chosen = [attack for attack in ATTACKS if not options.only or attack.name in options.only]
        lines = [f"{machine()}.", "", *markdown_rows(COLUMNS, ["---"] * len(COLUMNS))]
        print("\n".join(lines), flush=True)
        results = []
        for attack in chosen:
            results.append(measure(attack, bundle))
            lines += markdown_rows(results[-1].row())
            print(lines[-1], flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    sys.exit(0 if all(result.met for result in results) else 1)


def measure(attack: Attack, bundle: Path) -> Result:
    """Start a server, let the clients use it, and attack it meanwhile."""
    with (
        attacked_server(bundle) as (target, server),
        ProcessPoolExecutor(1, get_context("spawn")) as attacker,
        SteadyClients(target) as clients,
    ):
        time.sleep(WARM_UP_S)
        quiet_at = time.monotonic()
        time.sleep(QUIET_S)
        before = memory_mib(server)
        attack_at = time.monotonic()
        attacking = attacker.submit(attack_server, attack.name, target, attack_at + ATTACK_S)
        growth = 0.0
        while not attacking.done():
            growth = max(growth, memory_mib(server) - before)
            time.sleep(MEMORY_EVERY_S)
        ended_at = time.monotonic()
        time.sleep(RECOVERY_S)
    sent = clients.sent
    return Result(
        attack,
        quiet=[one for one in sent if quiet_at < one.began and one.ended < attack_at],
        during=[one for one in sent if one.began < ended_at and one.ended >= attack_at],
        after=[one for one in sent if one.began > ended_at + RECOVERY_S - LAST_S],
        growth_mib=growth,
        answers=attacking.result(),
    )


def attack_server(name: str, target: Target, until: float) -> Counter[str]:
    """Carry an attack out, in a process of its own."""
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    return attack.act(target, until)


@contextmanager
def attacked_server(bundle: Path) -> Iterator[tuple[Target, psutil.Process]]:
    """Run a server with a storage and keys until the block ends."""
    with tempfile.TemporaryDirectory(prefix="lesion-hostile-") as folder:
        port = free_port()
        storage = Path(folder) / "loop"
        command = [*lesion_command("serve"), f"port={port}", f"bundle={bundle}", "worker=false", "server.workers=2"]
        command += ["storage=local", f"storage_root={storage}"]
        log = Path(folder) / "server.log"
        with running("The server", command, log, lambda: served_version(port) is not None, folder=REPOSITORY) as record:
            made = httpx.post(f"http://127.0.0.1:{port}/keys", json={"name": "bench", "role": "admin"}, timeout=30)
            yield Target(port, made.raise_for_status().json()["key"], storage), psutil.Process(record.pid)
            if not psutil.pid_exists(record.pid):
                print(f"The server ended:\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)


class SteadyClients(InThreads):
    """Clients that send a small image again and again, each over one connection, until the block ends."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.sent: list[Sent] = []

    def tasks(self) -> Sequence[Callable[[], None]]:
        """Return what each client does."""
        return [partial(self._send, number) for number in range(CLIENTS)]

    def _send(self, number: int) -> None:
        image = encode(scan(number, 128), "JPEG", quality=90)
        headers = {"Authorization": f"Bearer {self.target.key}", "Content-Type": "image/jpeg"}
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=PATIENCE_S)
        next_at = time.monotonic() + number * EVERY_S / CLIENTS
        while not self.stopped.wait(max(0.0, next_at - time.monotonic())):
            began = time.monotonic()
            next_at = max(next_at + EVERY_S, began)
            try:
                connection.request("POST", "/predict", image, headers)
                response = connection.getresponse()
                response.read()
                answered = response.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()
                answered = False
            self.sent.append(Sent(began, time.monotonic(), answered))


def p99_ms(sent: Sequence[Sent]) -> float:
    """Return the 99th percentile of the times of some requests, in ms."""
    return 1000 * float(np.percentile([one.ended - one.began for one in sent], 99))


def memory_mib(server: psutil.Process) -> float:
    """Return the memory of a process and its children, in which what they share counts once."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


if __name__ == "__main__":
    main()
