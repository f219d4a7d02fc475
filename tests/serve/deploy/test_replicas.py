"""Three real API replicas behind a real nginx: killed, drained, replaced and swapped under load."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from lesion.core.errors import ConfigError, LesionError
from lesion.registry.registry import Registry
from serve.deploy.balancer import nginx_program
from serve.deploy.ports import free_port
from serve.deploy.processes import Plan, ProcessRecord, end, read_state, start, write_state
from serve.deploy.replicas import Replicas
from tests.support.bundles.lamp_bundles import lamp
from tests.support.images.hostile import encode
from tests.support.images.loop_images import new_storage
from tests.support.images.pictures import picture
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.servers.serving import eventually
from tests.support.servers.traffic import Traffic

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

try:
    nginx_program()
except ConfigError:
    pytest.skip("nginx is not installed (apt-get install nginx)", allow_module_level=True)

COUNT = 3
IMAGE = encode(picture(1))


@dataclass
class Cluster:
    """The replicas, their storage, and two versions of which the first serves."""

    replicas: Replicas
    registry: Registry
    versions: list[str]

    @property
    def url(self) -> str:
        return self.replicas.plan.address

    def serving(self) -> set[str | None]:
        """The versions that all inference workers and API processes serve."""
        health = [httpx.get(f"http://127.0.0.1:{member.port}/health").json() for member in self.replicas.apis]
        return {version for one in health for version in (*one["workers"]["versions"], one["model_version"])}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("replicas")
    storage = new_storage(folder / "loop")
    registry = Registry(storage)
    versions = [registry.register(lamp(folder / f"lamp{gain}", gain)) for gain in (0.05, 0.03)]
    registry.deploy_first(versions[0], "ann", "the first")
    replicas = Replicas(folder / "state")
    host = "0.0.0.0"
    plan = Plan(port=free_port(), host=host, storage_root=str(folder / "loop"), worker=False, page_port=None)
    replicas.start(COUNT, plan)
    try:
        yield Cluster(replicas, registry, versions)
    finally:
        replicas.stop()
        storage.engine.dispose()


def test_a_killed_replica_costs_no_request_and_is_mended(cluster: Cluster) -> None:
    with Traffic(cluster.url, [IMAGE], clients=6) as traffic:
        victim = cluster.replicas.apis[0]
        os.killpg(victim.pid, signal.SIGKILL)
        traffic.wait_for(100)
        status = {row["name"]: row["alive"] for row in cluster.replicas.status()}
        assert [name for name, alive in status.items() if not alive] == [victim.name]
    cluster.replicas.scale(COUNT)  # a reload, see below
    assert len(cluster.replicas.apis) == COUNT
    assert all(row["alive"] for row in cluster.replicas.status())
    assert cluster.serving() == {cluster.versions[0]}


def test_a_drained_replica_costs_no_request(cluster: Cluster) -> None:
    """As a container is stopped: nginx does not know."""
    with Traffic(cluster.url, [IMAGE], clients=6) as traffic:
        drained = cluster.replicas.apis[0]
        os.kill(drained.pid, signal.SIGTERM)
        eventually(lambda: not drained.alive)
        traffic.wait_for(60)
    cluster.replicas.scale(COUNT)


def test_replicas_are_replaced_one_by_one_without_a_failure(cluster: Cluster) -> None:
    """Each request on a connection of its own: nginx closes idle ones at a reload, at which a client may be writing."""
    before = {member.pid for member in cluster.replicas.apis}
    with Traffic(cluster.url, [IMAGE], clients=6, kept=False, pause=0.03):
        cluster.replicas.restart()
    after = {member.pid for member in cluster.replicas.apis}
    assert len(after) == COUNT
    assert not before & after
    assert not [
        pid for pid in before if psutil.pid_exists(pid) and "lesion serve" in " ".join(psutil.Process(pid).cmdline())
    ]


def test_every_replica_swaps_to_a_promoted_model_within_five_seconds(cluster: Cluster) -> None:
    champion = cluster.registry.champion()
    assert champion is not None
    assert cluster.serving() == {champion.version}
    with Traffic(cluster.url, [IMAGE], clients=2), httpx.Client(base_url=cluster.url, timeout=30) as client:
        for version in (cluster.versions[1], cluster.versions[0]):
            answer = client.post(f"/models/{version}/promote", json={"reason": "better"})
            promoted = time.monotonic()
            assert answer.status_code == 200, answer.text
            eventually(lambda wanted=version: cluster.serving() == {wanted}, 5)
            print(f"swapped {time.monotonic() - promoted:.2f} s after the promotion")


def test_replicas_answer_one_machine_s_programs_alone(cluster: Cluster) -> None:
    """Without keys they trust loopback; nginx is on it, and must not make its own senders seem to be."""
    found = [each for card in psutil.net_if_addrs().values() for each in card if each.family == socket.AF_INET]
    addresses = {each.address for each in found if not each.address.startswith("127.")}
    if not addresses:
        pytest.skip("this machine has no network address besides 127.0.0.1")
    url = f"http://{addresses.pop()}:{cluster.replicas.plan.port}"
    assert httpx.get(f"{cluster.url}/info").status_code == 200
    for forged in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1, ::1"}):
        refused = httpx.get(f"{url}/info", headers=forged)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_local")


def test_another_process_finds_scales_and_stops_it(tmp_path: Path) -> None:
    """The launcher's process is gone, as after a crash; what it started is found by what it wrote."""
    state, port = tmp_path / "state", free_port()
    command = [sys.executable, str(SCRIPTS / "lib" / "replicas.py"), "--state", str(state)]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=200, check=False)

    bundle = lamp(tmp_path / "lamp", 0.05)
    started = call("start", "1", "--port", str(port), "--bundle", str(bundle), "--storage", "none", "--no-page")
    assert started.returncode == 0, started.stderr
    assert f"http://127.0.0.1:{port}" in started.stdout
    assert "It runs already" in call("start").stderr
    assert call("scale", "2").returncode == 0
    replicas = Replicas(state)
    assert [row["name"] for row in replicas.status()] == ["api-1", "nginx", "api-2"]
    assert httpx.post(f"{replicas.plan.address}/predict", content=IMAGE).status_code == 200
    nginx = next(member for member in replicas.processes if member.name == "nginx")
    os.kill(nginx.pid, signal.SIGKILL)
    eventually(lambda: not nginx.alive)
    assert call("status").returncode == 1
    assert call("scale", "1").returncode == 0
    assert [row["name"] for row in Replicas(state).status()] == ["api-1", "nginx"]
    assert httpx.get(f"{replicas.plan.address}/info").status_code == 200
    family: list[int] = []
    for member in Replicas(state).processes:
        process = member.process
        assert process is not None
        family += [process.pid, *(child.pid for child in process.children(recursive=True))]
    assert call("stop").stdout == "Nothing runs.\n"
    assert not [pid for pid in family if psutil.pid_exists(pid)]
    assert read_state(state)[1] == []
    assert "not_started" in call("scale", "2").stderr


def test_a_model_that_is_not_there_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    replicas = Replicas(tmp_path)
    plan = Plan(port=free_port(), bundle=str(tmp_path / "none"), storage="none", page_port=None)
    with pytest.raises(LesionError) as caught:
        replicas.start(2, plan)
    assert caught.value.code == "member_ended"
    assert str(tmp_path / "none") in caught.value.message
    assert replicas.processes == []


def test_only_its_own_processes_are_ended(tmp_path: Path) -> None:
    other = start("sleep", ["sleep", "60"], tmp_path / "log", folder=tmp_path)
    mine = start("sleep", ["sleep", "60"], tmp_path / "log", folder=tmp_path)
    write_state(tmp_path, Plan(), [ProcessRecord("api-1", other.pid, other.started - 10.0), mine])
    Replicas(tmp_path).stop()
    assert other.alive
    assert not mine.alive
    end([other])
    assert not other.alive


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError) as caught:
            Replicas(tmp_path).start(1, Plan(port=taken.getsockname()[1]))
    assert caught.value.code == "port_taken"
    assert not list(tmp_path.glob("logs/*"))
    with pytest.raises(ConfigError):
        Replicas(tmp_path).start(0, Plan())


@pytest.mark.parametrize("name", ["start", "scale", "stop"])
def test_the_shell_scripts_say_how_they_are_used(name: str) -> None:
    done = subprocess.run(["bash", str(SCRIPTS / f"{name}.sh"), "--wrong"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: bash scripts/{name}.sh")


def copy_files(folder: Path, *names: str) -> None:
    """Copy files of the repository to the same places in a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)


def test_secrets_are_made_once_for_this_machine_alone(tmp_path: Path) -> None:
    copy_files(tmp_path, "scripts/lib/deploying.sh", "serve/deploy/.env.example")
    line = "set -euo pipefail; source scripts/lib/deploying.sh; make_secrets"
    made = []
    for _ in range(2):
        subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True)
        made.append((tmp_path / "serve/deploy/.env").read_text())
    assert made[0] == made[1]
    assert (tmp_path / "serve/deploy/.env").stat().st_mode & 0o777 == 0o600
    secrets = dict(each.split("=") for each in made[0].splitlines())
    compose = (REPOSITORY / "serve/deploy/compose.yaml").read_text()
    assert set(secrets) == set(re.findall(r"\$\{(LESION_\w+):\?", compose))
    assert re.fullmatch("lesion_[0-9a-f]{16}_[0-9a-f]{64}", secrets["LESION_ADMIN_KEY"])
    assert len(set(secrets.values())) == len(secrets)
    assert all(len(value) >= 48 for value in secrets.values())


@pytest.mark.long
@pytest.mark.alone
def test_the_bench_measures_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "bench" / "replicas.py"), "--replicas", "1", "--users", "10"]
    command += ["--run-time", "4", "--out", str(tmp_path / "out"), "--bundle", str(lamp(tmp_path / "lamp", 0.05))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    names, row = (line.split(",") for line in (tmp_path / "out" / "table.csv").read_text().split())
    measured = dict(zip(names, map(float, row), strict=True))
    assert (measured["replicas"], measured["success_percent"]) == (1, 100)
    assert measured["requests"] > 20
    assert measured["requests_per_s"] == pytest.approx(measured["requests"] / 4, rel=0.5)
    assert 0 < measured["p50_ms"] <= measured["p95_ms"] <= measured["p99_ms"] <= measured["maximum_ms"] + 10
    assert measured["api_cpu_ms"] > measured["nginx_cpu_ms"] > 0
    assert f"{len(os.sched_getaffinity(0))} cores" in done.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?(http|//)", page)
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    required = subprocess.run([*command, "--require", "--users", "1"], capture_output=True, text=True, timeout=200)
    assert required.returncode == 1, required.stdout  # one user cannot ask for that much
    assert "97.5 requests/s" in required.stderr


@pytest.mark.parametrize("engine", [True, False])
def test_containers_where_a_docker_engine_answers(tmp_path: Path, engine: bool) -> None:
    """A stand-in for docker's client writes down what it is asked; there is no engine in the tests."""
    scripts = [f"scripts/{name}.sh" for name in ("lib/deploying", "start", "scale", "stop")]
    copy_files(tmp_path, *scripts, "serve/deploy/.env.example")
    (tmp_path / "scripts/lib/setup.sh").write_text('python() { echo python "$@"; exit; }; exec() { "$@"; }')
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    ending = "echo an-id" if engine else "exit 1"  # one replica of everything, whatever was asked for
    docker.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n{ending}\n')
    docker.chmod(0o755)

    def call(*arguments: str) -> str:
        environment = os.environ | {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    said = call("scripts/start.sh", "3") + call("scripts/scale.sh", "5") + call("scripts/stop.sh")
    asked = [line for line in (tmp_path / "asked").read_text().splitlines() if re.search(" (up|down)", line)]
    common = "compose --env-file serve/deploy/.env -f serve/deploy/compose.yaml"
    scaling = [f"{common} up -d --wait --no-recreate --scale api={count}" for count in (2, 3, 4, 5)]  # one at a time
    assert asked == ([f"{common} up -d --build --wait", *scaling, f"{common} down"] if engine else [])
    assert ("containers" in said) == engine
    if engine:
        secrets = tmp_path / "serve/deploy/.env"
        assert secrets.stat().st_mode & 0o777 == 0o600
        lines = secrets.read_text().splitlines()
        assert [line for line in lines if "REPLICAS" in line] == ["LESION_API_REPLICAS=5"]
        assert {line.split("=")[0] for line in lines} >= {"LESION_ADMIN_KEY", "LESION_DATABASE_PASSWORD"}
        assert "LESION_API_REPLICAS=5" in call("scripts/start.sh")  # as it was before it was stopped
    assert ("python scripts/lib/replicas.py start 3 --port 8080 --page-port 8501" in said) != engine
    assert ("python scripts/lib/replicas.py scale 5" in said) != engine
