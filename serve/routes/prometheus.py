"""``GET /metrics``: the Prometheus metrics of all processes of this server."""

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from serve.http.dependencies import StateDep, require
from serve.http.openapi import REFUSALS
from serve.observability.collectors import SharedStateCollector
from serve.observability.prometheus import process_metrics

router = APIRouter(tags=["status"], dependencies=[require("viewer")], responses=REFUSALS)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(request: Request, state: StateDep) -> Response:
    """Return counters, histograms and gauges in the text format that the `Accept` header names."""
    registry = process_metrics()
    follower = state.stored.follower if state.stored else None
    registry.register(SharedStateCollector(state.shared_state, state.settings.queue_size, follower))
    if state.stored:
        registry.register(state.stored.collector)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=media_type)
