"""A real worker and the requests that it is given."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lesion.database.storage import Storage
from lesion.database.tables import AuditEntry
from lesion.retraining.jobs import RetrainRequest
from tests.support.paths import REPOSITORY, SCRIPTS
from tests.support.training_subprocess import STAND_IN

SCRIPT = SCRIPTS / "worker.py"


REQUEST = RetrainRequest(epochs=3, batch_size=8, learning_rate=0.01)


class WorkerRun:
    """``scripts/worker.py`` on a storage, whose trainings do as they are told."""

    def __init__(self, storage: Storage, script: Path = STAND_IN, *overrides: str, **orders: Any) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        places = {"database": storage.database, "files": storage.files, "cache": storage.cache}
        settings = [f"storage.{name}='{value}'" for name, value in places.items()]
        command = [sys.executable, str(SCRIPT), *settings, f"retrain.script='{script}'", *overrides]
        environment = os.environ | {"LESION_STAND_IN": json.dumps(orders, default=str)}
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)

    def output(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


def actions(storage: Storage, job_id: str) -> list[str]:
    with storage.session() as session:
        entries = session.scalars(select(AuditEntry).filter_by(subject=job_id).order_by(AuditEntry.id))
        return [entry.action for entry in entries if entry.action.startswith("job.")]
