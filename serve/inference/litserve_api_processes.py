"""LitServe's API processes, with this project's routes instead of LitServe's own.

Below are the parts of LitServe that are overridden, and its private parts that are used, in its version 0.2.19;
pyproject.toml bounds the version. #N is an issue or pull request of https://github.com/Lightning-AI/LitServe.

``LitServer.register_endpoints``
    LitServe adds its own routes, whose errors say nothing. Own routes are requested in #271 and planned in #492.
``LitServer._register_middleware``
    The gzip middleware of #153, which is always added, would compress every overlay in the event loop; the parameter
    ``middlewares`` (#228, #241) only adds others.
``LitServer.lifespan``
    A lifespan of the application was requested and declined in #110.
``_get_request_queue``, ``response_buffer``, ``app.response_queue_id``
    No public way to submit a request.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from queue import Queue
from typing import Any

import litserve
from fastapi import FastAPI
from litserve.utils import ResponseBufferItem

from serve.inference.child_processes import exit_with_parent

BEGIN_END = signal.SIGUSR1  # tells an API process to answer what it has and end


class ApiProcesses(litserve.LitServer):  # type: ignore[misc]
    """What LitServe's API processes serve. A subclass implements ``configure`` and ``api_process``."""

    def configure(self, app: FastAPI) -> None:
        """Add routes, error handlers and middleware."""
        raise NotImplementedError

    def api_process(
        self, app: FastAPI, index: int, requests: "Queue[Any]", buffer: dict[str, ResponseBufferItem]
    ) -> AbstractAsyncContextManager[None]:
        """Return a context that is open while API process ``index`` serves.

        It gets the queue to the inference workers, and the table of this process's pending requests, by id.
        """
        raise NotImplementedError

    def register_endpoints(self) -> None:
        """Keep only the OpenAPI document of FastAPI's routes: ``/docs`` would load remote assets."""
        app: FastAPI = self.app
        app.router.routes = [route for route in app.router.routes if getattr(route, "path", "") == app.openapi_url]
        self.configure(app)

    def _register_middleware(self) -> None:
        """Add none of LitServe's."""

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run in each API process, around its whole life."""
        exit_with_parent()
        _end_when_told()
        index: int = app.response_queue_id  # type: ignore[attr-defined]
        requests = self._get_request_queue(self.lit_api.api_path)
        async with super().lifespan(app), self.api_process(app, index, requests, self.response_buffer):
            yield


def _end_when_told() -> None:
    """Have an API process ignore signals that its parent gets too, and shut down when the parent tells it to."""
    shut_down = signal.getsignal(signal.SIGTERM)  # uvicorn's
    assert callable(shut_down)
    signal.signal(BEGIN_END, lambda number, frame: shut_down(signal.SIGTERM, frame))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
