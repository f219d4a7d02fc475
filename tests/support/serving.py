"""A real server process for tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from serve.deploy.ports import free_port
from tests.support.paths import SCRIPTS

SCRIPT = SCRIPTS / "serve.py"


class ServerProcess:
    """``scripts/serve.py``, on a free port if none is given; settings are Hydra overrides: ``server.workers=1``."""

    def __init__(self, bundle: Path, *overrides: str, python: str = sys.executable, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [python, str(SCRIPT), f"bundle={bundle}", f"port={self.port}", "server.device=cpu", *overrides]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.client.get("/health").json()["ready"]:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        text = self.output()
        self.__exit__(None, None, None)
        raise RuntimeError(f"the server did not start:\n{text}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.stop()
        self.log.close()

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def family(self) -> list[psutil.Process]:
        """The server's process and everything it started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """The inference workers, which are the ones that have the engine loaded."""
        return [process for process in self.family() if "openvino" in maps(process)]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal to the parent alone, wait, and make sure that nothing is left."""
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
