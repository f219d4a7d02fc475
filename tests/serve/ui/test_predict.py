"""The Predict screen without a browser, against a real server: what users see and what their clicks do."""

from pathlib import Path

import numpy as np
import pytest

from lesion.catalogue.images import find_image, get_image
from lesion.core.files import bytes_sha256
from lesion.database.storage import Storage
from serve.ui.screens.predict.page import unique_names
from tests.support.bundles.lamp_bundles import CLASSES, lamp
from tests.support.images.hostile import encode
from tests.support.servers.page import (
    UI,
    OpenScreen,
    buttons,
    download_labels,
    drop_files,
    page_text,
    photo,
    press,
    select,
)
from tests.support.servers.serving import ServerProcess

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


def test_an_image_is_answered_in_words_and_bars(page: OpenScreen, lamp_server: ServerProcess) -> None:
    opened = drop_files(page("predict.page"), ("one.png", photo(1)))
    expected = lamp_server.client.post("/predict", content=photo(1)).json()
    words = page_text(opened)
    assert opened.subheader[0].value == expected["predicted_class"] == "bright"
    assert "I am very sure that this is bright." in words
    assert f"by model version {expected['model_version']}" in words
    bars = [each.proto.text for each in opened.get("progress")]
    assert [bar.split(":")[0] for bar in bars] == ["bright", "dark"]
    assert "Yellow marks where covering the image takes most from bright" in words
    select(opened, "What speaks for", "dark")
    assert "takes most from dark" in page_text(opened)


def test_classes_are_shown_by_their_names_and_sent_by_their_own(
    lamp_root: Path, lamp_storage: Storage, page: OpenScreen
) -> None:
    data, names = photo(22), "server.class_names={bright: Lamp on, dark: Lamp off}"
    storage = ("storage=local", f"storage_root={lamp_root / 'loop'}", "worker=false")
    with ServerProcess(lamp_root / "champion", *storage, "server.workers=1", names) as server:
        assert server.client.get("/info").json()["class_names"] == {"bright": "Lamp on", "dark": "Lamp off"}
        assert server.client.post("/predict", content=data).json()["predicted_class"] == "bright"
        opened = drop_files(page("predict.page", server.url), ("one.png", data))
        assert opened.subheader[0].value == "Lamp on"
        assert "I am very sure that this is Lamp on." in page_text(opened)
        assert [each.proto.text.split(":")[0] for each in opened.get("progress")] == ["Lamp on", "Lamp off"]
        select(opened, "What speaks for", "Lamp off")
        assert "takes most from Lamp off" in page_text(opened)
        press(select(opened, "Right class", "Lamp off"), "Correct")
        assert "Uploaded as **Lamp off**" in page_text(page("admin", server.url))
    with lamp_storage.session() as session:
        assert get_image(session, bytes_sha256(data)).label == "dark"


@pytest.mark.parametrize(
    ("names", "reason"),
    [("{lit: On}", "names 'lit', which is not a class"), ("{bright: dark}", "two classes by the same")],
)
def test_a_server_does_not_start_with_names_of_other_classes(tmp_path: Path, names: str, reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        ServerProcess(lamp(tmp_path / "lamp", 0.05), f"server.class_names={names}").__enter__()


def test_unsure_and_unfamiliar_images_are_called_so(page: OpenScreen) -> None:
    unsure = drop_files(page("predict.page"), ("grey.png", photo(2, 127, 0.0)))
    assert "I am not sure." in unsure.warning[0].value
    assert unsure.subheader[0].value == "Unsure: bright or dark"
    far = np.zeros((48, 48, 3), np.uint8)
    far[..., 0] = 255
    foreign = drop_files(page("predict.page"), ("red.png", encode(far)))
    assert "does not look like what I was trained on" in page_text(foreign)
    assert foreign.subheader[0].value == "Not recognized"


def test_many_images_become_a_table_where_a_broken_one_has_its_reason(page: OpenScreen) -> None:
    files = [(f"{seed}.png", photo(seed, 150 if seed % 2 else 0)) for seed in range(10, 16)]
    opened = drop_files(page("predict.page"), *files, ("notes.txt", b"no image"))
    table = opened.dataframe[0].value
    assert list(table["Image"]) == [*(name for name, _ in files), "notes.txt"]
    assert list(table["Most probable class"][:6]) == ["dark", "bright"] * 3
    assert "not recognized as an image" in table["Answer"][6]
    assert "6 images classified" in page_text(opened)
    assert "1 file refused." in page_text(opened)
    looked = next(box for box in opened.selectbox if box.label == "Image to look at")
    assert looked.options == [*(name for name, _ in files), "notes.txt"]
    looked.select_index(6).run()
    assert "not recognized as an image" in opened.error[0].value


def test_images_of_one_name_are_told_apart(page: OpenScreen, lamp_storage: Storage) -> None:
    assert unique_names(["a", "b"]) == ["a", "b"]
    assert unique_names(["a", "a", "1. a"]) == ["1. a", "2. a", "3. 1. a"]
    first, second = photo(30), photo(31, 0)
    opened = drop_files(page("predict.page"), ("scan.png", first), ("scan.png", second))
    assert list(opened.dataframe[0].value["Image"]) == ["1. scan.png", "2. scan.png"]
    assert opened.subheader[0].value == "bright"
    select(opened, "Image to look at", "2. scan.png")
    assert opened.subheader[0].value == "dark"
    press(opened, "Agree")
    with lamp_storage.session() as session:
        assert get_image(session, bytes_sha256(second)).label == "dark"
        assert find_image(session, bytes_sha256(first)) is None


def test_the_table_stays_without_its_images(page: OpenScreen) -> None:
    opened = drop_files(page("predict.page"), ("1.png", photo(32)), ("2.png", photo(33, 0)))
    table = opened.dataframe[0].value
    for way in ("Examples", "Files"):  # as after a look at another page, the images are gone
        opened.button_group[0].set_value(way).run()
    assert "2 images classified." in page_text(opened)
    assert "The images themselves are not kept here." in page_text(opened)
    assert opened.dataframe[0].value.equals(table)
    assert download_labels(opened) == ["Download as CSV"]
    press(opened, "Clear")
    assert not opened.dataframe
    assert "Clear" not in buttons(opened)


def test_what_was_chosen_for_one_image_is_not_for_the_next(page: OpenScreen) -> None:
    opened = select(drop_files(page("predict.page"), ("1.png", photo(34))), "Right class", "dark")
    assert buttons(opened)["Correct"]
    before = {button.key for button in opened.button if button.label in ("Agree", "Correct")}
    drop_files(opened, ("2.png", photo(35)))
    assert not buttons(opened)["Correct"]
    assert not before & {button.key for button in opened.button}  # a late click is for no image


def test_examples_are_there_for_who_has_no_image(page: OpenScreen) -> None:
    opened = page("predict.page")
    opened.button_group[0].set_value("Examples").run()
    press(opened, "glioma")
    assert opened.subheader[0].value in CLASSES
    assert "Agree" not in buttons(opened)  # no model is to learn from a drawing
    assert sum(path.stat().st_size for path in (UI / "examples").iterdir()) < 100_000


def test_feedback_is_taken_back_and_given_again(page: OpenScreen, lamp_storage: Storage) -> None:
    data = photo(23)
    opened = press(drop_files(page("predict.page"), ("seen.png", data)), "Agree")
    assert buttons(opened)["Undo"]
    press(opened, "Undo")
    assert "Undo" not in buttons(opened)
    assert [toast.value for toast in opened.toast] == ["Your answer was taken back. You can give another one."]
    with lamp_storage.session() as session:
        assert get_image(session, bytes_sha256(data)).status == "dropped"
    press(select(opened, "Right class", "dark"), "Correct")
    with lamp_storage.session() as session:
        row = get_image(session, bytes_sha256(data))
    assert (row.label, row.status) == ("dark", "quarantined")
    press(opened, "Undo")
    press(opened, "Agree")
    assert "Thank you. The image is stored as bright." in page_text(opened)
    again = press(drop_files(page("predict.page"), ("seen.png", data)), "Agree")
    assert "Undo" not in buttons(again)  # it was stored before


def test_who_agrees_or_corrects_teaches_the_next_model(page: OpenScreen, lamp_storage: Storage) -> None:
    right, wrong = photo(20), photo(21)
    opened = press(drop_files(page("predict.page"), ("right.png", right)), "Agree")
    assert "Thank you. The image is stored as bright." in page_text(opened)
    opened = drop_files(page("predict.page"), ("wrong.png", wrong))
    assert not buttons(opened)["Correct"]
    press(select(opened, "Right class", "dark"), "Correct")
    assert "An admin will look at the image first" in page_text(opened)
    with lamp_storage.session() as session:
        rows = [get_image(session, bytes_sha256(data)) for data in (right, wrong)]
    assert [(row.label, row.source, row.status) for row in rows] == [
        ("bright", "feedback", "accepted"), ("dark", "feedback", "quarantined"),
    ]  # fmt: skip
