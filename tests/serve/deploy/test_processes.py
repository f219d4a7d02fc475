"""Processes that are started, awaited and ended, and ports: with small commands in place of servers."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lesion.core.errors import ConfigError, LesionError
from serve.deploy.balancer import Balancer
from serve.deploy.ports import free_port, free_ports, is_listening, page_answers, served_version
from serve.deploy.processes import running


def test_a_process_runs_while_the_block_does(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    command = ["sh", "-c", "echo hello; exec sleep 60"]
    with running("sleeper", command, log, lambda: log.read_text() == "hello\n", folder=tmp_path) as record:
        assert record.alive
        assert record.name == "sleeper"
    assert not record.alive


def test_a_process_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such model >&2; exit 3"]
    with (
        pytest.raises(LesionError, match=r"(?s)api-1 ended.*no such model") as caught,
        running("api-1", command, tmp_path / "log", lambda: False, folder=tmp_path),
    ):
        pass
    assert caught.value.code == "member_ended"


def test_a_process_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    records = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ >{records}; exec sleep 60"]
    with (
        pytest.raises(LesionError, match=r"not ready within 0\.3 s") as caught,
        running("api-1", command, tmp_path / "log", lambda: False, folder=tmp_path, seconds=0.3),
    ):
        pass
    assert caught.value.code == "timed_out"
    assert not Path(f"/proc/{int(records.read_text())}").exists()


def test_free_ports_differ_and_nothing_listens_on_them() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(map(is_listening, ports))
    assert served_version(free_port()) is None
    assert not page_answers(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(("health", "answers"), [(b"ok", True), (b"starting", False)])
def test_a_page_answers_when_its_program_does(health: bytes, answers: bool) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(health if self.path == "/_stcore/health" else b"<html></html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        assert is_listening(server.server_port)
        assert page_answers(f"http://127.0.0.1:{server.server_port}") == answers
        server.shutdown()


def test_a_machine_without_nginx_is_told_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigError, match="Install it") as caught:
        Balancer(tmp_path, "127.0.0.1", 8080)
    assert caught.value.code == "nginx_missing"
