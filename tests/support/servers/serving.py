"""Real processes of the server and the page for tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from serve.deploy.ports import free_port, served_version
from tests.support.paths import SCRIPTS

SCRIPT = SCRIPTS / "serve.py"


class CommandProcess:
    """A command in its own session, waited for until it is ready and ended so that nothing is left."""

    def __init__(self, command: Sequence[str], url: str) -> None:
        self.url = url
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )

    def ready(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.ready():
                return self
            time.sleep(0.1)
        text = self.output()
        self.__exit__(None, None, None)
        raise RuntimeError(f"{self.process.args!r} did not start:\n{text}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        self.log.close()

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The process and everything that it started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal to the parent only, wait, and make sure that nothing is left."""
        family = self.family()
        self.process.send_signal(number)
        try:
            status = self.process.wait(seconds)
        finally:
            _, alive = psutil.wait_procs(family, timeout=5)
            for process in alive:
                process.kill()
        assert not alive, f"left over: {alive}"
        return status


class ServerProcess(CommandProcess):
    """``scripts/serve.py``, on a free port if none is named; settings are Hydra overrides: ``server.workers=1``."""

    def __init__(
        self, bundle: Path | str, *overrides: str, python: str = sys.executable, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        settings = [f"bundle={bundle}", f"port={self.port}", "server.device=cpu", *overrides]
        super().__init__([python, str(SCRIPT), *settings], f"http://127.0.0.1:{self.port}")
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def ready(self) -> bool:
        return served_version(self.port) is not None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        super().__exit__(kind, error, trace)

    def workers(self) -> list[psutil.Process]:
        """The inference workers, which are the processes that have loaded the engine."""
        return [process for process in self.family() if "openvino" in maps(process)]


def maps(process: psutil.Process) -> str:
    """The files that a process has mapped; none once it is gone."""
    try:
        return Path(f"/proc/{process.pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def eventually(condition: object, seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)
