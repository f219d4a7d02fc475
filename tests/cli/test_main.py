"""The command ``lesion``: what it lists, how it dispatches, and how the entries in scripts/ call the same commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from lesion.cli import main as entry
from lesion.cli.main import main
from lesion.core.commands import lesion_command
from lesion.core.version import __version__
from tests.support.paths import SCRIPTS

COMMANDS = sorted(entry._COMMANDS)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lesion {__version__}\n"


def test_an_unknown_command_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == f"lesion has no command 'trian'. Use one of {', '.join(entry._COMMANDS)}.\n"


def test_every_command_has_its_thin_entry_in_scripts() -> None:
    assert sorted(path.stem for path in SCRIPTS.glob("*.py")) == COMMANDS
    for name in COMMANDS:
        text = (SCRIPTS / f"{name}.py").read_text("utf-8")
        assert text.rstrip().endswith('if __name__ == "__main__":\n    run_script()'), name
        assert len(text.splitlines()) <= 15


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "serve", "worker", "prepare")])
def test_help_of_a_command_names_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lesion {name} ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "serve", "worker", "prepare"])
def test_help_of_hydra_s_commands_is_hydra_s(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*lesion_command(name), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith(f"{name} is powered by Hydra.")


@pytest.mark.parametrize("missing", ["nothing_like_it", "lesion.nothing"])
def test_a_package_that_is_not_installed_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(entry, "import_module", import_module)
    if missing.startswith("lesion"):  # a mistake of this package keeps its traceback
        with pytest.raises(ModuleNotFoundError):
            main(["ui"])
        return
    assert main(["ui"]) == 2
    sentence = f"lesion ui needs {missing}, which is not installed: pip install 'lesion[ui]'.\n"
    assert capsys.readouterr().err == sentence


def test_a_researcher_s_own_folder_of_configs_is_used(tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nname: mine\nseed: 7\n")
    command = [*lesion_command("train"), "--config-dir", "own", "experiment=mine", "data.root=x", "--cfg", "job"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "name: mine\nseed: 7\n" in done.stdout


def test_a_folder_that_is_named_like_a_package_hides_nothing(tmp_path: Path) -> None:
    for name in ("serve", "lesion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('hidden')")
    done = subprocess.run(
        [*lesion_command("ui"), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("usage: lesion ui ")
    done = subprocess.run(
        [sys.executable, SCRIPTS / "ui.py", "--help"], cwd=SCRIPTS, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("usage: lesion ui ")
