"""Feedback that is taken back in a real browser."""

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from lesion.catalogue.images import get_image
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from scripts.dev.browsing import drop, press, settle
from tests.support.images.pictures import picture
from tests.support.servers.browser import IN_A_BROWSER, OpenWindow, PageProcess, shows
from tests.support.servers.serving import ServerProcess

pytestmark = IN_A_BROWSER


def test_an_answer_is_taken_back_and_another_one_given(
    lamp_server: ServerProcess, lamp_storage: Storage, open_window: OpenWindow, tmp_path: Path
) -> None:
    file = tmp_path / "seen.png"
    Image.fromarray((picture(9900) * 0.4 + 150).astype(np.uint8)).save(file)

    def status() -> str:
        with lamp_storage.session() as session:
            return get_image(session, bytes_sha256(file.read_bytes())).status

    with PageProcess(lamp_server.url) as served:
        page = open_window(served)
        drop(page, file)
        shows(page, "seen.png as the model sees it.")
        press(page, "Agree")
        shows(page, "Thank you. The image is stored as bright.")
        assert status() == "accepted"
        press(page, "Undo")
        shows(page, "Your answer was taken back. You can give another one.")
        settle(page)
        expect(page.get_by_role("button", name="Undo", exact=True)).to_have_count(0)
        assert status() == "dropped"
        press(page, "Agree")
        shows(page, "Thank you. The image is stored as bright.")
        assert status() == "accepted"
