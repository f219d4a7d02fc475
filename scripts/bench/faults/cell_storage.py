"""Where a cell of the fault matrix keeps its state: SQLite and a folder, or PostgreSQL and S3 behind proxies."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from scripts.bench.faults.fault_proxy import FaultProxy
from tests.support.backups import Servers, tools_of
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import storage_in
from tests.support.servers.postgresql import postgresql
from tests.support.servers.seaweed import ACCESS_KEY, SECRET_KEY, seaweed
from tests.support.servers.slow_writes import hold
from tests.support.training_subprocess import CONFIG

_HELD_S = 2.0  # how long the writes of short stages take, so that they can be met
_HELD = ("INSERT ON snapshots", "INSERT ON model_versions", "INSERT ON gate_looks", "INSERT ON deployments")
_DATABASE = "loop"  # also the prefix in the bucket


@dataclass(frozen=True)
class CellStorage:
    """A storage that the bench reaches directly, and how the cell's processes reach it."""

    storage: Storage
    bundles: Path  # has the folders champion and right
    settings: Sequence[str]  # of server, worker and backup
    environment: Mapping[str, str] = field(default_factory=dict)
    database_proxy: FaultProxy | None = None
    s3_proxy: FaultProxy | None = None

    @property
    def shared(self) -> bool:
        """Whether it is PostgreSQL and S3, beside which a worker is started by itself."""
        return self.database_proxy is not None


def make_bundles(folder: Path) -> None:
    """Make a champion that is always wrong, another one, and a bundle that is always right."""
    for name, gain in (("champion", -0.05), ("second", -0.04), ("right", 0.05)):
        lamp(folder / name, gain, config=CONFIG)


def fill(storage: Storage, folder: Path) -> None:
    """Fill an empty storage with what a cell begins with; from then on the writes of short stages take 2 s.

    ``folder`` has the bundles, and gets the pictures.
    """
    storage.cache.parent.mkdir(parents=True, exist_ok=True)
    storage.upgrade()
    snapshot = import_manifest(storage, lamp_pictures(folder / "pictures", 30), progress=False)
    registry = Registry(storage)
    champion = registry.register(folder / "champion", snapshot_id=snapshot)
    registry.deploy_first(champion, "bench", "the first")
    registry.register(folder / "second", snapshot_id=snapshot)
    hold(storage.database, *_HELD, seconds=_HELD_S)
    storage.engine.dispose()


def make_template(folder: Path) -> None:
    """Make the bundles, and the SQLite file and store that each local cell begins with."""
    make_bundles(folder)
    fill(storage_in(folder / "loop"), folder)


@contextmanager
def local_storage(template: Path, disk: Path) -> Iterator[CellStorage]:
    """Copy a template to a disk."""
    shutil.copytree(template / "loop", disk / "loop")
    storage = storage_in(disk / "loop")
    yield CellStorage(storage, template, ("storage=local", f"storage_root={disk / 'loop'}"))
    storage.engine.dispose()


@contextmanager
def shared_storage(folder: Path, disk: Path) -> Iterator[CellStorage]:
    """Run a PostgreSQL and an S3 store in a new folder, fill them, and put proxies before them."""
    folder.mkdir()
    with ExitStack() as stack:
        address = stack.enter_context(postgresql(folder / "pg"))
        s3 = stack.enter_context(seaweed(folder / "s3"))
        make_bundles(folder)
        storage = Servers(folder, address, s3)(_DATABASE)
        stack.callback(storage.engine.dispose)
        fill(storage, folder)
        database_proxy = FaultProxy(Path(str(storage.url.query["host"])) / ".s.PGSQL.5432")
        s3_proxy = FaultProxy(make_url(s3).port or 0)
        stack.callback(database_proxy.cut)
        stack.callback(s3_proxy.cut)
        proxied = storage.url.set(host="127.0.0.1", port=database_proxy.port, query={})
        environment = {
            "LESION_DATABASE": proxied.render_as_string(hide_password=False),
            "LESION_FILES": storage.files,
            "LESION_S3": f"http://127.0.0.1:{s3_proxy.port}",
            "LESION_IDENTITY_KEY": str(storage.identity_key),
            "LESION_PG_BIN": str(tools_of(storage.database)),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "NO_PROXY": "127.0.0.1",
        }
        settings = ("storage=cluster", f"storage_root={disk / 'loop'}")
        yield CellStorage(storage, folder, settings, environment, database_proxy, s3_proxy)
