"""The extra ``serve`` alone is enough to serve: no torch, no pandas."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images.hostile import encode, gradient
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess


@pytest.mark.slow
def test_a_server_answers_where_only_the_serve_extra_is_installed(bundle_path: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    # uv would otherwise take this environment for the one to work in
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    uv = [sys.executable, "-m", "uv"]
    lock = REPOSITORY / "requirements.lock"
    constraints = []
    if lock.is_file():  # the versions alone: with hashes, installers ask for a hash of this very package too
        versions = [line.rstrip(" \\") for line in lock.read_text().splitlines() if re.match(r"[\w.\[\]-]+==", line)]
        (tmp_path / "versions.txt").write_text("\n".join(versions))
        constraints = ["-c", str(tmp_path / "versions.txt")]
    for command in (
        [*uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")],
        [*uv, "pip", "install", "-q", "--python", str(python), *constraints, f"{REPOSITORY}[serve]"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, timeout=400, check=False, text=True)
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [*uv, "pip", "list", "--python", str(python), "--format", "freeze"],
        env=environment, capture_output=True, timeout=60, check=True, text=True,
    )  # fmt: skip
    installed = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert {"lesion", "litserve", "openvino"} <= installed
    assert not installed & {"torch", "torchvision", "timm", "lightning", "pandas", "matplotlib"}
    with ServerProcess(bundle_path, "server.workers=1", python=str(python)) as server:
        answer = server.client.post("/predict", files={"file": ("x.png", encode(gradient()))}, params={"explain": True})
        assert answer.status_code == 200
        assert sum(answer.json()["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer.json()["explanation"]["overlay_png_base64"]
