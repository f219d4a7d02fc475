"""A client of the HTTP API, for the demo, the benches and the web page."""

import hashlib
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Self, TypeVar

import httpx

from lesion.core.errors import LesionError

ENDED = frozenset({"promoted", "rejected", "failed", "cancelled"})
_POLL_S = 1.0
_JUDGING_S = 900.0  # a thousand photos take two cores minutes
Result = TypeVar("Result")


class Client:
    """Speaks with one server.

    Args:
        address: Such as ``http://127.0.0.1:8000``.
        key: An API key, where the server asks for one.
        timeout: Seconds for one answer; an upload's may take longer.

    Attributes:
        identity: Who asks whom, without the key itself; what the server told may be kept under it.
    """

    def __init__(self, address: str, key: str | None = None, timeout: float = 120.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.identity = hashlib.sha256(f"{address}\n{key or ''}".encode()).hexdigest()
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        self._patient = httpx.Timeout(timeout, read=max(timeout, _JUDGING_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **request: Any) -> Any:  # noqa: ANN401 - httpx's arguments, JSON's values
        """Send one request and return the JSON of its answer.

        Raises:
            LesionError: The server refused it, with the server's code, status and sentence; it cannot be reached
                (``server_away``), takes too long (``timed_out``), or what answers is something else
                (``answer_not_understood``).
        """
        return self._json(self._send(method, path, **request))

    def download(self, path: str, **params: Any) -> bytes:  # noqa: ANN401 - query parameters
        """Return the file that is at a path.

        Raises:
            LesionError: As for ``call``.
        """
        return self._send("GET", path, params=params).content

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's arguments
        """Send one request and return its answer if it is a good one."""
        return self._good(self._exchange(method, path, **request))

    def _exchange(self, method: str, path: str, **request: Any) -> httpx.Response:  # noqa: ANN401 - httpx's arguments
        """Send one request and return its answer, whatever it is."""
        try:
            return self._http.request(method, path, **request)
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:  # it was reached: it is slow, not away
            raise LesionError(
                f"The server at {self._http.base_url} took too long over {method} {path}.", code="timed_out", status=504
            ) from error
        except httpx.TransportError as error:
            raise LesionError(
                f"The server at {self._http.base_url} does not answer: {error}.", code="server_away", status=503
            ) from error
        except httpx.DecodingError as error:
            raise self._not_understood(method, path, str(error)) from error

    def _good(self, response: httpx.Response) -> httpx.Response:
        """Return a good answer; raise what any other says."""
        if response.is_success:
            return response
        try:
            problem = response.json()
            raise LesionError(problem["detail"], code=problem["code"], status=response.status_code)
        except (ValueError, KeyError, TypeError):
            asked = response.request
            sentence = f"{asked.method} {asked.url.path} was answered {response.status_code}."
            raise LesionError(sentence, code="http_error", status=response.status_code) from None

    def _json(self, response: httpx.Response) -> Any:  # noqa: ANN401 - JSON's values
        try:
            return response.json() if response.content else None
        except ValueError as error:
            asked = response.request
            raise self._not_understood(asked.method, asked.url.path, "it is no JSON") from error

    def _not_understood(self, method: str, path: str, why: str) -> LesionError:
        return LesionError(
            f"The answer to {method} {path} is not understood: {why}. Check that it is Lesion's server, and no proxy's "
            f"page, that answers at {self._http.base_url}.",
            code="answer_not_understood",
            status=502,
        )

    def health(self, timeout: float | None = None) -> dict[str, Any]:
        """Return what the server says of itself, also when it cannot predict now, which it answers with 503.

        Args:
            timeout: Seconds for the answer; those of every request when None.

        Raises:
            LesionError: As for ``call``.
        """
        limits = {} if timeout is None else {"timeout": timeout}
        response = self._exchange("GET", "/health", **limits)
        unready = response.status_code == HTTPStatus.SERVICE_UNAVAILABLE and _is_health(response)
        found: dict[str, Any] = self._json(response if unready else self._good(response))
        return found

    def wait_ready(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until predictions are answered and return ``/health``."""

        def ready() -> dict[str, Any] | None:
            try:
                health = self.health()
            except LesionError:
                return None
            return health if health["ready"] else None

        return _wait(ready, seconds, "the server to be ready")

    def predict(self, image: bytes, *, explain: bool = False, class_name: str | None = None) -> dict[str, Any]:
        """Classify one image file.

        Args:
            image: The file's content.
            explain: Whether to say where the network looked, as an overlay and as its two layers.
            class_name: For which class it is explained; the predicted one when None.
        """
        params: dict[str, Any] = {"explain": True, "layers": True} if explain else {}
        if class_name is not None:
            params["class"] = class_name
        headers = {"Content-Type": "application/octet-stream"}
        answer: dict[str, Any] = self.call("POST", "/predict", params=params, content=image, headers=headers)
        return answer

    def upload(
        self, files: Sequence[tuple[str, bytes]], label: str | None = None, group: str | None = None
    ) -> dict[str, Any]:
        """Give labelled images, pairs of name and content, of one class and perhaps of one patient.

        One ZIP archive by itself may go without a label: its folders are the classes.
        """
        form = {name: value for name, value in (("label", label), ("group", group)) if value}
        parts = [("files", file) for file in files]
        outcome: dict[str, Any] = self.call(
            "POST", "/upload_training_data", files=parts, data=form, timeout=self._patient
        )
        return outcome

    def feedback(self, file: tuple[str, bytes], label: str) -> dict[str, Any]:
        """Say what one image, a pair of name and content, really shows."""
        outcome: dict[str, Any] = self.call("POST", "/feedback", files={"file": file}, data={"label": label})
        return outcome

    def quarantine(self) -> list[dict[str, Any]]:
        """Return the images that wait for an admin."""
        waiting: list[dict[str, Any]] = []
        while page := self.call("GET", "/quarantine", params={"after": waiting[-1]["id"] if waiting else 0})["images"]:
            waiting += page
        return waiting

    def release(self, sha256: str) -> None:
        """Accept a quarantined image."""
        self.call("POST", f"/quarantine/{sha256}/release")

    def retrain(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - epochs, batch_size, learning_rate
        """Ask for a retraining and return its job."""
        job: dict[str, Any] = self.call("POST", "/retrain", json=request)
        return job

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a retraining and return its job."""
        job: dict[str, Any] = self.call("DELETE", f"/retrain_jobs/{job_id}")
        return job

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the state of a retraining."""
        job: dict[str, Any] = self.call("GET", f"/retrain_status/{job_id}")
        return job

    def wait_job(
        self, job_id: str, seconds: float, tell: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait for the end of a retraining; ``tell`` gets every state on the way.

        Raises:
            LesionError: It did not end in time (``timed_out``).
        """

        def ended() -> dict[str, Any] | None:
            job = self.job(job_id)
            if tell is not None:
                tell(job)
            return job if job["state"] in ENDED else None

        return _wait(ended, seconds, f"job {job_id} to end")

    def wait_version(self, version: str, seconds: float = 30.0) -> None:
        """Wait until every inference worker answers with a version."""

        def swapped() -> bool:
            workers = self.call("GET", "/health")["workers"]
            return bool(set(workers["versions"]) == {version} and workers["ready"] == workers["total"])

        _wait(swapped, seconds, f"every worker to serve {version}")

    def rollback(self, reason: str, expected: int | None = None) -> dict[str, Any]:
        """Bring back the champion before this one.

        Args:
            reason: Why.
            expected: The id of the deployment that this was decided against; refused when another has followed it.
        """
        body = {"reason": reason, "expected": expected}
        deployment: dict[str, Any] = self.call("POST", "/rollback", json=body)
        return deployment


def _wait(look: Callable[[], Result | None], seconds: float, what: str) -> Result:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise LesionError(f"Waited {seconds:g} s for {what}.", code="timed_out", status=504)
        time.sleep(_POLL_S)
    return found


def _is_health(response: httpx.Response) -> bool:
    try:
        answer = response.json()
    except ValueError:
        return False
    return isinstance(answer, dict) and "ready" in answer
