"""A server with a storage records its answers: whatever happens to it, each answer has its record."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from lesion.cli.storage.records import main as records_command
from lesion.core.files import bytes_sha256
from lesion.database.tables import AnswerRow
from lesion.identity.identity_key import open_pseudonyms
from lesion.records.answer_record import AnswerRecord
from lesion.records.chain import ChainKey
from lesion.records.chain_check import verify
from lesion.records.queries import list_records
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server

IMAGES = [encode(np.random.default_rng(seed).integers(0, 256, (48, 48, 3), np.uint8)) for seed in range(6)]


def settings(root: Path, *more: str) -> list[str]:
    fixed = ["worker=false", "server.workers=2", "server.api_processes=2", "server.precision=f32"]
    return [f"storage_root={root}", "storage=local", *fixed, *more]


def ask(server: ServerProcess, image: bytes) -> dict[str, object]:
    """Send an image, with a small set of its probabilities, and return the answer."""
    answer = server.client.post("/predict?top_k=1", content=image, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    assert "recorded" not in body
    return body


def records_of(root: Path) -> dict[str, AnswerRecord]:
    storage = new_storage(root)
    with storage.reading() as session:
        found = {record.request_id: record for _, record in list_records(session, limit=10_000)}
    storage.engine.dispose()
    return found


def test_each_answer_is_recorded_found_reproduced_and_verified(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "loop"
    with ServerProcess(bundle_path, *settings(root)) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda image: ask(server, image), IMAGES * 5))
        eventually(lambda: len(records_of(root)) == len(answers))
        records, pseudonyms = records_of(root), open_pseudonyms(new_storage(root))
        for sent, answer in zip(IMAGES * 5, answers, strict=True):
            record = records[str(answer["request_id"])]
            assert record.image == pseudonyms.sent(bytes_sha256(sent))
            assert max(record.probabilities) == answer["confidence"]
            same = ("model_version", "predicted_class", "in_domain", "domain_distance", "prediction_set", "coverage")
            assert all(getattr(record, name) == answer[name] for name in same)
            assert abs(sum(record.probabilities) - 1) < 1e-5
        one = str(answers[0]["request_id"])
        view = server.client.get(f"/records/{one}").json()
        assert view == {**json.loads(records[one].to_text())}
        page = server.client.get("/records", params={"limit": 7}).json()["records"]
        assert [entry["id"] for entry in page] == list(range(1, 8))
        assert server.client.get("/records/unknown").json()["code"] == "record_unknown"
    place, image, other = f"storage_root={root}", tmp_path / "image.png", tmp_path / "other.png"
    image.write_bytes(IMAGES[0])
    other.write_bytes(IMAGES[1])

    def run(*words: str) -> tuple[int, object]:
        status = records_command(["--json", *words, place])
        return status, json.loads(capsys.readouterr().out)

    assert run("verify") == (0, {"chains": 2, "records": 30, "deleted": 0, "faults": []})
    status, reproduced = run("reproduce", one, str(image))
    assert (status, reproduced) == (
        0,
        {"same": True, "largest_difference": 0.0, "engine": "openvino:cpu", "differing": []},
    )
    with pytest.raises(SystemExit):
        records_command(["reproduce", one, str(other), place])
    assert "record_image_differs" in capsys.readouterr().err
    assert [entry["request_id"] for entry in run("list", "--image", str(image))[1]] == [  # type: ignore[attr-defined]
        request_id for request_id, record in records.items() if record.image == records[one].image
    ]
    assert run("delete", "--image", str(image), "--reason", "asked") == (0, {"deleted": 5})
    storage = new_storage(root)
    with storage.session() as session:
        session.execute(update(AnswerRow).where(AnswerRow.id == 30).values(model_version="0" * 12))
    status, verified = run("verify")
    assert status == 1
    assert len(verified["faults"]) == 1  # type: ignore[index]


def test_servers_that_are_killed_lose_no_record_of_an_answer(bundle_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "loop"
    answered = []
    for _ in range(2):
        with ServerProcess(bundle_path, *settings(root)) as server:
            with ThreadPoolExecutor(4) as pool:
                answered += [answer["request_id"] for answer in pool.map(lambda image: ask(server, image), IMAGES * 5)]
            for process in server.family():
                process.send_signal(signal.SIGKILL)
            server.process.wait(10)
    with ServerProcess(bundle_path, *settings(root)) as server:
        eventually(lambda: len(records_of(root)) == 60)
        assert set(records_of(root)) == set(answered)
    storage = new_storage(root)
    with storage.reading() as session:
        verified = verify(session, ChainKey(open_pseudonyms(storage).record_key))
    assert (verified.records, verified.faults) == (60, [])


def test_answers_are_not_recorded_where_that_is_turned_off(bundle_path: Path, tmp_path: Path) -> None:
    root = tmp_path / "loop"
    with ServerProcess(bundle_path, *settings(root, "records.enabled=false")) as server:
        ask(server, IMAGES[0])
    assert records_of(root) == {}
    assert not (root / "cache" / "records").exists()
