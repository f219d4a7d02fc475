"""A client of the HTTP API, for the demo, the benchmarks and the web page."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, ClassVar, Self, TypeVar

import httpx

from lesion.core.errors import LesionError

ENDED = frozenset({"promoted", "rejected", "budget_spent", "failed", "cancelled"})
_TEMPORARY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_MOST_DIGITS = 10  # of the seconds of a Retry-After
_POLL_S = 1.0
_UPLOAD_S = 900.0  # to check a thousand photos takes two cores minutes
Result = TypeVar("Result")


class ClientError(LesionError):
    """A request that brought no result.

    Attributes:
        status: The HTTP status of the response; without one, the status that a proxy would answer with.
        retry_after: Seconds for which the server wants no further request (``Retry-After``); None if unknown.
    """

    default_code = "http_error"
    proxy_status: ClassVar[int] = HTTPStatus.BAD_GATEWAY

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.status = status or self.proxy_status
        self.retry_after = retry_after

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed later: the server is away, busy or slow, or wants fewer requests."""
        return self.status in _TEMPORARY or isinstance(self, ServerUnavailableError | ServerTimeoutError)


class ServerUnavailableError(ClientError):
    """The server cannot be reached, or the connection broke."""

    default_code = "server_away"
    proxy_status = HTTPStatus.SERVICE_UNAVAILABLE


class ServerTimeoutError(ClientError):
    """The server was reached and did not answer in time."""

    default_code = "timed_out"
    proxy_status = HTTPStatus.GATEWAY_TIMEOUT


class WaitTimeoutError(ServerTimeoutError):
    """What was waited for did not happen in time."""


class UnexpectedResponseError(ClientError):
    """A response that Lesion's server would not give, such as a proxy's page."""

    default_code = "answer_not_understood"


class ResponseError(ClientError):
    """The server refused the request, with its own code, status and sentence."""


class KeyMissingError(ResponseError):
    """The server wants an API key, and none was sent."""

    default_code = "key_missing"


class NoWorkerReadyError(ResponseError):
    """The server cannot predict now; it answers all other requests."""

    default_code = "no_worker_ready"


class NoStorageError(ResponseError):
    """The server runs without a storage, which this request needs."""

    default_code = "no_storage"


class PredictionTimeoutError(ResponseError, ServerTimeoutError):
    """The server gave up on a prediction that took too long."""

    default_code = "timed_out"


_BY_CODE: dict[str, type[ResponseError]] = {
    kind.default_code: kind for kind in (KeyMissingError, NoStorageError, NoWorkerReadyError, PredictionTimeoutError)
}


class Client:
    """A connection to one server.

    All methods raise the errors of ``call``; those named ``wait_…`` also ``WaitTimeoutError``.

    Args:
        address: Such as ``http://127.0.0.1:8000``.
        key: An API key, if the server requires one.
        timeout: Seconds for one response; uploads may take longer.

    Attributes:
        identity: A hash of address and key, under which a cache may keep the server's answers.
    """

    def __init__(self, address: str, key: str | None = None, timeout: float = 120.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.identity = hashlib.sha256(f"{address}\n{key or ''}".encode()).hexdigest()
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        self._upload_timeout = httpx.Timeout(timeout, read=max(timeout, _UPLOAD_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> Any:  # noqa: ANN401 - httpx's arguments, JSON's values
        """Send one request and return the JSON of its response.

        Raises:
            ResponseError: The server refused it.
            ServerUnavailableError: The server cannot be reached.
            ServerTimeoutError: The server takes too long.
            UnexpectedResponseError: Something other than the server answers.
        """
        return _json(_check_status(self._send(method, path, **request)))

    def download(self, path: str, **params: Any) -> bytes:  # noqa: ANN401 - query parameters
        """Return the file at a path."""
        return _check_status(self._send("GET", path, params=params)).content

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's arguments
        """Send one request and return its response, whatever its status."""
        try:
            return self._http.request(method, path, **request)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:  # it was reached: it is slow, not away
            raise ServerTimeoutError(
                f"The server at {self._http.base_url} took too long over {method} {path}."
            ) from error
        except httpx.TransportError as error:
            raise ServerUnavailableError(f"The server at {self._http.base_url} does not answer: {error}.") from error
        except httpx.DecodingError as error:
            raise _unexpected(error.request, str(error)) from error

    def _object(self, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's arguments
        """Send one request that is answered with a JSON object."""
        body: dict[str, Any] = self.call(method, path, **request)
        return body

    def health(self, timeout: float | None = None) -> dict[str, Any]:
        """Return ``/health``, also of a server that cannot predict now, which answers it with 503.

        ``timeout`` is how many seconds the response may take; None for the limit of every request.
        """
        response = self._send("GET", "/health", **({} if timeout is None else {"timeout": timeout}))
        body: Any = None
        with suppress(ValueError):
            body = response.json()
        unready = response.status_code == HTTPStatus.SERVICE_UNAVAILABLE and isinstance(body, dict) and "ready" in body
        health: dict[str, Any] = body if unready else _json(_check_status(response))
        return health

    def wait_ready(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until the server predicts and return ``/health``."""

        def ready() -> dict[str, Any] | None:
            try:
                health = self.health()
            except ClientError:
                return None
            return health if health["ready"] else None

        return _wait(ready, seconds, "the server to be ready")

    def predict(
        self, image: bytes, *, explain: bool = False, class_name: str | None = None, method: str | None = None
    ) -> dict[str, Any]:
        """Classify one image file.

        Args:
            image: The file's content.
            explain: Whether to show where the answer comes from, as an overlay and as its two layers.
            class_name: The class to explain; the predicted one when None.
            method: How: ``occlusion`` (when None) or ``grad-cam``.
        """
        params: dict[str, Any] = {"explain": True, "layers": True} if explain else {}
        if class_name is not None:
            params["class"] = class_name
        if method is not None:
            params["method"] = method
        headers = {"Content-Type": "application/octet-stream"}
        return self._object("POST", "/predict", params=params, content=image, headers=headers)

    def upload(
        self,
        files: Sequence[tuple[str, bytes]],
        label: str | None = None,
        group: str | None = None,
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Upload training images, pairs of name and content, of one class and perhaps of one patient (``group``).

        A single ZIP archive needs no label: its folders are the classes. In a ``dry_run`` nothing is stored; the answer
        tells which classes were found and what would become of each file.
        """
        form = {name: value for name, value in (("label", label), ("group", group)) if value}
        parts = [("files", file) for file in files]
        path = "/upload_training_data" + ("?dry_run=true" if dry_run else "")
        return self._object("POST", path, files=parts, data=form, timeout=self._upload_timeout)

    def feedback(self, file: tuple[str, bytes], label: str) -> dict[str, Any]:
        """Send the right class of one image, a pair of name and content."""
        return self._object("POST", "/feedback", files={"file": file}, data={"label": label})

    def undo_feedback(self, changes: Sequence[int]) -> None:
        """Take back what this key's feedback changed; the answer to the feedback has the ``changes``."""
        self.call("POST", "/feedback/undo", json={"changes": list(changes)})

    def quarantine(self) -> list[dict[str, Any]]:
        """Return the images that wait for an admin's decision."""
        waiting: list[dict[str, Any]] = []
        while page := self.call("GET", "/quarantine", params={"after": waiting[-1]["id"] if waiting else 0})["images"]:
            waiting += page
        return waiting

    def release(self, sha256: str, label: str | None = None) -> None:
        """Accept a quarantined image, under another label if one is given."""
        self.call("POST", f"/quarantine/{sha256}/release", json={"label": label})

    def retrain(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - epochs, batch_size, learning_rate
        """Request a retraining and return its job."""
        return self._object("POST", "/retrain", json=request)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a retraining and return its job."""
        return self._object("DELETE", f"/retrain_jobs/{job_id}")

    def retrain_estimate(self, epochs: int | None = None) -> dict[str, Any]:
        """Return how long a retraining of so many epochs would take, and what it could prove."""
        params = {} if epochs is None else {"epochs": epochs}
        return self._object("GET", "/retrain_estimate", params=params)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the state of a retraining."""
        return self._object("GET", f"/retrain_status/{job_id}")

    def wait_job(
        self, job_id: str, seconds: float, tell: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait for the end of a retraining; ``tell`` is called with every state on the way."""

        def ended() -> dict[str, Any] | None:
            job = self.job(job_id)
            if tell is not None:
                tell(job)
            return job if job["state"] in ENDED else None

        return _wait(ended, seconds, f"job {job_id} to end")

    def wait_version(self, version: str, seconds: float = 30.0) -> None:
        """Wait until every inference worker predicts with a version."""

        def swapped() -> bool:
            workers = self.call("GET", "/health")["workers"]
            return bool(set(workers["versions"]) == {version} and workers["ready"] == workers["total"])

        _wait(swapped, seconds, f"every inference worker to predict with {version}")

    def rollback(self, reason: str, expected: int | None = None) -> dict[str, Any]:
        """Bring back the previous champion and return the new deployment.

        ``expected`` is the id of the deployment that this was decided against; the server refuses when it is not the
        newest any more.
        """
        return self._object("POST", "/rollback", json={"reason": reason, "expected": expected})


def _check_status(response: httpx.Response) -> httpx.Response:
    """Return a response of success; raise the problem that any other one describes."""
    if response.is_success:
        return response
    try:
        problem = response.json()
        code, message = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        request = response.request
        kind, code = ResponseError, None
        message = f"{request.method} {request.url.path} was answered with HTTP {response.status_code}."
    else:
        kind = _BY_CODE.get(code, ResponseError)
    raise kind(message, code=code, status=response.status_code, retry_after=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a ``Retry-After``, which may also be a point in time; None without one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _json(response: httpx.Response) -> Any:  # noqa: ANN401 - JSON's values
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise _unexpected(response.request, "it is not JSON") from error


def _unexpected(request: httpx.Request, reason: str) -> UnexpectedResponseError:
    return UnexpectedResponseError(
        f"The answer to {request.method} {request.url.path} is not understood: {reason}. Check that it is Lesion's "
        f"server, and not a proxy's page, that answers at {request.url.scheme}://{request.url.netloc.decode()}."
    )


def _wait(poll: Callable[[], Result | None], seconds: float, event: str) -> Result:
    deadline = time.monotonic() + seconds
    while not (result := poll()):
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"Waited {seconds:g} s for {event}.")
        time.sleep(_POLL_S)
    return result
