"""The commands of the documentation: executed in a shell as they stand, or parsed if they need what is not here."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageSequence

from lesion.model.bundle import Bundle
from scripts.dev.browsing import MISSING, chromium
from serve.deploy.ports import free_port, free_ports, page_answers, served_version
from serve.deploy.processes import running
from tests.support.backups import tools_of
from tests.support.documentation import PAGES, commands, make_workspace, parse, run_in_shell, shell_process
from tests.support.paths import REPOSITORY
from tests.support.servers.postgresql import postgresql
from tests.support.training_runs import RunFolder

pytestmark = pytest.mark.slow

# Programs that these tests do not have, or only with an engine, a cluster or an account behind them.
NOT_HERE = ("docker", "kubectl", "gcloud", "helm")
# What other tests execute, by the beginning of the command.
ELSEWHERE = {
    "bash scripts/": "tests/serve/deploy/test_replicas.py",
    "python scripts/bench/replicas.py": "tests/serve/deploy/test_replicas.py",
    "lesion retrain": "tests/cli/test_retrain.py",
    "lesion records": "tests/serve/test_recorded_answers.py",
    "promtool": "tests/serve/deploy/test_monitoring_files.py",
    "cd serve/deploy/monitoring": "tests/serve/deploy/test_monitoring_files.py",
}
# Steps around commands that are not here: they make secrets and change folders.
STEPS = ("umask", "mkdir", "cd", "cat", "printf", "rm", "install -d", "sed", "source", "pre-commit", "export", "pip")
# What the tests below execute besides.
HERE = (
    "locust", "LESION_LOAD_IMAGES", "curl", "python scripts/models.py import", "python scripts/keys.py create",
    "python scripts/dev/screenshots.py", "python scripts/dev/record_walkthrough.py", "openssl genpkey", "openssl pkey",
    "lesion models sign", "lesion models verify", "lesion models plan", "lesion models documents",
)  # fmt: skip
ON_THE_CLUSTER = ("lesion models import", "lesion keys", "lesion serve", "lesion worker", "lesion backup")
DOCUMENTATION = [page for page in PAGES if page.name != "README.md"]


def documented(*beginnings: str) -> list[str]:
    """Every different command of all pages that begins so."""
    found = [command for page in PAGES for command in commands(page)]
    return sorted({command for command in found if command.startswith(beginnings)})


@pytest.mark.parametrize("page", DOCUMENTATION, ids=lambda page: page.name)
def test_every_command_is_executed_or_needs_what_is_not_here(page: Path) -> None:
    for command in commands(page):
        assert parse(command) == ""
        needs_others = any(re.search(rf"(^|\| |  )({name}) ", command, re.MULTILINE) for name in NOT_HERE)
        executed = (*ELSEWHERE, *ON_THE_CLUSTER, *STEPS, *HERE)
        assert needs_others or command.startswith(executed), command


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, data_dir: Path, run_folder: RunFolder) -> Path:
    return make_workspace(tmp_path_factory.mktemp("documented") / "work", data_dir, run_folder.output)


@pytest.fixture(scope="module")
def cluster(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that the README asks for, of a database in which there are the first model and its key."""
    with postgresql(tmp_path_factory.mktemp("pg")) as address, pytest.MonkeyPatch.context() as patch:
        environment = {"LESION_DATABASE": address, "LESION_FILES": str(workspace / "files")}
        for name, value in environment.items():
            patch.setenv(name, value)
        for command in documented(
            "lesion models import outputs/NAME/TIME storage=cluster", "python scripts/models.py import"
        ):
            done = run_in_shell(command, workspace)
            assert done.returncode == 0, done.stderr
        [create] = documented("lesion keys create me")
        [key] = re.findall(r"lesion_[0-9a-f]{16}_[0-9a-f]{64}", run_in_shell(create, workspace).stdout)
        yield environment | {"KEY": key}


def test_a_server_and_a_worker_start_on_the_cluster(cluster: dict[str, str], workspace: Path) -> None:
    [serve], [worker] = (documented(f"lesion {name} storage=cluster") for name in ("serve", "worker"))
    port, log = free_port(), workspace / "serve.log"
    arguments = shell_process(serve, f"port={port}")
    with running("serve", arguments, log, lambda: served_version(port) is not None, folder=workspace):
        [ask] = documented("curl -H")
        answer = run_in_shell(ask.replace(":8000", f":{port}"), workspace, "--silent", **cluster)
        assert "lesion_queue_depth" in answer.stdout
        assert httpx.get(f"http://127.0.0.1:{port}/info").status_code == 401
    log = workspace / "worker.log"
    arguments = shell_process(worker)
    with running("worker", arguments, log, lambda: log.is_file() and "is ready" in log.read_text(), folder=workspace):
        pass


def test_keys_are_made_listed_and_revoked(cluster: dict[str, str], workspace: Path) -> None:
    del cluster
    for create in documented('lesion keys create "', "python scripts/keys.py create"):
        made = run_in_shell(create, workspace)
        assert made.returncode == 0, made.stderr
        name = shlex.split(create)[3]
        [listing] = documented("lesion keys list storage=cluster")
        assert name in run_in_shell(listing, workspace).stdout
        [revoke] = documented("lesion keys revoke")
        [number] = re.findall(r"lesion_([0-9a-f]{16})_", made.stdout)
        revoked = run_in_shell(revoke.replace("0123456789abcdef", number), workspace)
        assert revoked.returncode == 0, revoked.stderr


def test_a_backup_is_made_verified_and_restored(
    cluster: dict[str, str], workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = str(tmp_path_factory.mktemp("backups"))
    [create] = documented("lesion backup create")
    [verify] = documented("lesion backup verify")
    [restore] = documented("lesion backup restore")
    cluster |= {"LESION_PG_BIN": str(tools_of(cluster["LESION_DATABASE"]))}
    for command in (create, verify):
        done = run_in_shell(command.replace("/backups", place), workspace, **cluster)
        assert done.returncode == 0, done.stderr
    with postgresql(tmp_path_factory.mktemp("pg")) as address:
        other = cluster | {"LESION_DATABASE": address, "LESION_FILES": str(workspace / "restored")}
        done = run_in_shell(restore.replace("/backups", place), workspace, **other)
        assert done.returncode == 0, done.stderr
    assert len(list((workspace / "restored").rglob("*"))) == len(list((workspace / "files").rglob("*")))


def test_a_bundle_is_signed_verified_and_imported(workspace: Path) -> None:
    beginnings = ("openssl genpkey", "openssl pkey", "lesion models sign", "lesion models verify")
    [importing] = [command for command in documented("lesion models import") if "storage.signers" in command]
    try:
        for command in [*(command for beginning in beginnings for command in documented(beginning)), importing]:
            done = run_in_shell(command, workspace)
            assert done.returncode == 0, (command, done.stderr)
    finally:
        (workspace / "outputs" / "NAME" / "TIME" / "bundle.sig").unlink(missing_ok=True)


def test_the_plan_and_the_documents_of_a_version_are_written(workspace: Path, run_folder: RunFolder) -> None:
    imported = run_in_shell("lesion models import outputs/NAME/TIME", workspace)
    assert imported.returncode == 0, imported.stderr
    for command in documented("lesion models plan", "lesion models documents"):
        done = run_in_shell(command.replace("3f9a0c41d2be", Bundle.open(run_folder.bundle_path).version), workspace)
        assert done.returncode == 0, (command, done.stderr)
    assert "## 2. Modification protocol" in (workspace / "change_plan.md").read_text("utf-8")
    sheet = (workspace / "documents" / "DATA_SHEET.md").read_text("utf-8")
    assert f"- {len(run_folder.manifest.used())} images, each with one label" in sheet


@pytest.mark.parametrize("command", documented("locust ", "LESION_LOAD_IMAGES"))
def test_load_is_made(command: str, workspace: Path) -> None:
    """For two seconds; without Locust's own page, which would wait for a person."""
    port = free_port()
    arguments = ["lesion", "serve", f"port={port}", "server.workers=1"]
    with running(
        "serve", arguments, workspace / "load.log", lambda: served_version(port) is not None, folder=workspace
    ):
        command = command.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{port}")
        command = re.sub(r" --(headless|users \d+|spawn-rate \d+|run-time \w+)", "", command)
        done = run_in_shell(command, workspace, "--headless --users 2 --run-time 2s --only-summary")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason=f"needs a browser: {MISSING}")
def test_pictures_and_a_recording_of_the_page_are_taken(workspace: Path) -> None:
    port, page_port = free_ports(2)
    serve = ["lesion", "serve", "storage=local", f"port={port}", "server.workers=1"]
    page = ["lesion", "ui", "--api", f"http://127.0.0.1:{port}", "--port", str(page_port)]
    address = f"http://127.0.0.1:{page_port}"
    with (
        running("serve", serve, workspace / "s.log", lambda: served_version(port) is not None, folder=workspace),
        running("ui", page, workspace / "ui.log", lambda: page_answers(address), folder=workspace),
    ):
        [command] = documented("python scripts/dev/screenshots.py")
        done = run_in_shell(command.replace("http://127.0.0.1:8501", address), workspace)
        assert done.returncode == 0, done.stderr
        [command] = documented("python scripts/dev/record_walkthrough.py")
        command = command.replace("http://127.0.0.1:8501", address).replace("data/phantom_walk", "phantoms")
        done = run_in_shell(command, workspace, "--images 12 --epochs 1")
        assert done.returncode == 0, done.stderr
    names = [path.name for path in (workspace / "docs" / "ui").glob("*.png")]
    assert sum("_desktop" in name or "_phone" in name for name in names) == 10
    assert sum("walkthrough_" in name for name in names) >= 5
    with Image.open(workspace / "outputs" / "walkthrough.gif") as film:
        assert len(list(ImageSequence.Iterator(film))) > 10


def test_the_tests_that_execute_the_others_are_there() -> None:
    for command, test in ELSEWHERE.items():
        name = Path(shlex.split(command)[-1]).stem
        assert name in (REPOSITORY / test).read_text(), (command, test)
