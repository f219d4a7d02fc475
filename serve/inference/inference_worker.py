"""The inference worker: LitServe's contract around the champion's Predictor, and a batch loop that rests while idle."""

import base64
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import litserve
from litserve.loops.simple_loops import BatchedLoop
from litserve.transport.base import MessageTransport
from litserve.utils import LitAPIStatus, LoopResponseType
from sqlalchemy.exc import SQLAlchemyError

from lesion.core.errors import ConfigError, ImageError
from lesion.core.logs import LogFormat, configure
from lesion.database.object_store import StoreError
from lesion.database.storage import Storage
from lesion.imaging.decode import Limits
from lesion.imaging.heatmap import METHOD
from lesion.model.engines import Precision
from lesion.model.predictor import Prediction, Predictor
from lesion.registry.registry import Registry
from serve.inference.shared_state import SharedState
from serve.malloc import return_large_blocks
from serve.model_follower import ActiveModel, ModelFollower
from serve.observability import tracing
from serve.observability.prometheus import BATCH_SIZE, StageTimer
from serve.observability.tracing import Traces

logger = logging.getLogger(__name__)
IDLE_WAIT_S = 0.1
_BATCH_BYTES = 32 * 2**20  # a batch is closed once it holds this much


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request as it goes to a worker: the raw bytes, which are smaller than pixels and are decoded over there.

    Attributes:
        data: The image file.
        explain: Whether an overlay is wanted.
        layers: Whether the explanation is wanted in its parts too.
        class_name: The class to explain; the predicted one when None.
        top_k: How many probabilities to give; all when None.
        opinion: Whether the answer is for the intake of training data, which wants it whole and plain.
        trace: Of the request, if it is traced; see :func:`serve.observability.tracing.current`.
        made: When, by the clock that all processes of this machine share.
    """

    data: bytes
    explain: bool = False
    layers: bool = False
    class_name: str | None = None
    top_k: int | None = None
    opinion: bool = False
    trace: str = ""
    made: float = field(default_factory=time.monotonic)


class BatchLoop(BatchedLoop):  # type: ignore[misc]
    """LitServe's batch loop with another way to wait.

    LitServe asks its queue a thousand times a second while idle, or without a pause when ``batch_timeout`` is 0. Here a
    worker sleeps until a first request comes, takes what waits beside it, and waits ``batch_timeout`` for more.
    """

    def get_batch_requests(
        self, lit_api: "PredictAPI", request_queue: "Queue[Any]", transport: MessageTransport
    ) -> tuple[list[Any], list[Any]]:
        """Return one batch of (API process, request id, job); expired requests were answered by their API process."""
        batch: list[Any] = []
        deadline = 0.0
        held = 0
        while len(batch) < lit_api.max_batch_size and held < _BATCH_BYTES:
            wait = max(deadline - time.monotonic(), 0.0) if batch else IDLE_WAIT_S
            try:
                consumer, uid, sent, job = request_queue.get(timeout=wait)
            except Empty:
                break
            if time.monotonic() - sent > lit_api.request_timeout:
                continue
            self.put_response(transport, consumer, uid, (), LitAPIStatus.START, LoopResponseType.REGULAR)
            batch.append((consumer, uid, job))
            held += len(job.data)
            if len(batch) == 1:
                deadline = time.monotonic() + lit_api.batch_timeout
        return batch, []


class PredictAPI(litserve.LitAPI):  # type: ignore[misc]
    """Loads a bundle, or follows the champion, and predicts batches of jobs.

    Args:
        bundle: The bundle's folder; with a storage, what is served should the ledger not answer at the start.
        storage: Where the ledger is; None to serve the one bundle.
        device: ``cpu``, ``torch`` or ``cuda``; LitServe says which GPU.
        threads: CPU threads for one image.
        precision: See :func:`lesion.model.engines.load_engine`.
        limits: What is refused before it is decoded.
        max_batch_size: The most jobs in one batch.
        batch_timeout: Seconds to wait for a batch to fill.
        log_format: How a worker logs.
        traces: Where a worker sends its spans.
    """

    board: SharedState

    def __init__(
        self,
        bundle: Path,
        storage: Storage | None = None,
        *,
        device: str,
        threads: int,
        precision: Precision,
        limits: Limits,
        max_batch_size: int,
        batch_timeout: float,
        log_format: LogFormat = "words",
        traces: Traces = Traces(),  # noqa: B008 - it is frozen
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, loop=BatchLoop())
        self.bundle = bundle
        self.storage = storage
        self.engine_device = device
        self.threads = threads
        self.precision = precision
        self.limits = limits
        self.log_format = log_format
        self.traces = traces

    def setup(self, device: str) -> None:
        """Load the model in a worker process and report ready."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
        end_with_parent()
        return_large_blocks()
        configure(self.log_format)
        tracing.start(self.traces, "inference")
        self.worker = int(os.environ["LITSERVE_WORKER_ID"])
        chosen = device if self.engine_device == "cuda" else self.engine_device
        load = partial(
            Predictor.load, device=chosen, threads=self.threads, precision=self.precision, limits=self.limits
        )
        self.current = self._fixed(load) if self.storage is None else self._following(load, self.storage)
        self.board.worker_is_ready(self.worker, os.getpid())

    def _fixed(self, load: Callable[[Path], Predictor]) -> Callable[[], Predictor]:
        predictor = load(self.bundle)
        self._announce(predictor)
        return lambda: predictor

    def _following(self, load: Callable[[Path], Predictor], storage: Storage) -> Callable[[], Predictor]:
        """Load the champion and follow the ledger; return what tells the predictor of the moment."""
        registry = Registry(storage)

        def announce(held: ActiveModel[Predictor]) -> None:
            self._announce(held.value)

        follower = ModelFollower(registry, load, f"server on {socket.gethostname()}", announce)
        try:
            follower.load_champion()
        except (SQLAlchemyError, StoreError):  # a worker that died must come back all the same
            logger.exception("the ledger cannot be read; what was served last is served on")
            before = self.board.versions[self.worker]
            cached = registry.cached(before) if before else self.bundle
            predictor = load(cached if cached.is_dir() else self.bundle)
            follower.hold(predictor.bundle.version, predictor)
            self.board.worker_follows(self.worker, False)
        follower.start(partial(self.board.worker_follows, self.worker))
        return lambda: follower.held.value

    def _announce(self, predictor: Predictor) -> None:
        engine = predictor.engine
        self.board.worker_serves(self.worker, predictor.bundle.version, engine.name, engine.precision)

    def batch(self, inputs: list[InferenceRequest]) -> list[InferenceRequest]:
        """Keep the jobs as they are; LitServe's own would look for tensors."""
        return inputs

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the answers as they are."""
        return output

    def predict(self, jobs: Sequence[InferenceRequest]) -> list[dict[str, Any]]:
        """Answer a batch by one version; a refused image is an answer too: an exception would fail the whole batch."""
        self.board.worker_begins(self.worker)
        BATCH_SIZE.observe(len(jobs))
        began, waited = time.time_ns(), [time.monotonic() - job.made for job in jobs]
        predictor, batch = self.current(), StageTimer()
        try:
            predictions = predictor.predict([job.data for job in jobs], batch)
            answers = []
            for job, seconds, prediction in zip(jobs, waited, predictions, strict=True):
                stages = StageTimer()
                stages.add("queue", began - round(1e9 * seconds), seconds)
                answers.append(_answer(job, prediction, stages))
                tracing.record(job.trace, (*stages.intervals, *batch.intervals))
            return answers
        finally:
            self.board.worker_ends(self.worker)


def _answer(job: InferenceRequest, prediction: Prediction | ImageError, stages: StageTimer) -> dict[str, Any]:
    """Return what goes back to the API process: ``error`` (message, code, status), or the answer's members."""
    if isinstance(prediction, ImageError):
        return {"error": (prediction.message, prediction.code, prediction.status)}
    domain = {"in_domain": prediction.in_domain, "domain_distance": prediction.domain_distance}
    if job.opinion:
        return {"probabilities": prediction.probabilities, "model_version": prediction.model_version} | domain
    answer: dict[str, Any] = {
        "predicted_class": prediction.predicted_class,
        "confidence": prediction.confidence,
        "probabilities": prediction.top(job.top_k),
        "inference_time_ms": round(prediction.inference_time_ms, 3),
        "model_version": prediction.model_version,
        **domain,
    }
    if job.explain:
        name = job.class_name or prediction.predicted_class
        if name not in prediction.probabilities:
            return {"error": (f"The model knows no class {name!r}.", "class_unknown", 422)}
        with stages("explain"):
            answer["explanation"] = _explanation(prediction, name, job.layers)
    return answer


def _explanation(prediction: Prediction, name: str, layers: bool) -> dict[str, str]:
    pictures = {"overlay": prediction.overlay_png(name)}
    if layers:
        pictures |= {"image": prediction.image_png(), "heatmap": prediction.heatmap_png(name)}
    encoded = {f"{kind}_png_base64": base64.b64encode(png).decode("ascii") for kind, png in pictures.items()}
    return {"class": name, "method": METHOD, **encoded}


def end_with_parent() -> None:
    """End this process when its parent is gone, however that went, so that no worker is left over."""
    parent = parent_process()
    if parent is None:
        raise ConfigError("end_with_parent is for processes that multiprocessing started.")

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
