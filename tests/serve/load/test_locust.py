"""The locust file, run for a few seconds against a real server."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lesion.catalogue.import_run import import_manifest
from lesion.registry.registry import Registry
from serve.load.checks import MISTAKES, PROBLEM, prediction_fault, refusal_fault, upload_fault
from serve.load.samples import mixture
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.training_subprocess import CONFIG, STAND_IN

LOCUSTFILE = REPOSITORY / "serve" / "load" / "locustfile.py"


@pytest.mark.slow
def test_twenty_users_meet_no_failure(bundle_path: Path, tmp_path: Path) -> None:
    with ServerProcess(bundle_path) as server:
        done = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--users", "20", "--spawn-rate", "20",
             "--run-time", "10s", "--host", server.url, "--csv", str(tmp_path / "load")],
            capture_output=True, timeout=120, check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    requests, failures = stats(tmp_path / "load")["Aggregated"]
    assert requests > 50
    assert failures == 0


def stats(prefix: Path) -> dict[str, tuple[int, int]]:
    """Requests and failures of each kind."""
    with Path(f"{prefix}_stats.csv").open(newline="") as file:
        return {row["Name"]: (int(row["Request Count"]), int(row["Failure Count"])) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_experts_the_operator_and_the_mistaken_meet_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server with a storage, whose retraining is a stand-in that has a better model in a second."""
    storage = new_storage(tmp_path)
    snapshot = import_manifest(storage, lamp_pictures(tmp_path / "pictures", 30), progress=False)
    registry = Registry(storage)
    first = registry.register(lamp(tmp_path / "wrong", -0.05, config=CONFIG), snapshot_id=snapshot)
    registry.deploy_first(first, "ann", "the first")
    orders = {
        "bundle": str(lamp(tmp_path / "right", 0.05, config=CONFIG)),
        "epoch_s": 0.5,
        "record": str(tmp_path / "record"),
    }
    monkeypatch.setenv("LESION_STAND_IN", json.dumps(orders))
    settings = ["storage=local", f"storage_root={tmp_path}", "server.workers=1"]
    settings.append(f"worker_settings=[\"retrain.script='{STAND_IN}'\"]")
    with ServerProcess("null", *settings) as server:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", server.url]
        command += ["--users", "7", "--spawn-rate", "10", "--run-time", "14s", "Mistaken", "Expert", "Operator"]
        done = subprocess.run(
            [*command, "--csv", str(tmp_path / "load")],
            env=os.environ | {"LESION_LOAD_UPLOADS": "1", "LESION_LOAD_RETRAIN": "1"},
            capture_output=True, timeout=120, check=False, text=True,
        )  # fmt: skip
        eventually(lambda: [job["state"] for job in server.client.get("/retrain_jobs").json()] == ["promoted"], 120)
    storage.engine.dispose()
    counted = stats(tmp_path / "load")
    assert done.returncode == 0, done.stderr[-3000:]
    assert counted["Aggregated"][1] == 0
    assert counted["/retrain"][0] == 1
    for name in ("/retrain_status/{job_id}", "/upload_training_data", "/upload_training_data again", "/dataset/stats"):
        assert counted[name][0] > 0, name
    assert {name for name in counted if name.startswith("refused: ")} <= {f"refused: {one.name}" for one in MISTAKES}
    assert sum(count for name, (count, _) in counted.items() if name.startswith("refused: ")) > 10


@pytest.mark.slow
def test_each_mistake_is_refused_as_it_should_be(tmp_path: Path) -> None:
    with ServerProcess(lamp(tmp_path / "lamp", 0.05), "server.workers=1") as server:
        for mistake in MISTAKES:
            headers = {"Content-Type": mistake.media_type} if mistake.body else {}
            response = server.client.request(mistake.method, mistake.path, content=mistake.body, headers=headers)
            assert (response.status_code, response.json()["code"]) == (mistake.status, mistake.code), mistake.name
        for number, body in enumerate(mixture()):
            response = server.client.post("/predict", content=body)
            assert response.status_code == 200, (number, response.text)


def test_a_wrong_answer_is_a_failure_whatever_its_status() -> None:
    good = {"predicted_class": "a", "probabilities": {"a": 0.75, "b": 0.25}, "request_id": "r"}
    assert prediction_fault(answer(200, good), explain=False) == ""
    for wrong in ({"predicted_class": "b"}, {"probabilities": {"a": 0.9, "b": 0.9}}, {"request_id": "s"}):
        assert prediction_fault(answer(200, good | wrong), explain=False)
    assert prediction_fault(answer(503, good), explain=False).startswith("status 503")
    no_picture = {"explanation": {"overlay_png_base64": "AAAA"}}
    assert "PNG" in prediction_fault(answer(200, good | no_picture), explain=True)
    refused = {"code": "image_empty", "detail": "It is empty."}
    assert refusal_fault(answer(400, refused, PROBLEM), 400, "image_empty") == ""
    assert refusal_fault(answer(200, good), 400, "image_empty").startswith("status 200")
    assert refusal_fault(answer(400, refused), 400, "image_empty").startswith("the refusal is no problem document")
    assert refusal_fault(answer(400, refused, PROBLEM), 400, "file_missing").startswith("the refusal is image_empty")
    judged = {"accepted": [{"code": "accepted"}], "quarantined": [], "rejected": [{"code": "already_known"}]}
    assert upload_fault(answer(200, judged), 2, repeated=False) == ""
    assert upload_fault(answer(200, judged), 3, repeated=False) == "2 of 3 images were judged"
    assert "accepted twice" in upload_fault(answer(200, judged), 2, repeated=True)


def answer(status: int, content: dict[str, Any], kind: str = "application/json") -> Any:
    """What the checks read of Locust's response."""
    headers = {"Content-Type": kind, "X-Request-ID": "r"}
    return SimpleNamespace(status_code=status, text=json.dumps(content), json=lambda: content, headers=headers)
