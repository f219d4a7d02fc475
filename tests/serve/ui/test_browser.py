"""What a person does on each of the five pages in a real browser, and what they see when something is wrong."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image as Picture
from playwright.sync_api import APIResponse, Browser, Page, expect
from sqlalchemy import delete, select

from lesion.auth import api_keys
from lesion.catalogue.images import existing
from lesion.catalogue.snapshots import import_manifest
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, Image
from lesion.imaging.decode import bytes_sha256
from lesion.phantom.folder import generate
from lesion.registry.registry import Registry
from lesion.retraining.jobs import jobs
from scripts.dev.browsing import (
    MISSING,
    PAGES,
    WIDTHS,
    browser,
    choose,
    chromium,
    drop,
    fetch,
    go,
    press,
    settle,
    window,
)
from serve.ui.text.sentences import DISCLAIMER, percent
from tests.support.browser import Front, PageProcess
from tests.support.lamp_bundles import lamp, lamp_pictures
from tests.support.loop_images import new_storage
from tests.support.pictures import picture
from tests.support.serving import ServerProcess, eventually, free_port
from tests.support.training_subprocess import CONFIG, STAND_IN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason=f"needs a browser: {MISSING}"),
]
Opening = Callable[..., Page]
SOON_MS = 20_000
PATHS = dict(zip(PAGES, ("", "visualizations", "training", "model", "admin"), strict=True))
# What each refusal is called on the page, and a word of what it says to do.
REFUSALS = {
    (401, "key_unknown"): ("You are not signed in", "Sign in"),
    (413, "body_too_large"): ("This is too large for the server", "Send a smaller file"),
    (429, "rate_limited"): ("Too many requests", "Wait a little"),
    (503, "server_busy"): ("The server is not ready", "tries again by itself"),
}
AWAY = "The server is away"


@dataclass
class World:
    """A server with its storage, the page before it, and what may stand between the two."""

    server: ServerProcess
    storage: Storage
    front: Front
    page: PageProcess


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def phantoms(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serves the run of the tiny phantoms, with all that a training run tells about its data and model."""
    root = tmp_path_factory.mktemp("phantoms")
    storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
    settings = ("storage=local", f"storage_root={root}", "worker=false", "server.workers=1")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(bundle_path, *settings))
        front = stack.enter_context(Front(server.url))
        yield World(server, storage, front, stack.enter_context(PageProcess(front.url)))
    storage.engine.dispose()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where stand-ins for trainings find their model and wait until they may go on."""
    return tmp_path_factory.mktemp("lamps")


@pytest.fixture(scope="module")
def lamps(training: Path) -> Iterator[World]:
    """Serves a model that takes bright for dark and dark for bright, never surely; a retraining puts it right."""
    root = training / "loop"
    storage = new_storage(root)
    snapshot = import_manifest(storage, lamp_pictures(training / "pictures", 30), progress=False)
    champion = lamp(training / "champion", -0.004, config=CONFIG)
    Registry(storage).deploy_first(Registry(storage).register(champion, snapshot_id=snapshot), "ann", "the first")
    orders = {"bundle": str(lamp(training / "right", 0.05, config=CONFIG)), "waits": {"epoch 1": str(training / "go")}}
    script = f"worker_settings=[\"retrain.script._args_=['{STAND_IN}']\"]"
    # Only what is nearly white is so surely dark to it that its label is disputed.
    settings = ("storage=local", f"storage_root={root}", script, "server.workers=1", "intake.dispute_probability=0.3")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("LESION_STAND_IN", json.dumps(orders))
        server = stack.enter_context(ServerProcess(champion, *settings))
        front = stack.enter_context(Front(server.url))
        yield World(server, storage, front, stack.enter_context(PageProcess(front.url)))
    storage.engine.dispose()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures that the model was not trained on."""
    folder = generate(tmp_path_factory.mktemp("scans") / "new", patients=8, slices=1, size=64, seed=7, workers=1)
    return sorted(folder.glob("*/*.png"))


@pytest.fixture
def open_window(chrome: Browser) -> Iterator[Opening]:
    """Open windows, each with a session of its own; no page may ever show a traceback or ask another machine."""
    windows: list[Page] = []
    hosts: set[str | None] = set()

    def opening(process: PageProcess, name: str = "Predict", width: int = WIDTHS["desktop"]) -> Page:
        page = window(chrome, width)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        windows.append(page)
        page.goto(f"{process.url}/{PATHS[name]}")
        settle(page)
        return page

    yield opening
    texts = [page.locator("body").inner_text() for page in windows]
    for page in windows:
        page.context.close()
    print("\n---\n".join(texts))
    assert not any("Traceback" in text or "Error:" in text for text in texts)
    assert hosts <= {"127.0.0.1", None}


def says(page: Page, words: str, milliseconds: int = SOON_MS) -> None:
    # A closed expander, such as the model card's, may hold the same words earlier on the page.
    expect(page.get_by_text(words).filter(visible=True).first).to_be_visible(timeout=milliseconds)


def pixels(page: Page) -> np.ndarray:
    """The picture that a page shows first, once the page stands still."""
    answers: list[APIResponse] = []

    def there() -> bool:
        settle(page)
        address = page.get_by_test_id("stImage").locator("img").first.evaluate("image => image.src")
        answers.append(page.request.get(address))
        return answers[-1].ok  # not if the page has just drawn another one

    eventually(there)
    return np.asarray(Picture.open(io.BytesIO(answers[-1].body())))


def photo(path: Path, seed: int, base: int = 150, spread: float = 0.4) -> Path:
    """A picture file whose brightness is about ``base`` and more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray((picture(seed) * spread + base).astype(np.uint8)).save(path)
    return path


# Predict


def test_an_image_is_answered_and_its_overlay_follows_the_slider(
    phantoms: World, open_window: Opening, scans: list[Path]
) -> None:
    data = scans[0].read_bytes()
    answer = phantoms.server.client.post("/predict", params={"explain": True, "layers": True}, content=data).json()
    seen = np.asarray(Picture.open(io.BytesIO(base64.b64decode(answer["explanation"]["image_png_base64"]))))
    page = open_window(phantoms.page)
    drop(page, scans[0])
    expect(page.get_by_role("heading", name=answer["predicted_class"])).to_be_visible()
    first = pixels(page)
    slider = page.get_by_role("slider", name="Heat map")
    slider.press("Home")  # with the keyboard alone
    eventually(lambda: np.array_equal(pixels(page), seen))
    slider.press("End")
    eventually(lambda: not np.array_equal(pixels(page), seen))
    shown = pixels(page)
    assert first.shape == shown.shape == seen.shape
    assert np.abs(shown.astype(int) - seen).mean() > np.abs(first.astype(int) - seen).mean() > 1


def test_a_photo_is_answered(phantoms: World, open_window: Opening) -> None:
    page = open_window(phantoms.page)
    page.get_by_text("Camera", exact=True).click()
    page.wait_for_function("document.querySelector('video')?.readyState === 4")  # the camera runs
    press(page, "Take Photo")
    says(page, f"by model version {phantoms.server.client.get('/info').json()['model_version']}.")
    says(page, "camera as the model sees it.")


def test_a_dicom_file_is_answered_as_its_pixels_are(
    phantoms: World, open_window: Opening, scans: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
    from tests.support.dicom_files import dicom_file

    answer = phantoms.server.client.post("/predict", content=scans[0].read_bytes()).json()
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(dicom_file(np.asarray(Picture.open(scans[0]).convert("L"))))
    page = open_window(phantoms.page)
    drop(page, scan)
    expect(page.get_by_role("heading", name=answer["predicted_class"])).to_be_visible()
    for name, share in answer["probabilities"].items():
        says(page, f"{name}: {percent(share)}")
    says(page, "scan.dcm as the model sees it.")


def test_another_class_is_explained_on_demand(phantoms: World, open_window: Opening, scans: list[Path]) -> None:
    page = open_window(phantoms.page)
    drop(page, scans[0])
    says(page, "Yellow is where most speaks for")
    before = pixels(page)
    other = list(phantoms.server.client.post("/predict", content=scans[0].read_bytes()).json()["probabilities"])[1]
    choose(page, "What speaks for", other)
    says(page, f"speaks for {other}")
    eventually(lambda: not np.array_equal(pixels(page), before))


def test_many_images_become_a_table_and_a_refused_one_says_why(
    phantoms: World, open_window: Opening, scans: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no image at all")
    reason = phantoms.server.client.post("/predict", content=broken.read_bytes()).json()["detail"]
    page = open_window(phantoms.page)
    drop(page, broken)
    says(page, reason)
    page = open_window(phantoms.page)
    drop(page, *scans[:3], broken)
    says(page, "3 images answered")
    says(page, "1 file refused.")
    table = fetch(page, "Download as CSV").read_text("utf-8")
    assert [name in table for name in (*(scan.name for scan in scans[:3]), "notes.png")] == [True] * 4
    classes = phantoms.server.client.get("/info").json()["classes"]
    columns = table.splitlines()[0].lstrip("\ufeff").split(",")
    assert columns[:5] == ["Image", "Class", "Confidence", "Note", "Time in ms"]
    assert set(columns[5:]) == {f"P({name})" for name in classes}
    assert reason.split(".")[0] in table


def test_feedback_goes_to_the_training_data(phantoms: World, open_window: Opening, scans: list[Path]) -> None:
    page = open_window(phantoms.page)
    drop(page, scans[1])
    press(page, "Agree")

    def sent() -> bool:
        with phantoms.storage.session() as session:
            return session.scalar(select(Image.id).filter_by(sha256=bytes_sha256(scans[1].read_bytes()))) is not None

    eventually(sent)


# Upload, quarantine and retraining; in this order, since the retraining changes the model


def test_sixty_files_are_uploaded(lamps: World, open_window: Opening, tmp_path: Path) -> None:
    files = [photo(tmp_path / f"{number}.png", 2000 + number) for number in range(60)]
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    press(page, "Upload 60 files")
    says(page, "60 of 60 files accepted.", 60_000)
    with lamps.storage.session() as session:
        found = session.scalars(select(Image.sha256).filter_by(source="upload", label="bright", status="accepted"))
        assert {bytes_sha256(file.read_bytes()) for file in files} <= set(found)


def test_an_upload_that_stopped_halfway_says_so_after_a_look_at_another_page(
    lamps: World, open_window: Opening, tmp_path: Path
) -> None:
    files = [photo(tmp_path / f"{number}.png", 2200 + number) for number in range(60)]
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    lamps.front.refuse(503, "server_busy", "/upload_training_data", after=1)
    try:
        press(page, "Upload 60 files")
        says(page, "50 of 60 files sent; the rest was not. Press the button again", 60_000)
    finally:
        lamps.front.pass_on()
    go(page, "Predict")
    go(page, "Upload & Retrain")
    says(page, "50 of 60 files sent; the rest was not. Drop the files again")
    choose(page, "Class of these images", "bright")
    drop(page, *files)
    press(page, "Upload 60 files")
    says(page, "60 of 60 files accepted.", 60_000)
    expect(page.get_by_text("the rest was not")).to_have_count(0)


def test_a_file_that_is_refused_says_why(lamps: World, open_window: Opening, tmp_path: Path) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no image at all")
    page = open_window(lamps.page, "Upload & Retrain")
    choose(page, "Class of these images", "dark")
    drop(page, broken, photo(tmp_path / "good.png", 2100, base=0))
    press(page, "Upload 2 files")
    says(page, "1 of 2 files accepted, 1 refused.")
    table = fetch(page, "Download the list as CSV").read_text("utf-8").splitlines()
    assert "notes.png" in table[1]
    assert "Refused" in table[1]
    assert "not recognised as an image" in table[1]


def test_a_quarantined_image_is_released(lamps: World, open_window: Opening, tmp_path: Path) -> None:
    data = photo(tmp_path / "white.png", 3000, base=228, spread=0.1).read_bytes()
    answer = lamps.server.client.post("/upload_training_data", files={"files": data}, data={"label": "bright"}).json()
    assert [each["sha256"] for each in answer["quarantined"]] == [bytes_sha256(data)]
    page = open_window(lamps.page, "Admin")
    press(page, "Release")

    def status() -> str:
        with lamps.storage.session() as session:
            return existing(session, bytes_sha256(data)).status

    eventually(lambda: status() == "accepted")


def test_a_retraining_is_started_and_watched_to_its_verdict(lamps: World, open_window: Opening, training: Path) -> None:
    page = open_window(lamps.page, "Upload & Retrain")
    page.get_by_role("spinbutton", name="Epochs").fill("3")
    page.get_by_role("spinbutton", name="Epochs").press("Enter")
    settle(page)
    press(page, "Start retraining")
    says(page, "A retraining is running")
    says(page, "Learning: 1 of 3 epochs done", 60_000)
    expect(page.get_by_role("button", name="Start retraining")).to_be_disabled()
    (training / "go").touch()
    says(page, "The new model was proved better and is in use.", 120_000)
    says(page, "macro-F1 is 1.000 and the champion's 0.000")
    job = jobs(lamps.storage)[0]
    assert (job.state, job.epoch, job.request["epochs"]) == ("promoted", 3, 3)
    page.get_by_text("Show the whole report").click()
    frame = page.frame_locator("iframe").first.frame_locator("iframe").first
    expect(frame.get_by_role("heading").first).to_be_visible(timeout=SOON_MS)


# Visualizations and Model Info


def test_visualizations_show_the_data_that_there_is(phantoms: World, open_window: Opening) -> None:
    stats = phantoms.server.client.get("/dataset/stats").json()
    page = open_window(phantoms.page, "Visualizations")
    for each in stats["classes"]:
        says(page, each["label"])
    assert page.get_by_test_id("stVegaLiteChart").count() >= 4
    says(page, f"{stats['images']:,}")


def test_model_info_shows_the_model_that_serves(phantoms: World, open_window: Opening) -> None:
    version = phantoms.server.client.get("/info").json()["model_version"]
    page = open_window(phantoms.page, "Model Info")
    says(page, version)
    assert page.get_by_test_id("stVegaLiteChart").count() >= 2


# Admin


def test_the_model_before_comes_back_with_a_reason(lamps: World, open_window: Opening, tmp_path: Path) -> None:
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
    says(page, f"{before.version} serves since")
    # The table is drawn on a canvas; its cells are there for screen readers alone.
    expect(page.get_by_text("it takes shadows for lesions").first).to_be_attached(timeout=20_000)


# When something is wrong


@pytest.mark.parametrize(("status", "code"), REFUSALS)
def test_every_page_says_what_a_refusal_means_and_comes_back(
    lamps: World, open_window: Opening, status: int, code: str
) -> None:
    title, remedy = REFUSALS[status, code]
    lamps.front.refuse(status, code)
    try:
        windows = {name: open_window(lamps.page, name) for name in PAGES}
        for page in windows.values():
            says(page, title)
            says(page, remedy)
            says(page, "The stand-in refuses this")
    finally:
        lamps.front.pass_on()
    for name, page in windows.items():
        if status in (401, 413):  # these go away by themselves for nobody
            page.reload()
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=SOON_MS)


def test_a_refused_rollback_is_not_tried_again(lamps: World, open_window: Opening, tmp_path: Path) -> None:
    registry = Registry(lamps.storage)
    registry.promote(registry.register(lamp(tmp_path / "third", 0.03, config=CONFIG)), "bob", "by hand")
    ledger = [row.id for row in registry.history()]
    asked = lamps.front.asked.count("POST /rollback")
    page = open_window(lamps.page, "Admin")
    press(page, "Roll back")
    page.get_by_label("Reason", exact=True).fill("it takes shadows for lesions")
    lamps.front.refuse(503, "server_busy", "/rollback")
    try:
        press(page, "Roll back now")
        says(page, "This was not done. Try again.")
    finally:
        lamps.front.pass_on()
    page.wait_for_timeout(3_000)  # longer than a page that reads would wait
    says(page, "This was not done. Try again.")
    assert lamps.front.asked.count("POST /rollback") == asked + 1
    assert [row.id for row in registry.history()] == ledger


def test_a_file_that_is_too_large_is_refused_in_words(phantoms: World, open_window: Opening, scans: list[Path]) -> None:
    page = open_window(phantoms.page)
    phantoms.front.refuse(413, "body_too_large", "/predict")
    try:
        drop(page, scans[0])
        says(page, "This is too large for the server")
    finally:
        phantoms.front.pass_on()


def test_pages_say_that_the_server_is_away_and_come_back_by_themselves(
    bundle_path: Path, open_window: Opening, scans: list[Path], tmp_path: Path
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
                says(page, AWAY)
        with ServerProcess(bundle_path, *settings, port=port):
            for name, page in windows.items():
                expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=SOON_MS)
                expect(page.get_by_text(AWAY)).to_have_count(0)
            says(dropped, "Yellow is where most speaks for")  # the answer to what was dropped meanwhile


# Who may see what


def test_a_key_is_asked_for_and_opens_what_its_role_may_see(phantoms: World, open_window: Opening) -> None:
    roles = {"admin": 5, "viewer": 3, "contributor": 4}
    texts = {role: api_keys.create(phantoms.storage, f"a {role}", role, "ann") for role in roles}
    try:
        eventually(lambda: httpx.get(f"{phantoms.server.url}/me").status_code == 401)
        for role, shown in roles.items():
            page = open_window(phantoms.page)
            page.get_by_label("API key", exact=True).fill("lesion_wrong")
            press(page, "Sign in")
            says(page, "unknown or was revoked")
            page.get_by_label("API key", exact=True).fill(texts[role])
            press(page, "Sign in")
            says(page, f"Signed in as a {role}, {role}.")
            assert sum(page.get_by_role("link", name=name, exact=True).count() for name in PAGES) == shown
            press(page, "Sign out")
            expect(page.get_by_label("API key", exact=True)).to_be_visible()
    finally:
        with phantoms.storage.session() as session:
            session.execute(delete(ApiKey))  # as before the first one was made
    eventually(lambda: httpx.get(f"{phantoms.server.url}/me").status_code == 200)


# On a phone


def test_every_page_fits_a_phone(phantoms: World, open_window: Opening) -> None:
    page = open_window(phantoms.page, width=WIDTHS["phone"])
    for name in PAGES:
        go(page, name)
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        says(page, DISCLAIMER)
        wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        assert wide <= WIDTHS["phone"], f"{name} is {wide} pixels wide"
