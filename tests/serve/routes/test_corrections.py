"""Wrong labels that are corrected over HTTP: by whom, how often, and what of it is kept."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lesion.auth import api_keys
from lesion.catalogue.import_run import import_manifest
from lesion.core.files import bytes_sha256
from lesion.core.roles import Role
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from tests.support.archives import zipped
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.app import bearer
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server
SETTINGS = ("storage=local", "worker=false", "server.workers=1", "intake.dispute_probability=0")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    root = tmp_path_factory.mktemp("loop")
    storage = new_storage(root)
    snapshot = import_manifest(storage, lamp_pictures(root / "pictures", 10), progress=False)
    version = Registry(storage).register(lamp(root / "champion", 0.05), snapshot_id=snapshot)
    Registry(storage).deploy_first(version, "ann", "the first")
    yield storage
    storage.engine.dispose()


@pytest.fixture(scope="module")
def heads(storage: Storage) -> dict[Role, dict[str, str]]:
    roles: tuple[Role, ...] = ("admin", "contributor")
    return {role: bearer(api_keys.create(storage, f"a {role}", role, "test")) for role in roles}


@pytest.fixture(scope="module")
def server(storage: Storage, heads: dict[Role, dict[str, str]]) -> Iterator[ServerProcess]:
    root = Path(storage.files).parent
    with ServerProcess(root / "champion", *SETTINGS, f"storage_root={root}") as running:
        eventually(lambda: httpx.get(f"{running.url}/me").status_code == 401)
        yield running


def bright(seed: int) -> bytes:
    return encode((picture(seed) * 0.4 + 150).astype(np.uint8))


def send(
    server: ServerProcess, head: dict[str, str], data: bytes, route: str = "upload_training_data", **form: str
) -> list[tuple[str, str, str]]:
    """Outcome, code and reason of each file."""
    field = "file" if route == "feedback" else "files"
    answer = server.client.post(f"/{route}", files={field: ("x.png", data)}, data=form, headers=head)
    assert answer.status_code == 200, answer.text
    kinds: dict[str, list[dict[str, Any]]] = answer.json()
    return [
        (kind, each["code"], each["reason"]) for kind in ("accepted", "quarantined", "rejected") for each in kinds[kind]
    ]


def test_an_admin_corrects_a_label_and_others_do_not(server: ServerProcess, heads: dict[Role, dict[str, str]]) -> None:
    data, admin, ward = bright(8000), heads["admin"], heads["contributor"]
    assert send(server, ward, data, label="bright")[0][:2] == ("accepted", "")
    [(kind, code, reason)] = send(server, ward, data, label="dark")
    assert (kind, code) == ("rejected", "label_conflict")
    assert "Ask an admin which label is right." in reason
    said = "The label of this image was bright and is dark now."
    assert send(server, admin, data, "upload_training_data?dry_run=true", label="dark") == [
        ("accepted", "label_corrected", said)
    ]
    record = server.client.get(f"/images/{bytes_sha256(data)}", headers=admin).json()
    assert (record["label"], record["label_history"]) == ("bright", [])
    assert send(server, admin, data, label="dark") == [("accepted", "label_corrected", said)]
    assert send(server, ward, data, label="dark")[0][:2] == ("accepted", "already_known")
    assert send(server, admin, data, "feedback", label="bright")[0][1] == "label_corrected"
    record = server.client.get(f"/images/{bytes_sha256(data)}", headers=admin).json()
    assert (record["label"], record["status"]) == ("bright", "accepted")
    names = [(each["actor"].split(" (")[0], each["was"], each["label"]) for each in record["label_history"]]
    assert names == [("a admin", "bright", "dark"), ("a admin", "dark", "bright")]
    assert record["uploader"].startswith("a contributor")


def test_one_picture_under_two_classes_in_an_upload_is_no_correction(
    server: ServerProcess, heads: dict[Role, dict[str, str]]
) -> None:
    data = bright(8001)
    with Image.open(io.BytesIO(data)) as opened:
        again = encode(opened.copy(), "BMP")
    content = zipped({"bright/1.png": data, "dark/2.bmp": again})
    for _ in range(2):  # also when the upload is sent again
        outcome = send(server, heads["admin"], content)
        assert outcome[0][0] == "accepted"
        assert outcome[1][:2] == ("rejected", "label_conflict")
    record = server.client.get(f"/images/{bytes_sha256(data)}", headers=heads["admin"]).json()
    assert (record["label"], record["label_history"]) == ("bright", [])


def test_corrections_are_counted_for_the_next_retraining(
    server: ServerProcess, storage: Storage, heads: dict[Role, dict[str, str]]
) -> None:
    folder = Path(storage.files).parent / "pictures"
    known = next(iter(sorted(folder.glob("dark/*.png")))).read_bytes()
    record = server.client.get(f"/images/{bytes_sha256(known)}", headers=heads["admin"]).json()
    before = server.client.get("/training_data", headers=heads["admin"]).json()["next_retrain"]["relabeled"]
    assert send(server, heads["admin"], known, label="bright")[0][1] == "label_corrected"
    after = server.client.get(f"/images/{bytes_sha256(known)}", headers=heads["admin"]).json()
    counted = server.client.get("/training_data", headers=heads["admin"]).json()["next_retrain"]["relabeled"]
    assert (after["label"], after["split"], counted) == ("bright", record["split"], before + 1)
