"""The manifests of Kubernetes: valid, safe, and in agreement with the commands, limits and settings they speak of."""

import copy
import os
import re
import subprocess
import sys
import textwrap
import time
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from omegaconf import OmegaConf

from lesion.auth import api_keys
from lesion.cli import retrain
from lesion.core.version import __version__
from lesion.registry.registry import Registry
from lesion.retraining.worker import _END_S
from serve.routes.retrain import _SILENCE_S
from serve.server import UPLOAD_PATH
from serve.settings import ServerSettings
from tests.support.bundles.registry_bundles import sealed
from tests.support.images.loop_images import new_storage
from tests.support.manifests import (
    KUBERNETES,
    NEWEST,
    OLDEST,
    Manifest,
    all_containers,
    amount,
    check_command,
    containers,
    environment,
    load,
    matches,
    named,
    of_kind,
    pods,
    render,
    render_with,
    secret_keys,
    validate,
)
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # rendering and validating manifests takes seconds

BASE = sorted((KUBERNETES / "base").glob("*.yaml"))
SETTINGS = OmegaConf.load(REPOSITORY / "configs" / "serve.yaml").server
PAGE = (REPOSITORY / "docs" / "kubernetes.md").read_text("utf-8")
WORKLOADS = {"api", "worker", "ui", "prepare", "retrain"}
SERVING = {"api": "/health/live", "ui": "/_stcore/health"}
DOCKERFILE = (REPOSITORY / "serve" / "deploy" / "Dockerfile").read_text("utf-8")
STATE, USER = "/var/lib/lesion", 10001  # the images'
NGINX = "nginx.ingress.kubernetes.io/"


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def manifests(overlay: str) -> list[Manifest]:
    return render(KUBERNETES / "overlays" / overlay)


# Valid


def test_the_validator_refuses_a_field_with_a_typo() -> None:
    api = next(one for one in load(KUBERNETES / "base" / "api.yaml") if one["kind"] == "Deployment")
    validate(api)
    container = "spec", "template", "spec", "containers", 0
    for place, wrong in (((), "specs"), (container, "livenesProbe"), ((*container, "securityContext"), "runAsNonroot")):
        broken: Any = copy.deepcopy(api)
        reduce(getitem, place, broken)[wrong] = {}
        with pytest.raises(kubernetes_validate.ValidationError, match=wrong):
            validate(broken)


@pytest.mark.parametrize(
    "path", [path for path in BASE if path.name != "kustomization.yaml"], ids=lambda path: path.name
)
def test_files_of_the_base_are_valid(path: Path) -> None:
    for manifest in load(path):
        for version in (OLDEST, NEWEST):
            validate(manifest, version)


def test_rendered_overlays_are_valid(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        for version in (OLDEST, NEWEST):
            validate(manifest, version)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "lesion"
    assert set(pods(manifests)) == WORKLOADS


def test_every_file_of_the_base_is_used() -> None:
    used = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["resources"]
    assert sorted(used) == [path.name for path in BASE if path.name != "kustomization.yaml"]


# Safe


def test_pods_keep_to_the_restricted_profile(manifests: list[Manifest]) -> None:
    levels = named(manifests, "Namespace", "lesion")["metadata"]["labels"]
    assert levels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pods(manifests).items():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"]), name
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"]), name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, container["name"])


def test_no_pod_gets_a_token(manifests: list[Manifest]) -> None:
    for template in pods(manifests).values():
        assert template["spec"]["automountServiceAccountToken"] is False
        account = named(manifests, "ServiceAccount", template["spec"]["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False


def test_secrets_are_named_and_never_held(manifests: list[Manifest]) -> None:
    assert not of_kind(manifests, "Secret")
    for _, container in all_containers(manifests):
        assert not [one["name"] for one in container.get("env", []) if "value" in one], container["name"]
    for one in of_kind(manifests, "ConfigMap"):
        assert set(one["data"]) == {"LESION_FILES", "LESION_S3"}


def test_every_secret_is_explained_with_its_command(manifests: list[Manifest]) -> None:
    asked = {pair for _, one in all_containers(manifests) for pair in secret_keys(one)}
    asked |= {(tls["secretName"], "tls.key") for one in of_kind(manifests, "Ingress") for tls in one["spec"]["tls"]}
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    assert len(asked) == 8
    for name, key in asked:
        assert re.search(rf"create secret \w+ {name}\b", blocks), name
        assert key in blocks, key


# In agreement with each other


def test_labels_lead_to_pods(manifests: list[Manifest]) -> None:
    found = {name: template["metadata"]["labels"] for name, template in pods(manifests).items()}
    assert len({labels["app.kubernetes.io/component"] for labels in found.values()}) == len(found)
    for one in manifests:
        spec, name = one.get("spec", {}), one["metadata"]["name"]
        if one["kind"] == "Deployment":
            chosen = [each for each, labels in found.items() if matches(spec["selector"], labels)]
            assert chosen == [name]
            for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
                assert matches(constraint["labelSelector"], found[name])
        elif one["kind"] == "Service":
            assert [each for each, labels in found.items() if matches({"matchLabels": spec["selector"]}, labels)] == [
                name
            ]
        elif one["kind"] == "PodDisruptionBudget":
            assert [each for each, labels in found.items() if matches(spec["selector"], labels)] == [name]
            assert named(manifests, "Deployment", name)
            assert spec["maxUnavailable"] == 1


def test_services_and_ingresses_lead_to_ports(manifests: list[Manifest]) -> None:
    for name in SERVING:
        container = pods(manifests)[name]["spec"]["containers"][0]
        port = named(manifests, "Service", name)["spec"]["ports"][0]
        assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    backends = [
        (path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"])
        for one in of_kind(manifests, "Ingress")
        for rule in one["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert set(backends) == {("api", "http"), ("ui", "http")}
    for one in of_kind(manifests, "Ingress"):
        assert [rule["host"] for rule in one["spec"]["rules"]] == one["spec"]["tls"][0]["hosts"]


def test_what_serves_is_probed_in_three_ways(manifests: list[Manifest]) -> None:
    for name, container in all_containers(manifests):
        probes = {kind: container[kind] for kind in container if kind.endswith("Probe")}
        if "ports" not in container:
            assert not probes, container["name"]
            continue
        assert set(probes) == {"startupProbe", "livenessProbe", "readinessProbe"}
        assert {probe["httpGet"]["port"] for probe in probes.values()} == {"http"}
        paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
        assert paths["livenessProbe"] == paths["startupProbe"] == SERVING[name]
        assert paths["readinessProbe"] == ("/health" if name == "api" else SERVING[name])
        assert probes["livenessProbe"]["periodSeconds"] * probes["livenessProbe"]["failureThreshold"] >= 30


def test_a_server_may_take_its_time_to_start(manifests: list[Manifest], tmp_path: Path) -> None:
    container = pods(manifests)["api"]["spec"]["containers"][0]
    limit = check_command(container["args"], tmp_path).get("server.start_timeout", SETTINGS.start_timeout)
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= float(limit) + 30


def test_there_is_time_to_end(manifests: list[Manifest]) -> None:
    found = pods(manifests)
    for name, own in (("api", ServerSettings().drain_timeout), ("ui", 5)):
        pause = found[name]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause >= 5, "endpoints are removed meanwhile"
        assert found[name]["spec"]["terminationGracePeriodSeconds"] >= pause + own + 10
    assert found["worker"]["spec"]["terminationGracePeriodSeconds"] >= _END_S + 10 + 10  # its training's own 10 s


def test_resources_are_asked_for_and_bounded(manifests: list[Manifest], tmp_path: Path) -> None:
    for name, container in all_containers(manifests):
        asked, bound = container["resources"]["requests"], container["resources"]["limits"]
        assert set(asked) == {"cpu", "memory"}, name
        assert set(asked) <= set(bound) <= {*asked, "nvidia.com/gpu"}, name
        assert all(amount(asked[what]) <= amount(bound[what]) for what in asked), name
    api, worker = (pods(manifests)[name]["spec"]["containers"][0] for name in ("api", "worker"))
    workers = int(check_command(api["args"], tmp_path)["server.workers"])
    assert amount(api["resources"]["requests"]["cpu"]) == workers
    assert amount(api["resources"]["limits"]["cpu"]) > workers
    threads = int(check_command(worker["args"], tmp_path)["retrain.threads"])
    assert amount(worker["resources"]["limits"]["cpu"]) == threads


def test_images_are_what_the_manifests_take_them_for(manifests: list[Manifest]) -> None:
    assert f"USER {USER}:{USER}" in DOCKERFILE
    assert f"-m 0750 {STATE}" in DOCKERFILE
    assert 'ENTRYPOINT ["tini", "--"]' in DOCKERFILE  # args take the place of CMD alone
    targets = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    images = {one["image"].rpartition("/")[2].partition(":")[0] for _, one in all_containers(manifests)}
    assert images <= targets


def test_images_have_this_version(manifests: list[Manifest], overlay: str) -> None:
    for name, container in all_containers(manifests):
        target = {"prepare": "worker", "retrain": "ui"}.get(name, name)
        suffix = "-gpu" if overlay == "gpu" and target != "ui" else ""
        assert container["image"] == f"registry.example.org/lesion/{target}{suffix}:{__version__}"


def test_gpus_are_asked_for_where_they_are_used(manifests: list[Manifest], overlay: str, tmp_path: Path) -> None:
    for name, template in pods(manifests).items():
        gpus = [one["resources"]["limits"].get("nvidia.com/gpu", 0) for one in template["spec"]["containers"]]
        on_gpu = overlay == "gpu" and name in ("api", "worker")
        assert gpus == [1 if on_gpu else 0], name
        tolerated = [one["key"] for one in template["spec"].get("tolerations", [])]
        assert tolerated == (["nvidia.com/gpu"] if on_gpu else []), name
    settings = check_command(pods(manifests)["api"]["spec"]["containers"][0]["args"], tmp_path)
    assert settings["server.device"] == {"cpu": "cpu", "gpu": "cuda"}[overlay]
    update = named(manifests, "Deployment", "api")["spec"]["strategy"]["rollingUpdate"]
    assert update == (
        {"maxUnavailable": 0, "maxSurge": 1} if overlay == "cpu" else {"maxUnavailable": 1, "maxSurge": 0}
    )


def test_the_autoscaler_has_what_it_needs(manifests: list[Manifest]) -> None:
    scaler = named(manifests, "HorizontalPodAutoscaler", "api")["spec"]
    target = scaler["scaleTargetRef"]
    deployment = named(manifests, target["kind"], target["name"])
    assert "replicas" not in deployment["spec"]  # an apply would undo what the autoscaler did
    assert scaler["minReplicas"] < scaler["maxReplicas"]
    update = deployment["spec"]["strategy"]["rollingUpdate"]
    assert scaler["minReplicas"] > update["maxUnavailable"], "nobody would answer during an update"
    queue, cpu = scaler["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["as"] == queue["pods"]["metric"]["name"] == "lesion_queue_depth"
    assert re.match(r"lesion_queue_depth\{", rule["seriesQuery"])
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert int(queue["pods"]["target"]["averageValue"]) < SETTINGS.queue_size / 4  # long before requests are refused
    up, down = scaler["behavior"]["scaleUp"], scaler["behavior"]["scaleDown"]
    assert up["stabilizationWindowSeconds"] == 0
    assert down["stabilizationWindowSeconds"] >= 300
    assert [policy["value"] for policy in down["policies"]] == [1]


# In agreement with the program


def test_commands_and_settings_are_there(manifests: list[Manifest], tmp_path: Path) -> None:
    for name, template in pods(manifests).items():
        for container in containers(template):
            if "initContainers" in template["spec"] and container["args"][0] == "sh":
                continue  # see test_a_server_waits_for_the_first_model
            assert "command" not in container, "it would go around the image's init"
            settings = check_command(container["args"], tmp_path)
            if name in ("api", "worker", "prepare"):
                assert (settings["storage"], settings["storage_root"]) == ("cluster", STATE)
                assert {"name": "state", "mountPath": STATE} in container["volumeMounts"]
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    settings = check_command(pods(manifests)["api"]["spec"]["containers"][0]["args"], tmp_path)
    assert (settings["host"], settings["port"]) == ("0.0.0.0", "8000")


def test_a_first_model_is_trained_only_where_it_is_asked_for(
    manifests: list[Manifest], overlay: str, tmp_path: Path
) -> None:
    def experiment(found: list[Manifest]) -> str:
        return check_command(pods(found)["prepare"]["spec"]["containers"][0]["args"], tmp_path)["first_experiment"]

    assert experiment(manifests) == "null"
    assert experiment(render_with(tmp_path, overlay, "components/phantoms")) == "phantom_mri"


def test_the_page_and_the_schedule_are_started_with_arguments_they_take(manifests: list[Manifest]) -> None:
    api = named(manifests, "Service", "api")["spec"]["ports"][0]["port"]
    ui = pods(manifests)["ui"]["spec"]["containers"][0]["args"]
    assert ui[1:] == ["scripts/ui.py", "--api", f"http://api:{api}", "--host", "0.0.0.0", "--port", "8501"]
    cron = named(manifests, "CronJob", "retrain")["spec"]
    options = retrain._parser().parse_args(pods(manifests)["retrain"]["spec"]["containers"][0]["args"][2:])
    assert options.address == f"http://api:{api}"
    assert options.wait < cron["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert cron["concurrencyPolicy"] == "Forbid"


def test_the_environment_is_complete(manifests: list[Manifest]) -> None:
    text = (REPOSITORY / "configs" / "storage" / "cluster.yaml").read_text()
    every = set(re.findall(r"oc\.env:(\w+)", text)) | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    storage = every - {"LESION_IDENTITY_KEY"}  # only for those that store images
    wanted = {
        "api": every,
        "wait-for-prepare": storage,
        "worker": storage,
        "prepare": every | {"LESION_ADMIN_KEY", "LESION_METRICS_KEY"},
        "retrain": {"LESION_API_KEY"},
        "ui": set(),
    }
    for _, container in all_containers(manifests):
        assert environment(container, manifests) == wanted[container["name"]], container["name"]


def test_a_server_waits_for_the_first_model_and_key(manifests: list[Manifest], tmp_path: Path) -> None:
    scripts = {
        one["args"][2]
        for template in pods(manifests).values()
        for one in template["spec"].get("initContainers", [])
        if one["args"][:2] == ["sh", "-c"]
    }
    assert len(scripts) == 1  # the same for servers and workers
    script = scripts.pop().replace(STATE, str(tmp_path)).replace("sleep 5", "sleep 0.1")
    storage = new_storage(tmp_path / "loop")
    variables = {"LESION_DATABASE": storage.database, "LESION_FILES": storage.files}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    waiting = subprocess.Popen(
        ["sh", "-c", script], cwd=REPOSITORY, env=os.environ | variables, stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    registry, words = Registry(storage), "There is no model or no key yet; see the log of the Job prepare.\n"
    for step in (
        lambda: None,
        lambda: registry.deploy_first(registry.register(sealed(tmp_path / "bundle")), "ann", "the first"),
    ):
        step()
        assert [waiting.stdout.readline() for _ in range(3)] == [words] * 3  # also when the model is imported before
        assert waiting.poll() is None
    api_keys.create(storage, "first", "admin", "ann")
    began = time.monotonic()
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert time.monotonic() - began < 60


def test_the_ingress_lets_through_what_the_api_takes(manifests: list[Manifest]) -> None:
    def rules(name: str) -> dict[str, str]:
        found = named(manifests, "Ingress", name)["metadata"]["annotations"]
        assert all(key.startswith(NGINX) and isinstance(value, str) for key, value in found.items())
        return {key.removeprefix(NGINX): value for key, value in found.items()}

    def path(name: str) -> tuple[str, str]:
        (only,) = named(manifests, "Ingress", name)["spec"]["rules"][0]["http"]["paths"]
        return only["path"], only["pathType"]

    assert (path("api"), path("api-predict")) == (("/", "Prefix"), ("/predict", "Exact"))
    assert path("api-uploads") == (UPLOAD_PATH, "Exact")
    for name in ("api", "api-predict"):
        assert rules(name)["proxy-body-size"] == f"{SETTINGS.max_body_bytes // 2**20}m"
        assert float(rules(name)["proxy-read-timeout"]) > max(SETTINGS.request_timeout, _SILENCE_S)
    assert rules("api-uploads")["proxy-body-size"] == f"{SETTINGS.max_upload_bytes // 2**20}m"
    assert float(rules("api-uploads")["proxy-read-timeout"]) == 900
    assert rules("api")["proxy-buffering"] == "off"
    repeats = {
        name for name in ("api", "api-predict", "api-uploads") if "non_idem" in rules(name)["proxy-next-upstream"]
    }
    assert repeats == {"api-predict"}
    assert (path("api-metrics"), rules("api-metrics")["denylist-source-range"]) == (
        ("/metrics", "Prefix"),
        "0.0.0.0/0,::/0",
    )
    limits = (KUBERNETES.parent / "nginx" / "limits.conf").read_text("utf-8")
    (rate,), (burst,), (connections,) = (
        re.findall(pattern, limits) for pattern in (r"rate=(\d+)r/s", r"burst=(\d+)", r"limit_conn \w+ (\d+)")
    )
    for name in ("api", "api-predict", "api-uploads", "ui"):
        found = rules(name)
        assert (found["limit-rps"], found["limit-connections"]) == (rate, connections), name
        assert int(found["limit-rps"]) * int(found["limit-burst-multiplier"]) == int(burst), name
    assert rules("ui")["affinity"] == "cookie"
    assert rules("ui")["session-cookie-secure"] == "true"


# What may flow

CONTROLLER = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}
OUTSIDE = {
    "nginx": ("ingress-nginx", CONTROLLER),
    "prometheus": ("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "stranger": ("other", {"app.kubernetes.io/name": "lesion", "app.kubernetes.io/component": "ui"}),
}
FLOWS = {("nginx", "api", 8000), ("prometheus", "api", 8000), ("ui", "api", 8000), ("retrain", "api", 8000)}
FLOWS |= {("nginx", "ui", 8501)}
FLOWS |= {(name, "internet", port) for name in ("api", "worker", "prepare") for port in (443, 5432)}
FLOWS |= {(name, "dns", 53) for name in WORKLOADS}


def test_what_flows_is_what_should(manifests: list[Manifest]) -> None:
    ours = {name: template["metadata"]["labels"] for name, template in pods(manifests).items()}
    policies = [one["spec"] for one in of_kind(manifests, "NetworkPolicy")]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    everybody = [*ours, *OUTSIDE, "internet", "metadata"]
    flows = {
        (source, target, port)
        for source in everybody
        for target in everybody
        for port in (53, 80, 443, 5432, 8000, 8501)
        if (source in ours or target in ours) and source not in ("internet", "metadata")
        if all(
            _allowed(policies, ours, end, other, direction, port)
            for end, other, direction in ((source, target, "egress"), (target, source, "ingress"))
            if end in ours
        )
    }
    assert flows == FLOWS


def _allowed(policies: list[Manifest], ours: dict[str, Any], end: str, other: str, direction: str, port: int) -> bool:
    peers = {"ingress": "from", "egress": "to"}[direction]
    rules = [
        rule
        for policy in policies
        if matches(policy["podSelector"], ours[end]) and direction.capitalize() in policy["policyTypes"]
        for rule in policy.get(direction, [])
    ]
    numbers = {"http": 8501 if end == "ui" else 8000}  # a name is one of the Pod that is asked
    return any(
        any(_is(peer, ours, other) for peer in rule[peers])
        and port in [numbers.get(one["port"], one["port"]) for one in rule["ports"]]
        for rule in rules
    )


def _is(peer: Manifest, ours: dict[str, Any], name: str) -> bool:
    if "ipBlock" in peer:
        assert peer["ipBlock"] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
        return name == "internet"
    space, labels = OUTSIDE.get(name, ("lesion", ours.get(name, {})))
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": space}):
            return False
    elif space != "lesion":
        return False
    return bool(labels) and matches(peer.get("podSelector", {}), labels)


# Components


def test_without_an_adapter_the_processor_alone_decides(overlay: str, tmp_path: Path) -> None:
    manifests = render_with(tmp_path, overlay, "components/without-adapter")
    scaler = named(manifests, "HorizontalPodAutoscaler", "api")
    validate(scaler)
    assert [metric["type"] for metric in scaler["spec"]["metrics"]] == ["Resource"]


def test_the_pod_monitor_asks_every_replica_with_its_key(overlay: str, tmp_path: Path) -> None:
    manifests = render_with(tmp_path, overlay, "components/pod-monitor")
    spec = named(manifests, "PodMonitor", "api")["spec"]  # a CRD, of which kubernetes-validate has no schema
    assert set(spec) == {"selector", "podMetricsEndpoints"}
    found = pods(manifests)
    assert [name for name in found if matches(spec["selector"], found[name]["metadata"]["labels"])] == ["api"]
    (endpoint,) = spec["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "path", "interval", "scrapeTimeout", "authorization", "relabelings"}
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    credentials = endpoint["authorization"]["credentials"]
    prepared = {pair for one in containers(found["prepare"]) for pair in secret_keys(one)}
    assert (credentials["name"], credentials["key"]) in prepared
    assert endpoint["authorization"]["type"] == "Bearer"


def test_prometheus_of_another_namespace_gets_the_viewer_s_key_alone() -> None:
    (key_file,) = re.findall(r"credentials_file: ([^}]+)}", PAGE)
    secret, key = Path(key_file).parts[-2:]
    (command,) = re.findall(r"^ *(kubectl .*?\n.*create secret generic lesion-metrics .*)$", PAGE, re.MULTILINE)
    assert secret == "lesion-metrics"
    assert "-n monitoring create secret" in command
    assert re.findall(r"--from-\S+", command) == [f"--from-file={key}=/dev/stdin"]
    assert re.findall(r"LESION_\w+_KEY", command) == ["LESION_METRICS_KEY"]


def test_the_page_s_headers_are_nginx_s(overlay: str, tmp_path: Path) -> None:
    manifests = render_with(tmp_path, overlay, "components/page-headers")
    headers = named(manifests, "ConfigMap", "page-headers")
    validate(headers)
    place = f"{headers['metadata']['namespace']}/{headers['metadata']['name']}"
    asking = [
        one["metadata"]["name"]
        for one in of_kind(manifests, "Ingress")
        if one["metadata"]["annotations"].get(f"{NGINX}custom-headers") == place
    ]
    assert asking == ["ui"]
    folder = KUBERNETES.parent / "nginx"
    added = dict(re.findall(r"add_header (\S+) (\S+) always;", (folder / "nginx.conf").read_text("utf-8")))
    (policy,) = re.findall(r'"~\^/ui/" "(default-src[^"]+)"', (folder / "variables.conf").read_text("utf-8"))
    assert headers["data"] == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": added["X-Frame-Options"],
        "Referrer-Policy": added["Referrer-Policy"],
        "Content-Security-Policy": policy,
    }
    (allowed,) = re.findall(r"global-allowed-response-headers: ([\w,-]+)`", PAGE)
    assert set(allowed.split(",")) == set(headers["data"])


def test_the_example_of_an_own_overlay_renders(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n( *apiVersion: kustomize.*?)```", PAGE, re.DOTALL)
    place = os.path.relpath(KUBERNETES, tmp_path.resolve())
    own = textwrap.dedent(text).replace("lesion/serve/deploy/kubernetes", place)
    (tmp_path / "kustomization.yaml").write_text(own)
    (tmp_path / "config.env").write_text("LESION_FILES=s3://mine/loop\n")
    manifests = render(tmp_path)
    for manifest in manifests:
        if manifest["kind"] != "PodMonitor":
            validate(manifest)
    hosts = {rule["host"] for one in of_kind(manifests, "Ingress") for rule in one["spec"]["rules"]}
    assert hosts == {"lesion.hospital.example", "api.lesion.hospital.example"}
    (config,) = of_kind(manifests, "ConfigMap")
    assert config["data"]["LESION_FILES"] == "s3://mine/loop"
    blocks = [
        peer["ipBlock"]["cidr"]
        for rule in named(manifests, "NetworkPolicy", "to-database-and-store")["spec"]["egress"]
        for peer in rule["to"]
    ]
    assert "0.0.0.0/0" not in blocks
