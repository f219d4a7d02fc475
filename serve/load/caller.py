"""The base of all users."""

import os
from typing import Any

from locust.contrib.fasthttp import FastHttpUser, ResponseContextManager

from serve.load.checks import FORM

KEY = os.environ.get("LESION_API_KEY")


class Caller(FastHttpUser):
    """A user who sends the key in LESION_API_KEY, if there is one, with every request."""

    abstract = True
    default_headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}

    def send(
        self, method: str, path: str, body: bytes = b"", media_type: str = FORM, name: str | None = None
    ) -> ResponseContextManager:
        """Send a request; use the result in a ``with`` block that reports whether the response was right."""
        headers = {"Content-Type": media_type} if body else {}
        # Locust accepts bytes too, although its annotation does not.
        return self.client.request(method, path, name, body or None, headers=headers, catch_response=True)  # type: ignore[arg-type]

    @staticmethod
    def report(response: Any, fault: str) -> None:  # noqa: ANN401 - Locust's methods have no types
        """Record a failure if there is a fault, else a success, whatever the status of the response."""
        if fault:
            response.failure(fault)
        else:
            response.success()
