"""Builds a server from its settings."""

from pathlib import Path

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.core.logs import LogFormat
from lesion.database.storage import Storage
from lesion.intake.rules import IntakeSettings
from lesion.model.engines import has_gpu
from serve.inference.inference_worker import InferenceAPI
from serve.inference.litserve_overrides import count_gpus
from serve.observability import tracing
from serve.server import Server
from serve.settings import AccessSettings, ServerSettings, TraceSettings
from serve.startup import open_bundle, open_champion


def create_server(
    bundle: Path | str | None,
    storage: Storage | None = None,
    settings: ServerSettings = ServerSettings(),  # noqa: B008 - it is frozen, as the other settings
    *,
    access: AccessSettings = AccessSettings(),  # noqa: B008
    intake: IntakeSettings = IntakeSettings(),  # noqa: B008
    log_format: LogFormat = "words",
    traces: TraceSettings = TraceSettings(),  # noqa: B008
) -> Server:
    """Build a server for a bundle, or for the champion of a storage; ``run`` starts it.

    Args:
        bundle: The bundle's folder. With a storage it may be None, and otherwise must be a version that the storage
            knows: the champion is served.
        storage: The database and files; None to serve the bundle and keep no state.
        settings: How to compute, and what to refuse.
        access: Who may use the server.
        intake: How uploaded images are judged.
        log_format: How the inference workers log. The other processes log as the caller does.
        traces: Where OpenTelemetry's spans go.

    Raises:
        BundleError: The bundle is not complete.
        ConfigError: The settings do not fit this machine, or the storage has no champion or does not know the bundle.
    """
    tracing.check_installed(traces)
    opened = open_champion(storage, bundle) if storage else open_bundle(bundle)
    settings = _fit_to_machine(settings)
    api = InferenceAPI(opened.path, settings, storage, log_format, traces)
    return Server(api, opened, settings, storage=storage, access=access, intake=intake)


def _fit_to_machine(settings: ServerSettings) -> ServerSettings:
    """Choose the device and the number of inference workers where the settings leave them open."""
    device = settings.device
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device == "cuda" and not count_gpus():
        raise ConfigError("device=cuda: nvidia-smi lists no GPU here. Use device=cpu.")
    workers = settings.workers or (2 if device == "cuda" else available_cores())
    return settings.model_copy(update={"device": device, "workers": workers})
