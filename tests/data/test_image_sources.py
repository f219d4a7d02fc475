import pandas as pd

from lesion.data.image_sources import predictability, sources_of


def made(rows: list[tuple[str, str, int, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["path", "label", "width", "mode", "format"])
    return table.assign(height=table["width"], source_split="", device="")


def test_devices_tell_sources_apart() -> None:
    table = made([(f"{c}/{n}.png", c, 64, "L", "PNG") for c in "ab" for n in range(9)])
    devices = ["SIEMENS Aera", "GE Signa", ""] * 6
    assert sources_of(table.assign(device=devices)).tolist() == devices


def test_sizes_modes_and_formats_tell_sources_apart() -> None:
    rows = [(f"a/{n}.png", "a", 512, "L", "PNG") for n in range(10)]
    rows += [(f"b/{n}.jpg", "b", 224, "RGB", "JPEG") for n in range(10)]
    found = sources_of(made(rows))
    assert found.unique().tolist() == ["PNG, L, 512 × 512", "JPEG, RGB, 224 × 224"]


def test_files_of_one_kind_tell_nothing() -> None:
    assert set(sources_of(made([(f"{c}/{n}.png", c, 64, "L", "PNG") for c in "ab" for n in range(9)]))) == {""}


def test_names_and_folders_that_tell_the_class_are_no_source() -> None:
    """Tr-gl_0001 is a code of the class; of names that both classes have, the pattern is a source."""
    coded = [(f"x/{c}/Tr-{c}_{n:04}.png", c, 64, "L", "PNG") for c in ("gl", "no") for n in range(9)]
    assert set(sources_of(made(coded))) == {""}
    shared = [(f"{c}/{name}{n}.png", c, 64, "L", "PNG") for c in "ab" for name in ("siemens_", "ge-") for n in range(9)]
    assert set(sources_of(made(shared))) == {"siemens_#", "ge-#"}
    archives = [(f"{a}/{c}/{n}.png", c, 64, "L", "PNG") for c in "ab" for a in ("one", "two") for n in range(9)]
    assert set(sources_of(made(archives))) == {"one", "two"}


def test_folders_of_splits_are_no_source() -> None:
    rows = [(f"{s}/{c}/{n}.png", c, 64, "L", "PNG") for s in ("train", "test") for c in "ab" for n in range(9)]
    table = made(rows)
    assert set(sources_of(table)) == {"train", "test"}
    assert set(sources_of(table.assign(source_split=table["path"].str.split("/").str[0]))) == {""}


def test_rare_values_are_joined_and_photographs_of_any_size_tell_nothing() -> None:
    rows = [(f"a/{n}.png", "a", 64 if n < 99 else 65, "L", "PNG") for n in range(100)]
    rows += [(f"b/{n}.png", "b", 32, "L", "PNG") for n in range(100)]
    assert set(sources_of(made(rows))) == {"64 × 64", "32 × 32", "other"}
    assert set(sources_of(made([(f"a/{n}.png", "a", 100 + n, "L", "PNG") for n in range(200)]))) == {""}


def test_how_well_a_source_tells_the_class() -> None:
    labels = ["a"] * 6 + ["b"] * 4
    told, guessed = predictability(["x"] * 6 + ["y"] * 4, labels, list(range(10)))
    assert (told, guessed) == (1.0, 0.6)
    told, guessed = predictability(["x"] * 10, labels, list(range(10)))
    assert told == guessed == 0.6
    # Each source has one group: without it, nothing is known of the source.
    assert predictability(["x"] * 6 + ["y"] * 4, labels, [1] * 6 + [2] * 4)[0] == 0
