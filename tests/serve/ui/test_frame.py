"""The frame of the page and the command that starts it, against a real server."""

import ast
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import psutil
import pytest
import streamlit as st
import yaml

from lesion.auth import api_keys
from lesion.cli import ui
from lesion.client import (
    Client,
    ClientError,
    NoStorageError,
    NoWorkerReadyError,
    PredictionTimeoutError,
    ResponseError,
    ServerTimeoutError,
    ServerUnavailableError,
    UnexpectedResponseError,
)
from lesion.database.storage import Storage
from serve.deploy.ports import free_port
from serve.ui.components import largest_file
from serve.ui.error_messages import advice_for
from serve.ui.text.sentences import DISCLAIMER
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.servers.browser import Front
from tests.support.servers.page import UI, OpenScreen, buttons, drop_files, page_text, photo, press
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

# What the page may import of the library: nothing that needs torch, a database or the server's own modules.
ALLOWED = {
    "lesion.client",
    "lesion.core.files",
    "lesion.core.palette",
    "lesion.core.roles",
    "lesion.core.text",
    "lesion.domain.trial",
    "lesion.evaluation",
    "lesion.evaluation.findings",
    "lesion.imaging.heatmap",
}


def test_the_page_opens_with_the_disclaimer_and_without_a_sign_in(page: OpenScreen) -> None:
    opened = page()
    assert opened.title[0].value == "Predict"
    assert DISCLAIMER in page_text(opened)
    assert not opened.text_input
    assert "Sign out" not in buttons(opened)


def test_a_key_is_asked_for_and_kept_for_the_session_alone(
    page: OpenScreen, lamp_storage: Storage, lamp_server: ServerProcess
) -> None:
    text = api_keys.create(lamp_storage, "ward 3", "admin", "ann")
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 401)
    try:
        opened = page()
        assert [each.label for each in opened.text_input] == ["API key"]
        assert DISCLAIMER in page_text(opened)
        assert not opened.error
        opened.text_input[0].set_value("lesion_wrong")
        press(opened, "Sign in")
        assert "unknown or was revoked" in page_text(opened)
        opened.text_input[0].set_value("schlüssel")
        press(opened, "Sign in")
        assert "This is not an API key" in page_text(opened)
        opened.text_input[0].set_value(f" {text} ")
        press(opened, "Sign in")
        assert opened.title[0].value == "Predict"
        assert "Signed in as ward 3, admin." in page_text(opened)
        assert page().text_input  # another session knows nothing of it
        press(opened, "Sign out")
        assert [each.label for each in opened.text_input] == ["API key"]
    finally:
        with lamp_storage.session() as session:
            for key in api_keys.all_keys(session):
                session.delete(key)
    eventually(lambda: httpx.get(f"{lamp_server.url}/me").status_code == 200)


def test_without_a_server_the_page_says_so_and_comes_back(page: OpenScreen, lamp_server: ServerProcess) -> None:
    opened = page(address=f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in opened.error[0].value
    assert "continues by itself" in opened.error[0].value
    assert DISCLAIMER in page_text(opened)
    opened.session_state["client"] = Client(lamp_server.url)
    press(opened, "Try again")
    assert opened.title[0].value == "Predict"
    assert not opened.error


def test_what_was_dropped_while_the_server_is_away_is_answered_when_it_is_back(
    page: OpenScreen, lamp_server: ServerProcess
) -> None:
    with Front(lamp_server.url) as front:
        opened = page(address=front.url)
        front.cut()
        st.cache_data.clear()
        drop_files(opened, ("one.png", photo(1)))
        assert opened.title[0].value == "Predict"
        assert opened.warning[0].proto.title == "The server cannot be reached"
        assert opened.warning[0].value.startswith("1 of 1 image waits. It is sent again without a click in ")
        front.pass_on()
        eventually(lambda: [each.value for each in opened.run().subheader] == ["bright"])
        assert not opened.error
        assert not opened.warning


@pytest.mark.parametrize(
    ("error", "title", "checks_again"),
    [
        (ServerUnavailableError("It is so."), "The server cannot be reached", True),
        (ResponseError("It is so.", status=401), "You are not signed in", False),
        (ClientError("It is so.", code="key_invalid", status=401), "You are not signed in", False),
        (ResponseError("It is so.", status=403), "You may not do this", False),
        (NoStorageError("It is so.", status=404), "This server stores no data", False),
        (ResponseError("It is so.", status=404), "This was not found on the server", False),
        (ResponseError("It is so.", status=413), "This is too large for the server", False),
        (ResponseError("It is so.", status=429), "Too many requests", True),
        (ResponseError("It is so.", status=503), "The server is not ready", True),
        (NoWorkerReadyError("It is so.", status=503), "The server cannot predict now", True),
        (ServerTimeoutError("It is so."), "The server took too long", True),
        (PredictionTimeoutError("It is so.", status=503), "The server took too long", True),
        (UnexpectedResponseError("It is so."), "This answer is not from a Lesion server", False),
        (ResponseError("It is so.", status=500), "The server failed", False),
        (ResponseError("It is so.", status=422), "The server refused this", False),
    ],
)
def test_every_refusal_has_a_title_and_what_to_do(error: ClientError, title: str, checks_again: bool) -> None:
    advice = advice_for(error)
    assert (advice.title, advice.check_s is not None) == (title, checks_again)


def test_the_page_knows_nothing_but_the_api() -> None:
    for file in UI.rglob("*.py"):
        tree = ast.walk(ast.parse(file.read_text()))
        names = {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module}
        assert {name for name in names if name.startswith("lesion")} <= ALLOWED, file
    check = (
        "import sys, serve.ui.screens.admin, serve.ui.screens.model, serve.ui.screens.predict.page, "
        "serve.ui.screens.retrain; "
        "print([name for name in ('torch', 'sqlalchemy', 'lesion.model', 'lesion.database') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# The command


def test_the_page_takes_files_as_large_as_the_api_does(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: started.append(command))
    for given in ([], ["--max-upload", "30"]):
        monkeypatch.setattr(sys, "argv", ["ui.py", *given])
        ui.main()
    limit = yaml.safe_load((REPOSITORY / "configs" / "serve.yaml").read_text("utf-8"))["server"]["max_upload_bytes"]
    assert f"--server.maxUploadSize={limit // 2**20}" in started[0]
    assert "--server.maxUploadSize=30" in started[1]


def test_a_dropped_file_may_have_what_both_the_api_and_the_page_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for of_page, of_api, said in ((64, 20 * 2**20, 20), (64, 2**30, 64), (64, 64 * 2**20 - 1, 63), (64, 1000, 1)):
        monkeypatch.setattr(st, "get_option", {"server.maxUploadSize": of_page}.__getitem__)
        assert largest_file(of_api) == said


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


def test_the_script_starts_the_page_and_ends_with_its_parent(lamp_server: ServerProcess) -> None:
    port = free_port()
    start = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, {str(REPOSITORY / 'scripts' / 'ui.py')!r}, '--api', {lamp_server.url!r}]\n"
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
