"""``GET /statistics`` and ``GET /metrics``: counts and latencies over all processes of the server."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from serve.http.dependencies import KeyFirstRoute, StateDep, require
from serve.http.openapi import REFUSALS
from serve.observability.collectors import SharedStateCollector
from serve.observability.prometheus import process_metrics
from serve.observability.request_stats import Counts

router = APIRouter(route_class=KeyFirstRoute, tags=["status"], responses=REFUSALS)

_SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


class Served(BaseModel):
    """Requests over a period."""

    requests: int
    client_errors: int = Field(description="Answers 400 to 499.")
    server_errors: int = Field(description="Answers from 500 on.")
    predictions: int = Field(description="Images that POST /predict classified.")
    p50_ms: float | None = Field(description="Half of the requests were answered within this many milliseconds.")
    p95_ms: float | None = Field(description="95 of 100 were. Event streams are not timed.")
    p99_ms: float | None = Field(description="99 of 100 were. Null when no request was timed.")


class ServedMinute(Served):
    """Requests that were answered in one minute."""

    at: str = Field(description="When the minute began (UTC).", examples=["2026-11-24T10:31:00+00:00"])


class Statistics(BaseModel):
    """Requests and latencies of the server."""

    started_at: str
    uptime_s: float
    minutes: list[ServedMinute] = Field(description="At most 60 since the start; the current one comes last.")
    totals: Served = Field(description="Since the start.")


@router.get("/statistics", summary="Requests and latencies", dependencies=[require("admin")])
async def statistics(state: StateDep) -> Statistics:
    """Count requests, errors and predictions and return quantiles of the latency, per minute and since the start."""
    stats = state.shared_state.request_stats
    return Statistics(
        started_at=stats.started_at.isoformat(timespec="seconds"),
        uptime_s=round(stats.uptime_s, 1),
        minutes=[ServedMinute(at=began.isoformat(), **_served(counts)) for began, counts in stats.minutes()],
        totals=Served(**_served(stats.totals())),
    )


@router.get("/metrics", summary="Metrics for Prometheus", dependencies=[require("viewer")], response_class=Response)
def metrics(request: Request, state: StateDep) -> Response:
    """Return counters, histograms and gauges in the text format that the `Accept` header names."""
    registry = process_metrics()
    follower = state.stored.follower if state.stored else None
    registry.register(SharedStateCollector(state.shared_state, state.settings.queue_size, follower))
    if state.stored:
        registry.register(state.stored.collector)
    try:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # it fails on versions that are no numbers
        encode, media_type = choose_encoder("")
    return Response(encode(registry), media_type=media_type)


def _served(counts: Counts) -> dict[str, Any]:
    quantiles = {name: counts.quantile_ms(share) for name, share in _SHARES.items()}
    rounded = {name: None if value is None else round(value, 3) for name, value in quantiles.items()}
    return asdict(counts) | rounded  # the models leave the buckets of the latencies out
