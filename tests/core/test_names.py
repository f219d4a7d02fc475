"""Names from outside: what hides or turns letters is taken out, and what a spreadsheet would run is defused."""

import csv
import io

import pytest

from lesion.core.text import MAX_NAME, clean_name, defuse_formulas
from serve.ui.text.sentences import to_csv


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\u202egnp.exe", "agnp.exe"),
        ("gl\u200bioma\ufeff.png", "glioma.png"),
        ("a\0b\n.png", "ab.png"),
        ("Läsion №1.png", "Läsion №1.png"),
        ("x" * MAX_NAME, "x" * MAX_NAME),
        ("a" * 5_000 + "middle" + "b" * 5_000 + ".png", "a" * 50 + "…" + "b" * 45 + ".png"),
    ],
)
def test_a_name_is_shown_without_what_hides_or_turns_it(name: str, shown: str) -> None:
    assert clean_name(name) == shown
    assert len(clean_name(name)) <= MAX_NAME


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@a", "\t=1+1", " =1+1", "\uff1d1+1", "a;=1+1", "a; \t@b", "a\tb\t=c"]
)
def test_no_cell_begins_with_a_formula_however_the_sheet_splits(text: str) -> None:
    written = to_csv([{"Image": text, text: "x"}]).decode("utf-8-sig")
    for separator in ",;\t":
        for row in csv.reader(io.StringIO(written), delimiter=separator):
            for cell in row:
                assert cell.strip(' \t\r\ufeff"')[:1] not in tuple("=+-@\uff1d\uff0b\uff0d\uff20"), cell


@pytest.mark.parametrize("text", ["a-b", "1 + 1 = 2", "user@site", "a;b", "", "'=1"])
def test_other_text_stays(text: str) -> None:
    assert defuse_formulas(text) == text
