"""The images: their Dockerfile and lists, and each one's packages installed by its own lines, and its process run."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from lesion.cli.prepare import FirstTraining, prepare
from lesion.data.manifest import Manifest
from lesion.database.storage import Storage
from serve.deploy.ports import free_port
from tests.support.image_build import DOCKERFILE, UID, Image, command, environment, inherited, requirements, stages
from tests.support.images.hostile import encode, gradient
from tests.support.paths import REPOSITORY
from tests.support.preparing import ADMIN, ENVIRONMENT
from tests.support.servers.serving import eventually
from tests.support.training_runs import RunFolder, compose_config

TARGETS = ("api", "api-gpu", "worker", "worker-gpu", "ui")
LISTS = {"api", "api-gpu", "worker", "ui", "build"}
INSTALLER = "uv"  # not of the lock: it installs the lock
TORCH = {"torch", "torchvision", "timm", "lightning", "triton", "pandas", "matplotlib", "scikit-learn"}
STATE = "/var/lib/lesion"
# What python:3.11-slim has, and what optional plugins of OpenVINO and CUDA ask for and are not loaded without.
SYSTEM = {
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6",
    "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1",
}  # fmt: skip
OPTIONAL = {
    "libOpenCL.so.1", "libcuda.so.1", "libfabric.so.1", "libibverbs.so.1", "libmlx5.so.1", "libmpi.so.40",
    "liboshmem.so.40", "libpmix.so.2", "libquadmath.so.0", "librdmacm.so.1", "libucp.so.0", "libucs.so.0",
}  # fmt: skip


def locked(path: Path) -> dict[tuple[str, str], set[str]]:
    """Name and version of what a list pins, with the hashes."""
    text = re.sub(r"\\\n\s*", " ", path.read_text("utf-8"))
    entries = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^ ;]+)(.*)$", text, re.MULTILINE)
    return {(name, version): set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", rest)) for name, version, rest in entries}


def names(path: Path) -> set[str]:
    return {name for name, _ in locked(path)}


class TestLists:
    @pytest.mark.parametrize("name", sorted(LISTS))
    def test_a_list_is_a_part_of_the_lock(self, name: str) -> None:
        lock, listed = (
            locked(REPOSITORY / "requirements.lock"), locked(DOCKERFILE.parent / "requirements" / f"{name}.txt")
        )  # fmt: skip
        assert len(listed) >= 5
        assert {pin: hashes for pin, hashes in listed.items() if lock.get(pin) != hashes} == {}
        assert all(listed.values())

    def test_every_list_is_used(self) -> None:
        there = {path.stem for path in (DOCKERFILE.parent / "requirements").glob("*.txt")}
        assert there - {INSTALLER} == LISTS == {requirements(target).stem for target in TARGETS} | {"build"}
        assert INSTALLER in there

    def test_lists_name_no_index(self) -> None:
        for name in (*LISTS, INSTALLER):
            text = (DOCKERFILE.parent / "requirements" / f"{name}.txt").read_text("utf-8")
            assert not re.search(r"https?:|--index|--find-links", text)

    @pytest.mark.parametrize("name", sorted(LISTS - {"build"}))
    def test_a_list_has_what_its_extras_ask_for(self, name: str) -> None:
        """As scripts/dev/lock.sh says; so that a list made before pyproject.toml changed is found out."""
        [extras] = re.findall(
            rf"^image {name} (.*)$", (REPOSITORY / "scripts/dev/lock.sh").read_text("utf-8"), re.MULTILINE
        )
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
        asked = [*project["dependencies"]]
        for extra in extras.split():
            asked += project["optional-dependencies"][extra]
        pinned = dict(locked(DOCKERFILE.parent / "requirements" / f"{name}.txt").keys())
        for requirement in map(Requirement, asked):
            assert requirement.name in pinned, f"run scripts/dev/lock.sh: {requirement.name} is missing"
            assert requirement.specifier.contains(pinned[requirement.name]), requirement

    def test_the_server_and_the_page_are_free_of_torch(self) -> None:
        for target in ("api", "ui"):
            assert not {name for name in names(requirements(target)) if name in TORCH - {"pandas"} or "nvidia" in name}
        assert not {"litserve", "openvino", "sqlalchemy", "fsspec"} & names(requirements("ui"))
        assert {"torch", "timm", "torchvision", "litserve"} <= names(requirements("api-gpu"))
        assert not {"lightning", "wandb", "scikit-learn"} & names(requirements("api-gpu"))


class TestDockerfile:
    @pytest.mark.slow
    def test_hadolint_finds_nothing(self) -> None:
        hadolint = Path(sys.executable).with_name("hadolint")
        command = [str(hadolint), "--failure-threshold", "style", "--no-color", str(DOCKERFILE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout
        assert "hadolint ignore" not in DOCKERFILE.read_text("utf-8")

    def test_it_makes_these_images_of_one_pinned_base(self) -> None:
        found = stages()
        assert set(TARGETS) <= set(found)
        outside = {stage.base for stage in found.values()} - set(found)
        assert outside == {"${PYTHON_IMAGE}"}
        assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11-slim-trixie$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)

    def test_everything_is_installed_with_its_hash(self) -> None:
        runs = [text for stage in stages().values() for instruction, text in stage.lines if instruction == "RUN"]
        installs = [text for text in runs if "pip install" in text and "--no-deps --target /app /dist" not in text]
        assert len(installs) == 6
        assert all("--require-hashes" in text and "-r /requirements/" in text for text in installs)
        [((name, version), hashes)] = locked(DOCKERFILE.parent / "requirements" / f"{INSTALLER}.txt").items()
        assert hashes
        assert f"'{name}=={version}'" in (REPOSITORY / "scripts/lib/setup.sh").read_text("utf-8")

    def test_its_files_can_be_read_whatever_the_checkout_s_modes_are(self) -> None:
        """The slow tests below run them as the image's user, after a checkout with umask 077: see image_build."""
        lines = stages()["app"].lines
        [copied] = [number for number, (name, text) in enumerate(lines) if name == "COPY" and "/app/" in text]
        assert lines.index(("RUN", "chmod -R u=rwX,go=rX /app")) > copied

    @pytest.mark.parametrize("target", TARGETS)
    def test_an_image_is_as_it_should_be(self, target: str) -> None:
        assert inherited(target, "USER") == f"{UID}:{UID}"
        assert inherited(target, "ENTRYPOINT") == '["tini", "--"]'
        assert inherited(target, "STOPSIGNAL") == "SIGTERM"
        assert inherited(target, "WORKDIR") == "/app"
        values = environment(target)
        assert values["HOME"] == "/tmp"
        assert not [name for name in values if re.search("KEY|SECRET|PASSWORD|TOKEN", name)]
        check = inherited(target, "HEALTHCHECK") or ""
        if target.startswith("worker"):
            assert check == "NONE"
        else:
            assert "curl" not in check
            assert "http.client" in check
        assert ("NVIDIA_VISIBLE_DEVICES" in values) == target.endswith("-gpu")
        assert "org.opencontainers.image.version" in (inherited(target, "LABEL") or "")

    @pytest.mark.parametrize("target", TARGETS)
    def test_its_settings_exist(self, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LESION_DATABASE", "postgresql+psycopg://lesion:secret@database/lesion")
        monkeypatch.setenv("LESION_FILES", "s3://lesion/loop")
        _, script, *settings = command(target)
        assert (REPOSITORY / script).is_file()
        if target == "ui":
            return
        config = compose_config(tmp_path, *settings, config_name=Path(script).stem)
        assert str(config.storage.cache) == f"{STATE}/cache"
        if target == "worker-gpu":
            assert config.retrain.trainer.accelerator == "gpu"
        if target.startswith("api"):
            assert (config.host, config.port, config.access.open_access) == ("0.0.0.0", 8000, False)

    def test_the_compose_file_s_prepare_has_settings_that_exist(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LESION_DATABASE", "postgresql+psycopg://lesion:secret@database/lesion")
        monkeypatch.setenv("LESION_FILES", "s3://lesion/loop")
        [_, script, *settings] = yaml.safe_load((DOCKERFILE.parent / "compose.yaml").read_text())["services"][
            "prepare"
        ]["command"]
        config = compose_config(tmp_path, *settings, config_name=Path(script).stem)
        assert (config.folder, config.bundle, config.first_experiment) == (f"{STATE}/first", None, "phantom_mri")

    def test_what_is_sent_to_the_builder_is_only_what_it_copies(self) -> None:
        lines = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        assert rules[0] == "*"
        sent = {rule[1:] for rule in rules if rule.startswith("!")}
        copied = set()
        for stage in stages().values():
            for instruction, text in stage.lines:
                if instruction == "COPY" and "--from" not in text:
                    copied |= set(text.split()[:-1])
        assert {source for source in copied if not any(Path(source).is_relative_to(each) for each in sent)} == set()
        assert {each for each in sent if not any(Path(source).is_relative_to(each) for source in copied)} == set()
        assert rules.index("!serve") < rules.index("serve/deploy") < rules.index("!serve/deploy/requirements")
        assert rules[-1] == "**/.env*"


def installed(image: Image) -> set[str]:
    """The packages that are there, by their normalised names."""
    found = (image.root / "venv").rglob("*.dist-info")
    return {re.sub("[-_.]+", "-", path.name.split("-")[0]).lower() for path in found}


def healthy(image: Image, port: int, path: str | None = None) -> bool:
    """Run the image's own health check, on another port."""
    check = inherited(image.target, "HEALTHCHECK") or ""
    arguments = yaml.safe_load(check.partition("CMD ")[2].replace("8000", str(port)).replace("8501", str(port)))
    return image.run(*arguments, seconds=60)[0] == 0


def needs_nothing_of_the_system(image: Image) -> None:
    """No library of it asks for one that neither its packages nor the base image have."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed (apt-get install binutils)")
    libraries = [path for path in (image.root / "venv").rglob("*.so*") if path.is_file()]
    listed = subprocess.run(
        ["readelf", "-d", *libraries], capture_output=True, text=True, timeout=300, check=False
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", listed))
    assert "libc.so.6" in needed
    assert needed - {path.name for path in libraries} - SYSTEM - OPTIONAL == set()


def given_model(image: Image, run_folder: RunFolder) -> None:
    """Put a storage with a first model and a key in the image's state."""
    state = image.state
    storage = Storage(f"sqlite:///{state}/lesion.db", str(state / "files"), state / "cache")
    prepare(storage, FirstTraining("none", state), run_folder.output, ENVIRONMENT)
    storage.engine.dispose()
    image.hand_over()


def open_to_all(folder: Path) -> None:
    """Let another user read a folder of pytest's."""
    for place in (folder, *folder.parents):
        if place.stat().st_mode & 0o005 != 0o005 and place.is_relative_to(tempfile.gettempdir()):
            place.chmod(0o755)


def local(target: str, *changed: str) -> list[str]:
    """An image's command with a storage on its own disk, and settings put in the place of its own."""
    replaced = {setting.partition("=")[0] for setting in changed} | {"storage"}
    kept = [part for part in command(target) if part.partition("=")[0] not in replaced]
    return [*kept, "storage=local", *changed]


@contextmanager
def running(image: Image, *arguments: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = image.start(*arguments, **variables)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def ended(process: "subprocess.Popen[str]") -> str:
    """Stop a process as its container would be; what it said."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def answers(image: Image, process: "subprocess.Popen[str]", port: int, seconds: float) -> None:
    """Wait until a server is healthy and have it predict."""
    eventually(lambda: healthy(image, port) or process.poll() is not None, seconds)
    assert process.poll() is None, process.communicate()[0]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        assert client.get("/health").json()["ready"] is True
        files = {"file": ("x.png", encode(gradient()))}
        assert client.post("/predict", files=files).status_code == 401
        client.headers["Authorization"] = f"Bearer {ADMIN}"
        answer = client.post("/predict", files=files, params={"explain": True})
        assert answer.status_code == 200, answer.text
        assert sum(answer.json()["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer.json()["explanation"]["overlay_png_base64"]


@pytest.fixture(scope="module")
def build() -> Iterator[Callable[[str], Image]]:
    """Return an image of a target; each is built once, when a test first asks for it."""
    with ExitStack() as stack:
        yield cache(lambda target: stack.enter_context(Image(target)))


@pytest.mark.slow
class TestProcesses:
    def test_the_api_is_small_and_answers(self, build: Callable[[str], Image], run_folder: RunFolder) -> None:
        image = build("api")
        assert image.size < 1e9
        assert {"litserve", "openvino", "psycopg", "s3fs", "opentelemetry-sdk"} <= installed(image)
        assert not {name for name in installed(image) if name in TORCH or "nvidia" in name}
        needs_nothing_of_the_system(image)
        given_model(image, run_folder)
        port = free_port()
        assert not healthy(image, port)
        settings = (f"port={port}", "worker=false", "server.workers=1")
        with running(image, *local("api", *settings)) as process:
            answers(image, process, port, 120)
            ended(process)
        listed = image.run("python", "scripts/models.py", "list", "storage=local", f"storage_root={STATE}")
        assert listed[0] == 0, listed[1]
        assert "phantom_mri" in listed[1]

    @pytest.mark.parametrize("target", ["api", "worker"])
    def test_it_speaks_with_postgresql_and_s3(self, build: Callable[[str], Image], target: str) -> None:
        image = build(target)
        status, said = image.run(
            "python", "scripts/keys.py", "list", "storage=cluster", f"storage_root={STATE}",
            LESION_DATABASE="postgresql+psycopg://lesion:secret@127.0.0.1:9/lesion?connect_timeout=5",
            LESION_FILES="s3://lesion/loop",
        )  # fmt: skip
        assert (status, "database_unreachable" in said, "secret" in said) == (2, True, False), said
        code = "from lesion.database.object_store import ObjectStore; print(ObjectStore('s3://lesion/loop', {}).local)"
        assert image.run("python", "-c", code) == (0, "False\n")

    def test_the_api_for_gpus_has_the_engine_for_them(
        self, build: Callable[[str], Image], run_folder: RunFolder
    ) -> None:
        image = build("api-gpu")
        needs_nothing_of_the_system(image)
        given_model(image, run_folder)
        port = free_port()
        settings = (f"port={port}", "worker=false", "server.workers=1")
        if not list(Path("/dev").glob("nvidia[0-9]*")):
            status, said = image.run(*local("api-gpu", *settings))
            assert status == 2
            assert "nvidia-smi lists no GPU here" in said
        with running(image, *local("api-gpu", *settings, "server.device=torch")) as process:
            answers(image, process, port, 300)
            assert (
                "torch:cpu"
                in httpx.get(f"http://127.0.0.1:{port}/info", headers={"Authorization": f"Bearer {ADMIN}"}).text
            )
            ended(process)

    def test_the_page_answers(self, build: Callable[[str], Image]) -> None:
        image = build("ui")
        assert {"httpx", "streamlit"} <= installed(image)
        assert not {"litserve", "openvino", "sqlalchemy", "fsspec", "torch"} & installed(image)
        needs_nothing_of_the_system(image)
        port = free_port()
        with running(image, *[str(port) if part == "8501" else part for part in command("ui")]) as process:
            eventually(lambda: healthy(image, port) or process.poll() is not None, 60)
            page = httpx.get(f"http://127.0.0.1:{port}/")
            assert page.status_code == 200
            assert "<html" in page.text
            process.send_signal(signal.SIGTERM)
            assert "Traceback" not in process.communicate(timeout=30)[0]

    def test_the_page_s_health_below_a_path_is_what_compose_asks_for(self, build: Callable[[str], Image]) -> None:
        service = yaml.safe_load((DOCKERFILE.parent / "compose.yaml").read_text())["services"]["ui"]
        image = build("ui")
        port = free_port()
        arguments = [str(port) if part == "8501" else part for part in command("ui")]
        check = [part.replace("8501", str(port)) for part in service["healthcheck"]["test"][1:]]
        with running(image, *arguments, **service["environment"]) as process:
            eventually(lambda: image.run(*check)[0] == 0 or process.poll() is not None, 60)
            assert process.poll() is None
            assert httpx.get(f"http://127.0.0.1:{port}/ui/").status_code == 200

    def test_the_worker_prepares_a_storage_and_waits_for_work(
        self, build: Callable[[str], Image], run_folder: RunFolder
    ) -> None:
        image = build("worker")
        needs_nothing_of_the_system(image)
        for folder in (run_folder.output, Manifest.load(run_folder.output / "manifest.parquet").root):
            open_to_all(folder)
        prepared = [
            "python",
            "scripts/prepare.py",
            "storage=local",
            f"storage_root={STATE}",
            f"bundle={run_folder.output}",
        ]
        for expected in ("is the champion", "is not imported"):
            status, said = image.run(*prepared, seconds=600, **ENVIRONMENT)
            assert (status, expected in said) == (0, True), said
        with running(image, *local("worker")) as process:
            assert process.stdout is not None
            said = ""
            while "is ready" not in said and (line := process.stdout.readline()):
                said += line
            assert "waits for retrainings" in said
            ended(process)
        imports = "import cv2, lightning, onnxscript, pytorch_grad_cam, sklearn, timm, torchvision"
        assert image.run("python", "-c", imports)[0] == 0
