"""Commands look up no name on the network, and packages tell others nothing of their use."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.support.lookups.name_server import can_isolate, looked_up_names, recording
from tests.support.paths import REPOSITORY

needs_namespaces = pytest.mark.skipif(
    not can_isolate(), reason="this machine gives a process no network namespace of its own (unshare)"
)

SPY = """
import os, socket

def noted(function):
    def call(host, *rest, **more):
        with open(os.environ["LOOKED_UP"], "a") as file:
            file.write(f"{host}\\n")
        return function(host, *rest, **more)
    return call

for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, noted(getattr(socket, name)))
"""

# Caches without anything that identifies the machine.
KEPT = (".cache/matplotlib/", ".cache/wandb/logs/", ".local/share/wandb/artifacts/staging/")


@pytest.mark.slow
@needs_namespaces
@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-c", "import socket; socket.gethostbyname('asked.example')"),
        ("getent", "hosts", "asked.example"),
    ],
    ids=["python", "native"],
)
def test_a_name_that_is_looked_up_is_recorded(tmp_path: Path, command: tuple[str, ...]) -> None:
    record = tmp_path / "record"
    assert subprocess.run(recording(record, *command), cwd=REPOSITORY, capture_output=True, check=False).returncode != 0
    assert looked_up_names(record) == {"asked.example"}


@pytest.mark.slow
@needs_namespaces
def test_no_command_looks_a_name_up(tmp_path: Path) -> None:
    record, home = tmp_path / "record", tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home)}
    command = recording(record, sys.executable, "-m", "tests.support.lookups.story", str(tmp_path))
    told = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=560, check=False
    )
    assert told.returncode == 0, told.stderr
    assert looked_up_names(record) == set()
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert [file for file in files if not file.startswith(KEPT)] == []


def test_openvinos_telemetry_is_not_installed() -> None:
    with pytest.raises(PackageNotFoundError):
        version("openvino-telemetry")


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("serve/deploy/requirements/*.txt")), ids=lambda file: file.name)
def test_no_image_installs_it(file: Path) -> None:
    assert "openvino-telemetry" not in file.read_text()


def test_the_lock_does_not_install_it() -> None:
    assert "openvino-telemetry" not in (REPOSITORY / "requirements.lock").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "installed"),
    [
        ("import openvino, time; openvino.Core(); time.sleep(2)", False),
        ("import openvino.tools.ovc, time; time.sleep(2)", False),
        # Where pip has installed the package, Lesion's own engines leave it out.
        ("from lesion.model import engines; engines._core(); import time; time.sleep(2)", True),
    ],
    ids=["openvino", "converter", "engines"],
)
def test_nothing_is_looked_up_or_kept(tmp_path: Path, code: str, installed: bool) -> None:
    looked_up, home = tmp_path / "looked_up", tmp_path / "home"
    home.mkdir()
    (tmp_path / "sitecustomize.py").write_text(SPY)
    if installed:
        telemetry = tmp_path / "openvino_telemetry"
        (telemetry / "backend").mkdir(parents=True)
        (telemetry / "__init__.py").write_text("import socket\nsocket.gethostbyname('localhost')\n")
        for name in ("__init__", "backend_ga4"):
            (telemetry / "backend" / f"{name}.py").touch()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "LOOKED_UP": str(looked_up), "HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tmp_path, timeout=120)
    assert not looked_up.exists()
    assert not list(home.rglob("*"))
