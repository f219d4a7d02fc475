"""What the repository promises about itself."""

import re
import subprocess
import tomllib

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
