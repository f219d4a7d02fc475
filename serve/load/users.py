"""Users of ``POST /predict``: some send images, others send requests that must be refused."""

import os
import random
from typing import Any

from locust import between, task
from locust.contrib.fasthttp import FastHttpUser, ResponseContextManager

from serve.load.checks import FORM, MISTAKES, form, prediction_fault, refusal_fault, status_fault
from serve.load.samples import load_images, mixture

KEY = os.environ.get("LESION_API_KEY")
FOLDER = os.environ.get("LESION_LOAD_IMAGES")
EXPLAIN = float(os.environ.get("LESION_LOAD_EXPLAIN", "0.1"))
# By the method at no cost: heat maps by occlusion wait in a small queue of their own, which many users would fill.
_EXPLAINED = "/predict?explain=true&method=grad-cam"
# The bodies are built once: a user who built them for each request would measure itself.
BODIES = [form({"image": data}) for data in (mixture() if FOLDER == "mixed" else load_images(FOLDER))]


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


class Visitor(Caller):
    """Sends images, and sometimes asks for the health."""

    weight = 20
    wait_time = between(0.0, 0.1)

    @task(20)
    def predict(self) -> None:
        explain = random.random() < EXPLAIN
        path, name = (_EXPLAINED, "/predict?explain") if explain else ("/predict", "/predict")
        with self.send("POST", path, random.choice(BODIES), name=name) as response:
            self.report(response, prediction_fault(response, explain))

    @task(1)
    def health(self) -> None:
        with self.send("GET", "/health") as response:
            ready = response.status_code == 200 and response.json().get("ready")
            self.report(response, "" if ready else f"not ready: {status_fault(response)}")


class Mistaken(Caller):
    """Sends requests that must be refused. The right refusal is a success, anything else a failure."""

    weight = 1
    wait_time = between(0.1, 1.0)

    @task
    def err(self) -> None:
        mistake = random.choice(MISTAKES)
        request = (mistake.method, mistake.path, mistake.body, mistake.media_type)
        with self.send(*request, name=f"refused: {mistake.name}") as response:
            self.report(response, refusal_fault(response, mistake.status, mistake.code))
