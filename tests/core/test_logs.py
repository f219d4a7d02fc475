"""Logs as JSON: every line of a server's output is an object, requests are known by their id, and no name is in it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion.core import logs
from lesion.core.errors import ConfigError
from tests.support.bundles.lamp_bundles import lamp
from tests.support.images.hostile import encode, gradient
from tests.support.servers.serving import ServerProcess, eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process


@pytest.fixture
def _untouched() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("_untouched")
def test_a_record_is_one_line_with_its_facts_and_its_exception(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    logs.request_id.set("abc")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("serve.test").warning("it %s", "failed", extra={"route": "/predict"}, exc_info=True)
    logs.request_id.set("")
    logs.announce("ready")
    failed, ready = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (failed["level"], failed["logger"], failed["message"]) == ("WARNING", "serve.test", "it failed")
    assert (failed["request_id"], failed["route"]) == ("abc", "/predict")
    assert failed["exc_info"].endswith("ValueError: two\nlines")
    assert failed["time"].endswith("+00:00")
    assert (ready["message"], "request_id" in ready) == ("ready", False)


def test_words_change_nothing_and_other_formats_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    logs.configure("words")
    assert logging.getLogger().handlers == before
    logs.announce("ready")
    assert capsys.readouterr().out == "ready\n"
    with pytest.raises(ConfigError, match="log_format=xml is unknown"):
        logs.configure("xml")


def test_a_server_writes_nothing_but_objects_and_no_name(tmp_path: Path) -> None:
    bundle = lamp(tmp_path / "lamp", 0.05)
    with ServerProcess(bundle, "server.workers=1", "log_format=json", "access_log=true") as server:
        file = ("Smith_John_1950.png", encode(gradient()))
        answers = [
            server.client.post("/predict?note=Smith", files={"file": file}, headers={"X-Request-ID": "first"}),
            server.client.post("/predict", files={"file": ("Smith_John.png", b"damaged")}),
            server.client.get("/Smith"),
        ]
        worker = server.workers()[0].pid
        server.workers()[0].kill()  # so that a worker starts again, and the parent says so
        eventually(lambda: [each.pid for each in server.workers()] not in ([], [worker]))
        server.stop()
        lines = [json.loads(line) for line in server.output().splitlines()]
    assert "Smith" not in json.dumps(lines)
    asked = {line["request_id"]: line for line in lines if line["logger"] == "serve.access_log"}
    seen = [asked[answer.headers["X-Request-ID"]] for answer in answers]
    assert [(line["method"], line["route"], line["status"]) for line in seen] == [
        ("POST", "/predict", 200), ("POST", "/predict", 415), ("GET", "", 404),
    ]  # fmt: skip
    assert seen[0]["request_id"] == "first"
    assert all(0 < line["ms"] < 60_000 for line in seen)
    assert any("worker 0 died" in line["message"] and line["level"] == "ERROR" for line in lines)
