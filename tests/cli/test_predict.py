"""``scripts/predict.py``: what it takes, what it writes, and how it ends."""

import csv
import errno
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion.cli.predict.command import main, overlay_name
from lesion.cli.predict.inputs import Item, batches, expand_folders, printable, read_all, read_names
from lesion.explanation.explanation import METHODS
from lesion.imaging.limits import Limits
from lesion.model.predictor import Prediction, Predictor
from tests.support.images.hostile import encode, gradient, hostile_images
from tests.support.paths import SCRIPTS

SCRIPT = SCRIPTS / "predict.py"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--bundle", str(bundle_path), "--precision", "f32", "--device", "cpu"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("b.png", "a.jpg", "sub/c.webp", "sub/Läsion №1.png", "=cmd|' /C calc'!A0.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(gradient(), {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[path.suffix]))
    (folder / "notes.txt").write_text("not an image, and not named like one")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "a.jpg").write_bytes(b"")
    (folder / "sub" / "loop").symlink_to(folder)
    return folder


NAMES = ["=cmd|' /C calc'!A0.png", "a.jpg", "b.png", "sub/Läsion №1.png", "sub/c.webp"]


def process(bundle_path: Path, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(SCRIPT), *arguments, "--bundle", str(bundle_path), "--device", "cpu"]
    return subprocess.run(command, input=data, capture_output=True, timeout=120, check=False)


def test_a_folder_is_walked_in_the_order_of_names_without_going_round(folder: Path) -> None:
    assert [str(Path(name).relative_to(folder)) for name in expand_folders([str(folder)])] == NAMES


def test_json_lines(predict: Command, folder: Path) -> None:
    status, out, _ = predict(str(folder), "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [str(Path(row["file"]).relative_to(folder)) for row in rows] == NAMES
    for row in rows:
        assert row["confidence"] == max(row["probabilities"].values()) == row["probabilities"][row["predicted_class"]]
        assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert row["inference_time_ms"] > 0
        assert row["in_domain"] == (row["domain_distance"] <= 1)
        assert len(row["model_version"]) == 12


def test_csv_is_safe_in_a_spreadsheet(predict: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    status, out, _ = predict(*NAMES, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert [row["file"] for row in rows] == ["'" + NAMES[0], *NAMES[1:]]
    for row in rows:
        parts = [float(value) for name, value in row.items() if name.startswith("probability_")]
        assert sum(parts) == pytest.approx(1.0, abs=1e-5)
        assert max(parts) == float(row["confidence"]) == float(row[f"probability_{row['predicted_class']}"])
        assert row["in_domain"] == str(float(row["domain_distance"]) <= 1).lower()
        assert row["code"] == row["error"] == ""


def test_top_k_ranks_the_classes(predict: Command, folder: Path) -> None:
    _, out, _ = predict(str(folder / "a.jpg"), "--csv", "--top-k", "2")
    row = next(csv.DictReader(io.StringIO(out)))
    assert row["class_1"] == row["predicted_class"]
    assert float(row["probability_1"]) >= float(row["probability_2"])
    assert "class_3" not in row
    _, out, _ = predict(str(folder / "a.jpg"), "--json", "--top-k", "2")
    assert list(json.loads(out)["probabilities"]) == [row["class_1"], row["class_2"]]


def test_the_table_names_file_class_and_refusal(
    predict: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (folder / "[red]bad\x1b[2J.png").write_bytes(b"text")
    status, out, err = predict(str(folder))
    assert status == 1
    assert "image_not_recognised" in out
    assert "[red]bad\\x1b[2J.png" in out  # neither markup nor a terminal's command
    assert "\x1b" not in out
    assert out.count("%") == len(NAMES)
    assert "1 of 6 images were refused" in err


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_bad_images_are_rows_among_good_ones(predict: Command, tmp_path: Path, form: str) -> None:
    files = hostile_images()
    for name, file in files.items():
        (tmp_path / name).write_bytes(file.data)
    status, out, err = predict(*(str(tmp_path / name) for name in files), str(tmp_path / "absent.png"), form)
    rows = (
        [json.loads(line) for line in out.splitlines()] if form == "--json" else list(csv.DictReader(io.StringIO(out)))
    )
    codes = {Path(row["file"]).name: row.get("code") or None for row in rows}
    assert codes == {name: file.code for name, file in files.items()} | {"absent.png": "image_not_found"}
    assert all(bool(row.get("error")) == bool(row.get("code")) for row in rows)
    assert status == 1
    assert f"of {len(files) + 1} images were refused" in err


def test_overlays_are_written_under_names_of_their_own(predict: Command, folder: Path, tmp_path: Path) -> None:
    (folder / "sub" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    target = tmp_path / "overlays"
    _, out, _ = predict(str(folder), "--json", "--overlay", str(target))
    named = [Path(json.loads(line)["overlay"]) for line in out.splitlines()]
    assert sorted(named) == sorted(target.iterdir())
    assert len(set(named)) == len(NAMES) + 1
    for path in named:
        with Image.open(path) as picture:
            picture.verify()


def test_a_folder_that_overlays_cannot_be_written_to_is_refused_first(
    predict: Command, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("a file")
    for target in (tmp_path / "taken", Path("/proc/overlays")):
        with pytest.raises(SystemExit) as caught:
            predict(str(folder), "--json", "--overlay", str(target))
        assert caught.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"error (config_invalid): --overlay {target} cannot be written to: ")


@pytest.mark.parametrize("form", ["--json", None])
def test_answers_survive_a_disk_that_fills_up(
    predict: Command, folder: Path, tmp_path: Path, form: str | None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    written: list[Path] = []
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if written:
            whole(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemExit) as caught:
        predict(str(folder), *([form] if form else []), "--overlay", str(tmp_path / "o"))
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.err.startswith("error (file_refused): ")
    assert "No space left on device" in captured.err
    shown = [json.loads(line)["file"] for line in captured.out.splitlines()] if form else [captured.out]
    assert all(any(Path(name).name in text for text in shown) for name in NAMES)
    assert len(list((tmp_path / "o").iterdir())) == 1


def test_a_full_output_is_said_and_nothing_else(bundle_path: Path, folder: Path) -> None:
    command = f"{sys.executable} {SCRIPT} {folder} --json --bundle {bundle_path} --device cpu > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=False, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error (file_refused): A file or the output cannot be read or written: No space left on device. Name another "
        "path, free some space or change the permissions, and try again."
    ]


def test_overlay_names_are_safe_and_stable() -> None:
    assert overlay_name("../../etc/pass wd.png").startswith("pass_wd-")
    assert overlay_name("a/x.png") != overlay_name("b/x.png")
    assert overlay_name("a/x.png") == overlay_name("a/x.png")
    assert len(overlay_name("x" * 250 + ".png").encode()) < 255


def test_a_class_can_be_explained_by_name(predict: Command, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        predict(str(folder / "a.jpg"), "--overlay", str(tmp_path / "o"), "--overlay-class", "no such class")
    assert caught.value.code == 2


def test_an_overlay_is_made_by_the_method_that_is_asked_for(
    predict: Command, bundle_path: Path, folder: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(bundle_path, "cpu", precision="f32")
    [answer] = predictor.predict([(folder / "a.jpg").read_bytes()])
    assert isinstance(answer, Prediction)
    for method in METHODS:
        predict(str(folder / "a.jpg"), "--overlay", str(tmp_path / method), "--overlay-method", method)
        [file] = (tmp_path / method).iterdir()
        expected = predictor.explain(answer, None, method).overlay(answer.image)
        np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)


def test_the_level_decides_what_is_called_foreign(predict: Command, folder: Path) -> None:
    rows = []
    for level in ("0.0001", "0.5"):
        _, out, _ = predict(str(folder), "--json", "--domain-level", level)
        rows.append([json.loads(line) for line in out.splitlines()])
    assert len(rows[0]) == len(NAMES)
    for low, high in zip(*rows, strict=True):
        assert low["domain_p_value"] == high["domain_p_value"]
        assert low["in_domain"] >= high["in_domain"]
        assert high["in_domain"] == (high["domain_p_value"] > 0.5)


@pytest.mark.parametrize("level", ["0", "0.6", "much"])
def test_a_level_that_is_no_share_is_refused(predict: Command, folder: Path, level: str) -> None:
    with pytest.raises(SystemExit) as caught:
        predict(str(folder / "a.jpg"), "--domain-level", level)
    assert caught.value.code == 2


def test_standard_input_is_one_image(bundle_path: Path) -> None:
    done = process(bundle_path, "-", "--json", data=encode(gradient()))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == "-"
    assert process(bundle_path, "-", "--json").returncode == 1


def test_standard_input_can_be_a_list(bundle_path: Path, folder: Path) -> None:
    undecodable = os.fsencode(folder) + b"/\xff\xfe.png"
    Path(os.fsdecode(undecodable)).write_bytes(encode(gradient()))
    names = "".join(f"{folder / name}\n" for name in NAMES).encode() + undecodable + b"\n\n"
    for form in ("--json", "--csv"):
        done = process(bundle_path, "--stdin-list", form, data=names)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(NAMES) + 1 + (form == "--csv")


@pytest.mark.parametrize("arguments", [[], ["--json", "--csv", "x.png"], ["x.png", "--top-k", "0"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_broken_bundle_or_an_empty_folder_exits_with_2(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = process(tmp_path / "empty", "x.png")
    assert done.returncode == 2
    assert b"bundle_missing" in done.stderr
    assert b"Traceback" not in done.stderr
    done = process(bundle_path, str(tmp_path / "empty"))
    assert done.returncode == 2
    assert b"no_images" in done.stderr


def test_a_reader_that_stops_early_is_no_error(bundle_path: Path, folder: Path) -> None:
    command = f"{sys.executable} {SCRIPT} {folder} {folder} --json --bundle {bundle_path} --device cpu | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert b"Traceback" not in done.stderr


def test_files_are_read_one_batch_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 40)
    asked = 0

    def names() -> Iterator[str]:
        nonlocal asked
        for _ in range(100_000):
            asked += 1
            yield str(tmp_path / "a.png")

    grouped = batches(read_all(names(), Limits(), io.BytesIO()), 16)
    assert len(next(grouped)) == 16
    assert asked == 16
    items = [Item("a", b"x" * 40)] * 5
    assert [len(batch) for batch in batches(iter(items), 16, max_bytes=80)] == [2, 2, 1]


def test_lists_and_printable_names() -> None:
    assert list(read_names([b"a b.png\r\n", b"\n", b"c.png"])) == ["a b.png", "c.png"]
    assert printable("ä\x1b[31m\n\udcff") == "ä\\x1b[31m\\n\\udcff"


@pytest.mark.slow
def test_memory_stays_bounded_over_many_files(bundle_path: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(encode(gradient(600, 800), "JPEG"))
    peaks = []
    for count in (50, 400):
        names = f"{picture}\n".encode() * count
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        done = process(bundle_path, "--stdin-list", "--csv", data=names)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == count + 1
        peaks.append(max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
    assert peaks[1] < peaks[0] + 60_000  # kilobytes


def test_no_torch_is_imported(bundle_path: Path, folder: Path) -> None:
    code = (
        "import sys; from lesion.cli.predict.command import main; "
        f"main([{str(folder / 'a.jpg')!r}, '--bundle', {str(bundle_path)!r}, '--device', 'cpu', '--json']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
