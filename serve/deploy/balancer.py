"""nginx on one machine: write the configuration of ``nginx/`` with this machine's ports, start nginx, reload it."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lesion.core.errors import ConfigError, LesionError
from lesion.core.files import write_atomically
from serve.deploy.processes import ProcessRecord, start, wait_until_ready

SOURCE = Path(__file__).parent / "nginx"
_COPIED_FILES = ("nginx.conf", "variables.conf", "problems.conf", "limits.conf")  # the same as in the container
_RELOAD_S = 10.0  # how long nginx may take to begin a reload
_FAILURES = "max_fails=3 fail_timeout=2s"
_NO_SERVER = "    server 127.0.0.1:9 down;\n"  # an upstream must name a server; nginx never asks this one


class NginxMissingError(ConfigError):
    """nginx is not installed."""

    default_code = "nginx_missing"


class NginxRefusedError(LesionError):
    """nginx refuses its configuration."""

    default_code = "nginx_refused"


def nginx_program() -> str:
    """Return the path of nginx.

    Raises:
        NginxMissingError: nginx is not installed.
    """
    # Debian installs it in a folder that is only on root's PATH.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if program is None:
        raise NginxMissingError("There is no nginx. Install it, for example with apt-get install nginx.")
    return program


class Balancer:
    """One nginx.

    Args:
        folder: Receives its configuration, temporary files and logs; only the current user may read it.
        host, port: Where it listens.
        tls_port: The port for HTTPS, with the files of ``nginx/tls``; no HTTPS when None.
        limited: Whether the limits per address of ``limits.conf`` apply.
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        port: int,
        tls_port: int | None = None,
        *,
        limited: bool = True,
    ) -> None:
        self.folder = folder.resolve()
        self.log = self.folder / "nginx.log"
        self._host = host
        self._port = port
        self._tls_port = tls_port
        self._limited = limited
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
        """Write the configuration for replicas and a page at these ports.

        Raises:
            NginxRefusedError: nginx refuses the configuration.
        """
        conf = self.folder / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in _COPIED_FILES:
            shutil.copyfile(SOURCE / name, conf / name)
        if not self._limited:
            (conf / "limits.conf").write_text("")
        (conf / "listen.conf").write_text(self._listen())
        tls = conf / "tls"
        if not tls.is_symlink():
            tls.symlink_to(SOURCE.resolve() / "tls")
        write_atomically(conf / "upstreams.conf", upstreams(apis, page))
        check = subprocess.run([*self.command, "-t", "-q"], capture_output=True, text=True, check=False)
        if check.returncode:
            raise NginxRefusedError(f"nginx refuses its settings: {check.stderr.strip()}")

    def start(self) -> ProcessRecord:
        """Start nginx with the configuration that was written last."""
        return start("nginx", self.command, self.log, folder=self.folder, port=self._port)

    def reload(self, nginx: ProcessRecord, seconds: float = 5.0) -> None:
        """Make nginx read the configuration that was written last, and wait until the old one serves no request.

        Args:
            nginx: The nginx that runs.
            seconds: How long to wait for requests in progress; event streams may continue for longer.
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

    def _listen(self) -> str:
        lines = [f"listen {self._host}:{self._port};", "access_log access.log json;"]
        if self._tls_port is not None:
            lines.append(f"listen {self._host}:{self._tls_port} ssl;")
        return "\n".join(lines) + "\n"


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
