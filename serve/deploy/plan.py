"""What runs on this machine and how it was started, stored in a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lesion.core.files import write_atomically
from serve.deploy.processes import ProcessRecord

_FILE = "replicas.json"


@dataclass(frozen=True)
class Plan:
    """What to start; stored with the state, so that later commands start the same.

    Attributes:
        port: The port of nginx.
        host: The address that nginx listens on. The replicas and the page answer this machine only; others reach them
            through nginx.
        tls_port: The port of nginx for HTTPS; no HTTPS when None.
        bundle: The bundle to serve. When None: the champion of the storage, or the newest bundle in ``outputs/``.
        storage: ``local``, ``cluster`` or ``none``, as in ``configs/storage``.
        storage_root: The folder of the storage on this machine; the default of the configs when None.
        workers: Inference workers per replica.
        worker: Whether to start a retraining worker, if there is a storage.
        page_port: The port of the web page; no page when None.
        limited: Whether nginx limits how many requests one address may send.
        settings: More settings of ``configs/serve.yaml``.
        worker_settings: More settings of ``configs/worker.yaml``.
    """

    port: int = 8080
    host: str = "127.0.0.1"
    tls_port: int | None = None
    bundle: str | None = None
    storage: str = "local"
    storage_root: str | None = None
    workers: int = 1
    worker: bool = True
    page_port: int | None = 8501
    limited: bool = True
    settings: Sequence[str] = ()
    worker_settings: Sequence[str] = ()

    @property
    def address(self) -> str:
        """The URL of nginx for programs on this machine."""
        return f"http://127.0.0.1:{self.port}"


def read_state(folder: Path) -> tuple[Plan, list[ProcessRecord]]:
    """Return what was written last: the plan and the processes, which may have ended since."""
    file = folder / _FILE
    if not file.is_file():
        return Plan(), []
    state = json.loads(file.read_text("utf-8"))
    return Plan(**state["plan"]), [ProcessRecord(**record) for record in state["members"]]


def write_state(folder: Path, plan: Plan, processes: Sequence[ProcessRecord]) -> None:
    """Write the plan and the processes, whole or not at all."""
    state = {"plan": asdict(plan), "members": [asdict(process) for process in processes]}
    write_atomically(folder / _FILE, json.dumps(state, indent=2))
