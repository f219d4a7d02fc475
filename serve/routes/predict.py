"""``POST /predict``: an image as the multipart field ``file``, or as the raw body."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from lesion.conformal.prediction_sets import DEFAULT_COVERAGE
from lesion.core.errors import InvalidValueError, UnsupportedTypeError
from lesion.explanation.explanation import Method
from lesion.imaging.refusals import EmptyImageError
from serve.http.dependencies import KeyFirstRoute, PrincipalDep, StateDep, require
from serve.http.openapi import refusals
from serve.http.schemas import PredictionAnswer
from serve.inference.messages import InferenceRequest
from serve.observability import tracing
from serve.observability.prometheus import StageTimer, count_prediction
from serve.request_errors import missing_file

_REFUSALS = {
    400: "There is no file, it is empty, or the multipart body is malformed.",
    408: "The body did not arrive in time.",
    413: "The body, the file or its number of pixels is too large.",
    415: "The body is not an image, or of a type that is not accepted.",
    422: "The image is truncated, damaged, animated or too small; a class is unknown; a parameter is not valid.",
    500: "The server failed.",
    503: "Too many requests wait, no inference worker is ready, or it took too long; see Retry-After.",
}
_FIELD = "file"
_MAX_FIELDS = 16
_RAW = frozenset({"application/octet-stream", "application/dicom", ""})
_BINARY = {"schema": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}}

_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "One image: as the multipart field `file`, or alone as the body.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [_FIELD],
                "properties": {_FIELD: {"type": "string", "format": "binary", "description": "The image file."}},
            },
            "encoding": {_FIELD: {"contentType": "image/*, application/octet-stream, application/dicom"}},
        },
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "application/dicom": _BINARY,
    },
}

router = APIRouter(route_class=KeyFirstRoute, tags=["prediction"], dependencies=[require("viewer")])


@router.post(
    "/predict",
    summary="Predict one image",
    response_model=PredictionAnswer,
    responses=refusals(_REFUSALS),
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def predict(
    request: Request,
    state: StateDep,
    principal: PrincipalDep,
    explain: Annotated[bool, Query(description="Add a heat map, as an overlay.")] = False,
    method: Annotated[
        Method | None,
        Query(
            description="How the heat map is made; needs explain=true. `occlusion`, when left out: by how much "
            "covering each place lowers the odds of the class, from 41 passes through the network. `grad-cam`: from "
            "its last activation, at no cost, but coarse."
        ),
    ] = None,
    layers: Annotated[
        bool, Query(description="Add the image and the heat map each by itself as well; needs explain=true.")
    ] = False,
    class_name: Annotated[
        str | None, Query(alias="class", description="Explain this class, not the predicted one; needs explain=true.")
    ] = None,
    top_k: Annotated[int | None, Query(ge=1, description="Give this many probabilities; all when left out.")] = None,
    coverage: Annotated[
        float, Query(description="Of the prediction set: the share of images of each class whose set has the class.")
    ] = DEFAULT_COVERAGE,
) -> JSONResponse:
    """Classify one image: probabilities, possible classes and, with `explain=true`, where the network looked."""
    _check_explanation(explain, method, layers, class_name, state.bundle.classes)
    if coverage != DEFAULT_COVERAGE and (rules := state.bundle.answer_rules) is not None:
        rules.sets.check_coverage(coverage)
    state.dispatcher.check_room()
    if state.recorder is not None:
        state.recorder.check_room()
    method = method or "occlusion"
    if explain and method == "occlusion":
        state.dispatcher.explainer.check_room()
    stages, trace = StageTimer(), tracing.current()
    with stages("receive"):
        data = await _read_image(request)
    tracing.record(trace, stages.intervals)
    inference = InferenceRequest(
        data, explain, method, layers, class_name, top_k, coverage, record=state.recorder is not None, trace=trace
    )
    answer = await state.dispatcher.predict(inference)
    recorded = answer.pop("recorded", None)
    if state.recorder is not None and recorded is not None:
        await state.recorder.record(request.scope["request_id"], principal.key_id, data, recorded)
    count_prediction(answer["predicted_class"], answer["confidence"], answer["model_version"], answer["in_domain"])
    return JSONResponse({**answer, "request_id": request.scope["request_id"]})


def _check_explanation(
    explain: bool, method: Method | None, layers: bool, class_name: str | None, classes: tuple[str, ...]
) -> None:
    if method is not None and not explain:
        message = "The parameter 'method' is for explanations. Add explain=true, or leave it out."
        raise InvalidValueError(message, code="method_without_explain")
    if class_name is not None and not explain:
        message = "The parameter 'class' names what to explain. Add explain=true, or leave it out."
        raise InvalidValueError(message, code="class_without_explain")
    if layers and not explain:
        message = "The parameter 'layers' is for explanations. Add explain=true, or leave it out."
        raise InvalidValueError(message, code="layers_without_explain")
    if class_name is not None and class_name not in classes:
        message = f"The model does not know the class {class_name[:80]!r}. Its classes are {', '.join(classes)}."
        raise InvalidValueError(message, code="class_unknown")


async def _read_image(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        data = await _read_form(request)
    elif media_type in _RAW or media_type.startswith("image/"):
        data = await request.body()
    else:
        raise UnsupportedTypeError(
            f"A body of type {media_type[:80]!r} is not accepted. Send the image as the multipart field '{_FIELD}', or "
            "alone as the body with a content type such as image/png or application/octet-stream.",
            code="media_type_not_supported",
        )
    if not data:
        raise EmptyImageError("The image is empty: 0 bytes arrived. Send the file's content.")
    return data


async def _read_form(request: Request) -> bytes:
    async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
        file = form.get(_FIELD)
        if not isinstance(file, UploadFile):
            raise missing_file(form, _FIELD)
        return await file.read()
