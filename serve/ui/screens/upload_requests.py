"""Sends many files in several requests, and remembers how far an upload came."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from streamlit.runtime.uploaded_file_manager import UploadedFile

from lesion.client import Client, ClientError
from serve.ui.charts import data_charts
from serve.ui.error_messages import is_file_error

# Refused files first, as the screen lists them.
OUTCOMES = {name: data_charts.OUTCOMES[name].capitalize() for name in ("rejected", "quarantined", "accepted")}
_MAX_FILES, _MAX_BYTES = 50, 16 * 2**20  # per request
_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")

Row = dict[str, str]
FileKey = tuple[str, str | None, str]  # a file's id, class and group


@dataclass(frozen=True)
class Batch:
    """Files that are sent under one class and perhaps one group; without a class, each is a ZIP with class folders."""

    files: Sequence[UploadedFile]
    label: str | None
    group: str

    def key(self, file: UploadedFile) -> FileKey:
        """Return what distinguishes a file from all others, and from itself under another class or group."""
        return file.file_id, self.label, self.group


@dataclass
class UploadProgress:
    """How far an upload came; it survives a click elsewhere and a server that fails in the middle.

    Attributes:
        requested: The keys of all files that are to be sent.
        sent: Those of the files that were sent.
        rows: The outcome of each file that was sent; of a ZIP, that of each file in it.
    """

    requested: set[FileKey] = field(default_factory=set)
    sent: set[FileKey] = field(default_factory=set)
    rows: list[Row] = field(default_factory=list)

    @property
    def unsent(self) -> set[FileKey]:
        """The keys of files that were not sent yet."""
        return self.requested - self.sent

    def begin(self, batch: Batch) -> list[UploadedFile]:
        """Return which files of a batch to send: the rest of an unfinished upload, or all files of a new one."""
        keys = {batch.key(file) for file in batch.files}
        if not keys & self.sent:
            self.sent, self.rows = set(), []
        self.requested = keys | self.sent
        return [file for file in batch.files if batch.key(file) not in self.sent]


def send(
    client: Client, progress: UploadProgress, batch: Batch, max_bytes: int, report_progress: Callable[[], None]
) -> None:
    """Send what was not sent yet of a batch, at most ``max_bytes`` per request, and report progress after each.

    Raises:
        ClientError: The server fails or refuses all files; what was sent until then stays recorded.
    """
    waiting = [*chunks(progress.begin(batch), max_bytes)][::-1]
    while waiting:
        chunk = waiting.pop()
        rows = _send_chunk(client, chunk, batch)
        if rows is None:
            middle = len(chunk) // 2
            waiting += [chunk[middle:], chunk[:middle]]
            continue
        progress.rows += rows
        progress.sent.update(batch.key(file) for file in chunk)
        report_progress()


def chunks(files: Sequence[UploadedFile], max_bytes: int) -> Iterator[list[UploadedFile]]:
    """Divide files among requests: at most 50 files, 16 MiB or ``max_bytes`` in each, every ZIP in its own request."""
    chunk: list[UploadedFile] = []
    size, limit = 0, min(_MAX_BYTES, max_bytes)
    for file in files:
        full = len(chunk) == _MAX_FILES or size + file.size > limit
        if chunk and (full or is_zip(file) or is_zip(chunk[-1])):
            yield chunk
            chunk, size = [], 0
        chunk.append(file)
        size += file.size
    if chunk:
        yield chunk


def is_zip(file: UploadedFile) -> bool:
    """Return whether a file begins as ZIP archives do."""
    # A BytesIO that was never written to shares its value, while a view of it would copy it.
    return file.getvalue()[:4] in _ZIP_SIGNATURES


def _send_chunk(client: Client, chunk: Sequence[UploadedFile], batch: Batch) -> list[Row] | None:
    """Return the outcome of each file; None if the files are too large together, while each may be small enough."""
    try:
        outcome = client.upload([(file.name, file.getvalue()) for file in chunk], batch.label, batch.group)
    except ClientError as error:
        if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and len(chunk) > 1:
            return None
        if not is_file_error(error):
            raise
        return [_row(file.name, "rejected", error.message) for file in chunk]
    return [_row(entry["name"], kind, entry["reason"]) for kind in OUTCOMES for entry in outcome[kind]]


def _row(name: str, kind: str, reason: str) -> Row:
    return {"File": name, "Outcome": OUTCOMES[kind], "Reason": reason}
