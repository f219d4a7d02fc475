"""A writer that holds the database keeps nobody from reading: lists, pictures and single records are answered."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lesion.catalogue.import_run import import_manifest
from lesion.registry.registry import Registry
from tests.support.bundles.lamp_bundles import lamp_pictures
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage
from tests.support.servers.app import client_of, make_app


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server whose database another program has locked for writing."""
    storage = new_storage(tmp_path / "loop")
    snapshot = import_manifest(storage, lamp_pictures(tmp_path / "pictures", 12), progress=False)
    bundle = sealed(tmp_path / "bundle", classes=["bright", "dark", "other"])
    Registry(storage).deploy_first(Registry(storage).register(bundle, snapshot_id=snapshot), "ann", "the first")
    with client_of(make_app(bundle, storage)) as opened:
        writer = sqlite3.connect(str(storage.url.database), isolation_level=None, timeout=5)
        writer.execute("BEGIN IMMEDIATE")
        yield opened
        writer.execute("ROLLBACK")
        writer.close()
    storage.engine.dispose()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models", 200),
        ("/deployments", 200),
        ("/retrain_jobs", 200),
        (f"/retrain_status/{'0' * 32}", 404),
        ("/quarantine", 200),
        ("/training_data", 200),
        ("/keys", 200),
        ("/dataset/stats", 200),
        (f"/images/{'0' * 64}", 404),
        ("/retrain_estimate", 200),
        ("/health", 503),  # its inference worker never becomes ready
    ],
)
def test_reading_does_not_wait_for_a_writer(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status  # what waits for the lock, which is held throughout, gets 503
