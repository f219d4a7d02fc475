"""Visualizations, Model Info and Admin without a browser, against a real server: what they show and what clicks do."""

from pathlib import Path

import httpx
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lesion.auth import api_keys
from lesion.catalogue.decisions import release
from lesion.catalogue.images import get_image
from lesion.client import Client
from lesion.database.storage import Storage
from lesion.registry.registry import Registry
from serve.ui.session import ADDRESS
from tests.support.bundles.lamp_bundles import CLASSES
from tests.support.images.loop_images import put_disputed
from tests.support.servers.page import (
    OpenScreen,
    buttons,
    download_labels,
    going_back,
    open_screen,
    page_text,
    press,
    select,
    tables,
    version_of,
)
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


@pytest.fixture
def opened(models_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> OpenScreen:
    """Open a screen, or call something of it, before the server or another address, perhaps with a key."""

    def opening(name: str, call: str = "show(connect())", address: str = models_server.url, key: str = "") -> AppTest:
        monkeypatch.setenv(ADDRESS, address)
        st.cache_data.clear()  # all of these are one session to Streamlit's caches
        return open_screen(name, call, Client(address, key) if key else None)

    return opening


def charts(page: AppTest) -> int:
    return len(page.get("arrow_vega_lite_chart")) + len(page.get("vega_lite_chart"))


# Visualizations


def test_visualizations_show_what_the_catalogue_holds(opened: OpenScreen, models_server: ServerProcess) -> None:
    page, stats = opened("data"), models_server.client.get("/dataset/stats").json()
    words = page_text(page)
    assert f"{stats['images']:,} images in 2 classes." in words
    assert [row["Class"] for row in tables(page)[0]] == CLASSES
    assert [row["Images"] for row in tables(page)[0]] == [f"{row['images']:,}" for row in stats["classes"]]
    assert "The middle halves of one pair of classes do not overlap (dark and bright)" in words
    assert "4 of the 10 images (40.0 %) of the data's own test split have a near-duplicate" in words
    assert "No image is smaller than the 32 pixels that the model sees." in words
    assert charts(page) == 6 + bool(stats["uploads"])
    assert {metric.label: metric.value for metric in page.metric}["Accepted"] == f"{stats['images']:,}"


def test_a_montage_is_drawn_of_the_class_that_is_chosen(opened: OpenScreen) -> None:
    page = opened("data")
    assert "images of bright, in random order." in page_text(page)
    before = page.image[0].value
    select(page, "Class to look at", "dark")
    assert "images of dark, in random order." in page_text(page)
    dark = page.image[0].value
    select(page, "How many", "12")
    press(page, "Show others")
    assert before != dark != page.image[0].value != before


# Model Info


def test_model_info_shows_the_model_in_use_and_its_evaluation(opened: OpenScreen, versions: list[Path]) -> None:
    page = opened("model")
    words, tiles = page_text(page), {metric.label: metric.value for metric in page.metric}
    assert (tiles["Version"], tiles["Classes"], tiles["Age"]) == (version_of(versions[1]), "2", "less than an hour")
    assert (tiles["Accuracy"], tiles["F1, macro"], tiles["Calibration error (ECE)"]) == ("0.900", "0.890", "0.040")
    accuracy = next(metric for metric in page.metric if metric.label == "Accuracy")
    assert accuracy.delta == "0.800 to 0.950"
    assert "The model classifies 18 of 20 test images correctly, 90.0 % (95 % interval 80.0 % to 95.0 %)." in words
    assert "The weakest class is “dark” (F1 0.870)." in words
    assert "These are stand-ins for numbers." in words
    assert "less than the 7.0 before calibration on 10 other images" in words
    assert list(page.dataframe[0].value["F1"]) == [0.91, 0.87]
    assert charts(page) == 5  # the matrix, two kinds of curves, reliability, recalls of both models
    assert {"What": "Dataset", "Value": "lamps"} in tables(page)[1]


def test_the_last_challenger_stands_beside_the_champion(opened: OpenScreen, versions: list[Path]) -> None:
    page = opened("model")
    first, second = map(version_of, versions)
    assert f"{second} against {first}" in page_text(page)
    assert "Only the challenger is right on 3 images, only the champion on 1." in page_text(page)
    assert {"Score": "Macro-F1", "Champion": "0.880", "Challenger": "0.930"} in tables(page)[-1]
    assert "The challenger took the champion's place on" in page_text(page)


def test_an_earlier_model_can_be_looked_at(opened: OpenScreen, versions: list[Path]) -> None:
    page = opened("model")
    first, second = map(version_of, versions)
    box = next(box for box in page.selectbox if box.label == "Model")
    assert box.options == [f"{second} (in use)", first]
    select(page, "Model", first)
    assert {metric.label: metric.value for metric in page.metric}["Version"] == first
    assert "In use" not in page_text(page)


def test_the_report_and_the_files_are_there(opened: OpenScreen) -> None:
    page = opened("model")
    press(page, "Fetch the bundle")
    assert download_labels(page) == [
        "Download the model card", "Download the bundle",
    ]  # fmt: skip
    page.toggle[0].set_value(True).run()
    assert "Download the report" in download_labels(page)
    assert not page.error


def test_a_server_without_a_storage_still_says_what_it_serves(opened: OpenScreen, versions: list[Path]) -> None:
    with ServerProcess(versions[0], "server.workers=1") as bare:
        page = opened("model", address=bare.url)
        assert {metric.label: metric.value for metric in page.metric}["Version"] == version_of(versions[0])
        assert {metric.label: metric.value for metric in page.metric}["Accuracy"] == "0.900"
        assert "stores no data" in page_text(page)
        assert "stores no data" in page_text(opened("data", address=bare.url))
        page = opened("admin", address=bare.url)
        assert "stores no data" in page_text(page)
        assert charts(page) == 2


# Admin


def test_admin_shows_the_ledger_the_jobs_and_the_traffic(opened: OpenScreen, versions: list[Path]) -> None:
    page = opened("admin")
    words, (_, second) = page_text(page), map(version_of, versions)
    assert f"{second} has been in use since" in words
    assert (
        "deployed by bob. The model has been changed 1 time so far; 0 of these changes went back to an earlier model."
        in words
    )
    history = page.dataframe[0].value
    assert [*zip(history["Action"], history["By"], history["Reason"], strict=True)] == [
        ("promote", "bob", "by hand"), ("first", "ann", "the first"),
    ]  # fmt: skip
    assert "1 retraining: 1 promoted." in words
    assert "Running for" in words
    assert charts(page) == 2
    box = next(box for box in page.selectbox if box.label == "Retraining to look at")
    assert box.options[0].endswith("promoted, 11111111")
    box.select_index(0).run()
    assert "It is better." in page_text(page)
    assert tables(page)[0] == [{"Holds": "yes", "Condition": "The calibration error is not above what is allowed."}]


def test_going_back_and_promoting_need_a_reason(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess, versions: list[Path]
) -> None:
    registry, (first, second) = Registry(models_storage), map(version_of, versions)
    assert f"{first}, which was last put into use on" in page_text(press(opened("deployments"), "Roll back"))
    page = opened("deployments", going_back(models_server))
    press(page, "Roll back now")
    assert page.warning[0].value == "Enter a reason first."
    assert registry.history()[-1].action == "promote"
    page.text_input[0].set_value("it takes shadows for lamps")
    press(page, "Roll back now")
    row = registry.history()[-1]
    assert (row.version, row.action, row.reason) == (first, "rollback", "it takes shadows for lamps")
    page = opened("deployments")
    assert next(button for button in page.button if button.label == "Roll back").disabled
    assert "There is no earlier version to roll back to." in page_text(page)
    stale = opened("deployments", f"promote(connect(), '{second}', {row.id - 1})")
    stale.text_input[0].set_value("better")
    press(stale, "Promote now")
    assert len(stale.error) == 1
    page = opened("deployments", f"promote(connect(), '{second}', {row.id})")
    page.text_input[0].set_value("better")
    press(page, "Promote now")
    assert (registry.history()[-1].version, registry.history()[-1].reason) == (second, "better")
    eventually(
        lambda: httpx.get(f"{page.session_state['client']._http.base_url}/health").json()["model_version"] == second
    )


def test_quarantined_images_are_released_or_dropped_page_by_page(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess, tmp_path: Path
) -> None:
    waiting = [put_disputed(models_storage, tmp_path, 5000 + number) for number in range(10)]

    def facts(sha256: str) -> tuple[str, str]:
        with models_storage.session() as session:
            row = get_image(session, sha256)
            return row.status, row.label

    def texts(page: AppTest) -> list[str]:
        return [each.value for each in page.markdown]

    page = opened("review")
    assert "10 images wait for a decision; shown here: 8 disputed." in page_text(page)
    names = [button.label for button in page.button]
    assert names[:3] == ["Release image 1", "Drop image 1", "Undo image 1"]
    assert len(set(names)) == len(names) == 27
    assert not buttons(page)["Undo image 1"]
    press(page, "Next images")
    assert [button.label for button in page.button if button.label.startswith("Release")] == [
        "Release image 1", "Release image 2",
    ]  # fmt: skip
    page.selectbox(key=f"label-{waiting[9]}").select("bright").run()
    page.button(key=f"release-{waiting[9]}").click().run()
    page.button(key=f"release-{waiting[8]}").click().run()
    assert [facts(sha256) for sha256 in waiting[8:]] == [("accepted", "dark"), ("accepted", "bright")]
    # Both are where they were, under what was decided.
    assert [button.label for button in page.button][:6] == [
        "Release image 1", "Drop image 1", "Undo image 1", "Release image 2", "Drop image 2", "Undo image 2",
    ]  # fmt: skip
    assert [buttons(page)[f"{what} image 2"] for what in ("Release", "Drop", "Undo")] == [False, False, True]
    assert "Accepted as dark by local." in texts(page)
    assert "Accepted as bright by local." in texts(page)
    assert "2 of 2 images in this list decided." in page_text(page)
    press(page, "Undo image 2")
    assert facts(waiting[9]) == ("quarantined", "dark")
    assert texts(page).count("Waits for a decision.") == 1
    press(page, "Release image 2")
    assert facts(waiting[9]) == ("accepted", "bright")
    press(page, "Read the list again")
    assert len([button for button in page.button if button.label.startswith("Release")]) == 8  # the page before
    page = opened("review", f"drop(connect(), '{waiting[0]}')")
    assert len(page.image) == 1
    page.text_input[0].set_value("a thumb")
    press(page, "Drop now")
    assert facts(waiting[0])[0] == "dropped"
    assert "7 images wait for a decision: 7 disputed." in page_text(opened("review"))


def test_an_earlier_decision_is_undone(opened: OpenScreen, models_storage: Storage, tmp_path: Path) -> None:
    sha256 = put_disputed(models_storage, tmp_path, 5200)
    with models_storage.session() as session:
        release(session, sha256, "eve", "bright")
    page = opened("review")
    toggle = next(each for each in page.toggle if each.label == "Show earlier decisions")
    toggle.set_value(True).run()
    box = next(box for box in page.selectbox if box.label == "Earlier decision")
    assert box.options[0].endswith(": Accepted as bright by eve.")
    box.select_index(0).run()
    press(page, "Undo the chosen decision")
    with models_storage.session() as session:
        assert (get_image(session, sha256).status, get_image(session, sha256).label) == ("quarantined", "dark")
        release(session, sha256, "eve")


def test_what_somebody_else_decided_meanwhile_is_shown_and_can_be_undone(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess, tmp_path: Path
) -> None:
    sha256 = put_disputed(models_storage, tmp_path, 5100)
    page = opened("review")
    number = next(button.label for button in page.button if button.key == f"release-{sha256}").split()[-1]
    models_server.client.post(f"/quarantine/{sha256}/drop", json={"reason": "a thumb"}).raise_for_status()
    press(page, f"Release image {number}")
    assert "is dropped, not quarantined" in page.error[0].value
    press(page, f"Undo image {number}")
    assert not page.error
    assert buttons(page)[f"Release image {number}"]
    press(page, f"Release image {number}")
    with models_storage.session() as session:
        assert get_image(session, sha256).status == "accepted"
    # Undone and decided again by somebody else: what is undone is never a decision that this user did not see.
    client = models_server.client
    client.post(f"/quarantine/{sha256}/undo").raise_for_status()
    client.post(f"/quarantine/{sha256}/drop", json={"reason": "a thumb"}).raise_for_status()
    press(page, f"Undo image {number}")
    assert "decided about the image" in page.error[0].value
    assert "Dropped by local." not in page_text(page)
    assert buttons(page)[f"Undo image {number}"]
    with models_storage.session() as session:
        assert get_image(session, sha256).status == "dropped"


def test_the_first_key_signs_its_maker_in_and_shows_once(
    opened: OpenScreen, models_storage: Storage, models_server: ServerProcess
) -> None:
    try:
        page = opened("api_keys")
        assert "There are no keys" in page_text(page)
        make(page, "ann")
        text = page.code[0].value
        assert "1 active key (1 admin)" in page_text(page)
        assert httpx.get(f"{models_server.url}/me", headers={"X-API-Key": text}).json()["name"] == "ann"
        press(page, "I have copied it")
        assert not page.code
        next(box for box in page.selectbox if box.label == "Role").select("viewer")
        make(page, "ward 3")
        press(page, "I have copied it")
        make(page, "no/name!")
        assert len(page.error) == 1
        with models_storage.session() as session:
            found = {key.name: key for key in api_keys.all_keys(session)}
        assert {name: key.role for name, key in found.items()} == {"ann": "admin", "ward 3": "viewer"}
        refused = {"id": found["ann"].id, "name": "ann"}
        page = press(opened("api_keys", f"revoke(connect(), {refused})", key=text), "Revoke now")
        assert len(page.error) == 1  # the last admin's key stays
        viewer = {"id": found["ward 3"].id, "name": "ward 3"}
        press(opened("api_keys", f"revoke(connect(), {viewer})", key=text), "Revoke now")
        with models_storage.session() as session:
            assert [key.name for key in api_keys.all_keys(session) if key.revoked_at] == ["ward 3"]
    finally:
        with models_storage.session() as session:
            for key in api_keys.all_keys(session):
                session.delete(key)
    eventually(lambda: httpx.get(f"{models_server.url}/me").status_code == 200)


def make(page: AppTest, name: str) -> None:
    page.text_input[0].set_value(name)
    press(page, "Create the key")


def test_pictures_are_named_for_those_who_do_not_see_them(opened: OpenScreen, models_server: ServerProcess) -> None:
    for name in ("data", "model", "admin"):
        page = opened(name)
        for kind in ("arrow_vega_lite_chart", "arrow_data_frame", "image"):
            for element in page.get(kind):
                proto = element.proto
                assert getattr(proto, "alt", "") or all(image.alt for image in getattr(proto, "imgs", [])), (name, kind)
