"""Feedback that is taken back over HTTP: by whom, when, and what stays of it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from lesion.auth import api_keys
from lesion.catalogue.decisions import delete_dropped, release
from lesion.catalogue.images import get_image, remove_deleted
from lesion.catalogue.label_corrections import label_history
from lesion.core.files import bytes_sha256
from lesion.core.roles import Role
from lesion.database.audit import entries
from lesion.database.object_store import image_key
from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry, Image, now
from lesion.intake.uploads import ModelOpinion
from lesion.registry.registry import Registry
from tests.support.bundles.bundle_files import MEASURED, bundle_with
from tests.support.images.loop_images import storage_with_generation
from tests.support.images.pictures import write
from tests.support.servers.app import bearer, client_of, make_app, refusal

ANN, BOB, EVE = "ann", "bob", "eve"
ROLES: dict[str, Role] = {EVE: "admin", ANN: "contributor", BOB: "contributor"}
KEPT = ("accepted", "quarantined")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return storage_with_generation(tmp_path / "loop")


@pytest.fixture
def heads(storage: Storage) -> dict[str, dict[str, str]]:
    return {name: bearer(api_keys.create(storage, name, role, "test")) for name, role in ROLES.items()}


@pytest.fixture
def client(
    storage: Storage, heads: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """A server whose champion is sure that everything is a glioma."""
    bundle = bundle_with(tmp_path / "bundle", MEASURED)
    registry = Registry(storage)
    registry.deploy_first(registry.register(bundle), EVE, "the first")
    app = make_app(bundle, storage)

    async def opinion(data: bytes) -> ModelOpinion:
        return ModelOpinion({"glioma": 0.95, "notumor": 0.05}, in_domain=True, distance=0.1, version="v1")

    dispatcher = app.state.services.dispatcher
    monkeypatch.setattr(dispatcher, "opinion", opinion)
    monkeypatch.setattr(dispatcher, "check_room", lambda: None)
    with client_of(app) as made:
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    return write(tmp_path / "picture.png", 0, 24).read_bytes()


class Loop:
    """What users do with one picture."""

    def __init__(self, client: TestClient, heads: dict[str, dict[str, str]], data: bytes) -> None:
        self.client, self.heads, self.data = client, heads, data

    def send(self, who: str, label: str) -> dict[str, Any]:
        answer = self.client.post(
            "/feedback", files={"file": ("a.png", self.data)}, data={"label": label}, headers=self.heads[who]
        ).json()
        [each] = [dict(each, kind=kind) for kind in (*KEPT, "rejected") for each in answer[kind]]
        return each

    def undo(self, who: str, *changes: int) -> Any:
        return self.client.post("/feedback/undo", json={"changes": changes}, headers=self.heads[who])


@pytest.fixture
def loop(client: TestClient, heads: dict[str, dict[str, str]], picture: bytes) -> Loop:
    return Loop(client, heads, picture)


def facts(storage: Storage, data: bytes) -> tuple[str, str, str]:
    with storage.session() as session:
        row = get_image(session, bytes_sha256(data))
        return row.status, row.label, row.reason_code


def actions(storage: Storage, data: bytes) -> list[str]:
    with storage.session() as session:
        return [entry.action for entry in entries(session, subject=bytes_sha256(data))]


@pytest.mark.parametrize(("label", "status"), [("glioma", "accepted"), ("notumor", "quarantined")])
def test_what_feedback_stored_is_taken_out_and_may_come_again(
    loop: Loop, storage: Storage, picture: bytes, label: str, status: str
) -> None:
    sent = loop.send(ANN, label)
    assert (sent["kind"], len(sent["changes"])) == (status, 1)
    taken_back = [{"sha256": bytes_sha256(picture), "status": "dropped", "label": label}]
    for _ in range(2):  # the second click changes nothing
        assert loop.undo(ANN, *sent["changes"]).json() == {"images": taken_back}
    assert facts(storage, picture) == ("dropped", label, "withdrawn")
    assert actions(storage, picture) == [f"image.{status}", "feedback.undone"]
    again = loop.send(BOB, "glioma")
    assert (again["kind"], again["code"]) == ("accepted", "")
    assert facts(storage, picture) == ("accepted", "glioma", "")
    with storage.session() as session:
        assert get_image(session, bytes_sha256(picture)).uploader.startswith("bob")
    assert loop.undo(BOB, *again["changes"]).status_code == 200
    refusal(loop.undo(ANN, *sent["changes"]), 409, "decision_changed")


def test_feedback_that_changed_nothing_cannot_be_taken_back(loop: Loop) -> None:
    loop.send(ANN, "glioma")
    for again in (loop.send(ANN, "glioma"), loop.send(BOB, "glioma"), loop.send(BOB, "notumor")):
        assert again.get("changes", []) == []


def test_only_the_sender_takes_feedback_back(loop: Loop, storage: Storage, picture: bytes) -> None:
    [change] = loop.send(ANN, "glioma")["changes"]
    for who in (BOB, EVE):
        refusal(loop.undo(who, change), 404, "change_unknown")
    refusal(loop.undo(ANN, change, change + 1000), 404, "change_unknown")
    assert facts(storage, picture) == ("accepted", "glioma", "")
    refusal(loop.undo(ANN), 422, "parameter_invalid")


def test_uploads_are_not_taken_back_as_feedback(loop: Loop, storage: Storage) -> None:
    [change] = loop.send(ANN, "glioma")["changes"]
    with storage.session() as session:
        entry = session.get_one(AuditEntry, change)
        entry.detail = entry.detail | {"source": "upload"}
    refusal(loop.undo(ANN, change), 404, "change_unknown")


def test_a_corrected_label_becomes_what_it_was_and_the_history_stays(
    loop: Loop, storage: Storage, picture: bytes
) -> None:
    loop.send(ANN, "glioma")
    corrected = loop.send(EVE, "notumor")
    assert corrected["code"] == "label_corrected"
    for _ in range(2):
        [image] = loop.undo(EVE, *corrected["changes"]).json()["images"]
        assert (image["status"], image["label"]) == ("accepted", "glioma")
    with storage.session() as session:
        changes = label_history(session, bytes_sha256(picture))
    assert [(each["was"], each["label"]) for each in changes] == [("glioma", "notumor"), ("notumor", "glioma")]


def test_what_somebody_did_since_stays(loop: Loop, storage: Storage, picture: bytes) -> None:
    sent = loop.send(ANN, "notumor")
    with storage.session() as session:
        release(session, bytes_sha256(picture), EVE)
    refusal(loop.undo(ANN, *sent["changes"]), 409, "decision_changed")
    assert facts(storage, picture)[:2] == ("accepted", "notumor")


def test_feedback_of_another_day_stays(loop: Loop, storage: Storage, picture: bytes) -> None:
    [change] = loop.send(ANN, "glioma")["changes"]
    with storage.session() as session:
        session.execute(update(AuditEntry).where(AuditEntry.id == change).values(at=now() - timedelta(hours=25)))
    refusal(loop.undo(ANN, change), 409, "undo_too_late")
    assert facts(storage, picture)[0] == "accepted"


def test_the_picture_is_deleted_after_a_week_and_may_still_come_again(
    loop: Loop, storage: Storage, picture: bytes
) -> None:
    key = image_key(bytes_sha256(picture))
    loop.undo(ANN, *loop.send(ANN, "glioma")["changes"])
    assert storage.store.get(key) == picture
    with storage.session() as session:
        session.execute(update(Image).values(changed_at=now() - timedelta(days=8)))
    assert delete_dropped(storage) == 1
    assert not storage.store.has(key)
    assert facts(storage, picture)[0] == "deleted"
    assert loop.send(ANN, "glioma")["kind"] == "accepted"
    assert delete_dropped(storage) == 0
    remove_deleted(storage, bytes_sha256(picture))  # of a worker that found it deleted just before it came again
    assert storage.store.get(key) == picture
