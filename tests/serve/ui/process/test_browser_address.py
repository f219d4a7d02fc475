"""What the page's address remembers in a real browser: F5 keeps it, and a link opens it in another window."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import delete

from lesion.catalogue.label_corrections import correct_label
from lesion.database.storage import Storage
from lesion.database.tables import Job
from lesion.retraining.jobs import RetrainRequest, cancel, submit
from scripts.dev.browsing import choose, press, settle
from serve.ui.text.sentences import format_time
from tests.support.images.loop_images import put_picture
from tests.support.servers.browser import IN_A_BROWSER, OpenWindow, PageProcess, shows
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = IN_A_BROWSER


@pytest.fixture
def served(lamp_server: ServerProcess) -> Iterator[PageProcess]:
    with PageProcess(lamp_server.url) as process:
        yield process


@pytest.fixture
def job_id(lamp_storage: Storage) -> Iterator[str]:
    """The older of two retrainings."""
    ids = []
    for name in ("ann", "bob"):
        ids.append(submit(lamp_storage, RetrainRequest(epochs=3), name)[0].id)
        cancel(lamp_storage, ids[-1], name)
    yield ids[0]
    with lamp_storage.session() as session:
        session.execute(delete(Job))


def stays(page: Page, other: Page, text: str, address: str) -> None:
    """Check that a page shows a text under an address, also when it is loaded again and in another window."""
    shows(page, text)
    assert page.url.endswith(address)
    page.reload()
    shows(page, text)
    other.goto(page.url)
    shows(other, text)


def test_an_example_stays_after_f5_and_in_a_link(served: PageProcess, open_window: OpenWindow) -> None:
    page = open_window(served)
    page.get_by_text("Examples", exact=True).click()
    settle(page)
    name = page.get_by_test_id("stImage").locator("img").first.get_attribute("alt")
    assert name is not None
    example = name.removeprefix("Drawn brain scan: ")
    press(page, example)
    stays(page, open_window(served), f"{example}.png as the model sees it.", f"?source=Examples&image={example}")


def test_a_retraining_that_is_looked_at_stays_after_f5_and_in_a_link(
    served: PageProcess, lamp_server: ServerProcess, open_window: OpenWindow, job_id: str
) -> None:
    page = open_window(served, "Admin")
    created_at = lamp_server.client.get(f"/retrain_status/{job_id}").json()["created_at"]
    choose(page, "Retraining to look at", f"{format_time(created_at)}, cancelled, {job_id[:8]}")
    other = open_window(served)
    stays(page, other, f"{job_id}: epochs 3", f"/admin?job={job_id}")
    other.goto(f"{served.url}/admin?job=unknown")
    settle(other)
    expect(other.get_by_text(job_id)).to_have_count(0)
    eventually(lambda: other.url.endswith("/admin"))


def test_an_image_and_who_corrected_its_label_are_shown_by_a_link(
    served: PageProcess, open_window: OpenWindow, lamp_storage: Storage, tmp_path: Path
) -> None:
    sha256 = put_picture(lamp_storage, tmp_path, 7100, "bright")
    with lamp_storage.session() as session:
        correct_label(session, sha256, "eve", "dark")
    page = open_window(served, "Admin")
    field = page.get_by_role("textbox", name="SHA-256 of the image")
    field.fill("tooshort")
    field.press("Enter")
    shows(page, "A SHA-256 has 64 characters")
    field.fill("0" * 64)
    field.press("Enter")
    shows(page, "There is no image with this hash.")
    field.fill(sha256)
    field.press("Enter")
    shows(page, "Known as dark; accepted, for train; uploaded by ann")
    shows(page, "eve")
    assert page.url.endswith(f"/admin?image={sha256}")
    page.reload()
    shows(page, "Known as dark; accepted, for train; uploaded by ann")
    other = open_window(served)
    other.goto(page.url)
    shows(other, "Known as dark; accepted, for train; uploaded by ann")


def test_a_class_stays_after_f5(served: PageProcess, open_window: OpenWindow) -> None:
    page = open_window(served, "Visualizations")
    choose(page, "Class to look at", "dark")
    eventually(lambda: page.url.endswith("/visualizations?class=dark"))
    page.reload()
    settle(page)
    expect(page.get_by_role("combobox", name="Class to look at")).to_have_value("dark")
    choose(page, "Class to look at", "bright")
    eventually(lambda: page.url.endswith("/visualizations"))
