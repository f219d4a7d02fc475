"""The HTTP app in this process, with its keys and a client."""

import queue
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.testclient import TestClient

from lesion.database.storage import Storage
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from serve.http.auth import Access
from serve.http.dependencies import fill_state
from serve.http.middleware import BodyLimits, RequestContext
from serve.http.problems import add_error_handlers
from serve.http.schemas import ServerLimits
from serve.inference.dispatcher import Dispatcher
from serve.inference.shared_state import SharedState
from serve.routes import ROUTERS

HERE = ("127.0.0.1", 50000)


def make_app(bundle: Path, storage: Storage | None, **settings: Any) -> FastAPI:
    """The server's routes and middleware in this process; its one inference worker never becomes ready."""
    access = Access(storage, **settings)
    board = SharedState(1, 1)

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        async with access.running():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None)
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(BodyLimits, max_body_bytes=1000, max_total_bytes=10_000, timeout=5.0, larger={"/feedback": 5000})
    app.add_middleware(RequestContext)
    limits = dict.fromkeys(ServerLimits.model_fields, 1) | {"max_image_bytes": 2**20, "max_pixels": 10**6}
    app.state.board, app.state.limits, app.state.access = board, ServerLimits(**limits), access
    app.state.dispatcher = Dispatcher(board, 0, queue.Queue(), {}, 8, 5.0)
    app.state.tally = board.traffic.tally(0)
    fill_state(app.state, Bundle.open(bundle), storage, IntakeSettings())
    return app


def client_of(app: FastAPI, address: str = "http://127.0.0.1:8000", peer: tuple[str, int] = HERE) -> TestClient:
    return TestClient(app, base_url=address, client=peer)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def refusal(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.json()["detail"]) > 20
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert ("retry-after" in response.headers) == (status in (429, 503))
