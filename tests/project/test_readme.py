"""Every command in README.md is executed in a shell as it stands there; trainings are shortened."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion.model.bundle import Bundle
from serve.deploy.ports import free_port, page_answers, served_version
from serve.deploy.processes import running
from tests.support.documentation import commands, make_workspace, parse, run_in_shell, shell_environment, shell_process
from tests.support.paths import REPOSITORY
from tests.support.training_runs import PHANTOMS, SHARED, TINY, RunFolder

pytestmark = pytest.mark.slow  # every test here needs a server, a training or another process

README = REPOSITORY / "README.md"
PYTHON = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
SHORT = (*(item for item in TINY if not item.startswith(("logger", "trainer.max", "model.backbone"))),)
SHORT += ("model.backbone=test_efficientnet",)  # a network of few layers, which is exported in half the time
SHORT += ("explain.road_images=0", "+trainer.limit_train_batches=2")
# What other tests execute.
ELSEWHERE = (
    "pip install",  # test_wheel
    "bash scripts/start.sh", "bash scripts/scale.sh", "bash scripts/stop.sh",  # test_replicas
    "export ", "lesion models import", "lesion keys create", "lesion worker", "lesion serve storage=cluster",
)  # fmt: skip  # the last line: test_documented_commands
KNOWN = ("train", "download", "predict", "serve", "models", "keys", "ui")


def of(prefix: str) -> list[str]:
    found = [command for command in commands(README) if not command.startswith(ELSEWHERE)]
    return sorted({command for command in found if command.startswith(prefix)})


@pytest.fixture
def workspace(tmp_path: Path, data_dir: Path, run_folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", shell_environment()["PATH"])
    return make_workspace(tmp_path / "work", data_dir, run_folder.output)


def test_every_command_is_executed_by_a_test() -> None:
    known = ("bash scripts/demo.sh", "bash scripts/test.sh", "curl ", *(f"lesion {name} " for name in KNOWN))
    found = commands(README)
    assert len(found) >= 25
    assert [command for command in found if not f"{command} ".startswith((*known, *ELSEWHERE))] == []


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
    assert parse((REPOSITORY / shlex.split(command)[1]).read_text()) == ""


def trainings() -> list[object]:
    """Every command that trains; those that vary the demo's training are long tests."""
    found = of("lesion train")
    return [pytest.param(each, marks=[pytest.mark.long] if "=phantom_mri " in f"{each} " else []) for each in found]


@pytest.mark.parametrize("command", trainings())
def test_training(command: str, workspace: Path, tmp_path: Path) -> None:
    more: list[str] = []
    real = re.search(r"experiment=(brain_tumor_mri|cassava)", command)
    if real and not SHARED:
        pytest.skip("needs the real data and weights: set LESION_SHARED to the folder that has data/ and weights/")
    if real:
        more += [f"data.root={sample(Path(SHARED) / 'data' / real[1], tmp_path / 'sample')}", "model.weights=none"]
    elif "experiment=" in command:
        more += PHANTOMS[1:]
    more += [item for item in SHORT if item.split("=")[0] not in command]
    more += [] if "max_epochs" in command else ["trainer.max_epochs=1"]
    result = run_in_shell(command, workspace, shlex.join(more))
    assert result.returncode == 0, result.stderr[-3000:]
    outputs = workspace / "outputs"
    bundles = [*outputs.glob("*/*/bundle/bundle.json"), *outputs.glob("*/sweep_*/*/bundle/bundle.json")]
    bundles = [bundle for bundle in bundles if "NAME" not in bundle.parts]
    assert len(bundles) == (4 if " -m " in command else 1)
    for bundle in bundles:
        folder = bundle.parent.parent
        assert (folder / "report.html").stat().st_size > 50_000
        assert 0 <= json.loads((folder / "metrics.json").read_text())["metrics"]["test/f1_macro"] <= 1
        if "cassava" in command:
            assert Bundle.open(bundle.parent).classes[0] == "Cassava Bacterial Blight (CBB)"
    assert ("jobs by val/f1_macro" in result.stdout) == (" -m " in command)
    if " -m " in command:
        [ranking] = outputs.glob("*/sweep_*/ranking.csv")
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


def settings() -> list[str]:
    """The settings that README names within its sentences, with the quotes of a shell."""
    return sorted(set(re.findall(r"`(data\.[\w.]+='[^`]*')`", README.read_text("utf-8"))))


@pytest.fixture
def images_with_a_table(workspace: Path) -> Path:
    """A folder of class folders, and beside it the same images in one folder with a table."""
    (workspace / "mine").symlink_to(workspace / "data" / "phantom_mri")
    rows = ["file,label"]
    (workspace / "listed" / "images").mkdir(parents=True)
    for image in sorted((workspace / "mine").glob("*/*.png")):
        shutil.copy(image, workspace / "listed" / "images" / f"{image.parent.name}_{image.name}")
        rows.append(f"{image.parent.name}_{image.name},{image.parent.name}")
    (workspace / "listed" / "train.csv").write_text("\n".join(rows))
    return workspace


@pytest.mark.parametrize("setting", settings())
def test_a_setting_within_a_sentence_is_taken_as_it_stands(setting: str, images_with_a_table: Path) -> None:
    """Reading the data is enough: the checkpoint that the training would continue from is not there."""
    root = "listed" if "csv" in setting else "mine"
    command = f"lesion train data=image_folder data.root={root} model.weights=none {setting}"
    result = run_in_shell(command, images_with_a_table, "resume=nowhere.ckpt")
    assert "nowhere.ckpt" in result.stderr
    assert "Traceback" not in result.stderr


def test_there_are_such_settings() -> None:
    assert any(setting.startswith("data.group_pattern=") for setting in settings())


@pytest.mark.parametrize("command", of("lesion download"))
def test_downloads_without_a_network_say_what_to_do(command: str, tmp_path: Path) -> None:
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "KAGGLE_API_TOKEN": ""}
    closed |= {"HOME": str(tmp_path), "COLUMNS": "500"}
    result = run_in_shell(command, tmp_path, **closed)
    output = result.stdout + result.stderr
    assert result.returncode == 1, output
    assert "No Kaggle credentials" in output
    assert "Check the network" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", of("lesion predict"))
def test_predicting(command: str, workspace: Path) -> None:
    result = run_in_shell(command, workspace)
    assert result.returncode == 0, result.stderr[-2000:]
    images = list((workspace / "data" / "phantom_mri" / "glioma").glob("*.png"))
    if "--overlay" in command:
        assert len(list((workspace / "outputs" / "overlays").glob("*.png"))) == len(images)
    assert "glioma" in result.stdout


@pytest.fixture(params=of("lesion serve"))
def server(request: pytest.FixtureRequest, workspace: Path) -> Iterator[str]:
    port = free_port()
    more = f"port={port}" + (" worker=false" if "storage" in request.param else "")
    arguments = shell_process(request.param, more)
    with running("serve", arguments, workspace / "log", lambda: served_version(port) is not None, folder=workspace):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("command", [*of("lesion models"), *of("lesion keys")])
def test_the_loop_on_the_command_line(command: str, workspace: Path) -> None:
    imported = run_in_shell("lesion models import outputs/NAME/TIME", workspace)
    assert imported.returncode == 0, imported.stderr
    result = run_in_shell(command, workspace)
    assert result.returncode == 0, result.stderr
    if "models" in command:
        assert Bundle.open(workspace / "outputs/NAME/TIME/bundle").version in result.stdout


@pytest.mark.parametrize("command", of("lesion ui"))
def test_the_page_is_served(command: str, workspace: Path) -> None:
    port = free_port()
    arguments = shell_process(command, f"--port {port}")
    with running(
        "ui", arguments, workspace / "log", lambda: page_answers(f"http://127.0.0.1:{port}"), folder=workspace
    ):
        pass


@pytest.mark.parametrize("command", of("curl "))
def test_serving(command: str, server: str, workspace: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl, which this machine does not have")
    command = command.replace("http://127.0.0.1:8000", server)
    result = run_in_shell(command, workspace, "--silent --show-error")
    assert result.returncode == 0, result.stderr
    assert '"predicted_class"' in result.stdout
    assert '"overlay_png_base64"' in result.stdout
