"""Each file and command that README and the documentation name is in the repository."""

import re
from pathlib import Path

import pytest

from tests.support.documentation import PAGES
from tests.support.paths import REPOSITORY

FOLDERS = "configs|docs|notebooks|scripts|serve|src|tests"
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/(?:[\w./*-]|\{{[^}}\s]*\}})+(?<![.-])")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SCRIPT = re.compile(r"\b(?:python|bash) ([\w/.-]+\.(?:py|sh))\b")
MADE_LATER = {"serve/deploy/.env"}  # by scripts/start.sh


def ids(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def alternatives(path: str) -> list[str]:
    """Expand braces as a shell does: `configs/{gate,intake}` is two paths."""
    match = re.search(r"\{([^}]*)\}", path)
    if match is None:
        return [path]
    return [path.replace(match[0], part.strip()) for part in match[1].split(",")]


def missing(paths: list[str]) -> list[str]:
    expanded = {path for given in paths for path in alternatives(given)}
    return sorted(path for path in expanded - MADE_LATER if not list(REPOSITORY.glob(path)))


def code(text: str) -> str:
    """All that stands in backticks, in a line or as a block."""
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


def test_what_the_search_finds() -> None:
    text = "`python scripts/no.py,x` `configs/{gate,absent}`\n```sh\nbash scripts/test.sh src/lesion/*.py x/src/no\n```"
    assert missing(PATH.findall(code(text))) == ["configs/absent", "scripts/no.py"]
    assert SCRIPT.findall(code(text)) == ["scripts/test.sh", "scripts/no.py"]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_paths_are_there(page: Path) -> None:
    assert missing(PATH.findall(code(page.read_text("utf-8")))) == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_scripts_that_commands_start_are_there(page: Path) -> None:
    assert missing(SCRIPT.findall(page.read_text("utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link and link[:7] != "mailto:"]
    assert [link for link in links if not (page.parent / link).exists()] == []
