"""Every command takes a path as it stands, whatever characters it has."""

import subprocess
from pathlib import Path

import pytest

from lesion.core.commands import lesion_command, quote_hydra_value
from lesion.core.files import file_sha256
from lesion.database.object_store import ObjectStore
from lesion.database.storage import Storage
from lesion.retraining.workflow import system_database
from serve.deploy.ports import free_port
from serve.worker_supervisor import settings_of
from tests.support.training_runs import compose_config

NAMES = [
    "a b", "a=b", "a,b", "[a]", "(a){b}", "a\\b", "a\\", "~a", "a~b", "#a", "it's", 'say "a"', "l\u00e4sion \u8111",
    "2024", "1e3", "2024-01-15", "true", "null", "a\nb", "a\tb", "$HOME", "%20", "what?a=b#c", "a&b;c|d", "a:b", "*",
    "!a", "@w", "-a",
]  # fmt: skip
ALL = "we ird=a,b[c](d){e}\\f~g#h'i\"j&k;l%20m?n*o:p \u00e4\u8111 $x !z @w 1e3\nnew"

# Each command with a path in its settings, and what it then says.
COMMANDS = {
    "train": (["data=image_folder", "data.root={}/d"], "The dataset's folder '{}/d' does not exist"),
    "train csv": (["data=image_folder", "data.root=.", "+data.csv.csv={}/t.csv"], "The table 't.csv' cannot be read"),
    "predict": (["{}/1.png", "--bundle", "{}/bundle"], "There is no bundle at '{}/bundle'"),
    "prepare": (["storage_root={}", "bundle={}/run"], "There is no bundle at '{}/run/bundle'"),
    "models": (["import", "{}/run", "storage_root={}"], "There is no bundle at '{}/run/bundle'"),
    "keys": (["list", "storage_root={}"], "There is nothing yet."),
    "serve": (["bundle={}", "storage_root={}", "storage=local", "port=PORT"], "There is no bundle at '{}"),
    "worker": (["storage_root={}", "retrain.script={}/train.py"], "'{}/train.py'"),
}
WITHOUT_DATABASE = ("train", "predict", "worker")  # what they ask for is refused before they open one


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_any_path(command: str, tmp_path: Path) -> None:
    arguments, expected = COMMANDS[command]
    folder = tmp_path / ALL
    name = command.split()[0]
    words = [word.replace("{}", str(folder)).replace("PORT", str(free_port())) for word in arguments]
    if name == "train":
        words += [f"hydra.run.dir={folder}/run", f"paths.data={folder}/data", "model.weights=none"]
    ended = subprocess.run(
        [*lesion_command(name), *words], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    said = ended.stdout + ended.stderr
    assert expected.replace("{}", str(folder)) in said, said
    assert "Traceback" not in said
    assert (folder / "lesion.db").is_file() == (name not in WITHOUT_DATABASE)
    assert [entry.name for entry in tmp_path.iterdir()] in ([], [ALL])  # nothing was written beside


@pytest.mark.parametrize("name", [*NAMES, ALL])
def test_a_storage_may_be_anywhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    storage = Storage(f"sqlite:///{folder}/lesion.db", str(folder / "files"), folder / "cache")
    storage.upgrade()
    storage.store.put("a/b", b"content")
    assert storage.store.get("a/b") == b"content"
    assert (folder / "lesion.db").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert file_sha256(folder / "files" / "a" / "b") == file_sha256(next((folder / "files").glob("*/b")))
    cfg = compose_config(tmp_path / "run", *settings_of(storage), config_name="worker")
    assert (cfg.storage.database, cfg.storage.files) == (storage.database, storage.files)
    assert "workflows.db" in system_database(storage)


@pytest.mark.parametrize("name", ["a::b", "simplecache::x"])
def test_a_folder_with_two_colons_is_one_folder(name: str, tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path / name), {})
    store.put("k", b"1")
    assert (store.folder, (tmp_path / name / "k").read_bytes()) == (tmp_path / name, b"1")


@pytest.mark.parametrize("text", ["${y}", "a\\${y}", "a\\\\${y}b", "$", "${", "${paths.data}", "\\"])
def test_what_programs_hand_on_is_no_reference(text: str, tmp_path: Path) -> None:
    assert compose_config(tmp_path, f"name={quote_hydra_value(text)}").name == text
