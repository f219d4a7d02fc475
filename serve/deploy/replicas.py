"""API replicas behind nginx, a retraining worker and the web page, as plain processes on one machine."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesion.core.commands import lesion_command
from lesion.core.errors import ConfigError, LesionError
from serve.deploy.balancer import Balancer
from serve.deploy.ports import free_port, is_listening, served_version
from serve.deploy.processes import Plan, ProcessRecord, end, read_state, start, wait_until_ready, write_state

REPOSITORY = Path(__file__).parents[2]
_READY_S = 300.0  # the first replica may have to import the first model
_PAGE_S = 60.0
_NGINX_S = 30.0
_API, _NGINX, _WORKER, _PAGE = "api-", "nginx", "worker", "page"


class Replicas:
    """The processes that a state folder lists, which also holds logs and nginx's files.

    Every change is written there at once, so that no process is lost. A process that dies is not started again
    automatically: nginx sends nothing to a dead replica, ``status`` shows it, and ``scale`` starts what is missing.
    """

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.plan, self.processes = read_state(self.state)

    @property
    def apis(self) -> list[ProcessRecord]:
        """The replicas that run, the oldest first."""
        return [process for process in self.processes if process.name.startswith(_API) and process.alive]

    def start(self, count: int, plan: Plan) -> None:
        """Start everything and wait until it answers. If a part does not, end everything again.

        Raises:
            ConfigError: The processes run already, a port is taken, or nginx is not installed.
            LesionError: A process ended, or was not ready in time.
        """
        _check_count(count)
        with self._locked():
            if any(process.alive for process in self.processes):
                raise ConfigError("It runs already. Change the number of replicas with scale, or stop it first.")
            _check_ports(plan)
            self.plan, self.processes = plan, []
            self._save()
            try:
                self._start_missing(count)
            except BaseException:
                self._end(self.processes)
                raise

    def scale(self, count: int) -> None:
        """Change the number of replicas, and start again what has died.

        No prediction and no read is lost. An upload that takes longer than a replica waits before it ends is cut off;
        it may be sent again.

        Raises:
            ConfigError: Nothing was started here (``not_started``).
            LesionError: As for ``start``.
        """
        _check_count(count)
        with self._locked():
            self._check_started()
            self._start_missing(count)
            self._remove(self.apis[count:])

    def restart(self) -> None:
        """Replace the replicas one after another; each new one is ready before the old one ends."""
        with self._locked():
            self._check_started()
            for old in self.apis:
                self._await_api(self._start_api())
                self._remove([old])

    def stop(self) -> None:
        """End everything, nginx first, so that no new request is accepted."""
        with self._locked():
            self._end([process for process in self.processes if process.name == _NGINX])
            self._end(self.processes)

    def status(self) -> list[dict[str, Any]]:
        """Return a row for each process: whether it is alive and, for a replica, the model version that it serves."""
        return [
            {
                "name": process.name,
                "pid": process.pid,
                "port": process.port,
                "alive": process.alive,
                "serves": served_version(process.port) if process in self.apis else None,
            }
            for process in self.processes
        ]

    def _start_missing(self, count: int) -> None:
        self._forget_dead()
        if not self.apis:  # one alone first: it imports the first model into an empty storage
            self._await_api(self._start_api())
        for process in [self._start_api() for _ in range(count - len(self.apis))]:
            self._await_api(process)
        self._start_worker_and_page()
        self._configure_nginx()

    def _start_worker_and_page(self) -> None:
        plan, names = self.plan, {process.name for process in self.processes}
        if plan.worker and plan.storage != "none" and _WORKER not in names:
            self._start(_WORKER, [*lesion_command("worker"), *self._storage(), *plan.worker_settings])
        if plan.page_port is not None and _PAGE not in names:
            command = [*lesion_command("ui"), "--api", plan.address, "--port", str(plan.page_port)]
            # Only behind an nginx that other machines can reach may users call the page by any host name.
            command += [] if plan.host == "127.0.0.1" else ["--any-host"]
            # The page's path behind nginx; lesion ui passes Streamlit's own variables on.
            page = self._start(_PAGE, command, plan.page_port, {"STREAMLIT_SERVER_BASE_URL_PATH": "ui"})
            wait_until_ready(page, lambda: is_listening(plan.page_port), self._log(_PAGE), _PAGE_S)

    def _remove(self, replicas: Sequence[ProcessRecord]) -> None:
        self._configure_nginx(without=replicas)
        self._end(replicas)

    def _configure_nginx(self, without: Sequence[ProcessRecord] = ()) -> None:
        """Make nginx spread requests over the replicas that run; start nginx if it does not run."""
        plan = self.plan
        balancer = Balancer(self.state / "nginx", plan.host, plan.port, plan.tls_port, plan.limited)
        ports = [api.port for api in self.apis if api not in without and api.port is not None]
        balancer.write(ports, plan.page_port)
        running = [process for process in self.processes if process.name == _NGINX and process.alive]
        if running:
            balancer.reload(running[0])
            return
        nginx = balancer.start()
        self._add(nginx)
        wait_until_ready(nginx, lambda: is_listening(plan.port), balancer.log, _NGINX_S)

    def _start_api(self) -> ProcessRecord:
        plan = self.plan
        numbers = [int(process.name.removeprefix(_API)) for process in self.processes if process.name.startswith(_API)]
        port = free_port()
        settings = [f"port={port}", "worker=false", f"server.workers={plan.workers}", *self._storage()]
        settings += [f"bundle={plan.bundle}"] if plan.bundle else []
        name = f"{_API}{max(numbers, default=0) + 1}"
        return self._start(name, [*lesion_command("serve"), *settings, *plan.settings], port)

    def _await_api(self, api: ProcessRecord) -> None:
        try:
            wait_until_ready(api, lambda: served_version(api.port) is not None, self._log(api.name), _READY_S)
        except LesionError:
            self._end([api])
            raise

    def _storage(self) -> list[str]:
        root = self.plan.storage_root
        return [f"storage={self.plan.storage}", *([f"storage_root={root}"] if root else [])]

    def _start(
        self, name: str, command: list[str], port: int | None = None, environment: dict[str, str] | None = None
    ) -> ProcessRecord:
        process = start(name, command, self._log(name), folder=REPOSITORY, port=port, environment=environment)
        self._add(process)
        return process

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _add(self, process: ProcessRecord) -> None:
        self.processes.append(process)
        self._save()

    def _end(self, processes: Sequence[ProcessRecord]) -> None:
        end(processes)
        self._forget_dead()

    def _forget_dead(self) -> None:
        end([process for process in self.processes if not process.alive])  # they may have left children
        self.processes = [process for process in self.processes if process.alive]
        self._save()

    def _check_started(self) -> None:
        if not self.processes:
            raise ConfigError(f"Nothing was started in {self.state}. Start it first.", code="not_started")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let only one command at a time change the state, and begin with the newest state."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.plan, self.processes = read_state(self.state)
            yield

    def _save(self) -> None:
        write_state(self.state, self.plan, self.processes)


def _check_count(count: int) -> None:
    if not 1 <= count <= 64:
        raise ConfigError(f"The number of replicas must be from 1 to 64, not {count}.")


def _check_ports(plan: Plan) -> None:
    """Refuse ports that another program listens on, before anything is started."""
    for port in (plan.port, plan.tls_port, plan.page_port):
        if port is not None and is_listening(port):
            message = f"Something listens on port {port} already. Stop it, or choose another."
            raise ConfigError(message, code="port_taken")
