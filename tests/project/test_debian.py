"""scripts/lib/debian.sh leaves nothing behind when it is stopped."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import SCRIPTS
from tests.support.servers.serving import eventually


@pytest.mark.parametrize("stopped", [signal.SIGINT, signal.SIGTERM])
def test_services_may_start_again_after_it_was_stopped(tmp_path: Path, stopped: signal.Signals) -> None:
    """A stand-in for apt-get hangs; the file that keeps services from starting is another one here."""
    policy, asked = tmp_path / "policy", tmp_path / "asked"
    script = (SCRIPTS / "lib" / "debian.sh").read_text("utf-8")
    assert script.count("=/usr/sbin/policy-rc.d") == 1
    (tmp_path / "debian.sh").write_text(script.replace("/usr/sbin/policy-rc.d", str(policy)))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text(f"#!/bin/sh\necho $1 >>{asked}\nexec sleep 60\n")
    (tools / "id").write_text("#!/bin/sh\necho 0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    lacking = 'command() { case "$2" in apt-get) true ;; *) false ;; esac; }'
    process = subprocess.Popen(
        ["bash", "-c", f"set -euo pipefail; {lacking}; source {tmp_path}/debian.sh; touch {tmp_path}/went-on"],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's job in the background starts with Ctrl-C ignored, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    eventually(asked.is_file)
    assert policy.stat().st_mode & 0o111
    os.killpg(process.pid, stopped)  # as a terminal does
    process.wait(30)
    eventually(lambda: not policy.exists())
    assert not (tmp_path / "went-on").exists()
