"""``POST /predict``."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from lesion.core.errors import LesionError
from serve.http import auth
from serve.http.auth import require
from serve.http.image_body import REQUEST_BODY, read_image
from serve.http.problems import RequestError
from serve.http.schemas import PredictionAnswer
from serve.inference.inference_worker import InferenceRequest
from serve.observability import tracing
from serve.observability.prometheus import StageTimer, count_prediction

_REFUSALS = {
    400: "There is no file, it is empty, or the multipart body is malformed.",
    408: "The body did not arrive in time.",
    413: "The body, the file or its number of pixels is too large.",
    415: "The body is not an image, or of a type that is not taken.",
    422: "The image is truncated, damaged, animated or too small; a class is unknown; a parameter is not valid.",
    500: "The server failed.",
    503: "Too many requests wait, no worker is ready, or the answer took too long. Retry-After says when to try again.",
}
REFUSALS = auth.refusals(_REFUSALS)

router = APIRouter(tags=["prediction"], dependencies=[require("viewer")])


@router.post(
    "/predict",
    summary="Predict one image",
    response_model=PredictionAnswer,
    responses=REFUSALS,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def predict(
    request: Request,
    explain: Annotated[bool, Query(description="Add the Grad-CAM overlay.")] = False,
    layers: Annotated[
        bool, Query(description="Add the image and the heat map each by itself as well; needs explain=true.")
    ] = False,
    class_name: Annotated[
        str | None, Query(alias="class", description="Explain this class, not the predicted one; needs explain=true.")
    ] = None,
    top_k: Annotated[int | None, Query(ge=1, description="Give this many probabilities; all when left out.")] = None,
) -> JSONResponse:
    """Classify one image: calibrated probabilities and, with `explain=true`, where the network looked."""
    state = request.app.state
    _check_explanation(explain, layers, class_name)
    if class_name is not None:
        _check_class(class_name, state.bundle.classes)
    state.dispatcher.check_room()
    stages, trace = StageTimer(), tracing.current()
    with stages("receive"):
        data = await read_image(request)
    tracing.record(trace, stages.intervals)
    answer = await state.dispatcher.submit(
        InferenceRequest(data, explain, layers, class_name, top_k, trace=trace), len(data)
    )
    if "error" in answer:
        message, code, status = answer["error"]
        raise LesionError(message, code=code, status=status)
    count_prediction(answer["predicted_class"], answer["confidence"], answer["model_version"], answer["in_domain"])
    return JSONResponse(answer | {"request_id": request.scope["request_id"]})


def _check_explanation(explain: bool, layers: bool, class_name: str | None) -> None:
    if class_name is not None and not explain:
        raise RequestError(
            "The parameter 'class' says what to explain. Add explain=true, or leave it out.",
            code="class_without_explain",
            status=422,
        )
    if layers and not explain:
        raise RequestError(
            "The parameter 'layers' says how to explain. Add explain=true, or leave it out.",
            code="layers_without_explain",
            status=422,
        )


def _check_class(name: str, classes: tuple[str, ...]) -> None:
    if name not in classes:
        raise RequestError(
            f"The model knows no class {name[:80]!r}. Its classes are {', '.join(classes)}.",
            code="class_unknown",
            status=422,
        )
