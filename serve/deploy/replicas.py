"""API replicas behind nginx, a retraining worker and the page, as plain processes on one machine."""

import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesion.core.errors import ConfigError, LesionError
from serve.deploy.balancer import Balancer
from serve.deploy.plan import Plan, read_state, write_state
from serve.deploy.ports import answers, free_port, served_version
from serve.deploy.processes import ProcessRecord, await_or_explain, end, start

REPOSITORY = Path(__file__).parents[2]
_READY_S = 300.0  # the first replica may have to import the first model
_PAGE_S = 60.0
_API, _NGINX, _WORKER, _PAGE = "api-", "nginx", "worker", "page"


class Replicas:
    """The processes that a folder tells of. Every change is written there at once, so that none is lost sight of.

    Nothing is started again by itself when it dies: nginx goes round a dead replica, ``status`` tells of it, and
    ``scale`` starts what is missing.

    Args:
        state: The folder, for process ids, ports, logs and nginx's files.
    """

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.plan, self.members = read_state(self.state)

    @property
    def apis(self) -> list[ProcessRecord]:
        """The replicas that run, the oldest first."""
        return [member for member in self.members if member.name.startswith(_API) and member.alive]

    def start(self, count: int, plan: Plan) -> None:
        """Start everything and wait until it answers; ends it again if something does not.

        Args:
            count: How many replicas.
            plan: What to start.

        Raises:
            ConfigError: Something runs already, a port is taken, or there is no nginx.
            LesionError: A process ended, or was not ready in time.
        """
        _check_count(count)
        with self._locked():
            if any(member.alive for member in self.members):
                raise ConfigError("It runs already. Change the number of replicas with scale, or stop it first.")
            _check_ports(plan)
            self.plan, self.members = plan, []
            self._save()
            try:
                self._raise_to(count)
            except BaseException:
                self._end(self.members)
                raise

    def scale(self, count: int) -> None:
        """Change the number of replicas, and start again what has died.

        No prediction and no read is lost. An upload that takes longer than a replica drains is cut off; it may be sent
        again.

        Raises:
            ConfigError: Nothing was started here.
            LesionError: As for ``start``.
        """
        _check_count(count)
        with self._locked():
            self._check_started()
            self._raise_to(count)
            self._retire(self.apis[count:])

    def restart(self) -> None:
        """Put a new replica in the place of each, one after another, each ready before an old one goes.

        Raises:
            ConfigError: Nothing was started here.
            LesionError: As for ``start``.
        """
        with self._locked():
            self._check_started()
            for old in self.apis:
                self._await_api(self._start_api())
                self._retire([old])

    def stop(self) -> None:
        """End everything: nginx first, so that nobody is promised an answer."""
        with self._locked():
            self._end([member for member in self.members if member.name == _NGINX])
            self._end(self.members)

    def status(self) -> list[dict[str, Any]]:
        """Return each process with whether it is alive and, of a replica, what it serves."""
        return [
            {
                "name": member.name,
                "pid": member.pid,
                "port": member.port,
                "alive": member.alive,
                "serves": served_version(member.port) if member in self.apis else None,
            }
            for member in self.members
        ]

    def _raise_to(self, count: int) -> None:
        """Start what is missing."""
        self._forget_dead()
        if not self.apis:  # alone: an empty storage gets its first model now
            self._await_api(self._start_api())
        for member in [self._start_api() for _ in range(count - len(self.apis))]:
            self._await_api(member)
        self._start_others()
        self._balance()

    def _start_others(self) -> None:
        plan, names = self.plan, {member.name for member in self.members}
        if plan.worker and plan.storage != "none" and _WORKER not in names:
            self._start(_WORKER, [_script("worker.py"), *self._storage(), *plan.worker_settings])
        if plan.page_port is not None and _PAGE not in names:
            # The page's path behind nginx; scripts/ui.py passes Streamlit's own variables on.
            page = self._start(
                _PAGE,
                [_script("ui.py"), "--api", plan.address, "--port", str(plan.page_port), *plan.page_flags],
                plan.page_port,
                {"STREAMLIT_SERVER_BASE_URL_PATH": "ui"},
            )
            await_or_explain(page, lambda: answers(plan.page_port), self._log(_PAGE), _PAGE_S)

    def _retire(self, leaving: Sequence[ProcessRecord]) -> None:
        """Take replicas out of nginx, then end them."""
        self._balance(leaving)
        self._end(leaving)

    def _balance(self, without: Sequence[ProcessRecord] = ()) -> None:
        """Have nginx spread requests over the replicas that run."""
        plan = self.plan
        balancer = Balancer(self.state / "nginx", plan.host, plan.port, plan.tls_port, limited=plan.limited)
        ports = [member.port for member in self.apis if member not in without and member.port is not None]
        balancer.write(ports, plan.page_port)
        running = [member for member in self.members if member.name == _NGINX and member.alive]
        if running:
            balancer.reload(running[0])
            return
        member = balancer.start()
        self._add(member)
        await_or_explain(member, lambda: answers(plan.port), balancer.log, 30)

    def _start_api(self) -> ProcessRecord:
        plan = self.plan
        taken = [int(member.name.removeprefix(_API)) for member in self.members if member.name.startswith(_API)]
        port = free_port()
        settings = [f"port={port}", "worker=false", f"server.workers={plan.workers}", *self._storage()]
        settings += [f"bundle={plan.bundle}"] if plan.bundle else []
        name = f"{_API}{max(taken, default=0) + 1}"
        return self._start(name, [_script("serve.py"), *settings, *plan.settings], port)

    def _await_api(self, member: ProcessRecord) -> None:
        try:
            await_or_explain(member, lambda: answers(member.port, "/health"), self._log(member.name), _READY_S)
        except LesionError:
            self._end([member])
            raise

    def _storage(self) -> list[str]:
        root = self.plan.storage_root
        return [f"storage={self.plan.storage}", *([f"storage_root={root}"] if root else [])]

    def _start(
        self, name: str, command: list[str], port: int | None = None, environment: dict[str, str] | None = None
    ) -> ProcessRecord:
        line = [sys.executable, *command]
        member = start(name, line, self._log(name), folder=REPOSITORY, port=port, environment=environment)
        self._add(member)
        return member

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _add(self, member: ProcessRecord) -> None:
        self.members.append(member)
        self._save()

    def _end(self, members: Sequence[ProcessRecord]) -> None:
        end(members)
        self._forget_dead()

    def _forget_dead(self) -> None:
        end([member for member in self.members if not member.alive])  # what they left behind
        self.members = [member for member in self.members if member.alive]
        self._save()

    def _check_started(self) -> None:
        if not self.members:
            raise ConfigError(f"Nothing was started in {self.state}. Start it first.", code="not_started")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time, on the newest state."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._load()
            yield

    def _load(self) -> None:
        self.plan, self.members = read_state(self.state)

    def _save(self) -> None:
        write_state(self.state, self.plan, self.members)


def _check_count(count: int) -> None:
    if not 1 <= count <= 64:
        raise ConfigError(f"{count} replicas make no sense here: from 1 to 64.")


def _check_ports(plan: Plan) -> None:
    """Refuse ports that somebody listens on, before anything is started."""
    for port in (plan.port, plan.tls_port, plan.page_port):
        if port is not None and answers(port):
            raise ConfigError(
                f"Something listens on port {port} already. Stop it, or choose another.", code="port_taken"
            )


def _script(name: str) -> str:
    return str(REPOSITORY / "scripts" / name)
