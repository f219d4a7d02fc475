"""scripts/prepare.py: tables, keys that the operator made, and a first model; done again it changes nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.auth import api_keys
from lesion.auth.api_keys import KeyConflictError, KeyRefusedError, KeyRing, all_keys, ensure, revoke
from lesion.cli.prepare import FirstTraining, prepare
from lesion.core.errors import ConfigError
from lesion.core.roles import Role
from lesion.database import audit
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, Snapshot
from lesion.registry.registry import Registry
from tests.support.images.loop_images import new_storage
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.preparing import ADMIN, ENVIRONMENT, METRICS
from tests.support.servers.serving import eventually
from tests.support.training_runs import RunFolder, compose_config

# In place of 'lesion train': it writes down how it was called and leaves a finished run, if there is one to copy.
TRAINING = """\
import json, os, shutil, sys, time
from pathlib import Path
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
run = Path(given["hydra.run.dir"][1:-1].replace("\\\\'", "'"))
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "checkpoints" / "last.ckpt").touch()
with Path("CALLS").open("a") as calls:
    calls.write(json.dumps(given | {"pid": os.getpid()}) + "\\n")
time.sleep(SECONDS)
if "RUN":
    shutil.copytree("RUN", run, dirs_exist_ok=True)
sys.exit(STATUS)
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path)


def training(
    folder: Path, run: Path | str = "", status: int = 0, seconds: float = 0, experiment: str | None = "phantom_mri"
) -> FirstTraining:
    script = folder / "train.py"
    text = TRAINING.replace("CALLS", str(folder / "calls")).replace("RUN", str(run))
    script.write_text(text.replace("STATUS", str(status)).replace("SECONDS", str(seconds)))
    return FirstTraining(experiment, folder / "it's a first", ("trainer.max_epochs=2",), (sys.executable, str(script)))


def calls(folder: Path) -> list[dict[str, object]]:
    import json

    file = folder / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def rows(storage: Storage) -> list[tuple[str, str, str, bool]]:
    with storage.session() as session:
        return [(key.id, key.name, key.role, key.revoked_at is None) for key in all_keys(session)]


class TestEnsuring:
    def test_a_key_s_text_is_taken_and_only_its_hash_is_kept(self, storage: Storage, tmp_path: Path) -> None:
        made = ensure(storage, ADMIN, "operator", "admin", "test")
        assert (made.id, made.name, made.role, made.revoked_at) == ("0123456789abcdef", "operator", "admin", None)
        with storage.session() as session:
            known = KeyRing(all_keys(session)).check(ADMIN)
        assert known is not None
        assert known.role == "admin"
        storage.engine.dispose()
        assert all(ADMIN[-64:].encode() not in file.read_bytes() for file in tmp_path.glob("lesion.db*"))

    def test_again_changes_nothing(self, storage: Storage) -> None:
        first = ensure(storage, ADMIN, "operator", "admin", "test")
        again = ensure(storage, ADMIN, "another name", "admin", "test")
        assert (again.name, again.created_at) == ("operator", first.created_at)
        with storage.session() as session:
            assert [entry.action for entry in audit.entries(session, subject=first.id)] == ["key.created"]

    def test_a_revoked_one_stays_revoked(self, storage: Storage) -> None:
        ensure(storage, ADMIN, "operator", "admin", "test")
        ensure(storage, METRICS, "prometheus", "viewer", "test")
        revoke(storage, METRICS.split("_")[1], "ann")
        assert ensure(storage, METRICS, "prometheus", "viewer", "test").revoked_at is not None
        with storage.session() as session:
            assert KeyRing(all_keys(session)).check(METRICS) is None

    @pytest.mark.parametrize(
        "text",
        [
            "", "password", ADMIN[:-1], ADMIN + "0", ADMIN + "\n", ADMIN.upper(), ADMIN.replace("lesion", "lesions"),
            "lesion_0123456789abcdef_" + "0" * 64, "lesion_0123456789abcdef_" + "0123456" * 9 + "0",
        ],
    )  # fmt: skip
    def test_what_is_no_key_is_refused_and_not_repeated(self, storage: Storage, text: str) -> None:
        with pytest.raises(KeyRefusedError) as caught:
            ensure(storage, text, "operator", "admin", "test")
        assert (type(caught.value), caught.value.code) == (KeyRefusedError, "key_invalid")
        assert "openssl rand -hex 32" in caught.value.message
        assert len(text) < 10 or text.strip() not in caught.value.message
        assert rows(storage) == []

    def test_the_command_that_a_refusal_shows_makes_a_key(self, storage: Storage) -> None:
        with pytest.raises(KeyRefusedError) as caught:
            ensure(storage, "x", "operator", "admin", "test")
        command = caught.value.message.partition("Create one with: ")[2]
        made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60).stdout
        assert ensure(storage, made.strip(), "operator", "admin", "test").role == "admin"

    def test_another_secret_or_role_under_a_known_id_is_refused(self, storage: Storage) -> None:
        ensure(storage, ADMIN, "operator", "admin", "test")
        other = ADMIN[:-1] + "0"
        differing: list[tuple[str, Role]] = [(other, "admin"), (ADMIN, "viewer")]
        for text, role in differing:
            with pytest.raises(KeyRefusedError) as caught:
                ensure(storage, text, "operator", role, "test")
            assert (type(caught.value), caught.value.code) == (KeyConflictError, "key_differs")
        with storage.session() as session:
            assert KeyRing(all_keys(session)).check(other) is None

    def test_the_first_key_is_an_admins(self, storage: Storage) -> None:
        with pytest.raises(KeyRefusedError) as caught:
            ensure(storage, METRICS, "prometheus", "viewer", "test")
        assert caught.value.code == "first_key_must_be_admin"

    def test_two_at_once_make_one(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other process is first, between this one's look and its row."""
        add = api_keys._add

        def late(session: Session, key: ApiKey, secret: str, actor: str) -> None:
            monkeypatch.setattr(api_keys, "_add", add)
            session.rollback()  # SQLite would let nobody else write
            ensure(storage, ADMIN, "the other", "admin", "other")
            raise IntegrityError("INSERT", {}, Exception("UNIQUE"))

        monkeypatch.setattr(api_keys, "_add", late)
        assert ensure(storage, ADMIN, "operator", "admin", "test").name == "the other"
        assert len(rows(storage)) == 1


class TestKeys:
    def test_keys_of_the_environment_are_there_before_the_training(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            prepare(storage, training(tmp_path, status=3), environment=ENVIRONMENT)
        assert caught.value.code == "training_failed"
        assert rows(storage) == [
            ("0123456789abcdef", "operator", "admin", True), ("fedcba9876543210", "prometheus", "viewer", True),
        ]  # fmt: skip

    def test_a_wrong_key_is_told_before_the_training(self, storage: Storage, tmp_path: Path) -> None:
        with pytest.raises(KeyRefusedError):
            prepare(storage, training(tmp_path), environment={"LESION_ADMIN_KEY": "secret"})
        assert calls(tmp_path) == []

    def test_what_is_said_holds_no_secret(
        self, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for environment in ({}, ENVIRONMENT):
            with pytest.raises(ConfigError):
                prepare(storage, training(tmp_path, status=1), environment=environment)
        revoke(storage, METRICS.split("_")[1], "ann")
        with pytest.raises(ConfigError):
            prepare(storage, training(tmp_path, status=1), environment=ENVIRONMENT)
        said = capsys.readouterr().out
        assert said.count("There is NO API KEY") == 1
        assert said.count("WAS REVOKED") == 1
        assert ADMIN[-64:] not in said
        assert METRICS[-64:] not in said


class TestTraining:
    def test_it_is_the_experiment_s_and_goes_on_where_it_was(
        self, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(2):
            with pytest.raises(ConfigError):
                prepare(storage, training(tmp_path, status=1), environment={})
        first, second = calls(tmp_path)
        folder = tmp_path / "it's a first"
        quoted = str(folder).replace("'", "\\'")
        assert first["experiment"] == "'phantom_mri'"
        assert first["trainer.max_epochs"] == "2"
        assert first["paths.data"] == f"'{quoted}/data'"
        assert "resume" not in first
        assert second["resume"] == f"'{quoted}/run/checkpoints/last.ckpt'"
        assert capsys.readouterr().out.count("THERE IS NO MODEL YET") == 2

    def test_where_none_is_wanted_an_empty_database_is_refused(
        self, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            prepare(storage, training(tmp_path, experiment=None), environment=ENVIRONMENT)
        assert caught.value.code == "no_first_model"
        assert all(
            way in caught.value.message for way in ("LESION_DATABASE", "bundle=", "first_experiment=phantom_mri")
        )
        assert calls(tmp_path) == []
        assert len(rows(storage)) == 2  # tables and keys are there
        assert "training one now" not in capsys.readouterr().out

    @pytest.mark.parametrize("wanted", [None, "phantom_mri", "cassava"])
    def test_which_one_is_a_setting_of_the_command_line(self, wanted: str | None, tmp_path: Path) -> None:
        """Hydra takes no value for a name that is a folder of configs, such as experiment."""
        config = compose_config(tmp_path, f"first_experiment={wanted or 'null'}", config_name="prepare")
        assert config.first_experiment == wanted
        assert compose_config(tmp_path, config_name="prepare").first_experiment == "phantom_mri"

    @pytest.mark.slow
    def test_it_ends_with_its_parent(self, tmp_path: Path) -> None:
        made = training(tmp_path, seconds=600)
        code = (
            "from pathlib import Path\nfrom lesion.cli.prepare import FirstTraining\n"
            f"FirstTraining('phantom_mri', Path({str(made.folder)!r}), (), {made.command!r}).run()"
        )
        parent = subprocess.Popen([sys.executable, "-c", code])
        try:
            eventually(lambda: calls(tmp_path), 60)
            child = psutil.Process(int(str(calls(tmp_path)[0]["pid"])))
            parent.send_signal(signal.SIGTERM)
            parent.wait(30)
            eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
        finally:
            parent.kill()
            parent.wait()


@pytest.mark.slow
class TestModel:
    def test_a_bundle_s_run_becomes_the_first_model_and_again_changes_nothing(
        self, storage: Storage, tmp_path: Path, run_folder: RunFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for _ in range(2):
            prepare(storage, training(tmp_path), run_folder.bundle_path, ENVIRONMENT)
        registry = Registry(storage)
        assert len(registry.history()) == len(registry.models()) == 1
        assert registry.history()[0].actor == "prepare"
        with storage.session() as session:
            assert len(session.scalars(select(Snapshot.id)).all()) == 1
        assert calls(tmp_path) == []
        said = capsys.readouterr().out
        assert said.count("Imported ") == 1
        assert f"The champion is {registry.models()[0].version}. '{run_folder.bundle_path}' is not imported" in said

    def test_without_a_bundle_what_was_trained_is_imported_and_not_trained_again(
        self, storage: Storage, tmp_path: Path, run_folder: RunFolder
    ) -> None:
        prepare(storage, training(tmp_path, run_folder.output), environment=ENVIRONMENT)
        prepare(storage, training(tmp_path, run_folder.output), environment=ENVIRONMENT)
        assert len(calls(tmp_path)) == 1
        assert Registry(storage).champion() is not None
        other = new_storage(tmp_path / "other")  # as if the import had been killed before its end
        prepare(other, training(tmp_path, run_folder.output), environment=ENVIRONMENT)
        assert len(calls(tmp_path)) == 1
        assert Registry(other).champion() is not None

    def test_the_script(self, tmp_path: Path, run_folder: RunFolder) -> None:
        command = [sys.executable, str(SCRIPTS / "prepare.py"), f"storage_root={tmp_path}"]
        command += ["storage=local", f"bundle={run_folder.output}"]
        for expected in ("is the champion", "is not imported"):
            done = subprocess.run(
                command, env=os.environ | ENVIRONMENT, cwd=REPOSITORY,
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert expected in done.stdout
        bad = subprocess.run(
            command, env=os.environ | {"LESION_ADMIN_KEY": "secret"}, cwd=REPOSITORY,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert bad.returncode == 2
        assert re.fullmatch(r"error \(key_invalid\): The key for operator is not a valid key\..*\n", bad.stderr)
