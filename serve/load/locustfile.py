"""Load test of a running server with Locust.

    locust -f serve/load/locustfile.py --headless --users 20 --spawn-rate 10 --run-time 30s --host http://127.0.0.1:8000

Locust exits with 1 when any request failed. An answer with wrong content is a failure, whatever its status.
Environment:

    LESION_LOAD_IMAGES   a folder of images to send (searched recursively, at most 200); by default some are generated
    LESION_LOAD_EXPLAIN  the share of predictions that ask for an overlay, 0 to 1 (default 0.1)
"""

import base64
import os
import random

from locust import HttpUser, between, task
from locust.clients import ResponseContextManager

from serve.load.samples import load_images

IMAGES = load_images(os.environ.get("LESION_LOAD_IMAGES"))
EXPLAIN = float(os.environ.get("LESION_LOAD_EXPLAIN", "0.1"))


class Visitor(HttpUser):
    """Sends images, and looks at the health now and then."""

    wait_time = between(0.0, 0.1)

    @task(20)
    def predict(self) -> None:
        """Send one image and check the answer."""
        explain = random.random() < EXPLAIN
        with self.client.post(
            "/predict",
            params={"explain": "true"} if explain else {},
            files={"file": ("image", random.choice(IMAGES))},
            name="/predict?explain" if explain else "/predict",
            catch_response=True,
        ) as response:
            fault = wrong_prediction(response, explain)
            if fault:
                response.failure(fault)

    @task(1)
    def health(self) -> None:
        """Ask whether the server is ready."""
        with self.client.get("/health", catch_response=True) as response:
            if response.status_code != 200 or not response.json().get("ready"):
                response.failure(f"not ready: {response.status_code} {response.text[:200]}")


def wrong_prediction(response: ResponseContextManager, explain: bool) -> str:
    """Say what is wrong with an answer; empty when nothing is."""
    if response.status_code != 200:
        return f"status {response.status_code}: {response.text[:200]}"
    answer = response.json()
    probabilities = answer["probabilities"]
    if abs(sum(probabilities.values()) - 1.0) > 1e-4:
        return f"the probabilities sum to {sum(probabilities.values())}"
    if max(probabilities, key=probabilities.get) != answer["predicted_class"]:
        return f"{answer['predicted_class']} is not the most probable of {probabilities}"
    if response.headers.get("X-Request-ID") != answer["request_id"]:
        return "the request ids differ"
    if explain and not base64.b64decode(answer["explanation"]["overlay_png_base64"]).startswith(b"\x89PNG"):
        return "the overlay is not a PNG file"
    return ""
