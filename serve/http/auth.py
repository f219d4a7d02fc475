"""Who may send what: API keys with roles, and the protection of a server that has none."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from lesion.auth.api_keys import KeyRing, all_keys
from lesion.core.errors import ConfigError
from lesion.core.roles import ROLES, Role
from lesion.database.storage import Storage
from serve.http.problems import ForbiddenError, UnauthorizedError
from serve.http.rate_limits import UsageMeter, save_usage, usage_today
from serve.settings import AccessSettings

logger = logging.getLogger(__name__)

LOCAL = "local"  # the name of a sender on this machine, as long as the server has no keys
ANONYMOUS = "anonymous"  # the same with open access, on any machine
_SYNC_S = 1.0  # how long a revoked key may still be accepted
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::\d*)?", re.IGNORECASE)


def check_address(host: str, keys: bool, open_access: bool) -> None:
    """Raise a ConfigError if other machines reach a host without a key that is not revoked or ``open_access``."""
    if not (keys or open_access or _is_loopback(host)):
        raise ConfigError(
            f"host={host} would answer other machines, and there is no API key. Make one with 'lesion keys "
            "create NAME --role admin' (it needs a storage, such as storage=local), or listen on host=127.0.0.1, or, "
            "if something in front of the server checks who sends a request, set access.open_access=true.",
            code="keys_missing",
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request: the name, role and id of a key; the id is empty where no key is needed."""

    name: str
    role: str
    key_id: str = ""

    def may(self, role: str) -> bool:
        """Return whether this is a key with a role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def __str__(self) -> str:
        return f"{self.name} ({self.key_id})" if self.key_id else self.name


class Authenticator:
    """Knows the API keys in one API process, and counts how often each is used.

    Without a storage, or before the first key is made, it admits requests of this machine; with ``open_access``, those
    of every machine. The ``api_processes`` share the requests of a minute.
    """

    def __init__(self, storage: Storage | None, settings: AccessSettings, api_processes: int = 1) -> None:
        self._storage = storage
        self._open = settings.open_access
        self._ring = KeyRing(())
        self._meter = UsageMeter(settings.per_minute, settings.per_day, api_processes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the keys, and synchronize with the database about once per second."""
        if self._storage is None:
            yield
            return
        await self.sync()
        stop = asyncio.Event()
        task = asyncio.create_task(self._watch(stop))
        try:
            yield
        finally:
            stop.set()  # not cancel: that would lose requests whose saving had not begun in its thread
            await task

    async def sync(self) -> None:
        """Save how often keys were used, and read the keys; nothing is lost if the database does not answer."""
        if self._storage is None:
            return
        unsaved = self._meter.take_unsaved()
        try:
            self._ring, saved = await asyncio.to_thread(_exchange, self._storage, unsaved)
        except SQLAlchemyError:
            self._meter.give_back(unsaved)
            raise
        self._meter.set_saved(saved)

    def admit(self, request: Request, text: str | None, role: Role) -> Principal:
        """Return who sent a request with a key; ``role`` is the least role that may send it.

        Raises:
            UnauthorizedError: The key is missing, unknown or revoked.
            ForbiddenError: The key's role is too low, or the request comes from elsewhere and the server has no keys.
            TooManyRequestsError: A limit of the key is reached.
        """
        if not self._ring.exists:
            return self._admit_without_key(request)
        if not text:
            message = "This server needs an API key. Send it as 'Authorization: Bearer KEY'."
            raise UnauthorizedError(message, code="key_missing")
        key = self._ring.check(text)
        if key is None:
            message = "The API key is unknown or was revoked. Ask the operator for another."
            raise UnauthorizedError(message, code="key_unknown")
        if ROLES.index(key.role) < ROLES.index(role):
            raise ForbiddenError(
                f"This needs the role {role}, and this key has the role {key.role}. Ask the operator for another key.",
                code="role_insufficient",
            )
        self._meter.count(key)
        return Principal(key.name, key.role, key.id)

    def _admit_without_key(self, request: Request) -> Principal:
        """Admit programs of this machine, but no web page of another site that is open in a browser here."""
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise ForbiddenError(
                "A web page of another site sent this request. A server without API keys does not answer such pages; "
                "make keys and send one.",
                code="origin_foreign",
            )
        if self._open:
            return Principal(ANONYMOUS, ROLES[-1])
        name = _AUTHORITY.fullmatch(host)
        peer = request.client.host if request.client else ""
        if name is None or not _is_loopback(name[1] or name[2]) or not _is_loopback(peer):
            raise ForbiddenError(
                "A server without API keys answers only its own machine, under the name localhost or 127.0.0.1. Use "
                "that name, or make keys.",
                code="not_local",
            )
        return Principal(LOCAL, ROLES[-1])

    async def _watch(self, stop: asyncio.Event) -> None:
        """Synchronize about once per second, and once more at the end."""
        healthy, ending = True, False
        while not ending:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SYNC_S)
            ending = stop.is_set()
            healthy = await self._try_sync(healthy)

    async def _try_sync(self, healthy: bool) -> bool:
        try:
            await self.sync()
        except SQLAlchemyError as error:
            if healthy:
                logger.warning("keys and usage cannot be read; the last ones are used: %s", str(error).splitlines()[0])
            return False
        return True


def _exchange(storage: Storage, unsaved: Counter[tuple[str, str]]) -> tuple[KeyRing, dict[str, int]]:
    with storage.session() as session:
        save_usage(session, unsaved)
        return KeyRing(all_keys(session)), usage_today(session)


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
