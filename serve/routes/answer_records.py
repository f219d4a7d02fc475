"""What was answered: the records of answers, for admins."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from lesion.records.queries import list_records, newest_record
from serve.http.dependencies import KeyFirstRoute, StorageDep, require
from serve.http.openapi import refusals

_REFUSALS = {404: "There is no such record, or this server has no storage.", 422: "A parameter is not valid."}
_MOST = 2**63 - 1  # that a database counts to
_ID = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

router = APIRouter(
    route_class=KeyFirstRoute, tags=["records"], dependencies=[require("admin")], responses=refusals(_REFUSALS)
)


class RecordView(BaseModel):
    """What was recorded of one answer."""

    request_id: str
    at: str = Field(description="When it was given, in UTC.")
    image: str = Field(description="A keyed hash of the file as it was sent; it does not tell the file.")
    key_id: str = Field(description="The key that it was sent with; empty without one.")
    model_version: str
    engine: str
    precision: str
    domain_level: float
    predicted_class: str
    probabilities: list[float] = Field(description="Of all classes, in the order of the model's classes.")
    coverage: float | None
    prediction_set: list[str] | None
    in_domain: bool
    domain_distance: float
    domain_p_value: float | None
    abstain_reason: str | None


class ListedRecord(RecordView):
    """A record with its id, for the next page."""

    id: int


class RecordPage(BaseModel):
    """One page of records."""

    records: list[ListedRecord]


@router.get("/records", summary="What was answered")
def records(
    storage: StorageDep,
    model_version: Annotated[str, Query(pattern="^[0-9a-f]{0,12}$", description="Only answers of this version.")] = "",
    after: Annotated[int, Query(ge=0, le=_MOST, description="The last id of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RecordPage:
    """List one page of records, the oldest first. An answer appears here some seconds after it was given."""
    with storage.reading() as session:
        found = list_records(session, model_version=model_version, after=after, limit=limit)
    return RecordPage(records=[ListedRecord(id=number, **asdict(record)) for number, record in found])


@router.get("/records/{request_id}", summary="The record of one answer")
def record(
    storage: StorageDep, request_id: Annotated[str, Path(pattern=_ID, description="The answer's `request_id`.")]
) -> RecordView:
    """Return what was recorded of an answer; of the last one, if several requests had this id."""
    with storage.reading() as session:
        return RecordView(**asdict(newest_record(session, request_id)))
