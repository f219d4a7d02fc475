"""The page without a browser, against a real server: what people see and what their clicks do."""

import ast
import io
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import streamlit as st
import yaml
from PIL import Image
from streamlit.testing.v1 import AppTest

from lesion.auth import api_keys
from lesion.catalogue.images import existing, image
from lesion.catalogue.snapshots import import_manifest
from lesion.client import Client
from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.imaging.decode import bytes_sha256
from lesion.registry.registry import Registry
from lesion.retraining.jobs import cancel, jobs
from lesion.retraining.leases import claim, finish, report
from scripts import ui
from serve.ui.error_messages import advice
from serve.ui.screens.predict.page import labels
from serve.ui.screens.predict.requests import Batch, Upload, chunks, send
from serve.ui.screens.upload import BY_FOLDER
from serve.ui.session import ADDRESS
from serve.ui.text.sentences import DISCLAIMER
from tests.support.lamp_bundles import CLASSES, lamp, lamp_pictures
from tests.support.loop_images import new_storage
from tests.support.page import UI, buttons, drop, photo, press, select
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.serving import ServerProcess, eventually, free_port
from tests.support.training_subprocess import CONFIG

Opening = Callable[..., AppTest]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lamps")


@pytest.fixture(scope="module")
def server(root: Path, storage: Storage) -> Iterator[ServerProcess]:
    settings = ("storage=local", f"storage_root={root / 'loop'}", "worker=false", "server.workers=1")
    with ServerProcess(root / "champion", *settings) as running:
        yield running


@pytest.fixture
def page(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Opening:
    """Open one of the pages as a new session would; the whole app without a name."""

    def opening(name: str = "", address: str = server.url) -> AppTest:
        monkeypatch.setenv(ADDRESS, address)
        st.cache_data.clear()  # all of these are one session to Streamlit's caches
        if not name:
            return AppTest.from_file(UI / "app.py", default_timeout=30).run()
        script = (
            f"from serve.ui import {name}\nfrom serve.ui.error_messages import guarded\n"
            f"from serve.ui.session import connect\nwith guarded():\n    {name}.show(connect())\n"
        )
        return AppTest.from_string(script, default_timeout=30).run()

    return opening


ALLOWED = {"lesion.client", "lesion.core.errors", "lesion.imaging.heatmap"}


@pytest.fixture(scope="module")
def storage(root: Path) -> Iterator[Storage]:
    made = new_storage(root / "loop")
    snapshot = import_manifest(made, lamp_pictures(root / "pictures", 30), progress=False)
    champion = lamp(root / "champion", 0.05, config=CONFIG)
    Registry(made).deploy_first(Registry(made).register(champion, snapshot_id=snapshot), "ann", "the first")
    yield made
    made.engine.dispose()


def said(page: AppTest) -> str:
    """All words on a page."""
    kinds = (page.title, page.header, page.subheader, page.markdown, page.caption)
    boxes = (page.info, page.warning, page.error, page.success)
    assert not page.exception, [each.value for each in page.exception]
    return "\n".join(str(each.value) for kind in (*kinds, *boxes) for each in kind)


# The frame


def test_the_page_opens_with_the_disclaimer_and_without_a_sign_in(page: Opening) -> None:
    opened = page()
    assert opened.title[0].value == "Predict"
    assert DISCLAIMER in said(opened)
    assert not opened.text_input
    assert "Sign out" not in buttons(opened)


def test_a_key_is_asked_for_and_kept_for_the_session_alone(
    page: Opening, storage: Storage, server: ServerProcess
) -> None:
    text = api_keys.create(storage, "ward 3", "admin", "ann")
    eventually(lambda: httpx.get(f"{server.url}/me").status_code == 401)
    try:
        opened = page()
        assert [each.label for each in opened.text_input] == ["API key"]
        assert DISCLAIMER in said(opened)
        assert not opened.error
        opened.text_input[0].set_value("lesion_wrong")
        press(opened, "Sign in")
        assert "unknown or was revoked" in said(opened)
        opened.text_input[0].set_value("schlüssel")
        press(opened, "Sign in")
        assert "no API key" in said(opened)
        opened.text_input[0].set_value(f" {text} ")
        press(opened, "Sign in")
        assert opened.title[0].value == "Predict"
        assert "Signed in as ward 3, admin." in said(opened)
        assert page().text_input  # another session knows nothing of it
        press(opened, "Sign out")
        assert [each.label for each in opened.text_input] == ["API key"]
    finally:
        with storage.session() as session:
            for key in api_keys.all_keys(session):
                session.delete(key)
    eventually(lambda: httpx.get(f"{server.url}/me").status_code == 200)


def test_without_a_server_the_page_says_so_and_comes_back(page: Opening, server: ServerProcess) -> None:
    opened = page(address=f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in opened.error[0].value
    assert "goes on by itself" in opened.error[0].value
    assert DISCLAIMER in said(opened)
    opened.session_state["client"] = Client(server.url)
    press(opened, "Try again")
    assert opened.title[0].value == "Predict"
    assert not opened.error


def test_what_was_dropped_while_the_server_is_away_is_answered_when_it_is_back(
    page: Opening, server: ServerProcess
) -> None:
    opened = page()
    opened.session_state["client"] = Client(f"http://127.0.0.1:{free_port()}")
    st.cache_data.clear()
    drop(opened, ("one.png", photo(1)))
    assert opened.title[0].value == "Predict"
    assert opened.error[0].proto.title == "The server is away"
    opened.session_state["client"] = Client(server.url)
    press(opened, "Try again")
    assert opened.subheader[0].value == "bright"
    assert not opened.error


@pytest.mark.parametrize(
    ("code", "status", "title", "looks_again"),
    [
        ("server_away", 503, "The server is away", True),
        ("key_unknown", 401, "You are not signed in", False),
        ("role_insufficient", 403, "You may not do this", False),
        ("no_storage", 404, "This server keeps no data", False),
        ("body_too_large", 413, "This is too large for the server", False),
        ("rate_limited", 429, "Too many requests", True),
        ("server_busy", 503, "The server is not ready", True),
        ("no_worker_ready", 503, "The server cannot predict now", True),
        ("timed_out", 504, "The server took too long", True),
        ("answer_not_understood", 502, "This is no answer of Lesion's server", False),
        ("surprise", 500, "The server failed", False),
        ("surprise", 422, "The server refused this", False),
    ],
)
def test_every_refusal_has_a_title_and_what_to_do(code: str, status: int, title: str, looks_again: bool) -> None:
    found = advice(LesionError("It is so.", code=code, status=status))
    assert (found.title, found.look_s is not None) == (title, looks_again)


def test_the_page_knows_nothing_but_the_api() -> None:
    for file in UI.rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_text()))
        names = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module}
        assert {name for name in names if name.startswith("lesion")} <= ALLOWED, file
    check = (
        "import sys, serve.ui.screens.predict.page, serve.ui.screens.retrain; "
        "print([name for name in ('torch', 'sqlalchemy', 'lesion.model', 'lesion.database') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# Predict


def test_an_image_is_answered_in_words_and_bars(page: Opening, server: ServerProcess) -> None:
    opened = drop(page("predict"), ("one.png", photo(1)))
    expected = server.client.post("/predict", content=photo(1)).json()
    words = said(opened)
    assert opened.subheader[0].value == expected["predicted_class"] == "bright"
    assert "I am very sure that this is bright." in words
    assert f"by model version {expected['model_version']}" in words
    bars = [each.proto.text for each in opened.get("progress")]
    assert [bar.split(":")[0] for bar in bars] == ["bright", "dark"]
    assert "No place in it speaks more for bright than any other (grad-cam)" in words  # as for all that this model sees
    select(opened, "What speaks for", "dark")
    assert "speaks more for dark than any other" in said(opened)


def test_unsure_and_unfamiliar_images_are_called_so(page: Opening, server: ServerProcess) -> None:
    unsure = drop(page("predict"), ("grey.png", photo(2, 127, 0.0)))
    assert "I am not sure." in unsure.warning[0].value
    far = np.zeros((48, 48, 3), np.uint8)
    far[..., 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(far).save(buffer, "PNG")
    answer = server.client.post("/predict", content=buffer.getvalue()).json()
    foreign = drop(page("predict"), ("red.png", buffer.getvalue()))
    assert ("does not look like what I was trained on" in said(foreign)) == (not answer["in_domain"])


def test_many_images_become_a_table_where_a_broken_one_has_its_reason(page: Opening) -> None:
    files = [(f"{seed}.png", photo(seed, 150 if seed % 2 else 0)) for seed in range(10, 16)]
    opened = drop(page("predict"), *files, ("notes.txt", b"no image"))
    table = opened.dataframe[0].value
    assert list(table["Image"]) == [*(name for name, _ in files), "notes.txt"]
    assert list(table["Class"][:6]) == ["dark", "bright"] * 3
    assert "not recognised as an image" in table["Note"][6]
    assert "6 images answered" in said(opened)
    assert "1 file refused." in said(opened)
    looked = next(box for box in opened.selectbox if box.label == "Image to look at")
    assert looked.options == [*(name for name, _ in files), "notes.txt"]
    looked.select_index(6).run()
    assert "not recognised as an image" in opened.error[0].value


def test_images_of_one_name_are_told_apart(page: Opening, storage: Storage) -> None:
    assert labels(["a", "b"]) == ["a", "b"]
    assert labels(["a", "a", "1. a"]) == ["1. a", "2. a", "3. 1. a"]
    first, second = photo(30), photo(31, 0)
    opened = drop(page("predict"), ("scan.png", first), ("scan.png", second))
    assert list(opened.dataframe[0].value["Image"]) == ["1. scan.png", "2. scan.png"]
    assert opened.subheader[0].value == "bright"
    select(opened, "Image to look at", "2. scan.png")
    assert opened.subheader[0].value == "dark"
    press(opened, "Agree")
    with storage.session() as session:
        assert existing(session, bytes_sha256(second)).label == "dark"
        assert image(session, bytes_sha256(first)) is None


def test_the_table_stays_without_its_images(page: Opening) -> None:
    opened = drop(page("predict"), ("1.png", photo(32)), ("2.png", photo(33, 0)))
    table = opened.dataframe[0].value
    for way in ("Examples", "Files"):  # as after a look at another page, the images are gone
        opened.button_group[0].set_value(way).run()
    assert "2 images answered." in said(opened)
    assert "The images themselves are not kept here." in said(opened)
    assert opened.dataframe[0].value.equals(table)
    assert [each.proto.label for each in opened.get("download_button")] == ["Download as CSV"]
    press(opened, "Clear")
    assert not opened.dataframe
    assert "Clear" not in buttons(opened)


def test_what_was_chosen_for_one_image_is_not_for_the_next(page: Opening) -> None:
    opened = select(drop(page("predict"), ("1.png", photo(34))), "Right class", "dark")
    assert buttons(opened)["Correct"]
    before = {button.key for button in opened.button if button.label in ("Agree", "Correct")}
    drop(opened, ("2.png", photo(35)))
    assert not buttons(opened)["Correct"]
    assert not before & {button.key for button in opened.button}  # a late click is for no image


def test_examples_are_there_for_who_has_no_image(page: Opening) -> None:
    opened = page("predict")
    opened.button_group[0].set_value("Examples").run()
    press(opened, "glioma")
    assert opened.subheader[0].value in CLASSES
    assert "Agree" not in buttons(opened)  # no model is to learn from a drawing
    assert sum(path.stat().st_size for path in (UI / "examples").iterdir()) < 100_000


def test_who_agrees_or_corrects_teaches_the_next_model(page: Opening, storage: Storage) -> None:
    right, wrong = photo(20), photo(21)
    opened = press(drop(page("predict"), ("right.png", right)), "Agree")
    assert "Thank you. The image is kept as bright." in said(opened)
    opened = drop(page("predict"), ("wrong.png", wrong))
    assert not buttons(opened)["Correct"]
    press(select(opened, "Right class", "dark"), "Correct")
    assert "An admin will look at the image first" in said(opened)
    with storage.session() as session:
        rows = [existing(session, bytes_sha256(data)) for data in (right, wrong)]
    assert [(row.label, row.source, row.status) for row in rows] == [
        ("bright", "feedback", "accepted"), ("dark", "feedback", "quarantined"),
    ]  # fmt: skip


# Upload


class Dropped:
    """A file as Streamlit holds it."""

    def __init__(self, file_id: str, size: int, start: bytes = b"\x89PNG") -> None:
        self.file_id = self.name = file_id
        self.size = size
        self._start = start

    def getvalue(self) -> bytes:
        return self._start


def test_files_are_sent_in_chunks_that_a_request_may_carry() -> None:
    many = [Dropped(str(number), 1000) for number in range(120)]
    assert [len(chunk) for chunk in chunks(many, 2**26)] == [50, 50, 20]
    large = [Dropped(str(number), 6 * 2**20) for number in range(5)]
    assert [len(chunk) for chunk in chunks(large, 2**26)] == [2, 2, 1]
    assert [len(chunk) for chunk in chunks(large, 7 * 2**20)] == [1] * 5
    mixed = [many[0], Dropped("a.zip", 10, b"PK\x03\x04"), many[1], many[2]]
    assert [[file.file_id for file in chunk] for chunk in chunks(mixed, 2**26)] == [["0"], ["a.zip"], ["1", "2"]]
    assert list(chunks([], 2**26)) == []


class Taking(Client):
    """Takes whatever is uploaded, and keeps the names."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1")
        self.names: list[str] = []

    def upload(self, files: Any, label: str | None = None, group: str | None = None) -> dict[str, Any]:
        self.names += [name for name, _ in files]
        return {"accepted": [{"name": name, "reason": ""} for name, _ in files], "quarantined": [], "rejected": []}


def test_two_thousand_files_go_in_forty_requests() -> None:
    files, upload, client = [Dropped(str(number), 10) for number in range(2000)], Upload(), Taking()
    told: list[int] = []
    send(client, upload, Batch(files, "bright", ""), 2**26, lambda: told.append(len(upload.sent)))
    assert told == [50 * turn for turn in range(1, 41)]
    assert client.names == [file.name for file in files]
    assert (len(upload.rows), upload.left) == (2000, 0)


def test_an_upload_that_a_click_elsewhere_breaks_off_goes_on_where_it_was() -> None:
    class ClickError(Exception):
        pass

    def click() -> None:
        raise ClickError

    files, upload, client = [Dropped(str(number), 10) for number in range(120)], Upload(), Taking()
    batch = Batch(files, "bright", "")
    with pytest.raises(ClickError):
        send(client, upload, batch, 2**26, click)
    assert (len(upload.wanted), len(upload.sent), len(upload.rows), upload.left) == (120, 50, 50, 70)
    send(client, upload, batch, 2**26, lambda: None)
    assert (len(upload.rows), upload.left) == (120, 0)
    assert client.names == [file.name for file in files]
    again = Batch(files[:2], "dark", "")  # under another class these are others
    send(client, upload, again, 2**26, lambda: None)
    assert (len(upload.wanted), len(upload.rows), upload.left) == (2, 2, 0)


def test_files_are_uploaded_with_a_line_for_each(page: Opening, server: ServerProcess) -> None:
    before = server.client.get("/training_data").json()["status"]["accepted"]
    opened = page("training")
    opened = drop(opened, *((f"{seed}.png", photo(seed)) for seed in range(100, 160)), ("notes.txt", b"no image"))
    assert not buttons(opened)["Upload 61 files"]
    assert "Choose the class of these images." in said(opened)
    press(select(opened, "Class of these images", "bright"), "Upload 61 files")
    assert "60 of 61 files accepted, 1 refused." in said(opened)
    table = opened.dataframe[0].value
    assert list(table.iloc[0])[:2] == ["notes.txt", "Refused"]
    assert "not recognised as an image" in table["Reason"][0]
    assert list(table["Outcome"][1:]) == ["Accepted"] * 60
    assert not opened.file_uploader[0].value
    after = server.client.get("/training_data").json()
    assert after["status"]["accepted"] == before + 60
    assert f"would learn from {after['next_retrain']['images']} new images" in said(opened)


def test_an_archive_tells_the_classes_by_its_folders(page: Opening) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bright/1.png", photo(200))
        archive.writestr("dark/2.png", photo(201, 0))
        archive.writestr("unknown/3.png", photo(202))
    opened = select(drop(page("training"), ("both.zip", buffer.getvalue())), "Class of these images", BY_FOLDER)
    press(opened, "Upload 1 file")
    assert list(opened.dataframe[0].value["Outcome"]) == ["Refused", "Accepted", "Accepted"]
    opened = select(drop(page("training"), ("1.png", photo(203))), "Class of these images", BY_FOLDER)
    assert "Only a ZIP has folders" in said(opened)
    assert not buttons(opened)["Upload 1 file"]


# Retrain


def test_a_retraining_is_started_watched_and_cancelled(page: Opening, storage: Storage) -> None:
    opened = page("training")
    assert [each.label for each in opened.number_input] == ["Epochs", "Batch size", "Learning rate"]
    assert (opened.number_input[0].min, opened.number_input[0].max, opened.number_input[0].value) == (1, 100, 5)
    opened.number_input[0].set_value(2).run()
    assert "How long it takes is not known yet." in said(opened)
    press(opened, "Start retraining")
    job = jobs(storage)[0]
    assert (job.state, job.request["epochs"]) == ("queued", 2)
    assert opened.get("progress")[0].proto.text == "Waiting for a free worker"
    assert not buttons(opened)["Start retraining"]
    claim(storage, job.id, "w")
    metrics = [{"epoch": 1, "train/loss": 0.7, "val/loss": 0.6, "val/acc": 0.8, "val/f1_macro": 0.79}]
    report(storage, job.id, "w", stage="train", epoch=1, progress=0.4, seconds_left=31.0, metrics=metrics)
    opened.run()
    assert opened.get("progress")[0].proto.text == "Learning: 1 of 2 epochs done, about 30 seconds left"
    assert len(opened.get("vega_lite_chart")) == 2
    press(opened, "Cancel the retraining")
    assert opened.get("progress")[0].proto.text == "Being cancelled"
    assert jobs(storage)[0].cancel_requested
    finish(storage, job.id, "w", "cancelled", "local cancelled it.")
    opened.run()
    assert "The retraining was cancelled; the model in use stays." in said(opened)
    assert buttons(opened)["Start retraining"]


def test_a_retraining_of_somebody_else_is_seen_too(page: Opening, server: ServerProcess, storage: Storage) -> None:
    with Client(server.url) as client:
        job_id = client.retrain(epochs=3)["job_id"]
        try:
            opened = page("training")
            assert "A retraining is running" in said(opened)
            assert not buttons(opened)["Start retraining"]
        finally:
            assert client.cancel(job_id)["state"] == "cancelled"
    with pytest.raises(LesionError, match="is over"):
        cancel(storage, job_id, "ann")


# The scripts


def test_the_page_takes_files_as_large_as_the_api_does(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: started.append(command))
    for given in ([], ["--max-upload", "30"]):
        monkeypatch.setattr(sys, "argv", ["ui.py", *given])
        ui.main()
    limit = yaml.safe_load((REPOSITORY / "configs" / "serve.yaml").read_text("utf-8"))["server"]["max_upload_bytes"]
    assert f"--server.maxUploadSize={limit // 2**20}" in started[0]
    assert "--server.maxUploadSize=30" in started[1]


def test_the_demo_takes_no_older_page_for_its_own() -> None:
    with socket.socket() as older:
        older.bind(("127.0.0.1", 0))
        older.listen()
        port = older.getsockname()[1]
        ports = {"PORT": str(free_port()), "PAGE_PORT": str(port)}
        demo = ["bash", str(SCRIPTS / "demo.sh")]
        done = subprocess.run(demo, env=os.environ | ports, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Something listens on port {port} already." in done.stderr


class OlderPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok" if self.path == "/_stcore/health" else b"<html></html>")


def test_a_page_counts_only_while_its_own_process_lives() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with HTTPServer(("127.0.0.1", 0), OlderPage) as older:
        threading.Thread(target=older.serve_forever, args=(0.05,), daemon=True).start()
        check = [sys.executable, str(SCRIPTS / "dev" / "check_page.py"), f"http://127.0.0.1:{older.server_port}"]
        found = [
            subprocess.run([*check, "--process", str(process)], capture_output=True, text=True, timeout=60)
            for process in (os.getpid(), ended.pid)
        ]
        older.shutdown()
    assert [done.returncode for done in found] == [0, 1]
    assert "The page has ended; something else answers" in found[1].stderr


def test_the_script_starts_the_page_and_ends_with_its_parent(server: ServerProcess) -> None:
    port = free_port()
    start = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, {str(REPOSITORY / 'scripts' / 'ui.py')!r}, '--api', {server.url!r}]\n"
        f"page = subprocess.Popen([*command, '--port', '{port}', '--parent', str(os.getpid())])\n"
        "print(page.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            address = f"http://127.0.0.1:{port}"

            def text(path: str) -> str:
                try:
                    return httpx.get(f"{address}{path}").text
                except httpx.TransportError:
                    return ""

            eventually(lambda: text("/_stcore/health") == "ok", 60)
            assert re.findall(r"(?:src|href)=\"(https?:|//)", text("/")) == []
        finally:
            parent.kill()
        _, alive = psutil.wait_procs([child], timeout=10)
        assert not alive
