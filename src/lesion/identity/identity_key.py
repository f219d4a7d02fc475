"""The identity key of a storage: where it is kept, and that all who use the storage have the same one.

It is kept apart from the database and the store, so that neither of them, nor a backup, tells who the patients are.
The database holds a hash that a wrong key is recognized by.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.core.errors import ConfigError
from lesion.core.files import PART_PREFIX, sync
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import IdentityKey, Image
from lesion.identity.pseudonyms import KEY_BYTES, MIN_KEY_BYTES, Pseudonyms, is_patient_pseudonym

_ROW = 1  # the only row of its table
_WHERE = "LESION_IDENTITY_KEY, or the file {path}"


def key_file(storage: Storage) -> Path:
    """Return the file that keeps the key of a storage of this machine, if the environment does not give one."""
    return storage.cache.parent / "identity.key"


def open_pseudonyms(storage: Storage) -> Pseudonyms:
    """Return the pseudonyms of a storage; its key is made when it is opened for the first time.

    Groups that an earlier version stored as they were sent are replaced by pseudonyms then.

    Raises:
        ConfigError: The storage was used with another key (``identity_key_differs``), its key is missing
            (``identity_key_missing``), or it is no key (``identity_key_invalid``).
    """
    with storage.session() as session:
        known = session.get(IdentityKey, _ROW)
    key = _read_key(storage)  # after the row, which is never there before the key
    if known is None:
        return _adopt(storage, key if key is not None else _new_key(storage))
    return _checked(storage, known.key_check, key)


def replace_key(storage: Storage, actor: str) -> None:
    """Let the storage take the key that is there, or a new one, in the place of a key that was lost.

    Patients and files that were hashed with the lost key are not recognized any more: images of the same patient that
    come from now on may be on another side of the split.
    """
    key = _read_key(storage)
    pseudonyms = Pseudonyms(key if key is not None else _new_key(storage))
    with storage.session() as session:
        session.merge(IdentityKey(id=_ROW, key_check=pseudonyms.check))
        record(session, actor, "identity.key_replaced", "identity key")


def _adopt(storage: Storage, key: bytes) -> Pseudonyms:
    pseudonyms = Pseudonyms(key)
    try:
        with storage.session() as session:
            session.add(IdentityKey(id=_ROW, key_check=pseudonyms.check))
            session.flush()
            _hide_groups(session, pseudonyms)
    except IntegrityError:  # another process was first
        with storage.session() as session:
            known = session.get_one(IdentityKey, _ROW)
        return _checked(storage, known.key_check, key)
    return pseudonyms


def _hide_groups(session: Session, pseudonyms: Pseudonyms) -> None:
    """Replace the groups that were stored as they were sent."""
    for name in session.scalars(select(Image.patient).where(Image.patient != "").distinct()).all():
        if not is_patient_pseudonym(name):
            session.execute(update(Image).where(Image.patient == name).values(patient=pseudonyms.patient(name)))


def _checked(storage: Storage, check: str, key: bytes | None) -> Pseudonyms:
    where = _WHERE.format(path=key_file(storage))
    advice = (
        f"Give the key of this storage again ({where}). If it is lost, read docs/identity.md: lesion identity "
        "replace-key lets the storage take another one."
    )
    if key is None:
        raise ConfigError(f"The identity key of this storage is missing. {advice}", code="identity_key_missing")
    pseudonyms = Pseudonyms(key)
    if not secrets.compare_digest(pseudonyms.check, check):
        raise ConfigError(f"The storage was used with another identity key. {advice}", code="identity_key_differs")
    return pseudonyms


def _read_key(storage: Storage) -> bytes | None:
    """Return the key of the environment, otherwise that of the file; None if there is neither."""
    text, source = storage.identity_key, "LESION_IDENTITY_KEY"
    if text is None:
        source = str(key_file(storage))
        with suppress(FileNotFoundError):
            text = _content(key_file(storage))
    if text is None:
        return None
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"{source} must hold at least {2 * MIN_KEY_BYTES} hexadecimal digits. openssl rand -hex {KEY_BYTES} prints "
            "some.",
            code="identity_key_invalid",
        )
    return key


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except PermissionError as error:
        raise ConfigError(
            f"{path} cannot be read by this user. Run all commands on this storage as its owner, or set "
            "LESION_IDENTITY_KEY.",
            code="identity_key_invalid",
        ) from error


def _new_key(storage: Storage) -> bytes:
    """Make a key and keep it in a file that only this user can read; of processes that do so at once one is first."""
    path = key_file(storage)
    if not storage.store.local:
        raise ConfigError(
            "A storage that several machines share needs an identity key of its own. Set LESION_IDENTITY_KEY to what "
            f"openssl rand -hex {KEY_BYTES} prints, the same on each machine, and keep a copy apart from the backups.",
            code="identity_key_missing",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}")
    unfinished.touch(mode=0o600, exist_ok=False)
    try:
        unfinished.write_text(secrets.token_hex(KEY_BYTES) + "\n", encoding="ascii")
        sync(unfinished)
        with suppress(FileExistsError):
            os.link(unfinished, path)
        sync(path.parent)
    finally:
        unfinished.unlink()
    key = _read_key(storage)
    assert key is not None
    return key
