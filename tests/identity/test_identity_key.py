"""Keyed hashes, and the key that all who use a storage must have."""

import hashlib
import hmac
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from lesion.catalogue.images import add_image
from lesion.core.errors import ConfigError
from lesion.database.audit import entries
from lesion.database.storage import Storage
from lesion.database.tables import Image
from lesion.identity.identity_key import key_file, open_pseudonyms, replace_key
from lesion.identity.pseudonyms import Pseudonyms, is_patient_pseudonym
from tests.support.images.loop_images import new_storage, row_of
from tests.support.images.pictures import write

KEY, OTHER = "5a" * 32, "c3" * 32


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return new_storage(tmp_path / "loop")


def code_of(storage: Storage) -> str:
    with pytest.raises(ConfigError) as refused:
        open_pseudonyms(storage)
    assert KEY not in refused.value.message
    return refused.value.code


# The hashes


def test_they_are_hmacs_of_the_purpose_and_the_text() -> None:
    made = Pseudonyms(bytes.fromhex(KEY))

    def expected(purpose: str, text: str) -> bytes:
        return hmac.new(bytes.fromhex(KEY), f"{purpose}\0{text}".encode(), hashlib.sha256).digest()

    assert made.patient("Müller 17") == f"patient-{expected('patient', 'Müller 17').hex()[:32]}"
    assert made.uid("1.2.3") == f"2.25.{int.from_bytes(expected('uid', '1.2.3')[:16])}"
    assert made.sent("ab" * 32) == expected("sent", "ab" * 32).hex()
    assert made.check == expected("check", "").hex()


def test_a_name_has_one_hash_however_it_is_encoded_and_no_name_has_none() -> None:
    made = Pseudonyms(bytes.fromhex(KEY))
    assert made.patient("Mu\u0308ller ") == made.patient("M\u00fcller")
    assert made.patient("") == made.patient("  ") == ""
    assert made.patient("17") != made.patient("18") != Pseudonyms(bytes.fromhex(OTHER)).patient("18")
    assert len(made.uid("1.2")) <= 64  # what an element of the kind UI may have
    assert is_patient_pseudonym(made.patient("17"))
    assert not is_patient_pseudonym("patient-17")


# The key


def test_a_local_storage_makes_its_key_once_in_a_file_of_its_owner(storage: Storage) -> None:
    first, file = open_pseudonyms(storage), key_file(storage)
    assert file == storage.cache.parent / "identity.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(file.read_text().strip())) == 32
    assert open_pseudonyms(storage).check == first.check
    assert not list(file.parent.glob(".part-*"))


def test_processes_that_open_it_together_have_the_same_key(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_pseudonyms(replace(storage)).check, range(8)))
    assert len(set(found)) == 1


def test_the_environments_key_counts_before_the_file(storage: Storage) -> None:
    named = replace(storage, identity_key=f" {KEY}\n")
    assert open_pseudonyms(named).check == Pseudonyms(bytes.fromhex(KEY)).check
    assert not key_file(storage).exists()


def test_another_key_or_none_is_refused(storage: Storage) -> None:
    open_pseudonyms(replace(storage, identity_key=KEY))
    assert code_of(replace(storage, identity_key=OTHER)) == "identity_key_differs"
    assert code_of(storage) == "identity_key_missing"
    assert not key_file(storage).exists()
    key_file(storage).write_text(OTHER)
    assert code_of(storage) == "identity_key_differs"


@pytest.mark.parametrize("key", ["", "5a" * 15, "no key at all", "5a" * 16 + "5"])
def test_what_is_no_key_is_refused(storage: Storage, key: str) -> None:
    assert code_of(replace(storage, identity_key=key)) == "identity_key_invalid"
    key_file(storage).write_text(key)
    assert code_of(storage) == "identity_key_invalid"


def test_a_store_of_many_machines_needs_a_key_of_its_own(storage: Storage) -> None:
    remote = replace(storage, files="memory://bucket")
    assert code_of(remote) == "identity_key_missing"
    assert open_pseudonyms(replace(remote, identity_key=KEY)).check


def test_a_lost_key_can_be_replaced(storage: Storage) -> None:
    before = open_pseudonyms(storage)
    key_file(storage).unlink()
    assert code_of(storage) == "identity_key_missing"
    replace_key(storage, "ann")
    assert open_pseudonyms(storage).check != before.check
    with storage.session() as session:
        assert [(entry.actor, entry.action) for entry in entries(session)] == [("ann", "identity.key_replaced")]


def test_groups_of_an_earlier_version_are_hidden_when_it_is_first_opened(storage: Storage, tmp_path: Path) -> None:
    with storage.session() as session:
        for number, patient in enumerate(("Doe^Jane", "Doe^Jane", "", "ward 7")):
            row = row_of(write(tmp_path / f"{number}.png", number))
            row.patient, row.status, row.split = patient, "quarantined", "train"
            assert add_image(session, row)
    made = open_pseudonyms(storage)
    with storage.session() as session:
        found = list(session.scalars(select(Image.patient).order_by(Image.id)))
    assert found == [made.patient("Doe^Jane"), made.patient("Doe^Jane"), "", made.patient("ward 7")]
    open_pseudonyms(storage)
    with storage.session() as session:
        assert list(session.scalars(select(Image.patient).order_by(Image.id))) == found
