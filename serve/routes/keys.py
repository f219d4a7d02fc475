"""API keys over HTTP, for admins."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lesion.auth import api_keys
from lesion.auth.api_keys import Role, key_view
from serve.http import auth
from serve.http.auth import Access, require
from serve.http.dependencies import storage_of
from serve.http.rate_limits import usage_today
from serve.http.schemas import ProblemDetails

_REFUSALS: dict[int | str, dict[str, Any]] = auth.REFUSALS | {
    404: {"model": ProblemDetails, "description": "There is no such key, or this server has no storage."},
    409: {"model": ProblemDetails, "description": "The first key must be an admin's, and the last admin's key stays."},
    422: {"model": ProblemDetails, "description": "A value is not valid."},
}

router = APIRouter(tags=["keys"], dependencies=[require("admin")], responses=_REFUSALS)


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Whose it is.", min_length=1, max_length=100, examples=["ward-3"])
    role: Role = Field(description="What it may do; each role may do what those before it may.")
    per_minute: int | None = Field(default=None, ge=1, description="Requests a minute; the server's default if null.")
    per_day: int | None = Field(default=None, ge=1, description="Requests a day (UTC); the server's default if null.")


class KeyMade(BaseModel):
    """A key that was made; its text is shown this once."""

    id: str
    name: str
    role: Role
    key: str = Field(description="To be sent as `Authorization: Bearer …` or `X-API-Key: …`.")


class KeyView(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    role: Role
    per_minute: int | None
    per_day: int | None
    created_at: str
    revoked_at: str | None
    requests_today: int = Field(description="Over all servers, a second late at most.")


@router.get("/keys", summary="All keys")
def all_keys(request: Request) -> list[KeyView]:
    """List every key that was made, revoked ones as well."""
    with storage_of(request).session() as session:
        used = usage_today(session)
        return [KeyView(**key_view(key), requests_today=used.get(key.id, 0)) for key in api_keys.all_keys(session)]


@router.post("/keys", status_code=201, summary="Make a key")
async def create(request: Request, response: Response, new: NewKey) -> KeyMade:
    """Make a key. From the first one on, every request but `GET /health` needs one."""
    storage, actor = storage_of(request), request.state.actor
    limits = {"per_minute": new.per_minute, "per_day": new.per_day}
    text = await asyncio.to_thread(api_keys.create, storage, new.name, new.role, actor, **limits)
    await _sync(request)
    response.headers["Cache-Control"] = "no-store"
    return KeyMade(id=text.split("_")[1], name=new.name, role=new.role, key=text)


@router.delete("/keys/{key_id}", summary="Revoke a key")
async def revoke(
    request: Request, key_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="The key's id.")]
) -> dict[str, Any]:
    """Revoke a key for good; every server refuses it within a second or two."""
    key = await asyncio.to_thread(api_keys.revoke, storage_of(request), key_id, request.state.actor)
    await _sync(request)
    return key_view(key)


async def _sync(request: Request) -> None:
    ring: Access = request.app.state.access
    await ring.sync()
