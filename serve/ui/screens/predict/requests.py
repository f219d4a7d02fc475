"""Sends many files chunk by chunk, and keeps how far that came."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from lesion.client import Client
from lesion.core.errors import LesionError
from serve.ui.error_messages import of_the_file

OUTCOMES = {"rejected": "Refused", "quarantined": "Waits for an admin", "accepted": "Accepted"}
_FILES, _BYTES = 50, 16 * 2**20
_TOO_LARGE = 413
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

Row = dict[str, str]
Mark = tuple[str, str | None, str]  # of a file: its id, class and group


class File(Protocol):
    """A file that somebody dropped."""

    file_id: str
    name: str
    size: int

    def getvalue(self) -> bytes:
        """Return its content; a BytesIO that was never written to shares it, where a view of it would make a copy."""


AnyFile = TypeVar("AnyFile", bound=File)


@dataclass(frozen=True)
class Batch:
    """Files that are sent with one class, or each ZIP by its folders when that is None, and perhaps one group."""

    files: Sequence[File]
    label: str | None
    group: str

    def mark(self, file: File) -> Mark:
        """Return what tells a file from every other, and from itself under another class or group."""
        return file.file_id, self.label, self.group


@dataclass
class Upload:
    """How far an upload came; it outlives a click elsewhere and a server that fails in the middle.

    Attributes:
        wanted: The marks of all files that were to be sent.
        sent: Those that were.
        rows: What became of each file that was sent, a ZIP's one by one.
    """

    wanted: set[Mark] = field(default_factory=set)
    sent: set[Mark] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many files were not sent."""
        return len(self.wanted) - len(self.sent)

    def begin(self, batch: Batch) -> list[File]:
        """Return what of a batch is to be sent: the rest if it was begun, else all of it, and the past is forgotten."""
        marks = {batch.mark(file) for file in batch.files}
        if not marks & self.sent:
            self.sent, self.rows = set(), []
        self.wanted = marks | self.sent
        return [file for file in batch.files if batch.mark(file) not in self.sent]


def send(client: Client, upload: Upload, batch: Batch, most: int, tell: Callable[[], None]) -> None:
    """Send what of a batch was not sent yet, at most ``most`` bytes a request, and ``tell`` after each.

    Raises:
        LesionError: The server fails or refuses all; what was sent until then stays noted.
    """
    waiting = [*chunks(upload.begin(batch), most)][::-1]
    while waiting:
        chunk = waiting.pop()
        rows = _send_chunk(client, chunk, batch)
        if rows is None:
            middle = len(chunk) // 2
            waiting += [chunk[middle:], chunk[:middle]]
            continue
        upload.rows += rows
        upload.sent.update(batch.mark(file) for file in chunk)
        tell()


def chunks(files: Sequence[AnyFile], most: int) -> Iterator[list[AnyFile]]:
    """Divide files into what one request may carry: at most 50 files, 16 MiB or ``most`` bytes, a ZIP by itself."""
    chunk: list[AnyFile] = []
    room = size = min(_BYTES, most)
    for file in files:
        alone = is_zip(file)
        if chunk and (alone or len(chunk) == _FILES or file.size > room):
            yield chunk
            chunk, room = [], size
        chunk.append(file)
        room -= file.size
        if alone:
            yield chunk
            chunk, room = [], size
    if chunk:
        yield chunk


def is_zip(file: File) -> bool:
    """Say whether a file begins as ZIP archives do."""
    return file.getvalue()[:4] in _ZIP


def _send_chunk(client: Client, chunk: Sequence[File], batch: Batch) -> list[Row] | None:
    """Return what became of files; None if they are too large together, so that nobody knows which one is."""
    try:
        answer = client.upload([(file.name, file.getvalue()) for file in chunk], batch.label, batch.group)
    except LesionError as error:
        if error.status == _TOO_LARGE and len(chunk) > 1:
            return None
        if not of_the_file(error):
            raise
        return [_row(file.name, "rejected", error.message) for file in chunk]
    return [_row(entry["name"], kind, entry["reason"]) for kind in OUTCOMES for entry in answer[kind]]


def _row(name: str, kind: str, reason: str) -> Row:
    return {"File": name, "Outcome": OUTCOMES[kind], "Reason": reason}
