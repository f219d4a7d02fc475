"""API keys: made, revoked and checked; of a secret only its hash is kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Any, Literal, get_args

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lesion.core.errors import LesionError
from lesion.database.audit import record
from lesion.database.storage import Storage
from lesion.database.tables import ApiKey, now

Role = Literal["viewer", "contributor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may

_FORM = re.compile(r"lesion_([0-9a-f]{16})_([0-9a-f]{64})")
_NAME = re.compile(r"[\w.@+-](?:[\w .@+-]{0,98}[\w.@+-])?")
_NO_HASH = "0" * 64  # what an unknown id is compared with; no secret has it
_LEAST_DIGITS = 8  # different ones in a secret; 64 random ones have fewer less than once in 10**18
_MOST = 2**31 - 1  # what the table's columns hold


class KeyRefusedError(LesionError):
    """A key that cannot be made or revoked."""

    default_code = "key_invalid"
    default_status = 422


class KeyRing:
    """The keys as they were when read; checks texts without a query.

    Args:
        keys: Every key there is, revoked ones as well.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = {key.id: key for key in keys}

    @property
    def exists(self) -> bool:
        """Whether a key was ever made; from then on every request needs one."""
        return bool(self._keys)

    def check(self, text: str) -> ApiKey | None:
        """Return the key that a text is, or None; the time it takes tells nothing of ids or secrets."""
        match = _FORM.fullmatch(text)
        identity, secret = match.groups() if match else ("", "")
        key = self._keys.get(identity)
        expected = key.secret_sha256 if key is not None else _NO_HASH
        same = hmac.compare_digest(_hash(secret), expected)
        return key if same and key is not None and key.revoked_at is None else None


def create(
    storage: Storage,
    name: str,
    role: Role,
    actor: str,
    *,
    per_minute: int | None = None,
    per_day: int | None = None,
) -> str:
    """Make a key.

    Args:
        storage: Where keys are kept.
        name: Whose it is: up to 100 letters, digits, spaces and ``. @ + - _``.
        role: What it may do.
        actor: Who makes it, for the audit log.
        per_minute: The most requests a minute; the server's default when None.
        per_day: The most requests a day; the server's default when None.

    Returns:
        The key's text, which nobody can read again.

    Raises:
        KeyRefusedError: The name, role or a limit is not valid (422), or the first key is not an admin's (409).
    """
    _check(name, role, per_minute, per_day)
    identity, secret = secrets.token_hex(8), secrets.token_hex(32)
    with storage.session() as session:
        key = ApiKey(id=identity, name=name, role=role, per_minute=per_minute, per_day=per_day)
        _add(session, key, secret, actor)
    return f"lesion_{identity}_{secret}"


def ensure(storage: Storage, text: str, name: str, role: Role, actor: str) -> ApiKey:
    """Make sure that a key which the operator made is known; again changes nothing, and a revoked one stays revoked.

    Args:
        storage: Where keys are kept.
        text: The key: ``lesion_``, 16 random hex digits, ``_``, 64 random hex digits.
        name: Whose it is, if it is new.
        role: What it may do.
        actor: Who brings it, for the audit log.

    Returns:
        The key as it is kept.

    Raises:
        KeyRefusedError: The text is no key (422), a key of that id has another secret or role (409), or the first key
            is not an admin's (409).
    """
    _check(name, role, None, None)
    match = _FORM.fullmatch(text)
    if match is None or len(set(match[2])) < _LEAST_DIGITS:
        raise KeyRefusedError(  # without the text: it may be a key with one digit too many
            f"The key for {name} is not a key. It must be lesion_, 16 random hex digits, _ and 64 more, in small "
            'letters. Make one with: echo "lesion_$(openssl rand -hex 8)_$(openssl rand -hex 32)"'
        )
    identity, secret = match.groups()
    try:
        with storage.session() as session:
            key = session.get(ApiKey, identity)
            if key is None:
                key = ApiKey(id=identity, name=name, role=role)
                _add(session, key, secret, actor)
    except IntegrityError:  # another process was first
        with storage.session() as session:
            key = session.get_one(ApiKey, identity)
    if key.role != role or not hmac.compare_digest(key.secret_sha256, _hash(secret)):
        raise KeyRefusedError(
            f"The key for {name} has the id {identity}, which belongs to {key.name} with the role {key.role} and "
            "perhaps another secret. Make a new key.",
            code="key_differs",
            status=409,
        )
    return key


def revoke(storage: Storage, identity: str, actor: str) -> ApiKey:
    """Revoke a key for good; revoking it again changes nothing.

    Raises:
        KeyRefusedError: There is no such key (404), or it is the last one of an admin (409).
    """
    with storage.session() as session:
        keys = {key.id: key for key in session.scalars(select(ApiKey).with_for_update())}
        key = keys.get(identity)
        if key is None:
            raise KeyRefusedError(
                f"There is no key {identity[:40]!r}. List the keys to see their ids.", code="key_not_found", status=404
            )
        if key.revoked_at is not None:
            return key
        if key.role == "admin" and sum(each.role == "admin" and each.revoked_at is None for each in keys.values()) == 1:
            raise KeyRefusedError(
                f"{key.name} ({identity}) is the last key of an admin, and without one nobody could make another over "
                "HTTP. Make a new admin key first, then revoke this one.",
                code="last_admin_key",
                status=409,
            )
        key.revoked_at = now()
        record(session, actor, "key.revoked", identity, name=key.name, role=key.role)
        return key


def all_keys(session: Session) -> list[ApiKey]:
    """Return every key in the order they were made, revoked ones as well."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def any_usable(storage: Storage) -> bool:
    """Whether there is a key that is not revoked."""
    with storage.session() as session:
        return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None


def key_view(key: ApiKey) -> dict[str, Any]:
    """Return a key as people see it; the hash of its secret stays here."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "per_minute": key.per_minute,
        "per_day": key.per_day,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _check(name: str, role: str, per_minute: int | None, per_day: int | None) -> None:
    if not _NAME.fullmatch(name):
        raise KeyRefusedError(
            f"The name {name[:100]!r} is not valid. Use 1 to 100 letters, digits, spaces and . @ + - _, with no space "
            "at either end."
        )
    if role not in ROLES:
        raise KeyRefusedError(f"The role {role[:40]!r} is unknown. Use {', '.join(ROLES)}.")
    for limit, value in {"per_minute": per_minute, "per_day": per_day}.items():
        if value is not None and not 1 <= value <= _MOST:
            raise KeyRefusedError(f"{limit}={value} is out of range. Use 1 to {_MOST}, or leave it out.")


def _add(session: Session, key: ApiKey, secret: str, actor: str) -> None:
    if key.role != "admin" and session.scalar(select(ApiKey.id).limit(1)) is None:
        raise KeyRefusedError(
            f"The first key cannot be a {key.role}'s: from the first key on every request needs one, and nobody could "
            "make others. Make a key with the role admin first.",
            code="first_key_must_be_admin",
            status=409,
        )
    key.secret_sha256 = _hash(secret)
    session.add(key)
    session.flush()
    record(session, actor, "key.created", key.id, name=key.name, role=key.role)


def _hash(secret: str) -> str:
    # A plain hash is enough for 256 random bits; slow ones are for passwords that people choose.
    return hashlib.sha256(secret.encode()).hexdigest()
