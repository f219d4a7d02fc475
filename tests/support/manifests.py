"""Reads, renders and checks manifests of Kubernetes for tests."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.paths import REPOSITORY
from tests.support.training_runs import compose_config

DEPLOY = REPOSITORY / "serve" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OLDEST, NEWEST = "1.30", "1.37"  # what docs/kubernetes.md promises; kubernetes-validate has both
POD = ("spec", "template")
TEMPLATES = {"Deployment": POD, "Job": POD, "CronJob": ("spec", "jobTemplate", *POD)}
CONFIGS = {"serve.py": "serve", "worker.py": "worker", "prepare.py": "prepare", "models.py": "loop"}
Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def validate(manifest: Manifest, version: str = NEWEST) -> None:
    """Refuse what Kubernetes' schema does not allow, unknown fields included."""
    kubernetes_validate.validate(manifest, version, strict=True)


def render(folder: Path) -> list[Manifest]:
    """What ``kubectl kustomize`` makes of a folder; skips where it cannot be had."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed (apt-get install kubernetes-client, or from kubernetes.io)")
    known = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    version = str(json.loads(known.stdout or "{}").get("kustomizeVersion", "none"))
    if not re.match(r"v([4-9]|\d\d)\.", version):
        pytest.skip(f"kubectl's own kustomize is '{version}', and components need 4 or newer")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def render_with(folder: Path, overlay: str, *components: str) -> list[Manifest]:
    """An overlay with components, as somebody's own kustomization in ``folder`` would have it."""
    place = os.path.relpath(KUBERNETES, folder.resolve())
    document = {"resources": [f"{place}/overlays/{overlay}"], "components": [f"{place}/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return render(folder)


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def named(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    found = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def pods(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The Pod templates by the names of their workloads."""
    found = [one for one in manifests if one["kind"] in TEMPLATES]
    return {one["metadata"]["name"]: reduce(getitem, TEMPLATES[one["kind"]], one) for one in found}


def containers(template: Manifest) -> Iterator[Manifest]:
    yield from template["spec"].get("initContainers", [])
    yield from template["spec"]["containers"]


def all_containers(manifests: Sequence[Manifest]) -> list[tuple[str, Manifest]]:
    """Every container with the name of its workload."""
    return [(name, one) for name, template in pods(manifests).items() for one in containers(template)]


def environment(container: Manifest, manifests: Sequence[Manifest]) -> set[str]:
    """The names of a container's environment variables, those of its ConfigMaps included."""
    names = {one["name"] for one in container.get("env", [])}
    for source in container.get("envFrom", []):
        names |= set(named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"])
    return names


def secret_keys(container: Manifest) -> set[tuple[str, str]]:
    """The names and keys of the Secrets that a container asks for."""
    sources = [one["valueFrom"]["secretKeyRef"] for one in container.get("env", []) if "valueFrom" in one]
    return {(source["name"], source["key"]) for source in sources}


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector chooses labels."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def amount(quantity: str | int) -> float:
    """A quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"(\d+)(m|Mi|Gi|)", str(quantity)).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 1e-3, "": 1, "Mi": 2**20, "Gi": 2**30}[unit]


def check_command(args: Sequence[str], scratch: Path) -> dict[str, str]:
    """Check that a Python command's script exists and that its settings are settings of its config; returns them."""
    assert args[0] == "python"
    script = REPOSITORY / args[1]
    assert script.is_file(), args[1]
    settings = [argument for argument in args[2:] if re.match(r"\+?[\w.]+=", argument)]
    assert len(settings) == len(args) - 2 or script.name not in CONFIGS, args
    if config := CONFIGS.get(script.name):
        compose_config(scratch, *settings, config_name=config)
    else:
        assert not settings
    return dict(setting.lstrip("+").split("=", 1) for setting in settings)
