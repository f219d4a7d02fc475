"""The server: supervised processes under this project's routes, middleware and errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from queue import Queue
from typing import Any

from fastapi import FastAPI
from litserve.utils import ResponseBufferItem

from lesion.core.version import __version__
from lesion.database.storage import Storage
from lesion.identity.pseudonyms import Pseudonyms
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from serve.http.auth import Authenticator
from serve.http.connections import BoundedConnection
from serve.http.dependencies import AppState
from serve.http.middleware import BodyLimits, HeadRequests, RequestContext
from serve.http.openapi import describe
from serve.http.problems import add_error_handlers
from serve.inference.dispatcher import Dispatcher
from serve.inference.inference_worker import InferenceAPI
from serve.inference.litserve_supervision import SupervisedServer
from serve.observability import tracing
from serve.observability.answer_recorder import AnswerRecorder
from serve.routes import ROUTERS
from serve.settings import AccessSettings, RecordSettings, ServerSettings

UPLOAD_PATH = "/upload_training_data"


class Server(SupervisedServer):
    """A server for a bundle or a storage's champion.

    Use :func:`serve.factory.create_server`, which explains the arguments and chooses ``device`` and ``workers``.
    """

    def __init__(
        self,
        api: InferenceAPI,
        bundle: Bundle,
        settings: ServerSettings,
        *,
        storage: Storage | None,
        access: AccessSettings,
        intake: IntakeSettings,
        records: RecordSettings,
        pseudonyms: Pseudonyms | None,
    ) -> None:
        self.bundle = bundle
        self.storage = storage
        self.access = access
        self.intake = intake
        self.records = records
        self.pseudonyms = pseudonyms  # None if answers are not recorded
        super().__init__(api, settings)

    def run(self, *arguments: Any, **uvicorn: Any) -> None:  # noqa: ANN401 - those of SupervisedServer.run
        """Serve; see :meth:`SupervisedServer.run`."""
        super().run(*arguments, **{"http": BoundedConnection, **uvicorn})

    def configure(self, app: FastAPI) -> None:
        """Add this project's routes, error handlers and middleware, the outermost last."""
        for router in ROUTERS:
            app.include_router(router)
        add_error_handlers(app)
        describe(app, __version__)
        app.add_middleware(HeadRequests)
        app.add_middleware(
            BodyLimits,
            max_body_bytes=self.settings.max_body_bytes,
            max_total_bytes=self.settings.max_held_bytes,
            timeout=self.settings.request_timeout,
            larger={UPLOAD_PATH: self.settings.max_upload_bytes},
        )
        paths = (getattr(route, "path", "") for router in ROUTERS for route in router.routes)
        app.add_middleware(RequestContext, paths=paths)

    @asynccontextmanager
    async def api_process(
        self, app: FastAPI, index: int, requests: "Queue[Any]", buffer: dict[str, ResponseBufferItem]
    ) -> AsyncIterator[None]:
        """Set up what the routes need in one API process."""
        tracing.start(self.lit_api.traces, "api")
        settings = self.settings
        state = app.state.services = AppState(
            settings=settings,
            shared_state=self.shared_state,
            dispatcher=Dispatcher(
                self.shared_state, index, requests, buffer, settings.queue_size, settings.request_timeout
            ),
            authenticator=Authenticator(self.storage, self.access, self.api_processes),
            request_counter=self.shared_state.request_stats.counter(index),
            bundle=self.bundle,
        )
        if self.storage is not None:
            state.follow_champion(self.storage, self.intake)
        async with AsyncExitStack() as running:
            await running.enter_async_context(state.authenticator.running())
            if self.storage is not None and self.pseudonyms is not None:
                state.recorder = AnswerRecorder(self.storage, self.pseudonyms, self.records)
                await running.enter_async_context(state.recorder.running())
            watch = asyncio.create_task(state.dispatcher.watch())
            try:
                yield
            finally:
                watch.cancel()
                state.dispatcher.large_images.close()
                await asyncio.to_thread(tracing.stop)
