"""The inference worker: LitServe's API around the champion's Predictor."""

import base64
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from lesion.core.errors import ImageError, InvalidValueError, LesionError
from lesion.core.logs import LogFormat, configure
from lesion.database.object_store import StoreError
from lesion.database.storage import Storage
from lesion.explanation.explanation import Explanation
from lesion.explanation.occlusion import Odds, combine, cover
from lesion.imaging import heatmap
from lesion.imaging.refusals import ImageMemoryError
from lesion.intake.uploads import ModelOpinion
from lesion.model.predictor import Prediction, Predictor
from lesion.records.reproduction import answer_facts
from lesion.registry.registry import Registry
from serve.inference.child_processes import exit_with_parent
from serve.inference.large_images import small_only
from serve.inference.litserve_batches import IdleBatchLoop, worker_id
from serve.inference.messages import (
    CoverRequest,
    InferenceAnswer,
    InferenceRequest,
    LargeImage,
    MapRequest,
    Request,
    Unexplained,
)
from serve.inference.shared_state import SharedState
from serve.inference.trial_loading import TrialLoading
from serve.malloc import return_large_blocks
from serve.model_follower import ModelFollower
from serve.observability import tracing
from serve.observability.prometheus import BATCH_SIZE, StageTimer
from serve.request_errors import ModelReplacedError
from serve.settings import ServerSettings, TraceSettings

logger = logging.getLogger(__name__)

Answer = InferenceAnswer | LargeImage | Unexplained | Odds | dict[str, Any] | ModelOpinion | LesionError


class InferenceAPI(litserve.LitAPI):  # type: ignore[misc]
    """Loads a bundle, or follows the champion, and predicts batches of requests.

    With a storage, ``bundle`` is only served if the ledger does not answer at the start. The ``device`` of the settings
    must not be ``auto``.
    """

    shared_state: SharedState

    def __init__(
        self,
        bundle: Path,
        settings: ServerSettings,
        storage: Storage | None = None,
        log_format: LogFormat = "words",
        traces: TraceSettings = TraceSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        super().__init__(
            max_batch_size=settings.max_batch_size, batch_timeout=settings.batch_timeout, loop=IdleBatchLoop()
        )
        self.bundle = bundle
        self.settings = settings
        self.storage = storage
        self.log_format = log_format
        self.traces = traces

    def setup(self, device: str) -> None:
        """Load the model in an inference worker and report that it is ready."""
        for number in (signal.SIGINT, signal.SIGTERM):  # they may reach every process; the parent decides
            signal.signal(number, signal.SIG_IGN)
        exit_with_parent()
        return_large_blocks()
        configure(self.log_format)
        tracing.start(self.traces, "inference")
        self.worker = worker_id()
        options: dict[str, Any] = {
            "device": device if self.settings.device == "cuda" else self.settings.device,
            "threads": self.settings.threads,
            "precision": self.settings.precision,
        }
        limits, level = small_only(self.settings.image_limits), self.settings.domain_level
        load = partial(Predictor.load, limits=limits, domain_level=level, **options)
        if self.storage is None:
            self.current = self._load_bundle(load)
        else:
            marks = Path(self.storage.cache) / "loading"
            trial = TrialLoading(load, options, self.settings.start_timeout, marks)
            self.current = self._follow(trial, self.storage)
        self.shared_state.worker_is_ready(self.worker, os.getpid())

    def _load_bundle(self, load: Callable[[Path], Predictor]) -> Callable[[], Predictor]:
        predictor = load(self.bundle)
        self._announce(predictor)
        return lambda: predictor

    def _follow(self, load: Callable[[Path], Predictor], storage: Storage) -> Callable[[], Predictor]:
        """Load the champion and follow the ledger; return a function that gives the current predictor."""
        registry, actor = Registry(storage), f"server on {socket.gethostname()}"
        follower = ModelFollower(registry, load, actor, on_change=lambda model: self._announce(model.value))
        try:
            follower.load_champion()
        except (SQLAlchemyError, StoreError):  # an inference worker that died must come back nevertheless
            logger.exception("the ledger cannot be read; serving the model that was served last")
            last = self.shared_state.versions[self.worker]
            cached = registry.cached(last) if last else self.bundle
            predictor = load(cached if cached.is_dir() else self.bundle)
            follower.set_active(predictor.bundle.version, predictor)
            self.shared_state.worker_follows(self.worker, False)
        follower.start(partial(self.shared_state.worker_follows, self.worker))
        return lambda: follower.active.value

    def _announce(self, predictor: Predictor) -> None:
        engine = predictor.engine
        self.shared_state.worker_serves(self.worker, predictor.bundle.version, engine.name, engine.precision)

    def batch(self, inputs: list[Request]) -> list[Request]:
        """Return the requests unchanged; LitServe's method would look for tensors."""
        return inputs

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Return the answers unchanged."""
        return output

    def predict(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer a batch with one model version; a refusal is returned, since raising it would fail the whole batch."""
        self.shared_state.worker_computes(self.worker, True)
        began, waited = time.time_ns(), [time.monotonic() - request.created for request in requests]
        predictor, batch = self.current(), StageTimer()
        current = predictor.bundle.preprocessing
        asked = [request for request in requests if isinstance(request, InferenceRequest)]
        images = [_image(request) for request in asked if request.fitted in (None, current)]
        try:
            if images:
                BATCH_SIZE.observe(len(images))
            predictions = iter(predictor.predict(images, batch) if images else [])
            answers: list[Answer] = []
            for request, seconds in zip(requests, waited, strict=True):
                stages = StageTimer()
                if isinstance(request, InferenceRequest):
                    stages.add("queue", began - round(1e9 * seconds), seconds)
                    prediction = next(predictions) if request.fitted in (None, current) else None
                    if prediction is None or isinstance(prediction, ImageMemoryError):
                        answers.append(LargeImage(current, self.settings.image_limits))
                    else:
                        answers.append(_answer(predictor, request, prediction, stages))
                    tracing.record(request.trace, (*stages.intervals, *batch.intervals))
                else:
                    answers.append(_explain(predictor, request, stages))
                    tracing.record(request.trace, stages.intervals)
            return answers
        finally:
            self.shared_state.worker_computes(self.worker, False)


def _image(request: InferenceRequest) -> bytes | NDArray[np.uint8]:
    if request.fitted is None:
        return request.data
    return np.frombuffer(request.data, np.uint8).reshape(request.fitted.size, request.fitted.size, 3)


def _answer(
    predictor: Predictor, request: InferenceRequest, prediction: Prediction | ImageError, stages: StageTimer
) -> Answer:
    if isinstance(prediction, ImageError):
        return prediction
    if request.opinion:
        known = prediction.in_domain, prediction.domain_distance, prediction.model_version
        return ModelOpinion(prediction.probabilities, *known)
    if prediction.answer_rules is not None:  # again: the API process may have asked another model
        try:
            prediction.answer_rules.sets.check_coverage(request.coverage)
        except InvalidValueError as error:
            return error
    answer = _prediction_answer(request, prediction)
    if request.record:
        answer["recorded"] = _recorded(predictor, prediction, answer["coverage"])
    if request.explain:
        name = request.class_name or prediction.predicted_class
        if name not in prediction.probabilities:
            return InvalidValueError(f"The model does not know the class {name!r}.", code="class_unknown")
        if request.method == "occlusion":
            return Unexplained(answer, prediction.image.tobytes(), len(prediction.image), name)
        with stages("explain"):
            answer["explanation"] = _explanation(prediction.image, prediction.explain(name), request.layers)
    return answer


def _explain(predictor: Predictor, request: CoverRequest | MapRequest, stages: StageTimer) -> Answer:
    """Cover squares of an image, or make the heat map of what that changed."""
    image = np.frombuffer(request.data, np.uint8).reshape(request.size, request.size, 3)
    if isinstance(request, MapRequest):
        with stages("explain"):
            found = combine(image, request.before, request.coarse, request.boxes, request.fine)
            explanation = Explanation.of_occlusion(request.class_name, image, found)
            return _explanation(image, explanation, request.layers)
    if predictor.bundle.version != request.model_version:
        return ModelReplacedError("The model was replaced while its answer was explained. Try again.")
    with stages("cover"):
        images = cover(image, request.boxes) if len(request.boxes) else image[None]
        return predictor.odds(images, request.class_name)


def _prediction_answer(request: InferenceRequest, prediction: Prediction) -> InferenceAnswer:
    members, reason = prediction.prediction_set(request.coverage), prediction.abstention
    return InferenceAnswer(
        abstain=reason is not None,
        abstain_reason=reason,
        predicted_class=prediction.predicted_class,
        confidence=prediction.confidence,
        probabilities=prediction.top(request.top_k),
        inference_time_ms=round(prediction.inference_time_ms, 3),
        model_version=prediction.model_version,
        in_domain=prediction.in_domain,
        domain_distance=prediction.domain_distance,
        domain_p_value=prediction.domain_p_value,
        unnoticed_kinds=None if prediction.unnoticed_kinds is None else list(prediction.unnoticed_kinds),
        prediction_set=None if members is None else list(members),
        coverage=None if members is None else request.coverage,
        similar_answers=None if prediction.similar_answers is None else prediction.similar_answers.to_json(),
    )


def _recorded(predictor: Predictor, prediction: Prediction, coverage: float | None) -> dict[str, Any]:
    return {
        **answer_facts(prediction, coverage),
        "coverage": coverage,
        "engine": predictor.engine.name,
        "precision": predictor.engine.precision,
        "domain_level": predictor.domain_level,
    }


def _explanation(image: NDArray[np.uint8], explanation: Explanation, layers: bool) -> dict[str, Any]:
    """Return the member ``explanation`` of an answer."""
    pictures = {"overlay": explanation.overlay(image)}
    if layers:
        pictures |= {"image": image, "heatmap": heatmap.to_grayscale(explanation.heat)}
    return {
        "class": explanation.class_name,
        "method": explanation.method,
        "grid": list(explanation.grid),
        "foreground_share": explanation.foreground_share,
        "reliable": explanation.reliable,
        "doubts": list(explanation.doubts),
        "probability": explanation.probability,
        "covered_probability": explanation.covered_probability,
        **{f"{kind}_png_base64": _png_base64(pixels) for kind, pixels in pictures.items()},
    }


def _png_base64(pixels: NDArray[np.uint8]) -> str:
    return base64.b64encode(heatmap.encode_png(pixels)).decode("ascii")
