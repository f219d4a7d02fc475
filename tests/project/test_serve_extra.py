"""The extra ``serve`` alone is enough to serve: no torch, no pandas."""

from pathlib import Path

import pytest

from tests.support.environments import create_environment, run_uv
from tests.support.images.hostile import encode, gradient
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess


@pytest.mark.slow
def test_a_server_answers_where_only_the_serve_extra_is_installed(bundle_path: Path, tmp_path: Path) -> None:
    python = create_environment(tmp_path / "venv", f"{REPOSITORY}[serve]")
    listed = run_uv("pip", "list", "--python", str(python), "--format", "freeze")
    installed = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert {"lesion", "litserve", "openvino"} <= installed
    assert not installed & {"torch", "torchvision", "timm", "lightning", "pandas", "matplotlib"}
    with ServerProcess(bundle_path, "server.workers=1", python=str(python)) as server:
        answer = server.client.post("/predict", files={"file": ("x.png", encode(gradient()))}, params={"explain": True})
        assert answer.status_code == 200
        assert sum(answer.json()["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer.json()["explanation"]["overlay_png_base64"]
