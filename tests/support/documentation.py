"""The commands that README and the documentation tell people to type, and a folder to type them in."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from tests.support.paths import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    *sorted(REPOSITORY.glob("CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
_BLOCK = re.compile(r"^ *```(?:bash|sh|shell|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def parse(text: str) -> str:
    """Let bash parse a text without running it, and return its complaint, empty if there is none."""
    return subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False).stderr


def commands(page: Path) -> list[str]:
    """Return every command of a page's blocks as it stands there; loops and commands of several lines are one."""
    found = []
    for block in _BLOCK.findall(page.read_text("utf-8")):
        lines: list[str] = []
        for line in dedent(block).splitlines():
            lines.append(line)
            text = "\n".join(lines)
            if not line.endswith("\\") and parse(text) == "":
                found += [text] if text.strip() and not text.startswith("#") else []
                lines = []
        assert not lines, f"{page.name} has a command that bash cannot read: {lines}"
    return found


def run_in_shell(command: str, folder: Path, more: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it stands, with ``more`` behind its arguments, in bash, with the programs of this Python."""
    return subprocess.run(
        ["bash", "-c", _with_arguments(command, more)],
        cwd=folder,
        env=shell_environment() | environment,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )


def shell_process(command: str, more: str = "") -> list[str]:
    """Return the arguments that start a server as its command stands; no shell is left between it and its parent."""
    return ["bash", "-c", f"exec {_with_arguments(command, more)}"]


def _with_arguments(command: str, more: str) -> str:
    """Put more arguments before a command's comment."""
    return f"{re.sub(r' +# .*', '', command)} {more}"


def shell_environment() -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "WANDB_MODE": "offline"}


def make_workspace(folder: Path, data: Path, run: Path) -> Path:
    """Make a folder with what the documentation names: the data, a finished run, and the repository's files."""
    (folder / "outputs" / "NAME").mkdir(parents=True)
    (folder / "outputs" / "NAME" / "TIME").symlink_to(run)
    (folder / "data").symlink_to(data)
    for name in ("configs", "scripts", "serve", "src"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder
