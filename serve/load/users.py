"""Users of ``POST /predict``: some send images, others send requests that must be refused."""

import os
import random

from locust import between, task

from serve.load.caller import Caller
from serve.load.checks import form, prediction_fault, refusal_fault, status_fault
from serve.load.mistakes import MISTAKES
from serve.load.samples import load_images, mixture

FOLDER = os.environ.get("LESION_LOAD_IMAGES")
EXPLAIN = float(os.environ.get("LESION_LOAD_EXPLAIN", "0.1"))
# The bodies are built once: a user who built them for each request would measure itself.
BODIES = [form({"image": data}) for data in (mixture() if FOLDER == "mixed" else load_images(FOLDER))]


class Visitor(Caller):
    """Sends images, and sometimes asks for the health."""

    weight = 20
    wait_time = between(0.0, 0.1)

    @task(20)
    def predict(self) -> None:
        """Send one image and check the response."""
        explain = random.random() < EXPLAIN
        path, name = ("/predict?explain=true", "/predict?explain") if explain else ("/predict", "/predict")
        with self.send("POST", path, random.choice(BODIES), name=name) as response:
            self.report(response, prediction_fault(response, explain))

    @task(1)
    def health(self) -> None:
        """Ask whether the server is ready."""
        with self.send("GET", "/health") as response:
            ready = response.status_code == 200 and response.json().get("ready")
            self.report(response, "" if ready else f"not ready: {status_fault(response)}")


class Mistaken(Caller):
    """Sends requests that must be refused. The right refusal is a success, anything else a failure."""

    weight = 1
    wait_time = between(0.1, 1.0)

    @task
    def err(self) -> None:
        """Make one mistake."""
        mistake = random.choice(MISTAKES)
        request = (mistake.method, mistake.path, mistake.body, mistake.media_type)
        with self.send(*request, name=f"refused: {mistake.name}") as response:
            self.report(response, refusal_fault(response, mistake.status, mistake.code))
