"""The service file of Cloud Run: a Knative Service whose Pod is one of Kubernetes, with settings that are ours."""

import copy
import re
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from omegaconf import OmegaConf

from lesion.core.version import __version__
from tests.support.manifests import DEPLOY, Manifest, amount, check_command, load, secret_keys, validate
from tests.support.paths import REPOSITORY, SCRIPTS

PAGE = (REPOSITORY / "docs" / "cloud_run.md").read_text("utf-8")
SETTINGS = OmegaConf.load(REPOSITORY / "configs" / "serve.yaml").server
LARGEST = 32 * 2**20  # of an HTTP/1 request, and of an answer that is not sent in chunks, to Cloud Run
OF_KNATIVE = ("containerConcurrency", "timeoutSeconds")  # in addition to those of a PodSpec
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ANNOTATIONS = {  # of a revision, as Cloud Run's reference names them
    "autoscaling.knative.dev/minScale",
    "autoscaling.knative.dev/maxScale",
    "run.googleapis.com/execution-environment",
    "run.googleapis.com/cpu-throttling",
    "run.googleapis.com/startup-cpu-boost",
    "run.googleapis.com/cloudsql-instances",
}


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": properties}


NUMBERS = {name: {"type": "integer", "minimum": 1} for name in OF_KNATIVE}
POD = {"type": "object", "required": ["containers"], "properties": NUMBERS}
REVISION = closed("spec", spec=POD, metadata=closed(annotations=TEXTS, labels=TEXTS, name=TEXT))
TRAFFIC = closed(percent={"type": "integer"}, latestRevision={"type": "boolean"}, revisionName=TEXT, tag=TEXT)
SHAPE = closed(
    *("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "serving.knative.dev/v1"},
    kind={"const": "Service"},
    metadata=closed("name", name=TEXT, labels=TEXTS, annotations=TEXTS),
    spec=closed("template", template=REVISION, traffic={"type": "array", "items": TRAFFIC}),
)


def check(service: Manifest) -> None:
    jsonschema.validate(service, SHAPE)
    inner = {name: value for name, value in service["spec"]["template"]["spec"].items() if name not in OF_KNATIVE}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": inner})


@pytest.fixture
def service() -> Manifest:
    (only,) = load(DEPLOY / "cloudrun" / "service.yaml")
    return only


@pytest.fixture
def pod(service: Manifest) -> Manifest:
    return dict(service["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: Manifest) -> Manifest:
    (only,) = pod["containers"]
    return dict(only)


@pytest.fixture
def settings(container: Manifest, tmp_path: Path) -> dict[str, str]:
    return check_command(container["args"], tmp_path)


def test_it_is_a_service(service: Manifest) -> None:
    check(service)
    assert set(service["spec"]["template"]["metadata"]["annotations"]) == ANNOTATIONS
    assert sum(one["percent"] for one in service["spec"]["traffic"]) == 100


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ((), "metadatas"),
        (("spec",), "trafic"),
        (("spec", "template"), "specs"),
        (("spec", "template", "spec"), "containerConcurency"),
        (("spec", "template", "spec", "containers", 0), "startProbe"),
        (("spec", "template", "spec", "containers", 0, "livenessProbe"), "period"),
    ],
)
def test_a_typo_is_refused(service: Manifest, place: tuple[str | int, ...], wrong: str) -> None:
    broken: Any = copy.deepcopy(service)
    reduce(getitem, place, broken)[wrong] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match=wrong):
        check(broken)


def test_it_takes_what_cloud_run_sends(pod: Manifest, container: Manifest, settings: dict[str, str]) -> None:
    assert pod["containerConcurrency"] <= int(settings["server.queue_size"])
    assert settings["host"] == "0.0.0.0"
    assert container["ports"] == [{"name": "http1", "containerPort": int(settings["port"])}]
    assert SETTINGS.max_body_bytes < int(settings["server.max_upload_bytes"]) <= LARGEST - 2**20
    assert SETTINGS.request_timeout < pod["timeoutSeconds"] <= 3600
    assert int(settings["server.workers"]) == amount(container["resources"]["limits"]["cpu"])


def test_probes_keep_to_what_cloud_run_allows(container: Manifest, settings: dict[str, str]) -> None:
    start, live = container["startupProbe"], container["livenessProbe"]
    assert "readinessProbe" not in container
    assert SETTINGS.start_timeout + 30 <= start["periodSeconds"] * start["failureThreshold"] <= 240
    for probe in (start, live):
        assert probe["httpGet"] == {"path": "/health/live", "port": int(settings["port"])}
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_secrets_are_named_and_explained(container: Manifest) -> None:
    plain = {one["name"] for one in container["env"] if "value" in one}
    text = (REPOSITORY / "configs" / "storage" / "cluster.yaml").read_text()
    wanted = set(re.findall(r"oc\.env:(\w+)", text)) | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert wanted <= {one["name"] for one in container["env"]}
    assert plain & wanted == {"LESION_FILES", "LESION_S3"}
    for name, _ in secret_keys(container):
        assert f"gcloud secrets create {name} " in PAGE


def test_what_it_writes_is_memory_and_bounded(pod: Manifest, container: Manifest, settings: dict[str, str]) -> None:
    (volume,) = pod["volumes"]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert amount(volume["emptyDir"]["sizeLimit"]) <= amount(container["resources"]["limits"]["memory"]) / 4
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": settings["storage_root"]}]


def test_the_image_has_this_version(container: Manifest) -> None:
    assert container["image"] == f"REGION-docker.pkg.dev/PROJECT/lesion/api:{__version__}"


def test_the_job_trains_no_model_unasked(tmp_path: Path) -> None:
    [arguments] = re.findall(r"--args=(python,scripts/prepare\.py\S*)", PAGE)
    assert check_command(arguments.split(","), tmp_path)["first_experiment"] == "null"
    assert PAGE.index("models.py import") < PAGE.index("jobs execute lesion-prepare")


def test_every_command_of_the_page_is_there() -> None:
    commands = re.findall(r"scripts/(\w+\.py)", PAGE)
    assert {"prepare.py", "worker.py", "retrain.py"} <= set(commands)
    assert all((SCRIPTS / name).is_file() for name in commands)
