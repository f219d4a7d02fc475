"""The layout: imports in one direction, folders that are not crowded, names that say one thing, plain prose."""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from scripts.dev import check_layout
from tests.support.paths import REPOSITORY


def test_imports_run_in_one_direction() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_layout_and_the_prose_keep_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    status = check_layout.main()
    assert status == 0, capsys.readouterr().out


def test_a_crowded_folder_is_found() -> None:
    files = [PurePosixPath(f"src/lesion/loop/module{number}.py") for number in range(15)]
    assert len(check_layout.crowded_folders(files)) == 1
    assert check_layout.crowded_folders([*files[:14], PurePosixPath("src/lesion/loop/__init__.py")]) == []


def test_a_name_that_stands_twice_is_found() -> None:
    files = [
        PurePosixPath("src/lesion/a/judging.py"),
        PurePosixPath("serve/judging.py"),
        PurePosixPath("serve/train.py"),
    ]
    assert [fault.split()[0] for fault in check_layout.repeated_names(files)] == ["judging.py"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The list is none that is known.", 1),
        ("This is no file that we take. There is no file that fits.", 1),
        ("The job goes on, anew. Say whether it does; it says how.", 4),
        ("Errors for\npeople.", 1),
        ("There is no key. It continues. Return whether it runs.", 0),
    ],
)
def test_hard_phrases_are_counted(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(text)
    assert len(check_layout.hard_phrases(tmp_path, [PurePosixPath("docs/page.md")])) == count
