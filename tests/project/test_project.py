"""What the repository promises about itself."""

import re
import subprocess
import sys
import tomllib

import pytest

from tests.support.paths import REPOSITORY

LOCK = (REPOSITORY / "requirements.lock").read_text("utf-8")


def test_the_lock_has_hashes_and_no_address() -> None:
    pins = re.findall(r"^[\w.\[\]-]+==", LOCK, re.MULTILINE)
    assert len(pins) > 100
    assert LOCK.count("--hash=sha256:") >= len(pins)
    assert not re.search(r"https?://|index-url|find-links|file:", LOCK)


def test_the_lock_holds_every_direct_dependency() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["dependencies"] + [item for extra in project["optional-dependencies"].values() for item in extra]
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==", LOCK, re.MULTILINE)}
    assert [item for item in wanted if re.split(r"[\[<>=]", item)[0].lower() not in pinned] == []


def test_no_machine_path_and_no_notebook_output_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    machine = re.compile("/(?:" + "|".join(["wor" + "k", "far" + "m", "opt/wheel" + "s", "home/[a-z]+", "root"]) + ")/")
    for name in filter(None, listed):
        path = REPOSITORY / name
        if path.suffix in (".png", ".lock", ".xz") or not path.is_file():
            continue
        found = machine.search(path.read_text("utf-8"))
        assert found is None, f"{name}: {found}"


@pytest.mark.slow
def test_the_tests_of_a_file_run_in_one_process() -> None:
    """Otherwise each process would make what the tests of a module share."""
    command = [sys.executable, "-m", "pytest", "-v", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    files = ("tests/core/test_text.py", "tests/core/test_files.py", "tests/data/test_splits.py")
    done = subprocess.run([*command, *files], cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=True)
    ran = set(re.findall(r"^\[(gw\d)\] \[ *\d+%\] PASSED ([\w/.]+)::", done.stdout, re.MULTILINE))
    assert sorted(file for _, file in ran) == sorted(files)
