"""Sign-ins that outlive a window: the browser keeps one half of the key in a cookie and the page the other in a file.

The halves are the key XOR random bytes, and those bytes, so that neither of them alone tells anything of the key.
Without the file, after a sign-out or when its time is over, the cookie is worthless.
"""

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lesion.core.files import write_atomically

FOLDER, HOURS = "LESION_PAGE_SIGN_INS", "LESION_PAGE_SIGN_IN_HOURS"  # environment variables
DEFAULT_HOURS = 12.0
_TICKET_S = 60.0  # how long a browser has to fetch its cookie


@dataclass(frozen=True)
class Half:
    """What the page keeps of a sign-in."""

    half: str  # hex
    expires: float  # seconds since 1970


class SignIns:
    """The sign-ins of a page; in memory only without a ``folder``, which must exist otherwise."""

    def __init__(self, folder: Path | None, hours: float) -> None:
        self.seconds = hours * 3600
        self._folder = folder
        self._memory: dict[str, Half] = {}
        self._tickets: dict[str, tuple[str, float]] = {}

    def begin(self, key: str) -> str:
        """Return the cookie that stands for a key from now on."""
        self._prune()
        name, text = secrets.token_urlsafe(24), key.encode()
        half = secrets.token_bytes(len(text))
        masked = bytes(one ^ other for one, other in zip(text, half, strict=True))
        self._write(_file_name(name), Half(half.hex(), time.time() + self.seconds))
        return f"{name}.{masked.hex()}"

    def key_of(self, cookie: str) -> str | None:
        """Return the key that a cookie stands for; None if it is unknown, ended or expired."""
        name, _, masked = cookie.partition(".")
        kept = self._read(_file_name(name))
        if kept is None or kept.expires < time.time() or len(masked) != len(kept.half):
            return None
        with suppress(ValueError):
            pairs = zip(bytes.fromhex(masked), bytes.fromhex(kept.half), strict=True)
            return bytes(one ^ other for one, other in pairs).decode()
        return None

    def end(self, cookie: str) -> None:
        """Make a cookie worthless, in all windows and for good."""
        file_name = _file_name(cookie.partition(".")[0])
        self._memory.pop(file_name, None)
        if self._folder is not None:
            (self._folder / file_name).unlink(missing_ok=True)

    def offer(self, cookie: str) -> str:
        """Return a ticket with which a browser can fetch a cookie once, within a minute."""
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = cookie, time.monotonic() + _TICKET_S
        return ticket

    def is_offered(self, ticket: str) -> bool:
        """Return whether a browser has not fetched its cookie yet, and still can."""
        _, until = self._tickets.get(ticket, ("", 0.0))
        return time.monotonic() < until

    def fetch(self, ticket: str) -> str | None:
        """Return the cookie that a ticket is for; None if it was fetched before or is too old."""
        cookie, until = self._tickets.pop(ticket, ("", 0.0))
        return cookie if time.monotonic() < until else None

    def _prune(self) -> None:
        now, monotonic = time.time(), time.monotonic()
        for ticket, (_, until) in list(self._tickets.items()):
            if until < monotonic:
                self._tickets.pop(ticket, None)
        files = [] if self._folder is None else [path.name for path in self._folder.iterdir()]
        for name in [*files, *self._memory]:
            kept = self._read(name)
            if kept is not None and kept.expires < now:
                self._memory.pop(name, None)
                if self._folder is not None:
                    (self._folder / name).unlink(missing_ok=True)

    def _write(self, file_name: str, half: Half) -> None:
        if self._folder is None:
            self._memory[file_name] = half
        else:
            content = json.dumps({"half": half.half, "expires": half.expires})
            write_atomically(self._folder / file_name, content, mode=0o600)

    def _read(self, file_name: str) -> Half | None:
        if self._folder is None:
            return self._memory.get(file_name)
        try:
            return Half(**json.loads((self._folder / file_name).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _from_environment() -> SignIns:
    folder = os.environ.get(FOLDER)
    return SignIns(Path(folder) if folder else None, float(os.environ.get(HOURS, DEFAULT_HOURS)))


SIGN_INS = _from_environment()  # of this process
