"""Prometheus metrics that a server's processes count, summed over all of them.

prometheus-client shares the counts of several processes through files in a folder. This module makes that folder once
per server; every process that multiprocessing starts from the server counts in the same folder.
"""

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

if "--multiprocessing-fork" not in sys.orig_argv:  # parent_process() is not known yet while a spawned process imports
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="lesion-metrics-")
    atexit.register(shutil.rmtree, os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

from serve.observability.reserved_files import ReservedDict

vars(values)["MmapedDict"] = ReservedDict
# What prometheus-client itself chooses if it is first imported after the folder was made.
values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 900.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"  # senders choose methods and paths freely, which must not create new series

_counter, _histogram = partial(Counter, registry=None), partial(Histogram, registry=None)
REQUESTS = _counter("lesion_requests_total", "Answers, by route.", ["method", "route", "status"])
REQUEST_SECONDS = _histogram(
    "lesion_request_seconds",
    "From a request's head to the end of its answer, without event streams.",
    ["route"],
    buckets=_SECONDS,
)
STAGE_SECONDS = _histogram(
    "lesion_stage_seconds",
    "Parts of an answer: receive (its body), queue (for an inference worker), decode and infer (its batch), cover "
    "(some squares of an image, for a heat map by occlusion), explain (drawing a heat map). "
    "Opinions on uploaded images have queue, decode and infer too.",
    ["stage"],
    buckets=_SECONDS,
)
BATCH_SIZE = _histogram("lesion_batch_size", "Images in a batch.", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64))
PREDICTIONS = _counter(
    "lesion_predictions_total",
    "Images that POST /predict classified.",
    ["predicted_class", "version", "in_domain"],
)
RECORDS_DELAYED = _counter(
    "lesion_records_delayed_total", "Records of answers that the disk did not take at once; they are kept in memory."
)
CONFIDENCE = _histogram(
    "lesion_prediction_confidence",
    "Calibrated probability of the predicted class.",
    buckets=[step / 20 for step in range(1, 21)],
)
UPLOADS = _counter("lesion_uploads_total", "Uploaded images: accepted, quarantined or rejected.", ["outcome", "code"])
SWAPS = _counter("lesion_swaps_total", "New champions that inference workers loaded, or refused.", ["outcome"])
SWAP_SECONDS = _histogram(
    "lesion_swap_seconds",
    "From a new champion's deployment until an inference worker served it.",
    buckets=(0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0, 60.0, 300.0),
)


def process_metrics() -> CollectorRegistry:
    """Return the metrics that all processes of this server counted until now."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def count_request(method: str, route: str | None, status: int, seconds: float | None) -> None:
    """Count an answered request; :meth:`serve.observability.request_stats.RequestCounter.count` calls this.

    The route is a template such as ``/models/{version}``, and None if no route has the path. The status is 0 if the
    sender left before there was one. The seconds are None for an event stream.
    """
    name = route or OTHER
    REQUESTS.labels(method if method in _METHODS else OTHER, name, str(status)).inc()
    if seconds is not None:
        REQUEST_SECONDS.labels(name).observe(seconds)


def count_prediction(predicted_class: str, confidence: float, version: str, in_domain: bool) -> None:
    """Count an image that ``POST /predict`` classified."""
    PREDICTIONS.labels(predicted_class, version, str(in_domain).lower()).inc()
    CONFIDENCE.observe(confidence)


def count_swap(outcome: str, since: datetime) -> None:
    """Count a champion that an inference worker loaded (``swapped``) or ``refused``, and the time since deployment."""
    SWAPS.labels(outcome).inc()
    if outcome == "swapped":
        SWAP_SECONDS.observe(max(0.0, (datetime.now(UTC) - since).total_seconds()))


class StageTimer:
    """Times the stages of one request or batch: adds each to the metrics, and keeps it for a trace.

    Attributes:
        intervals: Each stage's name, begin and end (nanoseconds since 1970), in the order of their ends.
    """

    def __init__(self) -> None:
        self.intervals: list[tuple[str, int, int]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block."""
        began, start = time.time_ns(), time.perf_counter()
        try:
            yield
        finally:
            self.add(name, began, time.perf_counter() - start)

    def add(self, name: str, began: int, seconds: float) -> None:
        """Add a stage that began at ``began`` (nanoseconds since 1970) and was timed elsewhere."""
        STAGE_SECONDS.labels(name).observe(seconds)
        self.intervals.append((name, began, began + round(1e9 * seconds)))
