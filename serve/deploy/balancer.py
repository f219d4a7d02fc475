"""nginx on one machine: the configuration of ``nginx/`` with this machine's ports, started and reloaded."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lesion.core.errors import ConfigError, LesionError
from serve.deploy.processes import ProcessRecord, await_or_explain, start

SOURCE = Path(__file__).parent / "nginx"
_KEPT = ("nginx.conf", "variables.conf", "problems.conf", "limits.conf")  # the same in the container
_CHANGES_S = 10.0  # how long a reload may take to begin
_FAILURES = "max_fails=3 fail_timeout=2s"


def nginx_program() -> str:
    """Return nginx's path.

    Raises:
        ConfigError: There is none (``nginx_missing``).
    """
    # Debian installs it where only root's PATH looks.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
    if found is None:
        raise ConfigError(
            "There is no nginx. Install it, for example with apt-get install nginx.", code="nginx_missing"
        )
    return found


class Balancer:
    """One nginx.

    Args:
        folder: For its configuration, temporary files and logs; only its user may look into it.
        host: Where it listens.
        port: Where it listens.
        tls_port: Where it listens for HTTPS, with the files of ``nginx/tls``; nowhere when None.
        limited: Whether an address may ask for as much as ``limits.conf`` says, not for as much as it likes.
        program: nginx.
    """

    def __init__(
        self,
        folder: Path,
        host: str,
        port: int,
        tls_port: int | None = None,
        *,
        limited: bool = True,
        program: str | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.log = self.folder / "nginx.log"
        self._host = host
        self._port = port
        self._tls_port = tls_port
        self._limited = limited
        self._program = program or nginx_program()

    @property
    def command(self) -> list[str]:
        """The program with its arguments, in the foreground."""
        # nginx drops root's rights to a user that could not look into the folder; other users' it keeps anyway.
        user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.geteuid() == 0 else ""
        return [
            self._program, "-p", f"{self.folder}/", "-c", str(self.folder / "conf" / "nginx.conf"), "-e", "stderr",
            "-g", f"daemon off; {user}",
        ]  # fmt: skip

    def write(self, apis: Sequence[int], page: int | None) -> None:
        """Write the configuration, for replicas and a page at these ports.

        Raises:
            LesionError: nginx refuses it (``nginx_refused``).
        """
        conf = self.folder / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in _KEPT:
            shutil.copyfile(SOURCE / name, conf / name)
        if not self._limited:
            (conf / "limits.conf").write_text("")
        (conf / "listen.conf").write_text(self._listen())
        tls = conf / "tls"
        if not tls.is_symlink():
            tls.symlink_to(SOURCE.resolve() / "tls")
        new = conf / "upstreams.conf.new"
        new.write_text(upstreams(apis, page))
        new.replace(conf / "upstreams.conf")
        checked = subprocess.run([*self.command, "-t", "-q"], capture_output=True, text=True, check=False)
        if checked.returncode:
            raise LesionError(f"nginx refuses its settings: {checked.stderr.strip()}", code="nginx_refused", status=500)

    def start(self) -> ProcessRecord:
        """Start nginx with what was written last."""
        return start("nginx", self.command, self.log, folder=self.folder, port=self._port)

    def reload(self, member: ProcessRecord, seconds: float = 5.0) -> None:
        """Have nginx take up what was written last, and wait until no request goes by what held before.

        Args:
            member: The nginx that runs.
            seconds: How long to wait for requests that are being answered; event streams go on longer.
        """
        process = member.process
        if process is None:
            return
        before = {child.pid for child in process.children()}
        process.send_signal(signal.SIGHUP)
        await_or_explain(member, lambda: bool({c.pid for c in process.children()} - before), self.log, _CHANGES_S)
        deadline = time.monotonic() + seconds
        while before & {child.pid for child in process.children()} and time.monotonic() < deadline:
            time.sleep(0.05)

    def _listen(self) -> str:
        lines = [f"listen {self._host}:{self._port};", "access_log access.log json;"]
        if self._tls_port is not None:
            lines.append(f"listen {self._host}:{self._tls_port} ssl;")
        return "\n".join(lines) + "\n"


def upstreams(apis: Sequence[int], page: int | None) -> str:
    """Return this machine's ``upstreams.conf``: as the one of the container, with ports for names."""
    replicas = "".join(f"    server 127.0.0.1:{port} {_FAILURES};\n" for port in apis) or _nobody()
    kept = "    keepalive 64;\n    keepalive_timeout 4s;\n"
    page_server = _nobody() if page is None else f"    server 127.0.0.1:{page};\n"
    return (
        f"upstream predict {{\n    zone predict 256k;\n    least_conn;\n{replicas}{kept}}}\n"
        f"upstream api {{\n    zone api 256k;\n    least_conn;\n{replicas}}}\n"
        f"upstream page {{\n    zone page 64k;\n{page_server}}}\n"
    )


def _nobody() -> str:
    return "    server 127.0.0.1:9 down;\n"  # an upstream needs a server; this one is never asked
