"""What all users have in common."""

import os

from locust.contrib.fasthttp import FastHttpUser, ResponseContextManager

from serve.load.checks import FORM

KEY = os.environ.get("LESION_API_KEY")


class Caller(FastHttpUser):
    """A user who sends the key of LESION_API_KEY with every request, if there is one."""

    abstract = True
    default_headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}

    def send(
        self, method: str, path: str, body: bytes = b"", media_type: str = FORM, name: str | None = None
    ) -> ResponseContextManager:
        """Send a request, to be used in a ``with`` that says whether the answer was right."""
        headers = {"Content-Type": media_type} if body else {}
        # Locust takes bytes as well, whatever its annotation says.
        return self.client.request(method, path, name, body or None, headers=headers, catch_response=True)  # type: ignore[arg-type]
