"""LitServe with what it lacks: bounded queues and bodies, proper errors, a whole shutdown, workers that come back."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from multiprocessing.managers import SyncManager
from multiprocessing.process import BaseProcess
from typing import Any

import litserve
from fastapi import FastAPI
from litserve.transport.factory import create_transport_from_config
from litserve.utils import WorkerSetupStatus

from lesion.core.errors import BundleError, ConfigError
from lesion.core.version import __version__
from lesion.database.storage import Storage
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from serve.bind import usable_address
from serve.http.auth import Access
from serve.http.dependencies import fill_state
from serve.http.middleware import BodyLimits, RequestContext
from serve.http.openapi import describe
from serve.http.problems import add_error_handlers
from serve.http.schemas import ServerLimits
from serve.inference.dispatcher import Dispatcher
from serve.inference.inference_worker import PredictAPI, end_with_parent
from serve.inference.shared_state import SharedState
from serve.malloc import return_large_blocks
from serve.observability import tracing
from serve.routes import ROUTERS

logger = logging.getLogger(__name__)

_MONITOR_S = 0.25
_RESTART_PAUSE_S = 2.0  # before a worker that never became ready is started again
_DRAIN_S = 10  # how long requests may still be answered at shutdown
UPLOAD_PATH = "/upload_training_data"


class Server(litserve.LitServer):  # type: ignore[misc]
    """LitServe's processes and queues under our own routes. Use :func:`serve.factory.create_server`.

    The parent starts a manager process (the queues), inference workers (spawned) and API processes (forked). It stops
    them all on SIGTERM or SIGINT, after the requests at hand are answered; starts a dead worker again; and gives up,
    with ``failed`` set, when an API process dies. Every child ends by itself when the parent is gone.

    Args:
        api: What the workers run.
        bundle: The bundle that is served at the start.
        limits: What is refused.
        storage: Where the champion is followed, if anywhere.
        accelerator: ``cpu`` or ``cuda``; never ``auto``, for which LitServe imports torch.
        workers: Workers for each device.
        api_processes: HTTP processes; one for every four workers when None.
        max_held_bytes: The most bytes of bodies held at once.
        start_timeout: Seconds in which every worker must have loaded.
        access: Settings of :class:`serve.http.auth.Access`.
        intake: How uploaded images are judged.
    """

    def __init__(
        self,
        api: PredictAPI,
        bundle: Bundle,
        limits: ServerLimits,
        *,
        storage: Storage | None,
        accelerator: str,
        workers: int,
        api_processes: int | None,
        max_held_bytes: int,
        start_timeout: float,
        access: Mapping[str, Any],
        intake: IntakeSettings,
    ) -> None:
        self.bundle = bundle
        self.limits = limits
        self.storage = storage
        self.max_held_bytes = max_held_bytes
        self.start_timeout = start_timeout
        self.access_settings = access
        self.intake_settings = intake
        self.failed = False
        self._stopping = False
        self._serving: Callable[[], None] = lambda: None
        super().__init__(
            api,
            accelerator=accelerator,
            workers_per_device=workers,
            timeout=limits.request_timeout_s,
            restart_workers=True,
        )
        self.monitor_internal = _MONITOR_S
        self.uvicorn_graceful_timeout = _DRAIN_S
        total = len(self.devices) * workers
        self.api_processes = api_processes or max(1, total // 4)
        self.board = api.board = SharedState(total, self.api_processes)

    # What follows overrides parts of LitServer that 0.2.19 has; pyproject.toml bounds its version.

    def register_endpoints(self) -> None:
        """Put our routes in place of LitServe's, whose errors are opaque; ``/docs`` goes, as it loads remote assets."""
        app: FastAPI = self.app
        app.router.routes = [route for route in app.router.routes if getattr(route, "path", "") == app.openapi_url]
        for router in ROUTERS:
            app.include_router(router)
        add_error_handlers(app)
        describe(app, __version__)

    def _register_middleware(self) -> None:
        """Add ours, the outermost last; LitServe's would compress every overlay in the event loop."""
        self.app.add_middleware(
            BodyLimits,
            max_body_bytes=self.limits.max_body_bytes,
            max_total_bytes=self.max_held_bytes,
            timeout=self.limits.request_timeout_s,
            larger={UPLOAD_PATH: self.limits.max_upload_bytes},
        )
        paths = (getattr(route, "path", "") for router in ROUTERS for route in router.routes)
        self.app.add_middleware(RequestContext, paths=paths)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Runs in each API process."""
        end_with_parent()
        tracing.start(self.lit_api.traces, "api")
        index: int = app.response_queue_id  # type: ignore[attr-defined]
        queue = self._get_request_queue(self.lit_api.api_path)
        dispatcher = Dispatcher(
            self.board, index, queue, self.response_buffer, self.limits.queue_size, self.limits.request_timeout_s
        )
        app.state.board, app.state.limits, app.state.dispatcher = self.board, self.limits, dispatcher
        app.state.tally = self.board.traffic.tally(index)
        fill_state(app.state, self.bundle, self.storage, self.intake_settings)
        app.state.access = Access(self.storage, **self.access_settings, api_processes=self.api_processes)
        async with super().lifespan(app), app.state.access.running():
            watch = asyncio.create_task(dispatcher.watch())
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.to_thread(tracing.stop)

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        log_level: str = "warning",
        serving: Callable[[], None] = lambda: None,
        **uvicorn: object,
    ) -> None:
        """Serve until SIGTERM or SIGINT, or until ``failed``; leaves no process behind.

        Args:
            host: ``127.0.0.1``, ``0.0.0.0`` or ``::``.
            port: 1024 to 65535.
            log_level: As uvicorn names it.
            serving: Called once every worker has loaded and the API processes are started.
            **uvicorn: Further settings of uvicorn.

        Raises:
            ConfigError: The address cannot be used.
            BundleError: The workers could not load the bundle.
        """
        host, port = usable_address(host, port)
        self._serving = serving
        return_large_blocks()
        parent = os.getpid()

        def stop(number: int, frame: object) -> None:
            if os.getpid() == parent:  # API processes inherit this handler for a moment
                self._stop()

        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        settings = {"server_header": False, "access_log": False, "ws": "none"} | uvicorn
        try:
            super().run(host, port, self.api_processes, log_level, False, **settings)
        except (OSError, EOFError) as error:
            if not self._stopping:
                raise ConfigError(f"The server could not run on {host}:{port}: {error}") from error
        finally:
            self._stopping = True
            end_children()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, failed: bool = False) -> None:
        """Begin the shutdown; from a thread, since the main one may be in the middle of a call to the manager."""
        self.failed = self.failed or failed
        self._stopping = True

        def tell() -> None:
            with suppress(OSError, EOFError, AttributeError):
                self._shutdown_event.set()

        threading.Thread(target=tell, name="stop", daemon=True).start()

    def _init_manager(self, num_api_servers: int) -> SyncManager:
        """As LitServe does, with a manager that outlives a signal to the whole group but not its parent."""
        manager = SyncManager(ctx=multiprocessing.get_context())
        manager.start(_begin_manager)
        self.transport_config.manager = manager
        self.transport_config.num_consumers = num_api_servers
        self.workers_setup_status = manager.dict()
        self._shutdown_event = manager.Event()
        self.litapi_request_queues[self.lit_api.api_path] = manager.Queue()
        self._transport = create_transport_from_config(self.transport_config)
        return manager

    def verify_worker_status(self) -> None:
        """Wait until every worker is ready; LitServe waits for the first, and for ever if it was killed."""
        deadline = time.monotonic() + self.start_timeout
        while self.board.ready < len(self.board.pids) and not self._stopping:
            failed = WorkerSetupStatus.ERROR in self.workers_setup_status.values()
            if failed or not all(worker.is_alive() for worker in self.inference_workers):
                raise BundleError("A worker could not load the bundle; its log above says why.", code="worker_failed")
            if time.monotonic() > deadline:
                raise BundleError(f"The workers did not load within {self.start_timeout:g} s.", code="worker_failed")
            time.sleep(0.02)

    def launch_single_inference_worker(self, lit_api: PredictAPI, worker_id: int) -> BaseProcess:
        """Start a worker in a dead one's place, and let the API processes know."""
        never_ready = self.board.pids[worker_id] == 0
        self.board.worker_is_gone(worker_id)
        if self._stopping:
            raise SystemExit
        logger.error("worker %d died; starting another", worker_id)
        if never_ready:
            time.sleep(_RESTART_PAUSE_S)
        process: BaseProcess = super().launch_single_inference_worker(lit_api, worker_id)
        return process

    def _start_worker_monitoring(self, manager: SyncManager, uvicorn_workers: dict[int, BaseProcess]) -> None:
        super()._start_worker_monitoring(manager, uvicorn_workers)
        self._serving()

        def watch() -> None:
            while not self._stopping:
                time.sleep(_MONITOR_S)
                if not all(process.is_alive() for process in uvicorn_workers.values()) and not self._stopping:
                    logger.error("an API process died; stopping, for the supervisor to start the server again")
                    self._stop(failed=True)
                for worker in self.board.stuck(2 * self.limits.request_timeout_s):
                    logger.error("worker %d is stuck; killing it", worker)
                    self.inference_workers[worker].kill()

        threading.Thread(target=watch, name="watch-processes", daemon=True).start()


def end_children() -> None:
    """End every process that this one started through multiprocessing."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(1.0)
        if child.is_alive():
            child.kill()
            child.join()


def _begin_manager() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
