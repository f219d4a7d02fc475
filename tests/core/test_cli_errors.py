"""Errors of commands."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lesion.core.cli_errors import cli_errors
from lesion.core.errors import DataError
from tests.support.paths import REPOSITORY
from tests.support.training_runs import compose_config


def test_errors_are_one_sentence_and_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info, cli_errors():
        raise DataError("The folder is empty.")
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error (data_invalid): The folder is empty.\n"


def test_errors_inside_hydras_own_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError("Error in call to target")
    wrapped.__cause__ = DataError("Inner.")
    with pytest.raises(SystemExit), cli_errors():
        raise wrapped
    assert "Inner." in capsys.readouterr().err


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), cli_errors():
        _ = 1 / 0


def test_an_environment_variable_that_is_not_set_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, cli_errors():
        OmegaConf.to_container(OmegaConf.create({"database": "${oc.env:NOT_SET_ANYWHERE}"}), resolve=True)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(
        "error (config_invalid): A setting has no value: Environment variable 'NOT_SET_ANYWHERE' not found."
    )


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESION_TRACEBACK", "1")
    with pytest.raises(DataError), cli_errors():
        raise DataError("x")


def test_errors_survive_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DataError("x", code="special")))
    assert (type(error), error.message, error.code) == (DataError, "x", "special")


def printed(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints that meets this error."""
    with pytest.raises(SystemExit) as ended, cli_errors():
        raise error
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_setting_that_was_not_given_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, cli_errors():
        _ = OmegaConf.create({"data": {"root": "???"}}).data.root
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error (config_invalid): data.root is not given: add data.root=…")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"_target_": "lesion.imaging.preprocessing.Preprocessing", "sise": 4},
            "got an unexpected keyword argument 'sise'",
        ),
        ({"_target_": "lesion.imaging.preprocessing.Nothing"}, "Are you sure that 'Nothing' is importable"),
        ({"_target_": "lesion.imaging.preprocessing.Preprocessing", "size": "${nowhere}"}, "A setting has no value"),
    ],
)
def test_what_hydra_cannot_make_is_one_sentence(
    section: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = OmegaConf.create({"part": section})
    with pytest.raises(SystemExit) as ended, cli_errors():
        instantiate(cfg.part)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.startswith("error (config_invalid): ")
    assert words in err
    assert "\n" not in err.rstrip("\n")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.foo=1", "error (config_invalid): The settings cannot be used: Could not override 'model.foo'."),
        ("experiment=foo", "Could not find 'experiment/foo' Available options in 'experiment': brain_tumor_mri"),
    ],
)
def test_settings_that_do_not_exist_are_one_sentence(
    override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, cli_errors():
        compose_config(tmp_path, override)
    [sentence] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert words in sentence


def test_files_that_do_not_work_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert printed(full, capsys) == (
        "error (file_refused): '/data/x' cannot be read or written: No space left on device. Name another path, free "
        "some space or change the permissions, and try again.\n"
    )
    with pytest.raises(BrokenPipeError), cli_errors():
        raise BrokenPipeError


def test_a_mistake_made_while_a_file_was_missing_keeps_its_traceback(tmp_path: Path) -> None:
    mistake = ZeroDivisionError()
    mistake.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "none"))
    with pytest.raises(ZeroDivisionError), cli_errors():
        raise mistake


def test_a_stopped_command_names_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "last.ckpt"
    for words in ("stopped\n", f"stopped; continue with resume={checkpoint}\n"):
        with pytest.raises(SystemExit) as ended, cli_errors(checkpoint):
            raise KeyboardInterrupt
        assert ended.value.code == 130
        assert capsys.readouterr().err == words
        checkpoint.touch()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ([], "error (config_invalid): data.root is not given: add data.root=…"),
        (["hydra.run.dir=/proc/lesion"], "error (file_refused): '/proc/lesion' cannot be read or written: "),
    ],
)
def test_train_refuses_with_a_sentence_before_and_after_it_begins(
    override: list[str], words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/train.py", f"paths.outputs={tmp_path}", *override],
        cwd=REPOSITORY, capture_output=True, timeout=120, check=False, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    [sentence] = done.stderr.splitlines()
    assert words in sentence
