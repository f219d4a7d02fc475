"""Every command in README.md is executed; only paths, the length of a training and the size of its network change."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion.core.commands import lesion_command
from lesion.model.bundle import Bundle
from serve.deploy.ports import free_port, served_version
from serve.deploy.processes import running
from tests.support.paths import REPOSITORY
from tests.support.training_runs import PHANTOMS, SHARED, TINY, RunFolder

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

README = (REPOSITORY / "README.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line.strip()
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORT = (*(item for item in TINY if not item.startswith(("logger", "trainer.max", "model.backbone"))),)
SHORT += ("model.backbone=test_efficientnet",)  # a network of few layers, which is exported in half the time
SHORT += ("explain.road_images=0", "+trainer.limit_train_batches=2")


def of(prefix: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(prefix)]


def split(command: str) -> list[str]:
    """Split a command into arguments; `lesion` is that of this Python."""
    name, *arguments = shlex.split(command)
    return [*lesion_command(arguments[0]), *arguments[1:]] if name == "lesion" else [name, *arguments]


def execute(command: str | list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        split(command) if isinstance(command, str) else command,
        cwd=REPOSITORY,
        env=os.environ | {"WANDB_MODE": "offline"} | environment,
        capture_output=True,
        text=True,
        timeout=550,
    )


def test_every_command_is_executed_by_a_test_below() -> None:
    known: tuple[str, ...] = ("bash scripts/demo.sh", "bash scripts/test.sh", "curl ")
    known += tuple(f"lesion {name} " for name in ("train", "download", "predict", "serve", "models", "keys"))
    assert len(COMMANDS) >= 12
    assert [command for command in COMMANDS if not f"{command} ".startswith(known)] == []


def test_the_lines_of_python_predict_an_image(run_folder: RunFolder, data_dir: Path, tmp_path: Path) -> None:
    [code] = PYTHON
    code, bundles = re.subn(r'"outputs/[^"]*/bundle"', repr(str(run_folder.bundle_path)), code)
    assert bundles == 1
    assert len([line for line in code.splitlines() if line]) <= 5
    shutil.copy(next((data_dir / "phantom_mri" / "glioma").glob("*.png")), tmp_path / "scan.png")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    name, confidence = done.stdout.split()
    assert name in Bundle.open(run_folder.bundle_path).classes
    assert 0 < float(confidence) <= 1


@pytest.mark.parametrize("command", of("bash "))
def test_scripts_are_there(command: str) -> None:
    """This very run came from test.sh; demo.sh takes minutes, and its parts are tested one by one."""
    assert execute(["bash", "-n", shlex.split(command)[1]]).returncode == 0


@pytest.mark.parametrize("command", of("lesion train"))
def test_training(command: str, data_dir: Path, run_folder: RunFolder, tmp_path: Path) -> None:
    del run_folder  # it made the phantoms that these read
    arguments = split(command.replace("data/phantom_mri", f"{data_dir}/phantom_mri"))
    real = re.search(r"experiment=(brain_tumor_mri|cassava)", command)
    if real and not SHARED:
        pytest.skip("needs the real data and weights: set LESION_SHARED to the folder that has data/ and weights/")
    if real:
        arguments += [f"data.root={sample(Path(SHARED) / 'data' / real[1], tmp_path / 'sample')}", "model.weights=none"]
    elif "phantom_mri" in command and "experiment=" in command:
        arguments += PHANTOMS[1:]
    short = [item for item in SHORT if item.split("=")[0] not in command]
    epochs = [] if "max_epochs" in command else ["trainer.max_epochs=1"]
    result = execute([*arguments, *short, *epochs, f"paths.outputs={tmp_path}", f"paths.data={data_dir}"])
    assert result.returncode == 0, result.stderr[-3000:]
    bundles = list(tmp_path.glob("*/*/bundle/bundle.json")) + list(tmp_path.glob("*/sweep_*/*/bundle/bundle.json"))
    assert len(bundles) == (4 if " -m " in command else 1)
    for bundle in bundles:
        folder = bundle.parent.parent
        assert (folder / "report.html").stat().st_size > 50_000
        assert 0 <= json.loads((folder / "metrics.json").read_text())["metrics"]["test/f1_macro"] <= 1
        if "cassava" in command:
            assert Bundle.open(bundle.parent).classes[0] == "Cassava Bacterial Blight (CBB)"
    assert ("jobs by val/f1_macro" in result.stdout) == (" -m " in command)
    if " -m " in command:
        [ranking] = tmp_path.glob("*/sweep_*/ranking.csv")
        rows = list(csv.DictReader(ranking.open()))
        assert sorted(float(row["model.lr"]) for row in rows) == [1e-3, 1e-3, 3e-3, 3e-3]
        values = [float(row["val/f1_macro"]) for row in rows]
        assert values == sorted(values, reverse=True)


def sample(root: Path, target: Path) -> Path:
    """Link some of a real dataset's images: enough for every split of every class."""
    if (root / "train.csv").exists():
        return root
    for folder in root.glob("*/*"):
        (target / folder.relative_to(root)).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:40]:
            shutil.copy(image, target / image.relative_to(root))
    return target


@pytest.mark.parametrize("command", of("lesion download"))
def test_downloads_without_a_network_say_what_to_do(command: str, tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "KAGGLE_API_TOKEN": ""}
    closed |= {"HOME": str(tmp_path), "COLUMNS": "500"}
    result = execute(f"{command} --to {tmp_path}/data", **closed)
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "No Kaggle credentials" in output
    assert "Check the network" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", of("lesion predict"))
def test_predicting(command: str, data_dir: Path, run_folder: RunFolder, tmp_path: Path) -> None:
    local = command.replace("data/phantom_mri", f"{data_dir}/phantom_mri").replace("outputs/overlays", f"{tmp_path}/o")
    result = execute(f"{local} --bundle {run_folder.bundle_path}")
    assert result.returncode == 0, result.stderr[-2000:]
    images = list((data_dir / "phantom_mri" / "glioma").glob("*.png"))
    if "--overlay" in command:
        assert len(list((tmp_path / "o").glob("*.png"))) == len(images)
    assert "glioma" in result.stdout


@pytest.fixture(params=of("lesion serve"))
def server(request: pytest.FixtureRequest, run_folder: RunFolder, tmp_path: Path) -> Iterator[str]:
    command = f"{request.param} storage_root={tmp_path} worker=false" if "storage" in request.param else request.param
    port = free_port()
    arguments = [*split(command), f"bundle={run_folder.bundle_path}", f"port={port}"]
    log = tmp_path / "log"
    with running("serve", arguments, log, lambda: served_version(port) is not None, folder=REPOSITORY):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("command", [*of("lesion models"), *of("lesion keys")])
def test_the_loop_on_the_command_line(command: str, run_folder: RunFolder, tmp_path: Path) -> None:
    storage = f"storage_root={tmp_path}"
    assert execute(f"lesion models import {run_folder.output} {storage}").returncode == 0
    result = execute(f"{command} {storage}")
    assert result.returncode == 0, result.stderr
    if "models" in command:
        assert Bundle.open(run_folder.bundle_path).version in result.stdout


@pytest.mark.parametrize("command", of("curl "))
def test_serving(command: str, server: str, data_dir: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl, which this machine does not have")
    local = command.replace("http://127.0.0.1:8000", server).replace("data/phantom_mri", f"{data_dir}/phantom_mri")
    result = execute(f"{local} --silent --show-error")
    assert result.returncode == 0, result.stderr
    assert '"predicted_class"' in result.stdout
    assert '"overlay_png_base64"' in result.stdout
