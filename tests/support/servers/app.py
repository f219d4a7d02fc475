"""The HTTP app in this process, with its keys and a client."""

import queue
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from lesion.database.storage import Storage
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from serve.http.auth import Authenticator
from serve.http.dependencies import AppState
from serve.http.middleware import BodyLimits, HeadRequests, RequestContext
from serve.http.problems import add_error_handlers
from serve.inference.dispatcher import Dispatcher
from serve.inference.shared_state import SharedState
from serve.routes import ROUTERS
from serve.settings import AccessSettings, ServerSettings

if TYPE_CHECKING:
    import httpx
    import httpx2  # the library of starlette's test client

HERE = ("127.0.0.1", 50000)


def make_app(bundle: Path, storage: Storage | None, **settings: Any) -> FastAPI:
    """The server's routes and middleware in this process; its one inference worker never becomes ready."""
    state = make_state(Bundle.open(bundle), storage, **settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        async with state.authenticator.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None)
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(HeadRequests)
    app.add_middleware(BodyLimits, max_body_bytes=1000, max_total_bytes=10_000, timeout=5.0, larger={"/feedback": 5000})
    app.add_middleware(RequestContext)
    app.state.services = state
    return app


def make_state(bundle: Bundle, storage: Storage | None, api_processes: int = 1, **access: Any) -> AppState:
    """The state of an API process of a server whose one inference worker never becomes ready."""
    shared_state = SharedState(1, 1)
    state = AppState(
        settings=ServerSettings(max_image_bytes=2**20, max_pixels=10**6, min_side=1, queue_size=8, request_timeout=5.0),
        shared_state=shared_state,
        dispatcher=Dispatcher(shared_state, 0, queue.Queue(), {}, 8, 5.0),
        authenticator=Authenticator(storage, AccessSettings(**access), api_processes),
        request_counter=shared_state.request_stats.counter(0),
        bundle=bundle,
    )
    if storage is not None:
        state.follow_champion(storage, IntakeSettings())
    return state


def client_of(app: FastAPI, address: str = "http://127.0.0.1:8000", peer: tuple[str, int] = HERE) -> TestClient:
    return TestClient(app, base_url=address, client=peer)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def refusal(response: "httpx.Response | httpx2.Response", status: int, code: str) -> None:
    """Check a refusal: all have the same form."""
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == response.headers["x-request-id"]
    assert len(body["detail"]) > 20
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert ("retry-after" in response.headers) == (status in (429, 503))
