"""Download one large file over HTTP: resume it after an interruption, check it before it gets its name."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from lesion.core.errors import DataError
from lesion.core.files import file_sha256
from lesion.download.archives import require_space

Report = Callable[[int, int | None], None]  # bytes so far, total bytes (None if the server does not tell)

_BLOCK = 2**18
_TIMEOUT_S = 30
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # a server that answers so may be well again in a moment
_ADVICE = {
    401: "it requires credentials, so choose another source",
    403: "it does not allow this, so choose another source",
    404: "there is no such file, so check the address",
    410: "the file has been removed, so choose another source",
}


class _IncompleteTransferError(Exception):
    """The transfer ended early; the bytes so far are on the disk."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    attempts: int = 5,
    pause_s: float = 1.0,
    report: Report = lambda done, total: None,
) -> str:
    """Download a file, or continue an earlier download of it.

    The bytes are in ``<target>.part`` until the file is complete and its checksum, if given, is right. Only the missing
    bytes are requested, and ``If-Range`` makes the server send all of them if its file has changed.

    Args:
        url: An http or https address.
        target: The file to write; nothing is downloaded if it exists with the right checksum.
        sha256: The expected checksum, in hex.
        attempts: Give up after so many failures in a row without a new byte.
        pause_s: Seconds before the second attempt; doubled for each further one.
        report: Called with the progress.

    Returns:
        The SHA-256 of the file, in hex.

    Raises:
        DataError: download_network, download_refused, download_checksum or disk_full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url} is not an http or https address; give one.", code="url_invalid")
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        _transfer_with_retries(url, part, attempts, pause_s, report)
    file = target if target.exists() else part
    actual = file_sha256(file)
    if sha256 and actual != sha256.lower():
        file.unlink()
        _state_file(part).unlink(missing_ok=True)
        raise DataError(
            f"The file from {url} has the SHA-256 {actual}, not {sha256}; it was deleted. Try again; if the checksum "
            "is the same then, the source has changed: choose another one.",
            code="download_checksum",
        )
    file.replace(target)
    _state_file(part).unlink(missing_ok=True)
    return actual


def _transfer_with_retries(url: str, part: Path, attempts: int, pause_s: float, report: Report) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            return _transfer(url, part, report)
        except _IncompleteTransferError as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise DataError(
                    f"{urlsplit(url).netloc} cannot be reached or does not answer ({error}). Check the network and, "
                    "behind a proxy, HTTPS_PROXY; then run the same command again: it continues after the "
                    f"{_size(part):,} bytes that are here.",
                    code="download_network",
                ) from error
            time.sleep(pause_s * 2 ** (failures - 1))


def _transfer(url: str, part: Path, report: Report) -> None:
    """Request the missing bytes once and append them."""
    start, validator = _resume_point(url, part)
    headers = {"User-Agent": "lesion", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the scheme is checked)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            _append(response, url, part, start, report)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if str(error.headers["Content-Range"]) == f"bytes */{start}":
                return  # the file is complete
            part.unlink()  # the server's file has become shorter
        elif error.code not in _TEMPORARY:
            advice = _ADVICE.get(error.code, "choose another source or try later")
            raise DataError(f"{url} answered HTTP {error.code}: {advice}.", code="download_refused") from error
        raise _IncompleteTransferError(f"HTTP {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _IncompleteTransferError(str(error) or type(error).__name__) from error


def _append(response: http.client.HTTPResponse, url: str, part: Path, start: int, report: Report) -> None:
    """Write the response's bytes from ``start`` on, or from the beginning if the server sends the whole file."""
    sent_range = str(response.headers["Content-Range"]) if response.status == HTTPStatus.PARTIAL_CONTENT else ""
    if not sent_range.startswith(f"bytes {start}-"):
        start = 0
    length = response.headers["Content-Length"]
    total = start + int(length) if length and length.isdecimal() else None
    if total is not None:
        require_space(part.parent, total - start)
    validator = response.headers["ETag"] or response.headers["Last-Modified"] or ""
    _state_file(part).write_text(json.dumps({"url": url, "validator": validator}))
    with part.open("ab" if start else "wb") as file:
        while block := response.read(_BLOCK):
            file.write(block)
            report(file.tell(), total)
        if total is not None and file.tell() < total:
            raise _IncompleteTransferError(f"the connection ended after {file.tell():,} of {total:,} bytes")


def _resume_point(url: str, part: Path) -> tuple[int, str]:
    """Return how many bytes are here, and the validator by which the server recognizes their file; 0 to start again."""
    try:
        state = json.loads(_state_file(part).read_text())
        if state["url"] == url and state["validator"] and not state["validator"].startswith("W/"):
            return part.stat().st_size, state["validator"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no earlier download, or a damaged record of it
    return 0, ""


def _state_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
