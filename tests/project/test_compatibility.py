"""Files of the first version, made by its own code, are opened by this one.

``tests/data/version_0.1.0.tar.xz`` holds a trained bundle with images and the answers that it gave, a storage folder
(SQLite and files) after a rejected and a canceled retraining, a promotion and a rollback by hand, and a backup of that
storage. Its network's weights are rounded to a coarse grid, so that the archive is small; nothing else is special about
it.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lesion.model.predictor import Prediction, Predictor
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.servers.serving import ServerProcess

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

ARCHIVE = REPOSITORY / "tests" / "data" / "version_0.1.0.tar.xz"
CHAMPION, CHALLENGER = "e14ca185ee74", "6d62cdb0c2d6"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def command(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def models(storage: Path, *arguments: str) -> Any:
    return json.loads(command("models.py", "--json", *arguments, "storage=local", f"storage_root={storage}"))


def test_the_archive_is_small() -> None:
    assert ARCHIVE.stat().st_size < 2 * 2**20


def test_a_bundle_gives_the_answers_that_it_gave(files: Path) -> None:
    predictor = Predictor.load(files / "bundle", "cpu", precision="f32")
    assert predictor.bundle.version == CHAMPION
    assert predictor.bundle.notes() == []  # its patients are known
    expected = json.loads((files / "answers.json").read_text("utf-8"))
    assert len(expected) == 4
    predictions = predictor.predict([(files / "images" / name).read_bytes() for name in expected])
    for name, prediction in zip(expected, predictions, strict=True):
        assert isinstance(prediction, Prediction), name
        answer = expected[name]
        assert (prediction.predicted_class, prediction.in_domain) == (answer["predicted_class"], answer["in_domain"])
        assert prediction.probabilities == pytest.approx(answer["probabilities"], abs=1e-4)
        assert prediction.domain_distance == pytest.approx(answer["domain_distance"], rel=1e-3)


def test_a_storage_keeps_its_models_and_its_ledger(files: Path) -> None:
    versions = {row["version"]: row for row in models(files / "storage", "list")}
    assert {version: row["champion"] for version, row in versions.items()} == {CHAMPION: True, CHALLENGER: False}
    assert versions[CHALLENGER]["parent"] == CHAMPION
    history = sorted(models(files / "storage", "history"), key=lambda row: row["id"])
    assert [(row["action"], row["version"]) for row in history] == [
        ("first", CHAMPION), ("promote", CHALLENGER), ("rollback", CHAMPION)
    ]  # fmt: skip


def test_a_server_goes_on_with_a_storage(files: Path) -> None:
    key = next(word for word in (files / "key.txt").read_text().split() if word.startswith("lesion_"))
    settings = ("storage=local", f"storage_root={files / 'storage'}", "worker=false", "server.workers=1")
    with ServerProcess(files / "bundle", *settings) as server:
        server.client.headers["Authorization"] = f"Bearer {key}"  # a key that the first version made
        answer = server.client.post("/predict", content=(files / "images/glioma/patient0000_slice00.png").read_bytes())
        assert (answer.status_code, answer.json()["model_version"]) == (200, CHAMPION), answer.text
        jobs = server.client.get("/retrain_jobs").json()
        assert sorted(job["state"] for job in jobs) == ["cancelled", "rejected"]
        rejected = next(job for job in jobs if job["state"] == "rejected")
        report = server.client.get(f"/retrain_jobs/{rejected['job_id']}/report")
        assert (report.status_code, "macro-F1" in report.text) == (200, True)
        counts = server.client.get("/training_data").json()["status"]
        assert counts["accepted"] + counts["quarantined"] > 50
        quarantined = server.client.get("/quarantine").json()["images"]
        assert quarantined
        released = server.client.post(f"/quarantine/{quarantined[0]['sha256']}/release")
        assert released.status_code == 200, released.text


def test_a_backup_is_whole_and_can_be_restored(files: Path, tmp_path: Path) -> None:
    assert "files      88" in command("backup.py", "verify", str(files / "backup"))  # the exit status is 0
    command("backup.py", "restore", str(files / "backup"), "storage=local", f"storage_root={tmp_path / 'restored'}")
    assert {row["version"] for row in models(tmp_path / "restored", "list")} == {CHAMPION, CHALLENGER}
