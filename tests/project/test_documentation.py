"""The documentation site builds without a warning, loads nothing from other sites, and its pictures are current."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

DIAGRAMS = sorted((REPOSITORY / "docs" / "diagrams").glob("*.mmd"))
REMOTE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    assert {"index.html", "architecture/index.html", "reference/python/index.html"} <= set(pages)
    assert "Predictor" in pages["reference/python/index.html"]
    for name, page in pages.items():
        assert REMOTE.findall(page) == [], name
        assert 'class="mermaid"' not in page, f"{name}: the theme would load mermaid from another site"


@pytest.mark.parametrize("source", DIAGRAMS, ids=lambda path: path.stem)
def test_a_diagram_was_drawn_from_its_source(source: Path) -> None:
    picture = source.with_suffix(".svg").read_text("utf-8")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert picture.rstrip().endswith(f"<!-- {digest} -->"), "run scripts/dev/diagrams.sh"
    assert "http" not in re.sub(r"http://www\.w3\.org/[\w/]+", "", picture)
