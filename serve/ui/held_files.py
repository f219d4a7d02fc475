"""Who may send files to the page, and how many bytes of them it keeps: for one session and for all together.

Streamlit takes files from everybody who opens the page and keeps them in memory until the session has ended.
"""

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

SESSION_MIB, ALL_MIB = "LESION_PAGE_SESSION_MIB", "LESION_PAGE_ALL_MIB"  # environment variables
DEFAULT_SESSION_MIB, DEFAULT_ALL_MIB = 256, 512  # the page has 1 GiB in compose and on Kubernetes
_MOST_ADMITTED = 20_000  # sessions and connections that are remembered


class _File(Protocol):
    @property
    def data(self) -> bytes: ...


class Files(Protocol):
    """What is used of Streamlit's ``UploadedFileManager``."""

    def get_files(self, session_id: str, file_ids: Sequence[str]) -> Sequence[_File]:
        """Return those files of a session that are still kept."""

    def remove_file(self, session_id: str, file_id: str) -> None:
        """Forget a file."""


class NoRoomError(Exception):
    """The page keeps as many bytes as it may."""


@dataclass(frozen=True)
class Bounds:
    """The most bytes of files that are kept."""

    session: int
    all: int


class HeldFiles:
    """Which sessions may send files, and which files each of them has sent."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._admitted: OrderedDict[str, None] = OrderedDict()
        self._sent: dict[str, set[str]] = defaultdict(set)  # the ids of the files of each session
        self._shown: dict[str, set[str]] = {}  # those of them that were on the page when its script ran last
        self._arriving: dict[str, int] = defaultdict(int)  # bytes that each session is sending

    @property
    def room(self) -> str:
        """What users are told of the bound, since Streamlit shows them only the status of a refusal (413)."""
        most = self._bounds.session // 2**20
        return f"All files that are dropped here may have {most} MiB together; uploaded ones do not count any more."

    def admit(self, *names: str) -> None:
        """Let sessions send files, and connections send messages of more than a few bytes."""
        with self._lock:
            for name in names:
                self._admitted[name] = None
                self._admitted.move_to_end(name)
            while len(self._admitted) > _MOST_ADMITTED:
                self._admitted.popitem(last=False)

    def dismiss(self, *names: str) -> None:
        """Take that right back, as at a sign-out."""
        with self._lock:
            for name in names:
                self._admitted.pop(name, None)

    def admits(self, *names: str | None) -> bool:
        """Return whether one of these sessions or connections was admitted."""
        with self._lock:
            return any(name in self._admitted for name in names if name)

    @contextmanager
    def arriving(self, files: Files, session: str, file: str, size: int) -> Iterator[None]:
        """Keep room for a file of at most ``size`` bytes while it arrives.

        Raises:
            NoRoomError: With this file, the session or all sessions together would have too many bytes.
        """
        with self._lock:
            own = self._held(files, session)
            for other in [each for each in self._sent if not self._held(files, each)]:
                del self._sent[other]  # it has ended, or was emptied
                self._shown.pop(other, None)
            everything = sum(self._held(files, each) for each in {*self._sent, *self._arriving})
            if own + size > self._bounds.session or everything + size > self._bounds.all:
                raise NoRoomError
            self._arriving[session] += size
        try:
            yield
        finally:
            with self._lock:
                self._sent[session].add(file)
                self._arriving[session] -= size
                if not self._arriving[session]:
                    del self._arriving[session]

    def keep(self, files: Files, session: str, shown: set[str]) -> None:
        """Forget the files of a session that were on the page and have left it; ``shown`` are those on it now."""
        with self._lock:
            gone = self._shown.pop(session, set()) - shown
            if shown:
                self._shown[session] = shown
            if session in self._sent:
                self._sent[session] -= gone
        for file in gone:
            files.remove_file(session, file)

    def _held(self, files: Files, session: str) -> int:
        kept = files.get_files(session, list(self._sent[session])) if session in self._sent else ()
        return sum(len(file.data) for file in kept) + self._arriving.get(session, 0)


def _bounds_from_environment() -> Bounds:
    session, everything = (
        int(os.environ.get(name, default)) * 2**20
        for name, default in ((SESSION_MIB, DEFAULT_SESSION_MIB), (ALL_MIB, DEFAULT_ALL_MIB))
    )
    return Bounds(session, everything)


HELD = HeldFiles(_bounds_from_environment())  # of this process, which runs the page for all its users
