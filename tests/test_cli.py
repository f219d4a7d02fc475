"""What every command does alike."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lesion.cli import errors_for_people, latest_bundle
from lesion.errors import DataError, LesionError


def test_errors_are_one_sentence_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info, errors_for_people():
        raise DataError("The folder is empty.")
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error (data_invalid): The folder is empty.\n"


def test_errors_inside_hydras_own_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError("Error in call to target")
    wrapped.__cause__ = DataError("Inner.")
    with pytest.raises(SystemExit), errors_for_people():
        raise wrapped
    assert "Inner." in capsys.readouterr().err


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), errors_for_people():
        _ = 1 / 0


def test_an_environment_variable_that_is_not_set_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_for_people():
        OmegaConf.to_container(OmegaConf.create({"database": "${oc.env:NOT_SET_ANYWHERE}"}), resolve=True)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        "error (config_invalid): A setting has no value: Environment variable 'NOT_SET_ANYWHERE' not found."
    )


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESION_TRACEBACK", "1")
    with pytest.raises(DataError), errors_for_people():
        raise DataError("x")


def test_latest_bundle_is_the_newest(tmp_path: Path) -> None:
    import os

    for age, name in ((200, "old"), (100, "new")):
        folder = tmp_path / "run" / name / "bundle"
        folder.mkdir(parents=True)
        (folder / "bundle.json").write_text("{}")
        os.utime(folder / "bundle.json", (1e9 - age, 1e9 - age))
    assert latest_bundle(tmp_path) == tmp_path / "run" / "new" / "bundle"


def test_no_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LesionError, match="Train one first"):
        latest_bundle(tmp_path)


def test_errors_survive_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DataError("x", code="special", status=418)))
    assert (type(error), error.message, error.code, error.status) == (DataError, "x", "special", 418)
