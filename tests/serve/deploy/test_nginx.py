"""The real nginx with the very files of serve/deploy/nginx, before servers that do as a test wants."""

import gzip
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lesion.core.errors import ConfigError
from serve.deploy.balancer import SOURCE, Balancer, nginx_program, upstreams
from serve.deploy.ports import free_port
from serve.deploy.processes import ProcessRecord, end, wait_until_ready
from serve.http.problems import MEDIA_TYPE
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import eventually

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

try:
    NGINX = nginx_program()
except ConfigError:
    pytest.skip("nginx is not installed (apt-get install nginx)", allow_module_level=True)

NEEDED = 1, 27, 4  # keepalive_min_timeout; resolve came with 1.27.3, http2 on with 1.25.1
OVERLOADED = {"code": "queue_full", "status": 503, "detail": "256 requests wait already."}
JOB = "0" * 32


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        stub: Stub = self.server.stub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stub.seen.append((self.command, self.path, dict(self.headers), len(body)))
        stub.answer(self)

    do_GET = do_POST = do_HEAD = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, content: Any, kind: str = "application/json", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def fine(request: Handler) -> None:
    assert isinstance(request.server, ThreadingHTTPServer)
    request.say(200, {"answer": request.server.server_port, "padding": "x" * 2000})


def overloaded(request: Handler) -> None:
    request.say(503, OVERLOADED, MEDIA_TYPE, Retry_After="7")


def dying(request: Handler) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Stub:
    """A server in a replica's place."""

    answer: Callable[[Handler], None] = fine
    seen: list[tuple[str, str, dict[str, str], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.stub = self  # type: ignore[attr-defined]
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.answer = dying  # on connections that are open still
        self.server.shutdown()
        self.server.server_close()

    @property
    def headers(self) -> dict[str, str]:
        return self.seen[-1][2]


@dataclass
class Front:
    """nginx before two stubs and a third in the page's place."""

    folder: Path
    stubs: list[Stub]
    page: Stub
    balancer: Balancer
    port: int
    tls_port: int
    member: ProcessRecord | None = None

    def start(self, changes: dict[str, str] | None = None, file: str = "nginx.conf") -> "Front":
        """Write the configuration, change words of a file, and start."""
        self.balancer.write([stub.port for stub in self.stubs], self.page.port)
        change_words(self.folder / "conf" / file, changes or {})
        self.member = self.balancer.start()
        wait_until_ready(self.member, lambda: listens(self.port), self.balancer.log, 20)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        return self

    def answer(self, how: Callable[[Handler], None]) -> None:
        """Let both stubs answer in one way from now on."""
        for stub in self.stubs:
            stub.answer = how

    @property
    def counts(self) -> list[int]:
        return [len(stub.seen) for stub in self.stubs]


def change_words(file: Path, changes: dict[str, str]) -> None:
    text = file.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Front]:
    port, tls_port = free_port(), free_port()
    balancer = Balancer(tmp_path / "nginx", "127.0.0.1", port, tls_port)
    made = Front(balancer.folder, [Stub(), Stub()], Stub(), balancer, port, tls_port)
    yield made
    if made.member is not None:
        made.client.close()
        end([made.member], 10)
    for stub in (*made.stubs, made.page):
        stub.close()


@pytest.fixture
def front(idle: Front) -> Front:
    return idle.start()


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem document of nginx's own, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["detail"].endswith(".")
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert ("retry-after" in response.headers) == (status in (429, 502, 503, 504))
    return problem


# The files


def version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.search(r"/(\d+)\.(\d+)\.(\d+)", said).groups())  # type: ignore[union-attr]


def container_files(folder: Path) -> Path:
    """Copy the container's files; its two ports are others here, which may be taken."""
    conf = folder / "conf"
    shutil.copytree(SOURCE, conf)
    change_words(conf / "listen.conf", {f"listen {port}": f"listen {free_port()}" for port in (8080, 8443)})
    return conf


def accepted(program: str, folder: Path) -> None:
    """Check that an nginx takes a folder's files without a warning, and keeps all that it writes below its prefix."""
    command = [program, "-t", "-p", f"{folder}/", "-c", str(folder / "conf" / "nginx.conf"), "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr.replace('[warn] the "user" directive', "")
    assert {path.name for path in folder.iterdir()} >= {"conf", "body", "proxy", "nginx.pid"}


def test_the_container_s_files_as_they_are_shipped(tmp_path: Path) -> None:
    program = os.environ.get("LESION_NGINX", NGINX)
    if version(program) < NEEDED:
        pytest.skip(
            f"nginx {'.'.join(map(str, NEEDED))} or newer, as in the container, is not installed (LESION_NGINX=PATH "
            "names one): serve/deploy/nginx is only checked without 'resolve', 'http2 on' and 'keepalive_min_timeout'"
        )
    container_files(tmp_path)
    accepted(program, tmp_path)


def test_nginx_takes_the_container_s_files(tmp_path: Path) -> None:
    """With an nginx that is too old for what the container's has, that is taken out, and nothing else."""
    conf = container_files(tmp_path)
    newer = {
        "upstreams.conf": {"api:8000 resolve": "127.0.0.1:8000", "ui:8501 resolve": "127.0.0.1:8501"},
        "listen.conf": {"http2 on;": "", "keepalive_min_timeout 5s;": ""},
    }
    if version(NGINX) < NEEDED:
        for name, changes in newer.items():
            change_words(conf / name, changes)
    accepted(NGINX, tmp_path)


def test_one_machine_s_upstreams_are_the_container_s() -> None:
    def essence(text: str) -> list[str]:
        plain = re.sub(r"#.*|^resolver.*|\s+resolve\b", "", text, flags=re.MULTILINE)
        return re.sub(r"server \S+", "server X", re.sub(r"\s+", " ", plain)).strip().split("; ")

    assert essence((SOURCE / "upstreams.conf").read_text()) == essence(upstreams([8001], 8501))
    many = upstreams([8001, 8002], None)
    assert many.count("server 127.0.0.1:8002 max_fails=3 fail_timeout=2s;") == 2
    assert "down" in many.partition("upstream page")[2]


def test_body_limits_are_the_api_s() -> None:
    server = yaml.safe_load((REPOSITORY / "configs" / "serve.yaml").read_text("utf-8"))["server"]
    text = (SOURCE / "nginx.conf").read_text()
    sizes = {int(size) * 2**20 for size in re.findall(r"client_max_body_size (\d+)m; # the same as server", text)}
    assert sizes == {server["max_body_bytes"], server["max_upload_bytes"]}
    upload = text.partition("location = /upload_training_data")[2].partition("}")[0]
    assert f"client_max_body_size {server['max_upload_bytes'] // 2**20}m" in upload
    waits = [int(seconds) for seconds in re.findall(r"proxy_read_timeout (\d+)s", text)]
    assert server["request_timeout"] < min(waits) <= server["request_timeout"] + 10


def test_bodies_are_bounded_where_the_api_bounds_them(front: Front) -> None:
    for path, most in (("/predict", 21 * 2**20), ("/feedback", 21 * 2**20), ("/upload_training_data", 64 * 2**20)):
        assert front.client.post(path, content=bytes(most)).status_code == 200
        refusal(front.client.post(path, content=bytes(most + 1)), 413, "body_too_large")
    assert sum(front.counts) == 3


# Who is asked again


def test_what_may_be_done_twice_is_sent_to_another_replica(front: Front) -> None:
    front.stubs[0].answer = dying
    for _ in range(4):
        assert front.client.get("/info").json()["answer"] == front.stubs[1].port
        assert front.client.post("/predict", content=b"image").json()["answer"] == front.stubs[1].port
    assert front.stubs[0].seen  # it was asked too
    assert {size for method, _, _, size in front.stubs[1].seen if method == "POST"} == {5}


@pytest.mark.parametrize("path", ["/upload_training_data", "/feedback", "/retrain", "/keys", "/models/0a/promote"])
def test_what_may_not_is_sent_once(front: Front, path: str) -> None:
    front.answer(dying)
    problem = refusal(front.client.post(path, content=b"x"), 502, "replica_failed")
    assert "not known" in problem["detail"]
    assert sum(front.counts) == 1


def test_a_dead_replica_is_gone_round(front: Front) -> None:
    front.stubs[0].close()
    for path in ("/predict", "/retrain", "/upload_training_data"):  # nothing was sent to it: those may go elsewhere too
        for _ in range(4):
            assert front.client.post(path, content=b"x").json()["answer"] == front.stubs[1].port
    front.stubs[1].close()
    refusal(front.client.get("/info"), 503, "no_replica_ready")
    refusal(front.client.post("/predict", content=b"x"), 503, "no_replica_ready")


def test_an_overloaded_replica_s_predictions_go_to_another(front: Front) -> None:
    front.stubs[0].answer = overloaded
    for _ in range(10):
        assert front.client.post("/predict", content=b"x").json()["answer"] == front.stubs[1].port


def test_when_all_are_overloaded_clients_are_told_when_to_come_back(front: Front) -> None:
    front.answer(overloaded)
    first = front.client.post("/predict", content=b"x")
    assert (first.status_code, first.json(), first.headers.get_list("retry-after")) == (503, OVERLOADED, ["7"])
    codes = set()
    for _ in range(20):
        response = front.client.post("/predict", content=b"x")
        assert (response.status_code, response.headers["content-type"]) == (503, MEDIA_TYPE)
        assert response.headers["retry-after"] in ("1", "7")
        codes.add(response.json()["code"])
    assert codes == {"queue_full", "no_replica_ready"}
    front.answer(fine)
    assert front.client.get("/info").status_code == 200  # other routes never noticed
    eventually(lambda: front.client.post("/predict", content=b"x").status_code == 200, 6)  # fail_timeout, whole seconds


def test_a_503_of_another_route_is_passed_on(front: Front) -> None:
    """Without its database every replica says 503: asking the next one would only take them all out."""
    front.answer(overloaded)
    for _ in range(10):
        assert front.client.get("/models").json() == OVERLOADED
    assert sum(front.counts) == 10


def test_a_replica_that_hangs(idle: Front) -> None:
    front = idle.start(
        {
            "proxy_read_timeout 35s": "proxy_read_timeout 1s",
            "proxy_next_upstream_timeout 10s": "proxy_next_upstream_timeout 500ms",
        }
    )
    front.answer(lambda request: time.sleep(3))
    refusal(front.client.post("/feedback", content=b"x"), 504, "timed_out")
    refusal(front.client.post("/predict", content=b"x"), 504, "timed_out")
    assert sum(front.counts) == 2


# nginx's own refusals


def test_too_many_requests(idle: Front) -> None:
    front = idle.start({"rate=500r/s": "rate=1r/s", "burst=1000": "burst=2"}, "limits.conf")
    answers = [front.client.get("/health") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 3
    refusal(answers[-1], 429, "rate_limited")


def test_a_hundred_users_of_one_address_are_not_too_many(front: Front) -> None:
    with httpx.Client(base_url=front.client.base_url, limits=httpx.Limits(max_connections=100)) as client:
        assert {client.get("/health").status_code for _ in range(300)} == {200}
    limits = (SOURCE / "limits.conf").read_text()
    assert int(re.search(r"limit_conn connections (\d+)", limits)[1]) >= 100  # type: ignore[index]
    assert int(re.search(r"rate=(\d+)r/s", limits)[1]) >= 300  # type: ignore[index]


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/%6detrics", "//metrics", "/x/../metrics", "/problems/413"])
def test_what_is_not_passed_on(front: Front, path: str) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as plain:
        plain.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: plain.recv(4096), b"")).decode()
    assert "404 Not Found" in said.splitlines()[0]
    assert json.loads(said.partition("\r\n\r\n")[2])["code"] == "not_found"
    assert front.counts == [0, 0]


@pytest.mark.parametrize(
    "sent",
    ["GET / HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n", f"GET / HTTP/1.1\r\nHost: x\r\nLong: {'x' * 40_000}\r\n\r\n"],
    ids=["no host", "nonsense", "long header"],
)
def test_what_is_no_request(front: Front, sent: str) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as plain:
        plain.sendall(sent.encode())
        said = b"".join(iter(lambda: plain.recv(4096), b"")).decode()
    assert '"code":"request_malformed"' in said
    assert MEDIA_TYPE in said or said.startswith("{")  # to HTTP/0.9 no headers are sent
    assert "<html" not in said


# What is passed on, and what is added


def test_the_sender_s_address_cannot_be_forged(front: Front) -> None:
    forged = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as elsewhere:
        elsewhere.get(f"http://127.0.0.1:{front.port}/info", headers=forged | {"X-Forwarded-Proto": "https"})
    got = next(stub.headers for stub in front.stubs if stub.seen)
    assert got["X-Forwarded-For"] == "127.0.0.2"
    assert got["X-Forwarded-Proto"] == "http"
    assert got["Host"] == f"127.0.0.1:{front.port}"
    assert not {"X-Real-IP", "Forwarded"} & set(got)


def test_request_ids(front: Front) -> None:
    sent = {"X-Request-ID": "mine-1"}
    front.client.get("/info", headers=sent)
    assert next(stub.headers for stub in front.stubs if stub.seen)["X-Request-ID"] == "mine-1"
    assert front.client.get("/metrics", headers=sent).headers["x-request-id"] == "mine-1"
    for bad in ('"}', "x" * 65, ""):
        assert re.fullmatch(
            "[0-9a-f]{32}", front.client.get("/metrics", headers={"X-Request-ID": bad}).json()["request_id"]
        )


def test_security_headers_are_set_once(front: Front) -> None:
    plain = front.client.get("/info").headers
    assert plain["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert (plain["x-frame-options"], plain["referrer-policy"]) == ("SAMEORIGIN", "no-referrer")
    assert plain["server"] in ("nginx", "BaseHTTP/0.6 Python/3.11")
    assert not re.search(r"nginx/\d", str(plain))
    assert "strict-transport-security" not in plain
    own = {"X_Content_Type_Options": "nosniff", "Content_Security_Policy": "default-src 'self'", "X_Request_ID": "a"}
    front.answer(lambda request: request.say(200, {}, **own))
    headers = front.client.get("/models/0a/report").headers
    for name, value in own.items():
        assert headers.get_list(name.replace("_", "-")) == [value]


def test_long_json_is_compressed_and_predictions_are_not(front: Front) -> None:
    asked = {"Accept-Encoding": "gzip"}
    with front.client.stream("GET", "/info", headers=asked) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert len(gzip.decompress(b"".join(response.iter_raw()))) > 2000
    assert "content-encoding" not in front.client.post("/predict", content=b"x", headers=asked).headers


def test_events_arrive_one_by_one(front: Front) -> None:
    sent = threading.Event()

    def events(request: Handler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(b"event: job\ndata: 1\n\n")
        assert sent.wait(10)
        request.wfile.write(b"event: job\ndata: 2\n\n")
        request.close_connection = True

    front.answer(events)
    with front.client.stream("GET", f"/retrain_jobs/{JOB}/events") as response:
        arriving = response.iter_text()
        assert "data: 1" in next(arriving)  # while the second was not sent yet
        sent.set()
        assert "data: 2" in "".join(arriving)


def test_the_page_is_below_ui_with_its_websocket(front: Front) -> None:
    sent = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert front.client.get("/ui/_stcore/stream", headers=sent).json()["answer"] == front.page.port
    assert (front.page.headers["Upgrade"], front.page.headers["Connection"]) == ("websocket", "upgrade")
    assert front.page.seen[0][1] == "/ui/_stcore/stream"
    for wanted in ({"Upgrade": "h2c", "Connection": "Upgrade"}, {}):
        front.client.get("/ui/", headers=wanted)
        assert "Upgrade" not in front.page.headers
    front.client.get("/info", headers=sent)
    assert "Upgrade" not in next(stub.headers for stub in front.stubs if stub.seen)
    moved = front.client.get("/ui")
    assert (moved.status_code, moved.headers["location"]) == (308, "/ui/")
    browser = front.client.get("/", headers={"Accept": "text/html,*/*"})
    assert (browser.status_code, browser.headers["location"]) == (302, "/ui/")
    assert front.client.get("/").json()["answer"] in [stub.port for stub in front.stubs]


def test_the_access_log_is_json_without_query_strings(front: Front) -> None:
    front.client.post("/predict?explain=true&class=glioma", content=b"x", headers={"X-Request-ID": "one"})
    front.client.get('/metrics?"key=secret', headers={"User-Agent": 'say "hi"'})
    time.sleep(0.1)
    text = (front.folder / "access.log").read_text()
    first, second = (json.loads(line) for line in text.splitlines())
    assert (first["request_id"], first["method"], first["path"], first["status"]) == ("one", "POST", "/predict", 200)
    assert first["upstream"] in [f"127.0.0.1:{stub.port}" for stub in front.stubs]
    assert float(first["upstream_seconds"]) <= float(first["seconds"]) + 0.01
    assert (second["path"], second["agent"]) == ("/metrics", 'say "hi"')
    assert not re.search("glioma|secret|explain", text)


# TLS


def certificate(folder: Path) -> Path:
    """Make a self-signed pair of files, as they would be mounted; return the certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    folder.mkdir(parents=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt"), "-days", "2"]
    command += ["-subj", "/CN=lesion.test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "tls.crt"


def test_the_redirect_of_the_listening_file_leads_to_the_published_port(idle: Front) -> None:
    [redirect] = re.findall(r"^# (if .*)$", (SOURCE / "listen.conf").read_text(), re.MULTILINE)
    front = idle.start({"access_log": f"{redirect} access_log"}, "listen.conf")
    sent = front.client.get("/models?x=1", headers={"Host": f"lesion.test:{front.port}"})
    service = yaml.safe_load((SOURCE.parent / "compose.yaml").read_text("utf-8"))["services"]["nginx"]
    [port] = re.findall(r"LESION_TLS_PORT:-(\d+)", str(service["ports"]))
    assert (sent.status_code, sent.headers["location"]) == (308, f"https://lesion.test:{port}/models?x=1")
    assert front.counts == [0, 0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_two_files_give_tls(front: Front) -> None:
    assert (front.folder / "conf" / "tls").resolve() == (SOURCE / "tls").resolve()
    (front.folder / "conf" / "tls").unlink()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{front.tls_port}/info", verify=False)  # nginx runs without them
    trusted = certificate(front.folder / "conf" / "tls")
    context = ssl.create_default_context(cafile=str(trusted))
    response = httpx.get(f"https://127.0.0.1:{front.tls_port}/info", verify=context)
    assert response.status_code == 200
    assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert next(stub.headers for stub in front.stubs if stub.seen)["X-Forwarded-Proto"] == "https"
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.create_default_context(cafile=str(trusted))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", front.tls_port)) as plain:
            try:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()
                assert taken
            except ssl.SSLError:
                assert not taken
    refusal(httpx.get(f"http://127.0.0.1:{front.tls_port}/info"), 400, "request_malformed")
