"""Uploads, a retraining and refusals in a real browser, before a server with a retraining worker."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from playwright.sync_api import Page, expect
from sqlalchemy import select

from lesion.catalogue.images import get_image
from lesion.catalogue.import_run import import_manifest
from lesion.core.files import bytes_sha256
from lesion.database.tables import Image
from lesion.registry.registry import Registry
from lesion.retraining.jobs import jobs
from scripts.dev.browsing import PAGES, choose, drop, fetch, go, press, settle
from serve.deploy.ports import free_port
from tests.support.bundles.lamp_bundles import lamp, lamp_pictures
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.servers.browser import IN_A_BROWSER, SOON_MS, Front, OpenWindow, PageProcess, World, shows
from tests.support.servers.serving import ServerProcess, eventually
from tests.support.training_subprocess import CONFIG, STAND_IN

pytestmark = IN_A_BROWSER
# What each refusal is called on the page, and a word of what it says to do.
REFUSALS = {
    (401, "key_unknown"): ("You are not signed in", "Sign in"),
    (413, "body_too_large"): ("This is too large for the server", "Send a smaller file"),
    (429, "rate_limited"): ("Too many requests", "Wait a little"),
    (503, "server_busy"): ("The server is not ready", "tries again by itself"),
}
AWAY = "The server cannot be reached"


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where stand-ins for trainings find their model and wait until they may continue."""
    return tmp_path_factory.mktemp("lamps")


@pytest.fixture(scope="module")
def lamps(training: Path) -> Iterator[World]:
    """A server whose model mistakes bright for dark and dark for bright, never surely; a retraining corrects it."""
    root = training / "loop"
    storage = new_storage(root)
    snapshot = import_manifest(storage, lamp_pictures(training / "pictures", 30), progress=False)
    champion = lamp(training / "champion", -0.004, config=CONFIG)
    Registry(storage).deploy_first(Registry(storage).register(champion, snapshot_id=snapshot), "ann", "the first")
    orders = {"bundle": str(lamp(training / "right", 0.05, config=CONFIG)), "waits": {"epoch 1": str(training / "go")}}
    script = f"worker_settings=[\"retrain.script='{STAND_IN}'\"]"
    # Only nearly white images are so surely dark to it that it disputes their label.
    settings = ("storage=local", f"storage_root={root}", script, "server.workers=1", "intake.dispute_probability=0.3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LESION_STAND_IN", json.dumps(orders))
        with ServerProcess(champion, *settings) as server, Front(server.url) as front, PageProcess(front.url) as page:
            yield World(server, storage, front, page)
    storage.engine.dispose()


def photo(path: Path, seed: int, base: int = 150, spread: float = 0.4) -> Path:
    """A picture file whose brightness is about ``base`` and more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray((picture(seed) * spread + base).astype(np.uint8)).save(path)
    return path


# Upload, quarantine and retraining; in this order, since the retraining changes the model


def test_sixty_files_are_uploaded(lamps: World, open_window: OpenWindow, tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{number}.png", 2000 + number) for number in range(60)]
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    press(page, "Upload 60 files")
    shows(page, "60 of 60 files accepted.", 60_000)
    with lamps.storage.session() as session:
        found = session.scalars(select(Image.sha256).filter_by(source="upload", label="bright", status="accepted"))
        assert {bytes_sha256(file.read_bytes()) for file in files} <= set(found)


def test_an_upload_that_was_stopped_halfway_keeps_its_files_through_a_look_at_another_page(
    lamps: World, open_window: OpenWindow, tmp_path: Path
) -> None:
    files = [photo(tmp_path / f"{number}.png", 2200 + number) for number in range(60)]
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    with lamps.front.refusing(503, "server_busy", "/upload_training_data", after=1):
        press(page, "Upload 60 files")
        shows(page, "10 of 60 files wait.", 60_000)
        press(page, "Stop sending")
        shows(page, "50 of 60 files sent; 10 were not and are kept here.")
    go(page, "Predict")
    go(page, "Upload & Retrain")
    shows(page, "50 of 60 files sent; 10 were not and are kept here.")
    press(page, "Send the rest")
    shows(page, "60 of 60 files accepted.", 60_000)
    expect(page.get_by_text("were not and are kept here")).to_have_count(0)


def test_a_file_that_is_refused_says_why(lamps: World, open_window: OpenWindow, tmp_path: Path) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no image at all")
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "dark")
    drop(page, broken, photo(tmp_path / "good.png", 2100, base=0))
    press(page, "Upload 2 files")
    shows(page, "1 of 2 files accepted, 1 refused.")
    table = fetch(page, "Download the list as CSV").read_text("utf-8").splitlines()
    assert "notes.png" in table[1]
    assert "Refused" in table[1]
    assert "not recognized as an image" in table[1]


def quarantined(lamps: World, tmp_path: Path, *seeds: int) -> list[str]:
    """Send nearly white images under a label that the model disputes; return their hashes in the order of the page."""
    sent = [photo(tmp_path / f"{seed}.png", seed, base=228, spread=0.1).read_bytes() for seed in seeds]
    for data in sent:
        answer = lamps.server.client.post("/upload_training_data", files={"files": data}, data={"label": "bright"})
        assert [each["sha256"] for each in answer.json()["quarantined"]] == [bytes_sha256(data)]
    listed = lamps.server.client.get("/quarantine", params={"order": "doubt"}).json()["images"]
    hashes = [image["sha256"] for image in listed]
    assert sorted(hashes) == sorted(bytes_sha256(data) for data in sent)
    return hashes


def statuses(lamps: World, hashes: list[str]) -> list[str]:
    with lamps.storage.session() as session:
        return [get_image(session, sha256).status for sha256 in hashes]


def places(page: Page) -> list[tuple[float, float]]:
    """Where the buttons of all cards are in the window, row by row."""
    found = [page.get_by_role("button", name=f"{what} image ").all() for what in ("Release", "Drop", "Undo")]
    boxes = [button.bounding_box() for kind in found for button in kind]
    return [(box["x"], box["y"]) for box in boxes if box is not None]


def test_clicks_at_one_place_decide_about_one_image_and_are_undone(
    lamps: World, open_window: OpenWindow, tmp_path: Path
) -> None:
    hashes = quarantined(lamps, tmp_path, *range(3000, 3004))
    page = open_window(lamps.page, "Admin")
    release = page.get_by_role("button", name="Release image 1", exact=True)
    release.scroll_into_view_if_needed()
    settle(page)
    before, box = places(page), release.bounding_box()
    assert box is not None
    assert len(before) == 12
    for _ in range(3):  # at the place, not at the button: this released three images
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        settle(page)
    shows(page, "Accepted as bright by local.")
    assert statuses(lamps, hashes) == ["accepted", "quarantined", "quarantined", "quarantined"]
    assert places(page) == before
    press(page, "Drop image 2")
    expect(page.get_by_role("dialog").get_by_test_id("stImage")).to_be_visible()
    page.get_by_label("Reason", exact=True).fill("a thumb")
    press(page, "Drop now")
    shows(page, "Dropped by local.")
    assert statuses(lamps, hashes) == ["accepted", "dropped", "quarantined", "quarantined"]
    settle(page)
    assert places(page) == before
    for number in (1, 2):
        press(page, f"Undo image {number}")
        settle(page)
    expect(page.get_by_text("Waits for a decision.")).to_have_count(4)
    assert statuses(lamps, hashes) == ["quarantined"] * 4
    assert places(page) == before
    press(page, "Release image 3")
    shows(page, "Accepted as bright by local.")
    go(page, "Predict")
    go(page, "Admin")  # the list was left: what was decided is not on it any more
    expect(page.get_by_role("button", name="Release image ")).to_have_count(3)
    settle(page)
    for number in (1, 2, 3):  # one at once after the other
        page.get_by_role("button", name=f"Release image {number}", exact=True).click()
    eventually(lambda: statuses(lamps, hashes) == ["accepted"] * 4)


def test_two_reviewers_see_what_the_other_decided(lamps: World, open_window: OpenWindow, tmp_path: Path) -> None:
    hashes = quarantined(lamps, tmp_path, 3010, 3011)
    ann, eve = (open_window(lamps.page, "Admin") for _ in range(2))
    press(ann, "Drop image 1")
    ann.get_by_label("Reason", exact=True).fill("a thumb")
    press(ann, "Drop now")
    shows(ann, "Dropped by local.")
    press(eve, "Release image 1")
    shows(eve, "This cannot be done now")
    shows(eve, "This was not done: see below.")
    assert statuses(lamps, hashes) == ["dropped", "quarantined"]
    press(eve, "Undo image 1")
    expect(eve.get_by_text("Waits for a decision.")).to_have_count(2)
    press(eve, "Release image 1")
    shows(eve, "Accepted as bright by local.")
    press(ann, "Undo image 1")  # of the drop, which ann still sees
    shows(ann, "decided about the image")
    shows(ann, "This was not done: see below.")
    assert statuses(lamps, hashes) == ["accepted", "quarantined"]
    press(ann, "Release image 2")
    shows(ann, "Accepted as bright by local.")
    assert statuses(lamps, hashes) == ["accepted"] * 2


def test_a_retraining_is_started_and_watched_to_its_verdict(
    lamps: World, open_window: OpenWindow, training: Path
) -> None:
    page = open_window(lamps.page, "Upload & Retrain")
    page.get_by_role("spinbutton", name="Epochs").fill("3")
    page.get_by_role("spinbutton", name="Epochs").press("Enter")
    settle(page)
    press(page, "Start retraining")
    shows(page, "A retraining is running")
    shows(page, "Training: 1 of 3 epochs done", 60_000)
    expect(page.get_by_role("button", name="Start retraining")).to_be_disabled()
    (training / "go").touch()
    shows(page, "The new model was proved better and is in use.", 120_000)
    shows(page, "where the model in use is wrong, and wrong on 0 where that one is right.")
    shows(page, "What to do next")
    page.get_by_text("What was compared, in numbers").click()
    shows(page, "macro-F1 is 1.000 and the champion's 0.000")
    job = jobs(lamps.storage)[0]
    assert (job.state, job.epoch, job.request["epochs"]) == ("promoted", 3, 3)
    page.get_by_text("Show the whole report").click()
    frame = page.frame_locator("iframe").first.frame_locator("iframe").first
    expect(frame.get_by_role("heading").first).to_be_visible(timeout=SOON_MS)


# Admin


def test_the_model_before_comes_back_with_a_reason(lamps: World, open_window: OpenWindow, tmp_path: Path) -> None:
    registry = Registry(lamps.storage)
    before = registry.champion()
    assert before is not None
    version = registry.register(lamp(tmp_path / "other", 0.04, config=CONFIG))
    registry.promote(version, "bob", "by hand")
    page = open_window(lamps.page, "Admin")
    press(page, "Roll back")
    page.get_by_label("Reason", exact=True).fill("it takes shadows for lesions")
    press(page, "Roll back now")
    eventually(lambda: registry.history()[-1].action == "rollback")
    row = registry.history()[-1]
    assert (row.version, row.reason) == (before.version, "it takes shadows for lesions")
    shows(page, f"{before.version} has been in use since")
    # The table is drawn on a canvas; its cells are there for screen readers alone.
    expect(page.get_by_text("it takes shadows for lesions").first).to_be_attached(timeout=20_000)


# When something is wrong


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_every_page_says_what_a_refusal_means_and_comes_back(
    lamps: World, open_window: OpenWindow, status: int, code: str
) -> None:
    title, remedy = REFUSALS[status, code]
    with lamps.front.refusing(status, code):
        windows = {name: open_window(lamps.page, name) for name in PAGES}
        for page in windows.values():
            shows(page, title)
            shows(page, remedy)
            shows(page, "The stand-in refuses this")
    for name, page in windows.items():
        if status in (401, 413):  # these go away by themselves for nobody
            page.reload()
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=SOON_MS)


def test_a_refused_rollback_is_not_tried_again(lamps: World, open_window: OpenWindow, tmp_path: Path) -> None:
    registry = Registry(lamps.storage)
    registry.promote(registry.register(lamp(tmp_path / "third", 0.03, config=CONFIG)), "bob", "by hand")
    ledger = [row.id for row in registry.history()]
    asked = lamps.front.asked.count("POST /rollback")
    page = open_window(lamps.page, "Admin")
    press(page, "Roll back")
    page.get_by_label("Reason", exact=True).fill("it takes shadows for lesions")
    with lamps.front.refusing(503, "server_busy", "/rollback"):
        press(page, "Roll back now")
        shows(page, "This was not done. Try again.")
    page.wait_for_timeout(3_000)  # longer than a page that reads would wait
    shows(page, "This was not done. Try again.")
    assert lamps.front.asked.count("POST /rollback") == asked + 1
    assert [row.id for row in registry.history()] == ledger


def test_pages_say_that_the_server_is_away_and_come_back_by_themselves(
    bundle_path: Path, open_window: OpenWindow, scans: list[Path], tmp_path: Path
) -> None:
    port = free_port()
    settings = ("storage=local", f"storage_root={tmp_path}", "worker=false", "server.workers=1")
    with PageProcess(f"http://127.0.0.1:{port}") as process:
        with ServerProcess(bundle_path, *settings, port=port) as server:
            dropped = open_window(process)
            server.stop()
            drop(dropped, scans[0])
            windows = {name: open_window(process, name) for name in PAGES}
            for page in (dropped, *windows.values()):
                shows(page, AWAY)
        with ServerProcess(bundle_path, *settings, port=port):
            for name, page in windows.items():
                expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=SOON_MS)
                expect(page.get_by_text(AWAY)).to_have_count(0)
            shows(
                dropped, "Yellow marks where covering the image takes most from"
            )  # the answer to what was dropped meanwhile
