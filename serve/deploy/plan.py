"""What runs on this machine and how it was started, kept in a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serve.deploy.processes import ProcessRecord

_FILE = "replicas.json"
_LISTS = ("settings", "worker_settings")


@dataclass(frozen=True)
class Plan:
    """What is started; kept in the state, so that later commands do the same.

    Attributes:
        port: Where nginx listens.
        host: Where nginx listens. The replicas and the page answer this machine alone, and others through nginx.
        tls_port: Where nginx listens for HTTPS.
        bundle: The bundle to serve; the storage's champion, or the newest below ``outputs/``, when None.
        storage: ``local``, ``cluster`` or ``none``, as in ``configs/storage``.
        storage_root: The storage's folder on this machine; that of the configs when None.
        workers: Inference workers of one replica.
        worker: Whether a worker for retrainings runs, if there is a storage.
        page_port: Where the page listens; there is none when None.
        limited: Whether nginx bounds what one address may ask for.
        settings: Further settings of ``configs/serve.yaml``.
        worker_settings: Further settings of ``configs/worker.yaml``.
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
    settings: tuple[str, ...] = ()
    worker_settings: tuple[str, ...] = ()

    @property
    def page_flags(self) -> list[str]:
        """What the page is told of who may reach it: under other names than this machine's only behind nginx."""
        return [] if self.host == "127.0.0.1" else ["--any-host"]

    @property
    def address(self) -> str:
        """How programs on this machine reach nginx."""
        return f"http://127.0.0.1:{self.port}"


def read_state(folder: Path) -> tuple[Plan, list[ProcessRecord]]:
    """Return what was written last: the plan, and the processes, whether they still run or not."""
    file = folder / _FILE
    if not file.is_file():
        return Plan(), []
    kept = json.loads(file.read_text("utf-8"))
    plan = kept["plan"] | {name: tuple(kept["plan"][name]) for name in _LISTS}
    return Plan(**plan), [ProcessRecord(**member) for member in kept["members"]]


def write_state(folder: Path, plan: Plan, members: Sequence[ProcessRecord]) -> None:
    """Write it, whole or not at all."""
    kept = {"plan": asdict(plan), "members": [asdict(member) for member in members]}
    new = folder / f"{_FILE}.new"
    new.write_text(json.dumps(kept, indent=2), "utf-8")
    new.replace(folder / _FILE)
