"""What users do on the screens in a real browser, before a server with the bundle of a real training run."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Picture
from playwright.sync_api import APIResponse, Page, expect
from sqlalchemy import delete, select

from lesion.auth import api_keys
from lesion.core.files import bytes_sha256
from lesion.core.roles import Role
from lesion.core.text import format_percent
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, Image
from scripts.dev.browsing import PAGES, WIDTHS, choose, drop, fetch, go, press, settle
from serve.ui.text.class_names import name_prediction
from serve.ui.text.sentences import DISCLAIMER, describe_heat_map, headline
from tests.support.servers.browser import IN_A_BROWSER, Front, OpenWindow, PageProcess, World, shows
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = IN_A_BROWSER


@pytest.fixture(scope="module")
def phantoms(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server with the tiny phantoms' training run and everything that it stored about its data and model."""
    root = tmp_path_factory.mktemp("phantoms")
    storage = Storage(f"sqlite:///{root}/lesion.db", str(root / "files"), root / "cache")
    settings = ("storage=local", f"storage_root={root}", "worker=false", "server.workers=1")
    with ServerProcess(bundle_path, *settings) as server, Front(server.url) as front, PageProcess(front.url) as page:
        yield World(server, storage, front, page)
    storage.engine.dispose()


def answer_to(world: World, data: bytes, **params: bool) -> dict[str, Any]:
    """The API's answer for an image, with its classes named as the page shows them."""
    answer = world.server.client.post("/predict", params=params, content=data).json()
    return name_prediction(answer, world.server.client.get("/info").json()["class_names"])


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


# Predict


def test_an_image_is_answered_and_its_overlay_follows_the_slider(
    phantoms: World, open_window: OpenWindow, scans: list[Path]
) -> None:
    data = scans[0].read_bytes()
    answer = answer_to(phantoms, data, explain=True, layers=True)
    seen = np.asarray(Picture.open(io.BytesIO(base64.b64decode(answer["explanation"]["image_png_base64"]))))
    page = open_window(phantoms.page)
    drop(page, scans[0])
    expect(page.get_by_role("heading", name=headline(answer))).to_be_visible()
    first = pixels(page)
    slider = page.get_by_role("slider", name="Heat map")
    slider.press("Home")  # with the keyboard alone
    eventually(lambda: np.array_equal(pixels(page), seen))
    slider.press("End")
    eventually(lambda: not np.array_equal(pixels(page), seen))
    shown = pixels(page)
    assert first.shape == shown.shape == seen.shape
    assert np.abs(shown.astype(int) - seen).mean() > np.abs(first.astype(int) - seen).mean() > 1


def test_a_photo_is_answered(phantoms: World, open_window: OpenWindow) -> None:
    page = open_window(phantoms.page)
    page.get_by_text("Camera", exact=True).click()
    page.wait_for_function("document.querySelector('video')?.readyState === 4")  # the camera runs
    press(page, "Take Photo")
    shows(page, f"by model version {phantoms.server.client.get('/info').json()['model_version']}.")
    shows(page, "camera as the model sees it.")


def test_a_dicom_file_is_answered_as_its_pixels_are(
    phantoms: World, open_window: OpenWindow, scans: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("pydicom", reason="the extra lesion[dicom] is optional")
    from tests.support.images.dicom_files import dicom_file

    answer = answer_to(phantoms, scans[0].read_bytes())
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(dicom_file(np.asarray(Picture.open(scans[0]).convert("L"))))
    page = open_window(phantoms.page)
    drop(page, scan)
    expect(page.get_by_role("heading", name=headline(answer))).to_be_visible()
    for name, share in answer["probabilities"].items():
        shows(page, f"{name}: {format_percent(share)}")
    shows(page, "scan.dcm as the model sees it.")


def test_another_class_is_explained_on_demand(phantoms: World, open_window: OpenWindow, scans: list[Path]) -> None:
    page = open_window(phantoms.page)
    data = scans[0].read_bytes()
    drop(page, scans[0])
    first, other = list(phantoms.server.client.post("/predict", content=data).json()["probabilities"])[:2]
    names = phantoms.server.client.get("/info").json()["class_names"]

    def said_of(label: str) -> str:
        path = f"/predict?explain=true&layers=true&class={label}"
        explanation = phantoms.server.client.post(path, content=data).json()["explanation"]
        heat = np.asarray(Picture.open(io.BytesIO(base64.b64decode(explanation["heatmap_png_base64"]))))
        return describe_heat_map(names[label], explanation, any_heat=bool(heat.any()))

    shows(page, said_of(first))
    before = pixels(page)
    choose(page, "What speaks for", names[other])
    shows(page, said_of(other))
    eventually(lambda: not np.array_equal(pixels(page), before))


def test_many_images_become_a_table_and_a_refused_one_says_why(
    phantoms: World, open_window: OpenWindow, scans: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "notes.png"
    broken.write_text("no image at all")
    reason = phantoms.server.client.post("/predict", content=broken.read_bytes()).json()["detail"]
    page = open_window(phantoms.page)
    drop(page, broken)
    shows(page, reason)
    page = open_window(phantoms.page)
    drop(page, *scans[:3], broken)
    shows(page, "3 images classified")
    shows(page, "1 file refused.")
    table = fetch(page, "Download as CSV").read_text("utf-8")
    assert [name in table for name in (*(scan.name for scan in scans[:3]), "notes.png")] == [True] * 4
    names = phantoms.server.client.get("/info").json()["class_names"].values()
    columns = table.splitlines()[0].lstrip("\ufeff").split(",")
    assert columns[:5] == ["Image", "Answer", "Most probable class", "Confidence", "Time in ms"]
    assert set(columns[5:]) == {f"P({name})" for name in names}
    assert reason.split(".")[0] in table


def test_an_image_that_is_not_recognized_is_headed_so_and_by_no_class(
    lamp_server: ServerProcess, open_window: OpenWindow, tmp_path: Path
) -> None:
    red, bright = tmp_path / "red.png", tmp_path / "bright.png"
    for path, color in ((red, (255, 0, 0)), (bright, (220, 220, 220))):
        Picture.new("RGB", (64, 64), color).save(path)
    answer = lamp_server.client.post("/predict", content=red.read_bytes()).json()
    assert list(answer.items())[:2] == [("abstain", True), ("abstain_reason", "not_recognized")]
    with PageProcess(lamp_server.url) as served:
        page = open_window(served)
        drop(page, red)
        shows(page, "This does not look like what I was trained on")
        assert page.get_by_role("heading", level=3).all_inner_texts() == ["Not recognized"]
        page = open_window(served)
        drop(page, red, bright)
        shows(page, "1 not recognized")
        rows = [line.split(",")[:3] for line in fetch(page, "Download as CSV").read_text("utf-8").splitlines()[1:]]
    assert rows == [["red.png", "Not recognized", answer["predicted_class"]], ["bright.png", "bright", "bright"]]


def test_feedback_goes_to_the_training_data(phantoms: World, open_window: OpenWindow, scans: list[Path]) -> None:
    page = open_window(phantoms.page)
    drop(page, scans[1])
    press(page, "Agree")

    def sent() -> bool:
        with phantoms.storage.session() as session:
            return session.scalar(select(Image.id).filter_by(sha256=bytes_sha256(scans[1].read_bytes()))) is not None

    eventually(sent)


def test_a_file_that_is_too_large_is_refused_in_words(
    phantoms: World, open_window: OpenWindow, scans: list[Path]
) -> None:
    page = open_window(phantoms.page)
    with phantoms.front.refusing(413, "body_too_large", "/predict"):
        drop(page, scans[0])
        shows(page, "This is too large for the server")


# Visualizations and Model Info


def test_visualizations_show_the_data_that_there_is(phantoms: World, open_window: OpenWindow) -> None:
    stats = phantoms.server.client.get("/dataset/stats").json()
    page = open_window(phantoms.page, "Visualizations")
    names = phantoms.server.client.get("/info").json()["class_names"]
    for each in stats["classes"]:
        shows(page, names[each["label"]])
    assert page.get_by_test_id("stVegaLiteChart").count() >= 4
    shows(page, f"{stats['images']:,}")


def test_model_info_shows_the_model_that_serves(phantoms: World, open_window: OpenWindow) -> None:
    version = phantoms.server.client.get("/info").json()["model_version"]
    page = open_window(phantoms.page, "Model Info")
    shows(page, version)
    assert page.get_by_test_id("stVegaLiteChart").count() >= 2


# Who may see what


def test_a_key_is_asked_for_and_opens_what_its_role_may_see(phantoms: World, open_window: OpenWindow) -> None:
    roles: dict[Role, int] = {"admin": 5, "viewer": 3, "contributor": 4}
    texts = {role: api_keys.create(phantoms.storage, f"a {role}", role, "ann") for role in roles}
    try:
        eventually(lambda: httpx.get(f"{phantoms.server.url}/me").status_code == 401)
        for role, shown in roles.items():
            page = open_window(phantoms.page)
            page.get_by_label("API key", exact=True).fill("lesion_wrong")
            press(page, "Sign in")
            shows(page, "unknown or was revoked")
            page.get_by_label("API key", exact=True).fill(texts[role])
            press(page, "Sign in")
            shows(page, f"Signed in as a {role}, {role}.")
            assert sum(page.get_by_role("link", name=name, exact=True).count() for name in PAGES) == shown
            press(page, "Sign out")
            expect(page.get_by_label("API key", exact=True)).to_be_visible()
    finally:
        with phantoms.storage.session() as session:
            session.execute(delete(ApiKey))  # as before the first one was made
    eventually(lambda: httpx.get(f"{phantoms.server.url}/me").status_code == 200)


# On a phone


def test_every_page_fits_a_phone(phantoms: World, open_window: OpenWindow) -> None:
    page = open_window(phantoms.page, width=WIDTHS["phone"])
    for name in PAGES:
        go(page, name)
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        shows(page, DISCLAIMER)
        wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        assert wide <= WIDTHS["phone"], f"{name} is {wide} pixels wide"
