"""Builds a server from its settings, for the given bundle or the champion of a storage."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lesion.core.cpu import available_cores
from lesion.core.errors import ConfigError
from lesion.core.logs import LogFormat
from lesion.core.validation import complete_class_names
from lesion.database.storage import Storage
from lesion.identity.identity_key import open_pseudonyms
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from lesion.model.engines import has_gpu
from lesion.registry.registry import Registry
from serve.inference.inference_worker import InferenceAPI
from serve.inference.litserve_supervision import count_gpus
from serve.model_follower import ModelFollower
from serve.observability import tracing
from serve.server import Server
from serve.settings import AccessSettings, RecordSettings, ServerSettings, TraceSettings

logger = logging.getLogger(__name__)


def create_server(
    bundle: Path | str | None,
    storage: Storage | None = None,
    settings: ServerSettings = ServerSettings(),  # noqa: B008 - it is frozen, as the other settings
    *,
    access: AccessSettings = AccessSettings(),  # noqa: B008
    records: RecordSettings = RecordSettings(),  # noqa: B008
    intake: IntakeSettings = IntakeSettings(),  # noqa: B008
    log_format: LogFormat = "words",
    traces: TraceSettings = TraceSettings(),  # noqa: B008
) -> Server:
    """Build a server for a bundle, or for the champion of a storage; ``run`` starts it.

    With a storage the bundle may be None, and otherwise must be a version that the storage knows: the champion is
    served. Without one, the server keeps no state. ``log_format`` is that of the inference workers; the other processes
    log as the caller does.

    Raises:
        BundleError: The bundle is not complete.
        ConfigError: The settings do not fit this machine, or the storage has no champion or does not know the bundle.
    """
    tracing.check_installed(traces)
    if storage is not None:
        opened = open_champion(storage, bundle)
    elif bundle is not None:
        opened = Bundle.open(bundle)
    else:
        raise ConfigError("Without a storage there must be a bundle. Give bundle=FOLDER or storage=local.")
    check_class_names(opened, settings)
    settings = _fit_to_machine(settings)
    api = InferenceAPI(opened.path, settings, storage, log_format, traces)
    pseudonyms = None
    if storage is not None and records.enabled:
        with own_connections(storage) as here:
            pseudonyms = open_pseudonyms(here)
    return Server(
        api,
        opened,
        settings,
        storage=storage,
        access=access,
        intake=intake,
        records=records,
        pseudonyms=pseudonyms,
    )


def check_class_names(bundle: Bundle, settings: ServerSettings) -> None:
    """Raise a ConfigError if the settings name a class that the bundle has not, or two classes alike."""
    complete_class_names("server.class_names", bundle.class_names | (settings.class_names or {}), bundle.classes)


def _fit_to_machine(settings: ServerSettings) -> ServerSettings:
    """Choose the device and the number of inference workers where the settings leave them open."""
    device = settings.device
    if device == "auto":
        device = "cuda" if has_gpu() else "cpu"
    if device == "cuda" and not count_gpus():
        raise ConfigError("device=cuda: nvidia-smi lists no GPU here. Use device=cpu.")
    workers = settings.workers or (2 if device == "cuda" else available_cores())
    return settings.model_copy(update={"device": device, "workers": workers})


def open_champion(storage: Storage, bundle: Path | str | None = None) -> Bundle:
    """Open the champion of a storage; a bundle that the server was told to serve must be one of its versions.

    Raises:
        ConfigError: The database cannot be used, or does not know the given bundle (``bundle_not_registered``).
        RegistryError: No model was deployed yet (``ledger_empty``).
        BundleError: The given bundle is not complete.
    """
    with own_connections(storage) as here:
        here.upgrade()
        registry = Registry(here)
        champion = ModelFollower(registry, Bundle.open, f"server on {socket.gethostname()}").load_champion().value
        given = champion.version if bundle is None else Bundle.open(bundle).version
        if given == champion.version:
            return champion
        if given not in {model.version for model in registry.models()}:
            raise ConfigError(
                f"The storage's champion is {champion.version}, and it does not know the given bundle {given}. Leave "
                "bundle= out to serve the champion, or give the other model a storage of its own.",
                code="bundle_not_registered",
            )
        logger.warning(
            "the given bundle is %s; %s has become champion since then and is served", given, champion.version
        )
        return champion


@contextmanager
def own_connections(storage: Storage) -> Iterator[Storage]:
    """Give a copy of a storage whose connections are closed at the end: a process must not fork with open ones."""
    here = replace(storage)
    try:
        yield here
    finally:
        here.engine.dispose()
