"""Builds what an image holds without Docker: the Dockerfile's own lines, carried out in a folder in place of ``/``."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.support.environments import link_bytecode
from tests.support.paths import REPOSITORY

DOCKERFILE = REPOSITORY / "serve" / "deploy" / "Dockerfile"
UID = 10001
_PLACES = re.compile(r"(?<![\w./])/(venv|app|requirements|source|dist|tmp(?=$|/\.)|var/lib/lesion)\b")


@dataclass
class Stage:
    """A stage of the Dockerfile: what it begins with, and its instructions."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        found = [text for name, text in self.lines if name == instruction]
        return found[-1] if found else None


@cache
def other_user() -> dict[str, Any]:
    """How to start a process as the image's user; as this one where it may not, or may not read the interpreter."""
    as_user: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []}
    if os.geteuid() != 0:
        return {}
    python = Path(sys.executable).resolve()
    try:
        return as_user if subprocess.run([python, "-c", ""], check=False, **as_user).returncode == 0 else {}
    except PermissionError:
        return {}


def stages() -> dict[str, Stage]:
    """The Dockerfile's stages by name."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(base)
        elif instruction and found:
            found[name].lines.append((instruction, rest))
    return found


def inherited(name: str, instruction: str) -> str | None:
    """The last instruction of its kind in a stage and those that it is from."""
    stage = stages().get(name)
    return None if stage is None else stage.last(instruction) or inherited(stage.base, instruction)


def environment(name: str) -> dict[str, str]:
    """What ENV sets in a stage and those that it is from."""
    stage = stages().get(name)
    if stage is None:
        return {}
    values = environment(stage.base)
    for instruction, text in stage.lines:
        if instruction == "ENV":
            values |= dict(pair.split("=", 1) for pair in text.split())
    return values


def command(name: str) -> list[str]:
    """The process that an image starts."""
    arguments: list[str] = json.loads(inherited(name, "CMD") or "null")
    return arguments


def packages(name: str) -> str:
    """The stage whose packages an image has."""
    stage = stages()[name]
    copied = re.search(r"--from=(\S+-packages) /venv /venv", " ".join(text for _, text in stage.lines))
    return copied[1] if copied else packages(stage.base)


def requirements(name: str) -> Path:
    """The list that an image installs."""
    installs = [text for instruction, text in stages()[packages(name)].lines if instruction == "RUN"]
    [listed] = re.findall(r"uv pip install .*--require-hashes .*-r /requirements/(\S+)", " ".join(installs))
    return DOCKERFILE.parent / "requirements" / str(listed)


class Image:
    """An image's files below a folder that everybody can read and its user cannot write but where the image says so.

    ``target`` is the Dockerfile's. Of torch it takes minutes to compile bytecode, as the image does: this Python's is
    linked next to the same modules instead.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.root = Path(tempfile.mkdtemp(prefix=f"lesion-{target}-"))
        self.root.chmod(0o755)
        with tempfile.TemporaryDirectory(prefix="lesion-app-") as other:
            self._execute("app", Path(other))
            shutil.copytree(Path(other) / "app", self.root / "app")
        self._execute(packages(target), self.root)
        link_bytecode(self.root / "venv")
        shutil.rmtree(self.root / "requirements")
        for name in ("tmp", "var/lib/lesion"):
            (self.root / name).mkdir(parents=True)
        self.hand_over()

    def hand_over(self) -> None:
        """Give the folders that may be written to the image's user."""
        if other_user():
            for name in ("tmp", "var/lib/lesion"):
                subprocess.run(["chown", "-R", f"{UID}:{UID}", self.root / name], check=True)
        else:
            subprocess.run(["chmod", "-R", "a-w", self.root / "app", self.root / "venv"], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        subprocess.run(["chmod", "-R", "u+w", self.root], check=False)
        shutil.rmtree(self.root)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        files = (path for top in ("venv", "app") for path in (self.root / top).rglob("*"))
        return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())

    @property
    def state(self) -> Path:
        """The folder that it keeps state in."""
        return self.root / "var/lib/lesion"

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a process as the image's user, in its folder, with its environment and nothing else's."""
        values = {name: self._placed(value) for name, value in environment(self.target).items()}
        values["PATH"] = f"{self.root}/venv/bin:/usr/local/bin:/usr/bin:/bin"
        return subprocess.Popen(
            [self._placed(argument) for argument in arguments],
            cwd=self.root / "app",
            env=values | {"TMPDIR": str(self.root / "tmp")} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **other_user(),
        )

    def run(self, *arguments: str, seconds: float = 600, **variables: str) -> tuple[int, str]:
        """Run a process to its end; its status and what it said."""
        process = self.start(*arguments, **variables)
        said, _ = process.communicate(timeout=seconds)
        return process.returncode, said

    def _placed(self, text: str, root: Path | None = None) -> str:
        return _PLACES.sub(rf"{root or self.root}/\1", text)

    def _execute(self, name: str, root: Path) -> None:
        """Carry out what a stage and those that it is from copy and run, in a folder."""
        stage = stages().get(name)
        if stage is None:
            return
        self._execute(stage.base, root)
        values = {key: self._placed(value, root) for key, value in environment(name).items()}
        values |= {"UV_LINK_MODE": "hardlink", "UV_COMPILE_BYTECODE": "0"}
        values.pop("UV_CACHE_DIR")  # a mount of the builder's; here it is the machine's own
        folder = root
        for instruction, text in stage.lines:
            if instruction == "WORKDIR":
                folder = Path(self._placed(text, root))
                folder.mkdir(parents=True)
            elif instruction == "COPY":
                _copy(text, folder, root)
            elif instruction == "RUN" and text.endswith("-r /requirements/uv.txt"):
                continue  # uv is here
            elif instruction == "RUN":
                line = self._placed(re.sub(r"--mount=\S+\s+", "", text), root)
                path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
                done = subprocess.run(
                    ["bash", "-euc", line.replace("uv venv", f"uv venv --python {sys.executable}")],
                    cwd=folder, env=os.environ | values | {"PATH": path, "PYTHONPATH": ""},
                    capture_output=True, text=True, timeout=1200, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def left_out(folder: str, entries: list[str]) -> set[str]:
    """What .dockerignore keeps from the builder, of the folders that are copied."""
    outside = {"deploy"} if Path(folder) == REPOSITORY / "serve" else set()
    return {entry for entry in entries if entry == "__pycache__" or entry.startswith(".env") or entry in outside}


def _copy(text: str, folder: Path, root: Path) -> None:
    *sources, target = text.split()
    to = folder / target if not target.startswith("/") else Path(_PLACES.sub(rf"{root}/\1", target))
    for source in sources:
        origin = REPOSITORY / source
        place = to / origin.name if target.endswith("/") else to
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, place, dirs_exist_ok=True, ignore=left_out)
        else:
            shutil.copy(origin, place)
        subprocess.run(["chmod", "-R", "go-rwx", place], check=True)  # as in a checkout with umask 077
