"""API keys: create, check and revoke them. Only the hash of a key's secret is stored."""

import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.core.errors import ConflictError, InvalidValueError, NotFoundError
from lesion.core.files import bytes_sha256
from lesion.core.roles import ROLES, Role
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, now

_KEY = re.compile(r"lesion_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[\w.@+-](?:[\w .@+-]{0,98}[\w.@+-])?")
_NO_HASH = "0" * 64  # compared with the secret of an unknown id; no secret has this hash
_MIN_DISTINCT_DIGITS = 8  # in a secret; 64 random digits have fewer less than once in 10**18
_MAX_LIMIT = 2**31 - 1  # the range of the table's columns


class KeyRefusedError(InvalidValueError):
    """A key that cannot be created or revoked."""

    default_code = "key_invalid"


class KeyNotFoundError(NotFoundError, KeyRefusedError):
    """No key has this id."""

    default_code = "key_not_found"


class KeyConflictError(ConflictError, KeyRefusedError):
    """A change that the existing keys do not allow; the ``code`` names the reason."""


class KeyRing:
    """A copy of all keys in memory, including revoked ones; it checks keys without a query."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.id: key for key in keys}

    @property
    def exists(self) -> bool:
        """Whether a key was ever created; from then on every request needs one."""
        return bool(self._keys)

    def check(self, text: str) -> ApiKey | None:
        """Return the key with this text, or None. The time it takes reveals nothing about ids or secrets."""
        match = _KEY.fullmatch(text)
        key_id, secret = match.groups() if match else ("", "")
        key = self._keys.get(key_id)
        expected = key.secret_sha256 if key is not None else _NO_HASH
        same = hmac.compare_digest(_hash(secret), expected)
        return key if same and key is not None and key.revoked_at is None else None


def create(
    storage: Storage, name: str, role: Role, actor: str, *, per_minute: int | None = None, per_day: int | None = None
) -> str:
    """Create a key and return its text, which cannot be read again later.

    ``name`` is the key's owner: up to 100 letters, digits, spaces and ``. @ + - _``. ``per_minute`` and ``per_day``
    limit the number of requests; None means the server's default.

    Raises:
        KeyRefusedError: The name, the role or a limit is invalid.
        KeyConflictError: It is the first key and not an admin's (``first_key_must_be_admin``).
    """
    _check(name, role, per_minute, per_day)
    key_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    with storage.session() as session:
        key = ApiKey(id=key_id, name=name, role=role, per_minute=per_minute, per_day=per_day)
        _add(session, key, secret, actor)
    return f"lesion_{key_id}_{secret}"


def ensure(storage: Storage, text: str, name: str, role: Role, actor: str) -> ApiKey:
    """Register a key that the operator generated; if it exists already, nothing changes, even if it is revoked.

    The text of a key is ``lesion_``, 16 random hex digits, ``_``, 64 random hex digits.

    Raises:
        KeyRefusedError: The text, the name or the role is invalid.
        KeyConflictError: A key with this id has another secret or role (``key_differs``), or it is the first key and
            not an admin's (``first_key_must_be_admin``).
    """
    _check(name, role)
    match = _KEY.fullmatch(text)
    if match is None or len(set(match[2])) < _MIN_DISTINCT_DIGITS:
        raise KeyRefusedError(  # without the text: it may be a real key with one digit too many
            f"The key for {name} is not a valid key. It must be lesion_, 16 random hex digits, _ and 64 more, in small "
            'letters. Create one with: echo "lesion_$(openssl rand -hex 8)_$(openssl rand -hex 32)"'
        )
    key_id, secret = match.groups()
    try:
        with storage.session() as session:
            key = session.get(ApiKey, key_id)
            if key is None:
                key = ApiKey(id=key_id, name=name, role=role)
                _add(session, key, secret, actor)
    except IntegrityError:  # another process was first
        with storage.session() as session:
            key = session.get_one(ApiKey, key_id)
    if key.role != role or not hmac.compare_digest(key.secret_sha256, _hash(secret)):
        raise KeyConflictError(
            f"The key for {name} has the id {key_id}, which belongs to {key.name} with the role {key.role} and "
            "perhaps another secret. Create a new key.",
            code="key_differs",
        )
    return key


def revoke(storage: Storage, key_id: str, actor: str) -> ApiKey:
    """Revoke a key permanently; if it is revoked already, nothing changes.

    Raises:
        KeyNotFoundError: No key has this id.
        KeyConflictError: It is the last usable key of an admin (``last_admin_key``).
    """
    with storage.session() as session:
        keys = {key.id: key for key in session.scalars(select(ApiKey).with_for_update())}
        key = keys.get(key_id)
        if key is None:
            raise KeyNotFoundError(f"There is no key {key_id[:40]!r}. List the keys to see their ids.")
        if key.revoked_at is not None:
            return key
        admins = [other for other in keys.values() if other.role == "admin" and other.revoked_at is None]
        if admins == [key]:
            raise KeyConflictError(
                f"{key.name} ({key_id}) is the last key of an admin; without it, nobody could create another over "
                "HTTP. Create a new admin key first, then revoke this one.",
                code="last_admin_key",
            )
        key.revoked_at = now()
        record(session, actor, "key.revoked", key_id, name=key.name, role=key.role)
        return key


def all_keys(session: Session) -> list[ApiKey]:
    """Return all keys including revoked ones, the oldest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def any_usable(storage: Storage) -> bool:
    """Return whether there is a key that is not revoked."""
    with storage.session() as session:
        return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None


def key_view(key: ApiKey) -> dict[str, Any]:
    """Return a key as JSON, without the hash of its secret."""
    view = {name: getattr(key, name) for name in ("id", "name", "role", "per_minute", "per_day")}
    revoked_at = key.revoked_at.isoformat() if key.revoked_at else None
    return view | {"created_at": key.created_at.isoformat(), "revoked_at": revoked_at}


def _check(name: str, role: str, per_minute: int | None = None, per_day: int | None = None) -> None:
    if not _NAME.fullmatch(name):
        raise KeyRefusedError(
            f"The name {name[:100]!r} is not valid. Use 1 to 100 letters, digits, spaces and . @ + - _, with no space "
            "at either end."
        )
    if role not in ROLES:
        raise KeyRefusedError(f"The role {role[:40]!r} is unknown. Use {', '.join(ROLES)}.")
    for limit, value in {"per_minute": per_minute, "per_day": per_day}.items():
        if value is not None and not 1 <= value <= _MAX_LIMIT:
            raise KeyRefusedError(f"{limit}={value} is out of range. Use 1 to {_MAX_LIMIT}, or leave it out.")


def _add(session: Session, key: ApiKey, secret: str, actor: str) -> None:
    if key.role != "admin" and session.scalar(select(ApiKey.id).limit(1)) is None:
        raise KeyConflictError(
            f"The first key cannot be a {key.role}'s: once there is a key, every request needs one, and nobody could "
            "create others. Create a key with the role admin first.",
            code="first_key_must_be_admin",
        )
    key.secret_sha256 = _hash(secret)
    session.add(key)
    session.flush()
    record(session, actor, "key.created", key.id, name=key.name, role=key.role)


def _hash(secret: str) -> str:
    # A fast hash is enough for 256 random bits; slow hashes protect passwords that people choose.
    return bytes_sha256(secret.encode())
