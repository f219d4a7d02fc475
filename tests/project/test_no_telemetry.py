"""No package of the environment tells others of its use."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

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
