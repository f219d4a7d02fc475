"""Storages for the tests of backups; those on real servers have names of their own in every test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lesion.backup.postgres_tools import TOOLS_VARIABLE
from lesion.database.storage import Storage
from tests.support.backups import Folders, Servers, filled, tools_of
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage, put_picture
from tests.support.servers.postgresql import postgresql
from tests.support.servers.seaweed import seaweed

Place = Callable[..., Storage]


@pytest.fixture(scope="session")
def running_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        address = stack.enter_context(postgresql(folder / "pg"))
        yield Servers(folder, address, stack.enter_context(seaweed(folder / "s3")))


@pytest.fixture
def servers(running_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Servers:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(TOOLS_VARIABLE, str(tools_of(running_servers.address)))
    return running_servers


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Makes storages, by name."""
    if request.param == "sqlite":
        return Folders(tmp_path)
    made: Servers = request.getfixturevalue("servers")
    return replace_names(made, tmp_path.name)


def replace_names(servers: Servers, prefix: str) -> Place:
    """Names of one test do not meet those of another."""
    return lambda name, **settings: servers(f"{prefix}-{name}", **settings)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("parts")
    return lamp(folder / "lamp", 0.05), lamp_pictures(folder / "pictures", 10)


@pytest.fixture
def storage(place: Place, parts: tuple[Path, Any]) -> Storage:
    """A champion, the images that it learned from, a key, and a retraining that waits."""
    return filled(place("first", upgrade=True), *parts)


@pytest.fixture
def small(tmp_path: Path) -> Storage:
    """One image and no model."""
    storage = new_storage(tmp_path)
    put_picture(storage, tmp_path, 1)
    return storage
