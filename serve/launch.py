"""Starts a server from plain settings and turns refusals into sentences and exit statuses."""

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from uvicorn.config import LOG_LEVELS

from lesion.auth.api_keys import any_usable
from lesion.core.cli_errors import latest_bundle
from lesion.core.errors import ConfigError, LesionError
from lesion.core.logs import LogFormat, announce, configure
from lesion.database.storage import Storage
from lesion.intake.rules import IntakeSettings
from lesion.registry.registry import Registry
from serve.bind import usable_address
from serve.factory import create_server
from serve.http.auth import check_address
from serve.http.middleware import ACCESS_LOG
from serve.inference.inference_worker import end_with_parent
from serve.observability.tracing import Traces
from serve.server import Server
from serve.startup import own_connections
from serve.worker_supervisor import WorkerSupervisor

logger = logging.getLogger(__name__)


def serve(
    bundle: str | None,
    host: str,
    port: int,
    log_level: str,
    access_log: bool,
    server: dict[str, Any],
    storage: Storage | None = None,
    worker: bool = False,
    worker_settings: Sequence[str] = (),
    access: dict[str, Any] | None = None,
    intake: IntakeSettings | None = None,
    log_format: LogFormat = "words",
    traces: dict[str, Any] | None = None,
) -> int:
    """Serve until stopped.

    Args:
        bundle: The bundle's folder. When None the storage's champion, else the newest below ``outputs/``.
        host: Where to listen.
        port: Where to listen.
        log_level: As uvicorn names it.
        access_log: Whether to log each request: its method, route, status, time and id, and the id of its key.
        server: Arguments of :func:`serve.factory.create_server`.
        storage: The loop's database and files; None to keep no state.
        worker: Whether a worker for retrainings runs beside the server, if the storage is this machine's own.
        worker_settings: Settings of ``configs/worker.yaml`` for it.
        access: Settings of :class:`serve.http.auth.Access`.
        intake: How uploaded images are judged.
        log_format: ``words`` or ``json``; see :func:`lesion.core.logs.configure`.
        traces: Settings of :class:`serve.observability.tracing.Traces`.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 when the server failed, 2 when it was refused to start.
    """
    try:
        configure(log_format)
        ACCESS_LOG.setLevel(logging.INFO if access_log else logging.WARNING)
        usable_address(host, port)
        if log_level not in LOG_LEVELS:
            raise ConfigError(f"log_level={log_level} is unknown. Use one of {', '.join(LOG_LEVELS)}.")
        empty, keys = (False, False) if storage is None else _look(storage)
        check_address(host, keys, bool((access or {}).get("open_access")))
        if storage is not None and empty:
            import_first(storage, Path(bundle or latest_bundle()))
        elif storage is None:
            bundle = bundle or str(latest_bundle())
        spans = Traces(**(traces or {}))
        made = create_server(
            bundle, storage, **server, access=access, intake=intake, log_format=log_format, traces=spans
        )
        uvicorn = {"log_config": None} if log_format == "json" else {}  # else uvicorn brings its own formats
        with WorkerSupervisor(storage, worker_settings) if worker and storage and _is_local(storage) else nullcontext():
            made.run(host, port, log_level, lambda: _say(made, f"http://{host}:{port}"), **uvicorn)
    except LesionError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    return 1 if made.failed else 0


def import_first(storage: Storage, bundle: Path) -> None:
    """Import a bundle's run as the first model, in a process of its own: that needs libraries the server does without.

    Raises:
        LesionError: The run is refused.
        ConfigError: The libraries are missing, or the process was killed.
    """
    announce(f"The storage is empty: importing the run of '{bundle}' as the first model …")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            facts = pool.submit(_import, storage, bundle).result()
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is missing, which importing a run needs. Import it with scripts/models.py where "
                "lesion[train] is installed, or install it here.",
                code="import_failed",
            ) from error
        except BrokenProcessPool as error:
            raise ConfigError("The import was killed. Start again; it goes on.", code="import_failed") from error
    announce(f"Imported {facts['images']:,} images; {facts['version']} is the champion.")


def _say(server: Server, address: str) -> None:
    announce(f"Serving {server.bundle.name} {server.bundle.version} on {address}")
    if server.storage is None:
        announce("Uploads and retraining are off: nothing is stored. storage=local turns them on.")


def _look(storage: Storage) -> tuple[bool, bool]:
    """Return whether a storage has no champion yet, and whether it has API keys; makes its tables if need be."""
    with own_connections(storage) as here:
        here.upgrade()
        return Registry(here).champion() is None, any_usable(here)


def _is_local(storage: Storage) -> bool:
    return storage.database.startswith("sqlite")


def _import(storage: Storage, bundle: Path) -> dict[str, Any]:
    end_with_parent()  # the pool's own process would wait for work for ever
    from lesion.cli.models import import_run

    return import_run(storage, bundle, "server", "the first model")
