"""A wheel, built from a clean checkout and installed far from it, is all that the command ``lesion`` needs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion.client import Client
from lesion.core.version import __version__
from serve.deploy.ports import free_port
from tests.support.environments import VARIABLES, create_environment
from tests.support.paths import REPOSITORY
from tests.support.training_runs import PHANTOMS, TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def files_of_a_checkout() -> list[str]:
    """What a commit of the working tree would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and os.path.lexists(REPOSITORY / name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = tmp_path_factory.mktemp("checkout")
    for name in files_of_a_checkout():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, checkout / name, follow_symlinks=False)
    for secret in (".env", "nginx/tls/own.key"):  # as they lie in the checkout of whoever deploys
        (checkout / "serve" / "deploy" / secret).write_text("secret")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    [path] = (checkout / "dist").glob("*.whl")
    return path


def test_it_holds_the_configs_and_no_tests_or_secrets(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {name for name in files_of_a_checkout() if name.startswith("configs/")}
    assert {name.removeprefix("lesion/") for name in names if name.startswith("lesion/configs/")} == configs
    assert {"serve/ui/app.py", "serve/ui/icon.png", "lesion/py.typed", "lesion/__main__.py"} <= names
    assert any(name.startswith("serve/ui/examples/") for name in names)
    assert {name.partition("/")[0] for name in names} == {"lesion", "serve", f"lesion-{__version__}.dist-info"}
    assert not [name for name in names if re.search(r"(^|/)(tests|scripts)/|/\.env$|\.key$|__pycache__", name)]


class Installation:
    """The command ``lesion`` of an environment of its own, run in a folder that was empty."""

    def __init__(self, wheel: Path, root: Path) -> None:
        self.folder = root / "work"
        self.folder.mkdir()
        self._command = create_environment(root / "venv", f"{wheel}[train,serve,ui]").with_name("lesion")

    def lesion(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._command, *arguments],
            cwd=self.folder,
            env=VARIABLES,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self._command, *arguments],
            cwd=self.folder,
            env=VARIABLES,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("installation")
    yield Installation(wheel, root)
    shutil.rmtree(root)


def test_it_trains_predicts_serves_and_retrains_without_the_checkout(installation: Installation) -> None:
    lesion = installation.lesion
    assert lesion("--help").startswith("usage: lesion COMMAND")
    lesion("train", *PHANTOMS, *TINY, "trainer.max_epochs=1")
    [bundle] = installation.folder.glob("outputs/*/*/bundle")
    image = next((installation.folder / "data").rglob("*.png"))
    answer = lesion("predict", str(image), "--json", "--device", "cpu")
    assert '"predicted_class"' in answer

    port = free_port()
    server = installation.start(
        "serve", f"port={port}", "server.workers=1", "server.device=cpu", "storage=local", "worker=false"
    )
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            client.wait_ready(240)
            version = client.predict(image.read_bytes())["model_version"]
    finally:
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=60)
    assert server.returncode == 0, output
    assert f'"version": "{version}"' in (bundle / "bundle.json").read_text("utf-8")

    worker = installation.start("worker")
    assert worker.stdout is not None
    assert any("is ready" in line for line in worker.stdout)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=60)
    assert worker.returncode == 0

    [model] = json.loads(lesion("models", "--json", "list"))
    assert (model["version"], model["champion"]) == (version, True)
