"""Which bundle a server starts with: the given one, or the champion of a storage; before any process is forked."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lesion.core.errors import ConfigError
from lesion.database.storage import Storage
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from serve.model_follower import ModelFollower

logger = logging.getLogger(__name__)


def open_bundle(bundle: Path | str | None) -> Bundle:
    """Open the bundle of a server without a storage.

    Raises:
        ConfigError: No bundle is given.
        BundleError: It is not complete.
    """
    if bundle is None:
        raise ConfigError("Without a storage there must be a bundle. Give bundle=FOLDER or storage=local.")
    return Bundle.open(bundle)


def open_champion(storage: Storage, bundle: Path | str | None = None) -> Bundle:
    """Open the champion of a storage; a given bundle must be one of the storage's versions.

    Args:
        storage: The database and files.
        bundle: The bundle that the server was told to serve, if any.

    Raises:
        ConfigError: The database cannot be used, or does not know the given bundle (``bundle_not_registered``).
        RegistryError: No model was deployed yet (``ledger_empty``).
        BundleError: The given bundle is not complete.
    """
    with own_connections(storage) as here:
        here.upgrade()
        registry = Registry(here)
        champion = ModelFollower(registry, Bundle.open, f"server on {socket.gethostname()}").load_champion().value
        if bundle is not None:
            _check_registered(registry, Bundle.open(bundle).version, champion.version)
        return champion


@contextmanager
def own_connections(storage: Storage) -> Iterator[Storage]:
    """Give a copy of a storage whose connections are closed at the end: a process must not fork with open ones."""
    here = replace(storage)
    try:
        yield here
    finally:
        here.engine.dispose()


def _check_registered(registry: Registry, version: str, champion: str) -> None:
    if version == champion:
        return
    if version not in {model.version for model in registry.models()}:
        raise ConfigError(
            f"The storage's champion is {champion}, and it does not know the given bundle {version}. Leave bundle= out "
            "to serve the champion, or give the other model a storage of its own.",
            code="bundle_not_registered",
        )
    logger.warning("the given bundle is %s; %s has become champion since then and is served", version, champion)
