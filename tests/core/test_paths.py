"""Hidden files and the newest bundle."""

import os
from pathlib import Path, PurePosixPath

import pytest

from lesion.core.errors import LesionError
from lesion.core.paths import is_hidden, latest_bundle


@pytest.mark.parametrize(
    ("path", "hidden"),
    [("a/b.png", False), ("a.b/c..png", False), (".b.png", True), ("a/.git/b.png", True), ("__MACOSX/b.png", True)],
)
def test_hidden_parts_of_a_path(path: str, hidden: bool) -> None:
    assert is_hidden(PurePosixPath(path)) == hidden


def test_latest_bundle_is_the_newest(tmp_path: Path) -> None:
    for age, name in ((200, "old"), (100, "new")):
        folder = tmp_path / "run" / name / "bundle"
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text("{}")
        os.utime(folder / "bundle.json", (1e9 - age, 1e9 - age))
    assert latest_bundle(tmp_path) == tmp_path / "run" / "new" / "bundle"


def test_no_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LesionError, match="Train one first"):
        latest_bundle(tmp_path)
