"""API keys: what is kept of them, what is taken for one, who may be refused one, and the command line."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lesion.auth import api_keys
from lesion.auth.api_keys import (
    KeyConflictError,
    KeyNotFoundError,
    KeyRefusedError,
    KeyRing,
    all_keys,
    any_usable,
    create,
    revoke,
)
from lesion.cli.storage.keys import main
from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.database import audit
from lesion.database.storage import Storage
from tests.support.images.loop_images import new_storage
from tests.support.paths import SCRIPTS

TEXT = re.compile(r"lesion_[0-9a-f]{16}_[0-9a-f]{64}")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path)


def ring(storage: Storage) -> KeyRing:
    with storage.session() as session:
        return KeyRing(all_keys(session))


def identity(text: str) -> str:
    return text.split("_")[1]


def admin(storage: Storage) -> str:
    return create(storage, "root", "admin", "test")


def refusal(*arguments: Any, **options: Any) -> tuple[str, type[Exception]]:
    with pytest.raises(KeyRefusedError) as caught:
        create(*arguments, **options)
    return caught.value.code, type(caught.value)


class TestMaking:
    def test_a_key_is_known_by_its_text_alone(self, storage):
        text = create(storage, "Dr Chen", "admin", "test", per_minute=60, per_day=5000)
        assert TEXT.fullmatch(text)
        key = ring(storage).check(text)
        assert key is not None
        assert (key.name, key.role, key.per_minute, key.per_day) == ("Dr Chen", "admin", 60, 5000)
        assert identity(text) == key.id

    def test_the_secret_is_not_kept(self, storage, tmp_path):
        text = admin(storage)
        secret = text.split("_")[2]
        with storage.session() as session:
            (key,) = all_keys(session)
            assert key.secret_sha256 == hashlib.sha256(secret.encode()).hexdigest()
            assert secret not in json.dumps([entry.detail for entry in audit.entries(session)])
        storage.engine.dispose()
        files = list(tmp_path.glob("lesion.db*"))
        assert files
        assert all(secret.encode() not in file.read_bytes() for file in files)
        assert "secret" not in str(api_keys.key_view(key))

    def test_two_keys_differ_in_id_and_secret(self, storage):
        one, other = admin(storage).split("_"), admin(storage).split("_")
        assert one[1] != other[1]
        assert one[2] != other[2]

    @pytest.mark.parametrize("role", ["viewer", "contributor"])
    def test_the_first_key_is_an_admins(self, storage, role):
        assert refusal(storage, "ward", role, "test") == ("first_key_must_be_admin", KeyConflictError)
        admin(storage)
        text = create(storage, "ward", role, "test")
        key = ring(storage).check(text)
        assert key is not None
        assert key.role == role

    @pytest.mark.parametrize(
        "name", ["", " ", " a", "a ", "a" * 101, "a\nb", "a\x00", "<script>", "a=b", "../etc", "a\u202eb"]
    )
    def test_names_that_would_confuse_are_refused(self, storage, name):
        assert refusal(storage, name, "admin", "test") == ("key_invalid", KeyRefusedError)
        assert not ring(storage).exists

    @pytest.mark.parametrize("name", ["a", "a" * 100, "Dr Müller", "ward-3@clinic.example", "x.y_z+1"])
    def test_names_of_people_are_taken(self, storage, name):
        text = create(storage, name, "admin", "test")
        key = ring(storage).check(text)
        assert key is not None
        assert key.name == name

    def test_roles_and_limits_are_checked(self, storage):
        assert refusal(storage, "a", "root", "test") == ("key_invalid", KeyRefusedError)
        assert refusal(storage, "a", "admin", "test", per_minute=0) == ("key_invalid", KeyRefusedError)
        assert refusal(storage, "a", "admin", "test", per_day=2**31) == ("key_invalid", KeyRefusedError)


class TestChecking:
    def test_nothing_else_is_taken_for_a_key(self, storage):
        text = admin(storage)
        other = admin(storage)
        _, name, secret = text.split("_")
        flipped = secret[:-1] + ("0" if secret[-1] != "0" else "1")
        wrong = [
            "", "lesion", "x" * 100_000, f"lesion_{name}_{flipped}", f"lesion_{name}_", f"lesion_{name}_{secret}0",
            f"lesion_{'0' * 16}_{secret}", f"lesion_{identity(other)}_{secret}", f"{text}\n", f" {text}", text.upper(),
            secret, name, text.replace(name, "é" * 16), f"lesion__{secret}",
        ]  # fmt: skip
        keyring = ring(storage)
        assert [each for each in wrong if keyring.check(each) is not None] == []
        assert keyring.check(text) is not None

    def test_an_empty_ring_knows_nothing(self):
        assert not KeyRing(()).exists
        assert KeyRing(()).check(f"lesion_{'0' * 16}_{'0' * 64}") is None


class TestRevoking:
    def test_a_revoked_key_is_good_for_nothing_and_stays_listed(self, storage):
        admin(storage)
        text = create(storage, "ward", "viewer", "test")
        revoke(storage, identity(text), "ann")
        assert ring(storage).check(text) is None
        with storage.session() as session:
            assert [key.revoked_at is None for key in all_keys(session)] == [True, False]

    def test_revoking_again_changes_nothing(self, storage):
        admin(storage)
        text = create(storage, "ward", "viewer", "test")
        first = revoke(storage, identity(text), "ann").revoked_at
        assert revoke(storage, identity(text), "bob").revoked_at == first
        with storage.session() as session:
            done = [(entry.actor, entry.action) for entry in audit.entries(session, subject=identity(text))]
        assert done == [("test", "key.created"), ("ann", "key.revoked")]

    def test_the_last_admin_stays(self, storage):
        first = admin(storage)
        create(storage, "ward", "viewer", "test")
        with pytest.raises(KeyConflictError) as caught:
            revoke(storage, identity(first), "test")
        assert caught.value.code == "last_admin_key"
        admin(storage)
        revoke(storage, identity(first), "test")
        assert ring(storage).check(first) is None
        assert any_usable(storage)

    def test_an_unknown_key_is_said_to_be_unknown(self, storage):
        with pytest.raises(KeyNotFoundError) as caught:
            revoke(storage, "0" * 16, "test")
        assert caught.value.code == "key_not_found"


def test_each_refusal_is_of_its_kind():
    kinds = (NotFoundError, ConflictError, InvalidValueError)  # the first one that is in the order of bases counts
    orders = [kind.__mro__ for kind in (KeyRefusedError, KeyNotFoundError, KeyConflictError)]
    assert [next(base for base in order if base in kinds) for order in orders] == [
        InvalidValueError, NotFoundError, ConflictError,
    ]  # fmt: skip


class TestCommandLine:
    def run(self, folder: Path, *arguments: str) -> int:
        return main([*arguments, f"storage_root={folder}"])

    def test_make_list_and_revoke(self, tmp_path, capsys):
        assert self.run(tmp_path, "create", "Dr Chen", "--role", "admin") == 0
        printed = capsys.readouterr()
        text = printed.out.strip()
        assert TEXT.fullmatch(text)
        assert "not shown again" in printed.err
        self.run(tmp_path, "create", "ward-3", "--role", "contributor", "--per-minute", "60")
        ward = capsys.readouterr().out.strip()
        self.run(tmp_path, "revoke", identity(ward))
        assert identity(ward) in capsys.readouterr().out
        self.run(tmp_path, "list", "--json")
        listed = capsys.readouterr().out
        rows = json.loads(listed)
        assert [(row["name"], row["role"], row["per_minute"]) for row in rows] == [
            ("Dr Chen", "admin", None), ("ward-3", "contributor", 60),
        ]  # fmt: skip
        assert [row["revoked_at"] is None for row in rows] == [True, False]
        assert text.split("_")[2] not in listed
        self.run(tmp_path, "list")
        assert "Dr Chen" in capsys.readouterr().out

    def test_refusals_are_a_sentence_and_status_2(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as caught:
            self.run(tmp_path, "create", "ward", "--role", "viewer")
        assert caught.value.code == 2
        assert "first_key_must_be_admin" in capsys.readouterr().err

    def test_the_script_runs(self):
        command = [sys.executable, str(SCRIPTS / "keys.py"), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "create" in done.stdout
