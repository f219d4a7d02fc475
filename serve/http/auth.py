"""Who may send what: roles on every route, API keys, and what protects a server that has none."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError

from lesion.auth.api_keys import ROLES, KeyRing, Role, all_keys
from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from serve.http.problems import AccessError
from serve.http.rate_limits import UsageMeter, save_usage, usage_today
from serve.http.schemas import ProblemDetails

logger = logging.getLogger(__name__)

LOCAL = "local"  # who sent what a server without keys answers
ANONYMOUS = "anonymous"
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": ProblemDetails, "description": "No key, or one that is unknown or revoked."},
    403: {"model": ProblemDetails, "description": "The key's role does not allow this."},
    429: {"model": ProblemDetails, "description": "Too many requests. Retry-After says when to try again."},
}


def refusals(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return a route's refusals for OpenAPI: its own by status, and those of every route that asks for a key."""
    own = {status: {"model": ProblemDetails, "description": text} for status, text in descriptions.items()}
    return REFUSALS | own


_SYNC_S = 1.0  # how long a revoked key may still be good for
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::\d*)?", re.IGNORECASE)
_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="Authorization: Bearer lesion_…")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header")


def check_address(host: str, keys: bool, open_access: bool) -> None:
    """Refuse to answer other machines without knowing who asks.

    Args:
        host: Where the server is to listen.
        keys: Whether there is a key that is not revoked.
        open_access: Whether whoever reaches the server may use it.

    Raises:
        ConfigError: Other machines could use the server without a key.
    """
    if not (keys or open_access or _is_loopback(host)):
        raise ConfigError(
            f"host={host} would answer other machines, and there is no API key. Make one with 'python scripts/keys.py "
            "create NAME --role admin' (it needs a storage, such as storage=local), or listen on host=127.0.0.1, or, "
            "if something in front of the server checks who asks, set access.open_access=true.",
            code="keys_missing",
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request: the name, role and id of a key; there is no id where no key is needed."""

    name: str
    role: str
    key_id: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})" if self.key_id else self.name


class Access:
    """One API process's knowledge of the keys, and of how often each was used.

    Without a storage, or before the first key is made, requests of this machine are answered; with ``open_access``,
    everybody's.

    Args:
        storage: Where the keys are; there are none when None.
        open_access: Whether requests need no key as long as there is none.
        per_minute: Requests a minute of a key that has no limit of its own; no limit when None.
        per_day: The same for a day (UTC).
        api_processes: How many processes share a minute's requests.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        open_access: bool = False,
        per_minute: int | None = None,
        per_day: int | None = None,
        api_processes: int = 1,
    ) -> None:
        self._storage = storage
        self._open = open_access
        self._ring = KeyRing(())
        self._meter = UsageMeter(per_minute, per_day, api_processes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the keys, and stay in step with the database about once a second."""
        if self._storage is None:
            yield
            return
        await self.sync()
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._try_sync(well=False)

    async def sync(self) -> None:
        """Save how often keys were used and read the keys.

        Raises:
            SQLAlchemyError: The database does not answer; nothing is lost.
        """
        if self._storage is None:
            return
        counted = self._meter.take_unsaved()
        try:
            self._ring, saved = await asyncio.to_thread(_exchange, self._storage, counted)
        except SQLAlchemyError:
            self._meter.give_back(counted)
            raise
        self._meter.set_saved(saved)

    def admit(self, request: Request, text: str | None, role: Role) -> Principal:
        """Return who sent a request.

        Args:
            request: The request.
            text: The key that came with it.
            role: The least role that may send it.

        Raises:
            AccessError: It needs a key (401), another role (403) or patience (429), or came from elsewhere (403).
        """
        if not self._ring.exists:
            return self._admit_without_key(request)
        if not text:
            raise _unauthorised("key_missing", "This server needs an API key. Send it as 'Authorization: Bearer KEY'.")
        key = self._ring.check(text)
        if key is None:
            raise _unauthorised("key_unknown", "The API key is unknown or was revoked. Ask the operator for another.")
        if ROLES.index(key.role) < ROLES.index(role):
            raise AccessError(
                f"This needs the role {role}, and this key has the role {key.role}. Ask the operator for another key.",
                code="role_insufficient",
                status=403,
            )
        self._meter.count(key)
        return Principal(key.name, key.role, key.id)

    def _admit_without_key(self, request: Request) -> Principal:
        """Answer this machine's programs, but no web page of another site that a browser here has open."""
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise AccessError(
                "A web page of another site sent this request. A server without API keys answers no such page; make "
                "keys and send one.",
                code="origin_foreign",
                status=403,
            )
        if self._open:
            return Principal(ANONYMOUS, ROLES[-1])
        name = _AUTHORITY.fullmatch(host)
        peer = request.client.host if request.client else ""
        if name is None or not _is_loopback(name[1] or name[2]) or not _is_loopback(peer):
            raise AccessError(
                "A server without API keys answers its own machine alone, under the name localhost or 127.0.0.1. Use "
                "that name, or make keys.",
                code="not_local",
                status=403,
            )
        return Principal(LOCAL, ROLES[-1])

    async def _watch(self) -> None:
        well = True
        while True:
            await asyncio.sleep(_SYNC_S)
            well = await self._try_sync(well)

    async def _try_sync(self, well: bool) -> bool:
        try:
            await self.sync()
        except SQLAlchemyError as error:
            if well:
                logger.warning("keys and usage cannot be read, the last known are used: %s", str(error).splitlines()[0])
            return False
        return True


@cache
def require(role: Role) -> Any:  # noqa: ANN401 - what Depends returns
    """Return the dependency of a route: who sends the request must have this role or a higher one."""

    async def check(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        header: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        text = bearer.credentials if bearer is not None else header
        access: Access = request.app.state.access
        request.state.sender = access.admit(request, text, role)
        request.state.actor = str(request.state.sender)

    check.role = role  # type: ignore[attr-defined]
    return Depends(check)


def role_of(dependency: object) -> Role | None:
    """Return the role that a dependency of a route requires; None if it is another kind of dependency."""
    role: Role | None = getattr(dependency, "role", None)
    return role


def _exchange(storage: Storage, counted: Counter[tuple[str, str]]) -> tuple[KeyRing, dict[str, int]]:
    with storage.session() as session:
        save_usage(session, counted)
        return KeyRing(all_keys(session)), usage_today(session)


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _unauthorised(code: str, message: str) -> AccessError:
    return AccessError(message, code=code, status=401, headers={"WWW-Authenticate": 'Bearer realm="lesion"'})
