"""Servers that tests of the page share, and browser windows before the page."""

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import streamlit as st
from playwright.sync_api import Browser, BrowserContext, Page
from streamlit.testing.v1 import AppTest

from lesion.catalogue.import_run import import_manifest
from lesion.database.storage import Storage
from lesion.phantom.folder import generate
from lesion.registry.registry import Registry
from scripts.dev.browsing import WIDTHS, browser, browser_context, settle, window
from serve.ui.session import ADDRESS
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage, put_disputed
from tests.support.servers.browser import PATHS, Front, OpenWindow, PageProcess
from tests.support.servers.page import OpenScreen, evaluated, open_screen, two_models
from tests.support.servers.serving import ServerProcess
from tests.support.training_subprocess import CONFIG


@pytest.fixture(autouse=True)
def own_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `__main__` back after each test: AppTest replaces it, and processes that later tests spawn start from it."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


# A server with one model, on which every action is allowed


@pytest.fixture(scope="session")
def lamp_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lamps")


@pytest.fixture(scope="session")
def lamp_storage(lamp_root: Path) -> Iterator[Storage]:
    storage = new_storage(lamp_root / "loop")
    snapshot = import_manifest(storage, lamp_pictures(lamp_root / "pictures", 30), progress=False)
    champion = lamp(lamp_root / "champion", 0.05, config=CONFIG)
    Registry(storage).deploy_first(Registry(storage).register(champion, snapshot_id=snapshot), "ann", "the first")
    yield storage
    storage.engine.dispose()


@pytest.fixture(scope="session")
def lamp_server(lamp_root: Path, lamp_storage: Storage) -> Iterator[ServerProcess]:
    settings = ("storage=local", f"storage_root={lamp_root / 'loop'}", "worker=false", "server.workers=1")
    with ServerProcess(lamp_root / "champion", *settings) as server:
        yield server


@pytest.fixture
def page(lamp_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> OpenScreen:
    """Open a screen before the server of lamps, or another address; the whole page without a name."""

    def opening(name: str = "", address: str = lamp_server.url) -> AppTest:
        monkeypatch.setenv(ADDRESS, address)
        st.cache_data.clear()  # all of these are one session to Streamlit's caches
        return open_screen(name)

    return opening


# A server with two models, behind a stand-in that refuses what it is told to refuse


@pytest.fixture(scope="module")
def models_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def versions(models_root: Path) -> list[Path]:
    return [evaluated(models_root / f"version{number}", 0.05 + number / 100) for number in range(2)]


@pytest.fixture(scope="module")
def models_storage(models_root: Path, versions: list[Path]) -> Iterator[Storage]:
    storage = two_models(models_root, versions)
    yield storage
    storage.engine.dispose()


@pytest.fixture(scope="module")
def waiting(models_storage: Storage, models_root: Path) -> str:
    """An image in quarantine."""
    return put_disputed(models_storage, models_root, 7000)


@pytest.fixture(scope="module")
def models_server(models_root: Path, models_storage: Storage, versions: list[Path]) -> Iterator[ServerProcess]:
    settings = ("storage=local", f"storage_root={models_root / 'loop'}", "worker=false", "server.workers=1")
    with ServerProcess(versions[1], *settings) as server:
        yield server


@pytest.fixture
def front(models_server: ServerProcess) -> Iterator[Front]:
    """The stand-in between the page and the server, at another address for each test."""
    with Front(models_server.url) as stand_in:
        yield stand_in


@pytest.fixture
def opened(front: Front, monkeypatch: pytest.MonkeyPatch) -> OpenScreen:
    """Open a screen, or call something of it, before the stand-in."""
    monkeypatch.setenv(ADDRESS, front.url)
    st.cache_data.clear()
    return open_screen


# A real browser


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures that the model was not trained on."""
    folder = generate(tmp_path_factory.mktemp("scans") / "new", patients=8, slices=1, size=64, seed=7, workers=1)
    return sorted(folder.glob("*/*.png"))


@pytest.fixture(scope="module")
def contexts(chrome: Browser) -> dict[int, BrowserContext]:
    """By the width of its windows: windows of one context load the page's scripts once."""
    return {}


@pytest.fixture
def open_window(chrome: Browser, contexts: dict[int, BrowserContext]) -> Iterator[OpenWindow]:
    """Open windows, each with a session of its own; no page may ever show a traceback or ask another machine."""
    windows: list[Page] = []
    hosts: set[str | None] = set()

    def opening(process: PageProcess, name: str = "Predict", width: int = WIDTHS["desktop"]) -> Page:
        if width not in contexts:
            contexts[width] = browser_context(chrome, width)
        page = window(contexts[width])
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        windows.append(page)
        page.goto(f"{process.url}/{PATHS[name]}")
        settle(page)
        return page

    yield opening
    texts = [page.locator("body").inner_text() for page in windows]
    for page in windows:
        page.close()
    print("\n---\n".join(texts))
    assert not any("Traceback" in text or "Error:" in text for text in texts)
    assert hosts <= {"127.0.0.1", None}
