"""Python environments of their own for tests, made of the same packages as this one."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.paths import REPOSITORY

# uv would otherwise take this environment for the one to work in.
VARIABLES = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}


def create_environment(folder: Path, requirement: str) -> Path:
    """Create an environment with one requirement, in the versions of requirements.lock, and return its Python.

    The packages come from uv's cache, offline: they are the ones that this environment was installed from, and hard
    links make a second environment in seconds. What the cache lacks is downloaded.
    """
    python = folder / "bin" / "python"
    lock = (REPOSITORY / "requirements.lock").read_text("utf-8")
    versions = folder.with_suffix(".versions.txt")  # without hashes, or uv would ask for the requirement's hash too
    versions.write_text("\n".join(re.findall(r"^[\w.\[\]-]+==[^\\\n]+", lock, re.MULTILINE)))
    run_uv("venv", "--python", sys.executable, str(folder))
    install = ("pip", "install", "--python", str(python), "-c", str(versions), requirement)
    if run_uv(*install, "--offline", check=False).returncode:
        run_uv(*install)
    link_bytecode(folder)
    return python


def run_uv(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run uv; with ``check``, it must succeed."""
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=VARIABLES, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done


def link_bytecode(environment: Path) -> None:
    """Link the bytecode of this Python's packages next to the same files of another environment.

    Otherwise every process of it would compile torch's 5,000 modules again. Both environments have hard links to uv's
    cache, so a module is the same file in both, with the same date.
    """
    [packages] = environment.glob("lib/python*/site-packages")
    ours = Path(sysconfig.get_path("purelib"))
    for compiled in ours.rglob("*.pyc"):
        name = f"{compiled.name.partition('.')[0]}.py"
        place = packages / compiled.relative_to(ours)
        module, same = place.parent.parent / name, compiled.parent.parent / name
        if not place.exists() and module.exists() and same.exists() and module.samefile(same):
            place.parent.mkdir(exist_ok=True)
            os.link(compiled, place)
