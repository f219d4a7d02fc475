"""``GET /metrics``: everything that Prometheus asks for, of all processes of this server."""

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import choose_encoder

from serve.http.auth import REFUSALS, require
from serve.observability.collectors import BoardCollector
from serve.observability.prometheus import counted

router = APIRouter(tags=["status"], dependencies=[require("viewer")], responses=REFUSALS)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(request: Request) -> Response:
    """Give counters, histograms and gauges in the text format that the `Accept` header names."""
    state = request.app.state
    registry = counted()
    registry.register(BoardCollector(state.board, state.limits.queue_size, state.follower))
    if state.pulse is not None:
        registry.register(state.pulse)
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=media_type)
