"""Users of ``POST /predict``: those who send images, and those who send something else."""

import os
import random

from locust import between, task

from serve.load.caller import Caller
from serve.load.checks import form, wrong_prediction, wrong_refusal
from serve.load.mistakes import MISTAKES
from serve.load.samples import load_images, mixture

FOLDER = os.environ.get("LESION_LOAD_IMAGES")
EXPLAIN = float(os.environ.get("LESION_LOAD_EXPLAIN", "0.1"))
# Bodies are made once: a user who makes them anew would measure itself.
BODIES = [form({"image": data}) for data in (mixture() if FOLDER == "mixed" else load_images(FOLDER))]


class Visitor(Caller):
    """Sends images, and looks at the health now and then."""

    weight = 20
    wait_time = between(0.0, 0.1)

    @task(20)
    def predict(self) -> None:
        """Send one image and check the answer."""
        explain = random.random() < EXPLAIN
        path, name = ("/predict?explain=true", "/predict?explain") if explain else ("/predict", "/predict")
        with self.send("POST", path, random.choice(BODIES), name=name) as response:
            fault = wrong_prediction(response, explain)
            if fault:
                response.failure(fault)

    @task(1)
    def health(self) -> None:
        """Ask whether the server is ready."""
        with self.send("GET", "/health") as response:
            if response.status_code != 200 or not response.json().get("ready"):
                response.failure(f"not ready: {response.status_code} {(response.text or '')[:200]}")


class Mistaken(Caller):
    """Sends what must be refused. The right refusal is a success, anything else a failure."""

    weight = 1
    wait_time = between(0.1, 1.0)

    @task
    def err(self) -> None:
        """Make one mistake."""
        mistake = random.choice(MISTAKES)
        what = (mistake.method, mistake.path, mistake.body, mistake.media_type)
        with self.send(*what, name=f"refused: {mistake.name}") as response:
            fault = wrong_refusal(response, mistake.status, mistake.code)
            if fault:
                response.failure(fault)
            else:
                response.success()  # or its status would make it a failure
