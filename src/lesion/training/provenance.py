"""The origin of a result: the code, the libraries and the settings that produced it."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lesion.core.version import __version__


def lineage(seed: int, parent: str | None = None) -> dict[str, Any]:
    """Return what is needed to reproduce a run, JSON-ready; ``parent`` is the version whose weights it started from."""
    return {
        "parent": parent,
        "lesion": __version__,
        "git": git_commit(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "timm": version("timm"),
        "seed": seed,
    }


def git_commit(folder: Path = Path(__file__).parents[1]) -> str:
    """Return the commit of the code's git checkout, with ``+changes`` if it was edited; empty without a checkout."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
