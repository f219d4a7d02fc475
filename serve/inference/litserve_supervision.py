"""LitServe's processes, started, watched and ended by their parent.

Below are the parts of LitServe that are overridden, and its private parts that are used, in its version 0.2.19;
pyproject.toml bounds the version. #N is an issue or pull request of https://github.com/Lightning-AI/LitServe.

``LitServer._init_manager``
    A signal to the whole process group would end the manager first. No upstream issue known.
``LitServer._start_server``, ``LitServer._perform_graceful_shutdown``
    LitServe closes its queues before the requests are answered, ends its API processes one after the other, and keeps
    its listening socket open, so that who connects meanwhile is reset. No upstream issue known.
``LitServer.verify_worker_status``
    LitServe waits for the first worker only, and forever if that was killed. No upstream issue known; #681 is about the
    same wait in a helper for tests.
``LitServer.launch_single_inference_worker``
    Restarts came with #624, without a pause and without a way to tell the API processes of it.
``LitServer._start_worker_monitoring``
    #532 and #624 notice dead inference workers, but no dead API process and no stuck worker. No upstream issue known.
``_shutdown_event``, ``inference_workers``, ``monitor_internal``, ``uvicorn_graceful_timeout``
    No public way to stop a server from outside of a request (#505, #525), or to set these times.
``check_cuda_with_nvidia_smi``
    Counts GPUs without importing torch. No upstream issue known.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.managers import SyncManager
from multiprocessing.process import BaseProcess
from typing import Any

import litserve
from litserve.connector import check_cuda_with_nvidia_smi
from litserve.transport.factory import create_transport_from_config
from litserve.utils import WorkerSetupStatus

from lesion.core.errors import BundleError, ConfigError
from serve.bind import usable_address
from serve.inference.child_processes import end_children, exit_with_parent
from serve.inference.litserve_api_processes import BEGIN_END, ApiProcesses
from serve.inference.shared_state import SharedState
from serve.listening import stop_listening
from serve.malloc import return_large_blocks
from serve.settings import ServerSettings

logger = logging.getLogger(__name__)

_MONITOR_S = 0.25
_RESTART_PAUSE_S = 2.0  # before an inference worker that never became ready is started again
_END_S = 5.0  # how much longer than its requests an API process may take to end


def count_gpus() -> int:
    """Return the number of visible GPUs, without importing torch."""
    return int(check_cuda_with_nvidia_smi())


class SupervisedServer(ApiProcesses):
    """LitServe's processes and queues, supervised. A subclass implements ``configure`` and ``api_process``.

    The parent starts a manager process (the queues), inference workers (spawned) and API processes (forked). It
    restarts a dead inference worker, and gives up, with ``failed`` set, when an API process dies. Every child ends by
    itself when the parent has ended. In the settings, ``device`` and ``workers`` must be set.
    """

    def __init__(self, api: litserve.LitAPI, settings: ServerSettings) -> None:
        assert settings.workers is not None
        self.settings = settings
        self.failed = False
        self._stopping = False
        self._on_serving: Callable[[], None] = lambda: None
        super().__init__(
            api,
            accelerator="cuda" if settings.device == "cuda" else "cpu",  # for "auto", LitServe would import torch
            workers_per_device=settings.workers,
            timeout=settings.request_timeout,
            restart_workers=True,
        )
        self.monitor_internal = _MONITOR_S
        self.uvicorn_graceful_timeout = settings.drain_timeout
        self._sockets: Sequence[socket.socket] = ()
        total = len(self.devices) * settings.workers
        self.api_processes = settings.api_processes or max(1, total // 4)
        self.shared_state = api.shared_state = SharedState(total, self.api_processes)

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        log_level: str = "warning",
        on_serving: Callable[[], None] = lambda: None,
        **uvicorn: object,
    ) -> None:
        """Serve until SIGTERM or SIGINT, or until ``failed``; leave no process behind.

        ``usable_address`` bounds host and port; ``on_serving`` is called once every inference worker has loaded and the
        API processes are started.

        Raises:
            ConfigError: The address cannot be used.
            BundleError: The inference workers could not load the bundle.
        """
        host, port = usable_address(host, port)
        return_large_blocks()
        self._on_serving = on_serving
        settings = {"server_header": False, "access_log": False, "ws": "none"} | uvicorn
        parent = os.getpid()

        def stop(number: int, frame: object) -> None:
            if os.getpid() == parent:  # API processes inherit this handler for a moment
                self._stop()

        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            super().run(host, port, self.api_processes, log_level, False, **settings)
        except (OSError, EOFError) as error:
            if not self._stopping:
                raise ConfigError(f"The server could not run on {host}:{port}: {error}") from error
        finally:
            self._stopping = True
            self._kill_inference_workers()
            end_children()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, failed: bool = False) -> None:
        """Begin the shutdown; in a thread, since the main one may be in the middle of a call to the manager."""
        self.failed = self.failed or failed
        self._stopping = True

        def set_event() -> None:
            with suppress(OSError, EOFError, AttributeError):
                self._shutdown_event.set()

        threading.Thread(target=set_event, name="stop", daemon=True).start()

    def _init_manager(self, num_api_servers: int) -> SyncManager:
        """Start a manager that survives a signal to the whole process group, but not the end of its parent."""
        manager = SyncManager(ctx=multiprocessing.get_context())
        manager.start(_begin_manager)
        self.transport_config.manager = manager
        self.transport_config.num_consumers = num_api_servers
        self.workers_setup_status = manager.dict()
        self._shutdown_event = manager.Event()
        self.litapi_request_queues[self.lit_api.api_path] = manager.Queue()
        self._transport = create_transport_from_config(self.transport_config)
        return manager

    def _start_server(
        self,
        port: int,
        num_uvicorn_servers: int,
        log_level: str,
        sockets: Sequence[socket.socket],
        *arguments: Any,  # noqa: ANN401 - LitServe's
        **uvicorn: Any,  # noqa: ANN401
    ) -> dict[int, BaseProcess]:
        self._sockets = sockets
        processes: dict[int, BaseProcess] = super()._start_server(
            port, num_uvicorn_servers, log_level, sockets, *arguments, **uvicorn
        )
        return processes

    def _perform_graceful_shutdown(
        self,
        manager: SyncManager,
        uvicorn_workers: dict[int, BaseProcess],
        *arguments: Any,  # noqa: ANN401
    ) -> None:
        """End the API processes once they have answered, and only then what they need for it."""
        stop_listening(self._sockets)
        processes = [process for process in uvicorn_workers.values() if process.is_alive()]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, BEGIN_END)
        deadline = time.monotonic() + self.settings.drain_timeout + _END_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                logger.error("an API process did not end in time; killing it")
                process.kill()
        self._kill_inference_workers()
        super()._perform_graceful_shutdown(manager, {}, *arguments)

    def _kill_inference_workers(self) -> None:
        """End the inference workers, which ignore other signals: a signal to all processes must not stop answers."""
        for worker in getattr(self, "inference_workers", ()):
            worker.kill()

    def verify_worker_status(self) -> None:
        """Wait until every inference worker is ready."""
        timeout = self.settings.start_timeout
        deadline = time.monotonic() + timeout
        while self.shared_state.ready < len(self.shared_state.pids) and not self._stopping:
            failed = WorkerSetupStatus.ERROR in self.workers_setup_status.values()
            if failed or not all(worker.is_alive() for worker in self.inference_workers):
                raise BundleError(
                    "An inference worker could not load the bundle; its log above says why.", code="worker_failed"
                )
            if time.monotonic() > deadline:
                raise BundleError(f"The inference workers did not load within {timeout:g} s.", code="worker_failed")
            time.sleep(0.02)

    def launch_single_inference_worker(self, lit_api: litserve.LitAPI, worker_id: int) -> BaseProcess:
        """Start an inference worker in place of a dead one, and tell the API processes."""
        never_ready = self.shared_state.pids[worker_id] == 0
        self.shared_state.worker_is_gone(worker_id)
        if self._stopping:
            raise SystemExit
        logger.error("inference worker %d died; starting another", worker_id)
        if never_ready:
            time.sleep(_RESTART_PAUSE_S)
        process: BaseProcess = super().launch_single_inference_worker(lit_api, worker_id)
        return process

    def _start_worker_monitoring(self, manager: SyncManager, uvicorn_workers: dict[int, BaseProcess]) -> None:
        super()._start_worker_monitoring(manager, uvicorn_workers)
        self._on_serving()

        def watch() -> None:
            while not self._stopping:
                time.sleep(_MONITOR_S)
                if not all(process.is_alive() for process in uvicorn_workers.values()) and not self._stopping:
                    logger.error("an API process died; stopping, so that a supervisor can start the server again")
                    self._stop(failed=True)
                for worker in self.shared_state.stuck(2 * self.settings.request_timeout):
                    logger.error("inference worker %d is stuck; killing it", worker)
                    self.inference_workers[worker].kill()

        threading.Thread(target=watch, name="watch-processes", daemon=True).start()


def _begin_manager() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    exit_with_parent()
