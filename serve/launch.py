"""Starts a server from its configuration, and turns refusals into sentences and exit statuses."""

import logging
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from uvicorn.config import LOG_LEVELS

from lesion.auth.api_keys import any_usable
from lesion.catalogue.first_model import ImportedRun, import_run
from lesion.catalogue.images import images_as_sent
from lesion.core.errors import ConfigError, LesionError
from lesion.core.logs import LogFormat, announce, configure
from lesion.core.paths import latest_bundle
from lesion.core.text import format_count
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.intake.rules import IntakeSettings
from lesion.registry.registry import Registry
from serve.bind import usable_address
from serve.factory import create_server, own_connections
from serve.http.auth import check_address
from serve.http.middleware import ACCESS_LOG
from serve.inference.child_processes import exit_with_parent
from serve.server import Server
from serve.settings import AccessSettings, RecordSettings, ServerSettings, TraceSettings
from serve.worker_supervisor import WorkerSupervisor


def serve(
    bundle: str | None,
    host: str,
    port: int,
    log_level: str,
    access_log: bool,
    server: Mapping[str, Any],
    storage: Storage | None = None,
    worker: bool = False,
    worker_settings: Sequence[str] = (),
    access: Mapping[str, Any] | None = None,
    records: Mapping[str, Any] | None = None,
    intake: IntakeSettings | None = None,
    log_format: LogFormat = "words",
    traces: Mapping[str, Any] | None = None,
) -> int:
    """Serve until stopped; the arguments are the sections and settings of ``configs/serve.yaml``, explained there.

    Returns:
        The exit status: 0 after SIGTERM or SIGINT, 1 when the server failed, 2 when it was refused to start.
    """
    try:
        configure(log_format)
        ACCESS_LOG.setLevel(logging.INFO if access_log else logging.WARNING)
        usable_address(host, port)
        if log_level not in LOG_LEVELS:
            raise ConfigError(f"log_level={log_level} is unknown. Use one of {', '.join(LOG_LEVELS)}.")
        settings, who = ServerSettings.from_config(server), AccessSettings.from_config(access)
        bundle = _prepare(bundle, host, storage, who)
        built = create_server(
            bundle,
            storage,
            settings,
            access=who,
            records=RecordSettings.from_config(records),
            intake=intake or IntakeSettings(),
            log_format=log_format,
            traces=TraceSettings.from_config(traces),
        )
        uvicorn = {"log_config": None} if log_format == "json" else {}  # otherwise uvicorn uses its own formats
        local = storage is not None and storage.database.startswith("sqlite")
        with WorkerSupervisor(storage, worker_settings) if worker and storage and local else nullcontext():
            built.run(host, port, log_level, lambda: _announce(built, f"http://{host}:{port}"), **uvicorn)
    except LesionError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    return 1 if built.failed else 0


def _prepare(bundle: str | None, host: str, storage: Storage | None, access: AccessSettings) -> str | None:
    """Check who may reach the server and the storage, import a first model into it, and return the bundle to serve."""
    if storage is None:
        check_address(host, False, access.open_access)
        return bundle or str(latest_bundle())
    with own_connections(storage) as here:
        here.upgrade()
        empty, keys = Registry(here).champion() is None, any_usable(here)
    check_address(host, keys, access.open_access)
    if empty:
        import_first(storage, Path(bundle or latest_bundle()))
    with own_connections(storage) as here:
        open_pseudonyms(here)  # a wrong key is refused at the start, not at the first upload
        with here.session() as session:
            left = len(images_as_sent(session))
    if left:
        announce(
            f"{format_count(left, 'image')} of an earlier version may still name persons. Run lesion identity remove."
        )
    return bundle


def import_first(storage: Storage, bundle: Path) -> None:
    """Import a bundle's run as the first model, in a separate process: it needs libraries that the server does not.

    If these libraries are missing, or the process was killed, a ConfigError is raised.
    """
    announce(f"The storage is empty: importing the run of '{bundle}' as the first model …")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            facts = pool.submit(_import, storage, bundle).result()
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is missing, which importing a run needs. Import it with lesion models where "
                "lesion[train] is installed, or install it here.",
                code="import_failed",
            ) from error
        except BrokenProcessPool as error:
            raise ConfigError("The import was killed. Start again; it continues.", code="import_failed") from error
    announce(f"Imported {facts['images']:,} images; {facts['version']} is the champion.")


def _announce(server: Server, address: str) -> None:
    announce(f"Serving {server.bundle.name} {server.bundle.version} on {address}")
    if server.storage is None:
        announce("Uploads and retraining are off: nothing is stored. storage=local turns them on.")


def _import(storage: Storage, bundle: Path) -> ImportedRun:
    exit_with_parent()  # otherwise the pool's process would wait for work forever
    return import_run(storage, bundle, "server", "the first model")
