"""nginx on one machine: write the configuration of ``nginx/`` with this machine's ports, start nginx, reload it."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesion.core.errors import ConfigError, LesionError
from lesion.core.files import write_atomically
from serve.deploy.processes import ProcessRecord, start, wait_until_ready

SOURCE = Path(__file__).parent / "nginx"
_COPIED_FILES = ("nginx.conf", "variables.conf", "problems.conf", "limits.conf")  # the same as in the container
_RELOAD_S = 10.0  # how long nginx may take to begin a reload
_FAILURES = "max_fails=3 fail_timeout=2s"
_NO_SERVER = "    server 127.0.0.1:9 down;\n"  # an upstream must name a server; nginx never asks this one


def nginx_program() -> str:
    """Return the path of nginx, or raise a ConfigError if it is not installed (``nginx_missing``)."""
    # Debian installs it in a folder that is only on root's PATH.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if program is None:
        message = "There is no nginx. Install it, for example with apt-get install nginx."
        raise ConfigError(message, code="nginx_missing")
    return program


@dataclass(eq=False)
class Balancer:
    """One nginx."""

    folder: Path  # receives its configuration, temporary files and logs; only the current user may read it
    host: str  # where it listens
    port: int
    tls_port: int | None = None  # the port for HTTPS, with the files of nginx/tls; no HTTPS when None
    limited: bool = True  # whether the limits per address of limits.conf apply

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.log = self.folder / "nginx.log"
        self._program = nginx_program()

    @property
    def command(self) -> list[str]:
        """The program with its arguments, in the foreground."""
        # Started by root, nginx would switch to a user that cannot read the folder. Other users it does not change.
        user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.geteuid() == 0 else ""
        return [
            self._program, "-p", f"{self.folder}/", "-c", str(self.folder / "conf" / "nginx.conf"), "-e", "stderr",
            "-g", f"daemon off; {user}",
        ]  # fmt: skip

    def write(self, apis: Sequence[int], page: int | None) -> None:
        """Write the configuration for replicas and a page at these ports; nginx may refuse it (``nginx_refused``)."""
        conf = self.folder / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in _COPIED_FILES:
            shutil.copyfile(SOURCE / name, conf / name)
        if not self.limited:
            (conf / "limits.conf").write_text("")
        listen = [f"listen {self.host}:{self.port};", "access_log access.log json;"]
        if self.tls_port is not None:
            listen.append(f"listen {self.host}:{self.tls_port} ssl;")
        (conf / "listen.conf").write_text("\n".join(listen) + "\n")
        tls = conf / "tls"
        if not tls.is_symlink():
            tls.symlink_to(SOURCE.resolve() / "tls")
        write_atomically(conf / "upstreams.conf", upstreams(apis, page))
        check = subprocess.run([*self.command, "-t", "-q"], capture_output=True, text=True, check=False)
        if check.returncode:
            raise LesionError(f"nginx refuses its settings: {check.stderr.strip()}", code="nginx_refused")

    def start(self) -> ProcessRecord:
        """Start nginx with the configuration that was written last."""
        return start("nginx", self.command, self.log, folder=self.folder, port=self.port)

    def reload(self, nginx: ProcessRecord, seconds: float = 5.0) -> None:
        """Make the running nginx read the configuration that was written last.

        Wait up to ``seconds`` until the old one serves no request; event streams may continue for longer.
        """
        process = nginx.process
        if process is None:
            return
        before = {child.pid for child in process.children()}
        process.send_signal(signal.SIGHUP)
        wait_until_ready(nginx, lambda: bool({c.pid for c in process.children()} - before), self.log, _RELOAD_S)
        deadline = time.monotonic() + seconds
        while before & {child.pid for child in process.children()} and time.monotonic() < deadline:
            time.sleep(0.05)


def upstreams(apis: Sequence[int], page: int | None) -> str:
    """Return ``upstreams.conf`` for this machine: that of the container, with ports in place of host names."""
    replicas = "".join(f"    server 127.0.0.1:{port} {_FAILURES};\n" for port in apis) or _NO_SERVER
    keepalive = "    keepalive 64;\n    keepalive_timeout 4s;\n"
    page_server = _NO_SERVER if page is None else f"    server 127.0.0.1:{page};\n"
    return (
        f"upstream predict {{\n    zone predict 256k;\n    least_conn;\n{replicas}{keepalive}}}\n"
        f"upstream api {{\n    zone api 256k;\n    least_conn;\n{replicas}}}\n"
        f"upstream page {{\n    zone page 64k;\n{page_server}}}\n"
    )
