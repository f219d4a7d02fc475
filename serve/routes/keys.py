"""API keys over HTTP, for admins."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError

from lesion.auth import api_keys
from lesion.core.roles import Role
from serve.http.dependencies import KeyFirstRoute, PrincipalDep, StateDep, StorageDep, require
from serve.http.openapi import refusals
from serve.http.rate_limits import usage_today

_REFUSALS = {
    404: "There is no such key, or this server has no storage.",
    409: "The first key must be an admin's, and the last admin's key stays.",
    422: "A value is not valid.",
}

router = APIRouter(
    route_class=KeyFirstRoute, tags=["keys"], dependencies=[require("admin")], responses=refusals(_REFUSALS)
)


class NewKey(BaseModel):
    """A key to be created."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Whose it is.", min_length=1, max_length=100, examples=["ward-3"])
    role: Role = Field(description="What it may do; each role may do what those before it may.")
    per_minute: int | None = Field(default=None, ge=1, description="Requests a minute; the server's default if null.")
    per_day: int | None = Field(default=None, ge=1, description="Requests a day (UTC); the server's default if null.")


class KeyMade(BaseModel):
    """A key that was created; its text is shown only this once."""

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
def all_keys(storage: StorageDep) -> list[KeyView]:
    """List every key that was created, including revoked ones."""
    with storage.reading() as session:
        used, keys = usage_today(session), api_keys.all_keys(session)
        return [KeyView(**api_keys.key_view(key), requests_today=used.get(key.id, 0)) for key in keys]


@router.post("/keys", status_code=201, summary="Make a key")
async def create(
    state: StateDep, storage: StorageDep, principal: PrincipalDep, response: Response, new: NewKey
) -> KeyMade:
    """Create a key. From the first one on, every request but `GET /health` needs one."""
    limits = {"per_minute": new.per_minute, "per_day": new.per_day}
    text = await asyncio.to_thread(api_keys.create, storage, new.name, new.role, str(principal), **limits)
    with suppress(SQLAlchemyError):  # the key is made, and its text must not be lost; it is read within a second
        await state.authenticator.sync()
    response.headers["Cache-Control"] = "no-store"
    return KeyMade(id=text.split("_")[1], name=new.name, role=new.role, key=text)


@router.delete("/keys/{key_id}", summary="Revoke a key")
async def revoke(
    state: StateDep,
    storage: StorageDep,
    principal: PrincipalDep,
    key_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="The key's id.")],
) -> dict[str, Any]:
    """Revoke a key permanently; every server refuses it within two seconds."""
    key = await asyncio.to_thread(api_keys.revoke, storage, key_id, str(principal))
    await state.authenticator.sync()
    return api_keys.key_view(key)
