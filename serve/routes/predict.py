"""``POST /predict``."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from serve.http.dependencies import StateDep, require
from serve.http.image_body import REQUEST_BODY, read_image
from serve.http.openapi import refusals
from serve.http.schemas import PredictionAnswer
from serve.inference.messages import InferenceRequest
from serve.observability import tracing
from serve.observability.prometheus import StageTimer, count_prediction
from serve.request_errors import ParameterError

_REFUSALS = {
    400: "There is no file, it is empty, or the multipart body is malformed.",
    408: "The body did not arrive in time.",
    413: "The body, the file or its number of pixels is too large.",
    415: "The body is not an image, or of a type that is not accepted.",
    422: "The image is truncated, damaged, animated or too small; a class is unknown; a parameter is not valid.",
    500: "The server failed.",
    503: "Too many requests wait, no worker is ready, or the answer took too long. Retry-After says when to try again.",
}

router = APIRouter(tags=["prediction"], dependencies=[require("viewer")])


@router.post(
    "/predict",
    summary="Predict one image",
    response_model=PredictionAnswer,
    responses=refusals(_REFUSALS),
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def predict(
    request: Request,
    state: StateDep,
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
    _check_explanation(explain, layers, class_name)
    if class_name is not None:
        _check_class(class_name, state.bundle.classes)
    state.dispatcher.check_room()
    stages, trace = StageTimer(), tracing.current()
    with stages("receive"):
        data = await read_image(request)
    tracing.record(trace, stages.intervals)
    answer = await state.dispatcher.predict(InferenceRequest(data, explain, layers, class_name, top_k, trace=trace))
    count_prediction(answer["predicted_class"], answer["confidence"], answer["model_version"], answer["in_domain"])
    return JSONResponse({**answer, "request_id": request.scope["request_id"]})


def _check_explanation(explain: bool, layers: bool, class_name: str | None) -> None:
    if class_name is not None and not explain:
        raise ParameterError(
            "The parameter 'class' names what to explain. Add explain=true, or leave it out.",
            code="class_without_explain",
        )
    if layers and not explain:
        raise ParameterError(
            "The parameter 'layers' is for explanations. Add explain=true, or leave it out.",
            code="layers_without_explain",
        )


def _check_class(name: str, classes: tuple[str, ...]) -> None:
    if name not in classes:
        raise ParameterError(
            f"The model does not know the class {name[:80]!r}. Its classes are {', '.join(classes)}.",
            code="class_unknown",
        )
