"""Builds a server from plain settings, each of which is checked here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from litserve.connector import check_cuda_with_nvidia_smi

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.core.logs import LogFormat
from lesion.database.storage import Storage
from lesion.imaging.decode import Limits
from lesion.intake.rules import IntakeSettings
from lesion.intake.zip_reader import ZipLimits
from lesion.model.engines import Precision, has_gpu
from serve.http.schemas import ServerLimits
from serve.inference.inference_worker import PredictAPI
from serve.observability.tracing import Traces
from serve.server import Server
from serve.startup import open_champion, open_given


def create_server(
    bundle: Path | str | None,
    storage: Storage | None = None,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    threads: int = 1,
    workers: int | None = None,
    api_processes: int | None = None,
    max_batch_size: int = 8,
    batch_timeout: float = 0.002,
    queue_size: int = 256,
    request_timeout: float = 30.0,
    max_body_bytes: int = 21 * 2**20,
    max_upload_bytes: int = 64 * 2**20,
    max_held_bytes: int = 64 * 2**20,
    max_image_bytes: int = 20 * 2**20,
    max_pixels: int = 50_000_000,
    min_side: int = 16,
    start_timeout: float = 120.0,
    access: Mapping[str, Any] | None = None,
    intake: IntakeSettings | None = None,
    log_format: LogFormat = "words",
    traces: Traces = Traces(),  # noqa: B008 - it is frozen
) -> Server:
    """Build a server for a bundle, or for the champion of a storage; ``run`` starts it.

    Args:
        bundle: The bundle's folder. With a storage it may be None, and else must be a version that the storage knows:
            the champion is what is served.
        storage: The loop's database and files; None to serve the bundle and keep no state.
        device: ``auto``, ``cpu``, ``cuda`` (every GPU there is) or ``torch`` (torch on the CPU).
        precision: ``auto``, ``f32``, ``bf16`` or ``f16``.
        threads: CPU threads for one image in one worker.
        workers: Inference processes for a CPU, or for each GPU; one for each core when None (two for each GPU).
        api_processes: HTTP processes; one for every four workers when None.
        max_batch_size: The most images in one batch.
        batch_timeout: Seconds to wait for a batch to fill.
        queue_size: The most requests that wait or are computed at once; more are answered 503.
        request_timeout: Seconds for a body to arrive, and then for its answer.
        max_body_bytes: The largest request body.
        max_upload_bytes: The largest body of training data.
        max_held_bytes: About the most that all bodies being answered may hold together, in each API process; what is
            above waits unread.
        max_image_bytes: The largest image file.
        max_pixels: The largest image.
        min_side: The smallest side of an image in pixels.
        start_timeout: Seconds in which every worker must have loaded.
        access: Settings of :class:`serve.http.auth.Access`: ``open_access``, ``per_minute`` and ``per_day``.
        intake: How uploaded images are judged.
        log_format: How the workers log: ``words`` or ``json``. The other processes log as the caller does.
        traces: Where OpenTelemetry's spans go.

    Raises:
        BundleError: The bundle is not whole.
        ConfigError: A setting makes no sense here, or the storage has no champion or another model than the bundle.
    """
    traces.check()
    opened = open_champion(storage, bundle) if storage else open_given(bundle)
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device not in ("cpu", "cuda", "torch"):
        raise ConfigError(f"device={device!r} is unknown. Use auto, cpu, cuda or torch.")
    if device == "cuda" and not check_cuda_with_nvidia_smi():
        raise ConfigError("device=cuda: nvidia-smi names no GPU here. Use device=cpu.")
    workers = workers or (2 if device == "cuda" else available_cores())
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision!r} is unknown. Use {', '.join(get_args(Precision))}.")
    _check_numbers(
        int,
        threads=threads,
        workers=workers,
        api_processes=1 if api_processes is None else api_processes,
        queue_size=queue_size,
        max_batch_size=max_batch_size,
        max_body_bytes=max_body_bytes,
        max_upload_bytes=max_upload_bytes,
        max_held_bytes=max_held_bytes,
        max_image_bytes=max_image_bytes,
        max_pixels=max_pixels,
        min_side=min_side,
    )
    _check_numbers((int, float), request_timeout=request_timeout, start_timeout=start_timeout)
    if not isinstance(batch_timeout, int | float) or not 0 <= batch_timeout < request_timeout:
        raise ConfigError(f"batch_timeout={batch_timeout} must lie between 0 and request_timeout={request_timeout}.")
    api = PredictAPI(
        opened.path,
        storage,
        device=device,
        threads=threads,
        precision=precision,
        limits=Limits(max_bytes=max_image_bytes, max_pixels=max_pixels, min_side=min_side),
        max_batch_size=max_batch_size,
        batch_timeout=batch_timeout,
        log_format=log_format,
        traces=traces,
    )
    limits = ServerLimits(
        max_body_bytes=max_body_bytes,
        max_upload_bytes=max_upload_bytes,
        max_image_bytes=max_image_bytes,
        max_pixels=max_pixels,
        min_side=min_side,
        max_archive_entries=ZipLimits().max_entries,
        queue_size=queue_size,
        request_timeout_s=request_timeout,
    )
    return Server(
        api,
        opened,
        limits,
        storage=storage,
        accelerator="cuda" if device == "cuda" else "cpu",
        workers=workers,
        api_processes=api_processes,
        max_held_bytes=max_held_bytes,
        start_timeout=start_timeout,
        access=access or {},
        intake=intake or IntakeSettings(),
    )


def _check_numbers(kind: type | tuple[type, ...], **settings: object) -> None:
    for name, value in settings.items():
        if not isinstance(value, kind) or isinstance(value, bool) or not value > 0:  # type: ignore[operator]
            raise ConfigError(f"{name}={value} must be a {'whole ' if kind is int else ''}number, more than 0.")
