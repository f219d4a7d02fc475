"""One large file over HTTP: resumed where it was cut, checked before it gets its name."""

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from lesion.core.errors import DataError
from lesion.download.archives import require_space

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all (None: the server does not say)

_BLOCK = 2**18
_TIMEOUT_S = 30
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # states of a server that may be over in a moment


class _CutError(Exception):
    """The connection ended early; what has come is kept."""


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    attempts: int = 5,
    pause_s: float = 1.0,
    report: Report = lambda done, total: None,
) -> str:
    """Download a file, or go on with an earlier download.

    What has come lies in ``<target>.part`` until it is complete and its checksum, where known, is right. The server is
    asked for the rest alone and, through ``If-Range``, only if its file has not changed meanwhile.

    Args:
        url: An http or https address.
        target: Where the file will be; nothing is done if it is there with the right checksum.
        sha256: The checksum it must have, in hex.
        attempts: Failures in a row, without a byte of progress between them, after which to give up.
        pause_s: Seconds before the second attempt; doubled for each further one.
        report: Called with the progress.

    Returns:
        The SHA-256 of the file, in hex.

    Raises:
        DataError: download_network, download_refused, download_checksum or disk_full.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url} is no http or https address, the only kinds supported; give one.", code="url_invalid")
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        failures = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _transfer(url, part, report)
                break
            except _CutError as cut:
                grown = part.exists() and part.stat().st_size > before
                failures = 1 if grown else failures + 1
                if failures >= attempts:
                    raise _no_network(url, part, cut) from cut
                time.sleep(pause_s * 2 ** (failures - 1))
    file = target if target.exists() else part
    actual = file_sha256(file)
    if sha256 and actual != sha256.lower():
        file.unlink()
        _facts(part).unlink(missing_ok=True)
        raise DataError(
            f"What {url} gave has the SHA-256 {actual}, not {sha256}; it was deleted. Try again, and if it comes out "
            "the same, the source has changed: look for another one.",
            code="download_checksum",
        )
    file.replace(target)
    _facts(part).unlink(missing_ok=True)
    return actual


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _facts(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _no_network(url: str, part: Path, cut: Exception) -> DataError:
    kept = part.stat().st_size if part.exists() else 0
    return DataError(
        f"{urlsplit(url).netloc} cannot be reached or does not answer ({cut}). Check the network and, behind a proxy, "
        f"HTTPS_PROXY; then run the same command again: it goes on after the {kept:,} bytes that have come.",
        code="download_network",
    )


def _transfer(url: str, part: Path, report: Report) -> None:
    """Ask once for what is missing and append it."""
    start, validator = _begun(url, part)
    headers = {"User-Agent": "lesion", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:  # noqa: S310 (the scheme is checked)
            if answer.status != 206 or not str(answer.headers["Content-Range"]).startswith(f"bytes {start}-"):
                start = 0
            length = answer.headers["Content-Length"]
            total = start + int(length) if length and length.isdecimal() else None
            if total is not None:
                require_space(part.parent, total - start)
            facts = {"url": url, "validator": answer.headers["ETag"] or answer.headers["Last-Modified"] or ""}
            _facts(part).write_text(json.dumps(facts))
            with part.open("ab" if start else "wb") as file:
                while block := answer.read(_BLOCK):
                    file.write(block)
                    report(file.tell(), total)
                if total is not None and file.tell() < total:
                    raise _CutError(f"the connection ended after {file.tell():,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # there is nothing after what we have, or the file has shrunk
            if str(error.headers["Content-Range"]) == f"bytes */{start}":
                return
            part.unlink()
        elif error.code not in _PASSING:
            raise _refusal(url, error) from error
        raise _CutError(f"HTTP {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(str(error) or type(error).__name__) from error


def _begun(url: str, part: Path) -> tuple[int, str]:
    """How much has come, and by what the server can tell that its file is still the same."""
    try:
        facts = json.loads(_facts(part).read_text())
        if facts["url"] == url and facts["validator"] and not facts["validator"].startswith("W/"):
            return part.stat().st_size, facts["validator"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no earlier download, or one that cannot be trusted: begin again
    return 0, ""


def _refusal(url: str, error: urllib.error.HTTPError) -> DataError:
    advice = {
        401: "it wants credentials, so choose another source",
        403: "it does not allow this, so choose another source",
        404: "there is no such file, so check the address",
        410: "the file has been taken away, so choose another source",
    }
    what = advice.get(error.code, "choose another source or try later")
    return DataError(f"{url} answered HTTP {error.code}: {what}.", code="download_refused")
