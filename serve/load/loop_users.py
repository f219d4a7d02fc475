"""Users of the closed loop: experts who upload labeled images, and an operator who retrains. They need a storage."""

import logging
import random
import time
from itertools import count

from locust import between, task
from locust.exception import StopUser

from lesion.client import ENDED
from serve.load.checks import form, status_fault, upload_fault
from serve.load.samples import encode, scan
from serve.load.users import Caller

logger = logging.getLogger(__name__)

_BATCH = 4
_seeds = count(time.time_ns() // 1000)  # of images that no earlier run sent


class Expert(Caller):
    """Uploads batches of new labeled images, sends some twice, and reads the statistics of the data."""

    weight = 1
    wait_time = between(0.5, 2.0)
    classes: list[str]
    turn: int = 0

    def on_start(self) -> None:
        """Learn the classes; stop if the server has no storage."""
        with self.send("GET", "/dataset/stats") as response:
            response.success()
            if response.status_code == 404:
                logger.error("The server has no storage, so experts cannot upload. Start it with storage=local.")
                raise StopUser
        self.classes = self.client.get("/info").json()["classes"]

    @task
    def contribute(self) -> None:
        """Upload new images of one class and read the statistics; every second time send the same images again."""
        images = {f"{seed}.png": encode(scan(seed, 256), "PNG") for seed in (next(_seeds) for _ in range(_BATCH))}
        body = form(images, "files", label=random.choice(self.classes))
        self._upload("/upload_training_data", body, repeated=False)
        self.client.get("/dataset/stats")
        self.turn += 1
        if self.turn % 2 == 0:
            self._upload("/upload_training_data again", body, repeated=True)

    def _upload(self, name: str, body: bytes, repeated: bool) -> None:
        with self.send("POST", "/upload_training_data", body, name=name) as response:
            self.report(response, upload_fault(response, _BATCH, repeated))


class Operator(Caller):
    """Starts one retraining, or finds the one that runs, and follows it to the verdict of the gate."""

    fixed_count = 1
    wait_time = between(1.0, 2.0)

    @task
    def retrain(self) -> None:
        with self.send("POST", "/retrain", b'{"epochs": 1}', "application/json") as response:
            if response.status_code not in (202, 409) or "job_id" not in response.json():
                response.failure(status_fault(response))
                raise StopUser
            response.success()
            job_id = response.json()["job_id"]
        while not self._ended(job_id):
            time.sleep(1.0)
        raise StopUser

    def _ended(self, job_id: str) -> bool:
        with self.send("GET", f"/retrain_status/{job_id}", name="/retrain_status/{job_id}") as response:
            if response.status_code != 200:
                response.failure(status_fault(response))
                return False
            job = response.json()
            if job["state"] == "failed":
                response.failure(f"the retraining failed: {job['reason']}")
            if job["state"] in ENDED:
                logger.info("retraining %s: %s, %s", job_id, job["state"], job["reason"])
            return job["state"] in ENDED
