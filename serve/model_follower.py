"""Follows the champion ledger: loads a new champion next to the old one, then replaces it in one assignment."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from lesion.core.errors import BundleError, LesionError
from lesion.database.tables import Deployment
from lesion.registry.deployments import RegistryError
from lesion.registry.registry import Registry
from serve.observability.prometheus import count_swap

logger = logging.getLogger(__name__)

POLL_S = 1.0
_MAX_PAUSE_S = 30.0  # between two reads of the ledger while it, the store or the loading fails

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ActiveModel(Generic[T]):
    """The model that is served."""

    deployment: int  # the id of its row in the ledger; 0 if the ledger could not be read
    version: str  # the bundle's version
    value: T  # what was loaded from the bundle


@dataclass(eq=False)
class ModelFollower(Generic[T]):
    """Loads each new champion of the ledger.

    One thread replaces ``active`` as a whole. Code that reads it once per task never mixes two versions.
    """

    registry: Registry  # the ledger and the bundles
    load: Callable[[Path], T]  # loads a verified bundle's folder, for example as a predictor, or raises BundleError
    # The name under which a champion that does not load is refused; None to leave refusals to others.
    actor: str | None = None
    on_change: Callable[[ActiveModel[T]], None] = lambda model: None  # called with each new active model
    trouble: str = field(default="", init=False)  # why the last update failed; empty if it succeeded
    _active: ActiveModel[T] | None = field(default=None, init=False)
    _pause: float = field(default=POLL_S, init=False)

    @property
    def active(self) -> ActiveModel[T]:
        """The model that is served now; set by ``load_champion`` or ``set_active``."""
        assert self._active is not None
        return self._active

    @property
    def following(self) -> bool:
        """Whether the last update succeeded."""
        return not self.trouble

    def load_champion(self) -> ActiveModel[T]:
        """Load the champion; with an ``actor``, those that do not load are refused one after another.

        Raises:
            RegistryError: No model was deployed (``ledger_empty``), or no earlier one loads (``nothing_before``).
            BundleError: The champion does not load, and there is no ``actor``.
            StoreError: The store does not answer.
            SQLAlchemyError: The database does not answer.
        """
        while True:
            last = self.registry.champion()
            if last is None:
                raise RegistryError("No model was deployed in this storage yet.", code="ledger_empty")
            if self._load_deployment(last):
                return self.active

    def set_active(self, version: str, value: T) -> None:
        """Begin with a model that is loaded already."""
        self._replace(ActiveModel(0, version, value))

    def update(self) -> None:
        """Read the ledger once, and load a new champion or refuse it; with an error, the active model stays."""
        last = self.registry.champion()
        active = self.active
        if last is None or last.id == active.deployment:
            return
        if last.version == active.version:
            self._active = replace(active, deployment=last.id)
            return
        if self._load_deployment(last):
            logger.warning("model %s is served now, in place of %s", last.version, active.version)
            if self.actor is not None:
                count_swap("swapped", last.created_at)

    def try_update(self) -> None:
        """Update once; after an error keep the active model, log the error, and wait longer before the next update."""
        try:
            self.update()
        except Exception as error:  # any: a thread that ends would never load a champion again
            message = error.message if isinstance(error, LesionError) else str(error).partition("\n")[0]
            trouble = f"{type(error).__name__}: {message}"
            if trouble != self.trouble:
                logger.warning("the champion cannot be followed, %s stays in use: %s", self.active.version, trouble)
            self.trouble = trouble
            self._pause = min(2 * self._pause, _MAX_PAUSE_S)
            return
        if self.trouble:
            logger.warning("the champion is followed again")
        self.trouble = ""
        self._pause = POLL_S

    def start(self, on_update: Callable[[bool], None] = lambda following: None) -> None:
        """Follow in a separate thread until the process ends; ``on_update`` gets whether each update succeeded."""

        def run() -> None:
            while True:
                time.sleep(self._pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that processes spread out
                self.try_update()
                on_update(self.following)

        threading.Thread(target=run, name="follow-ledger", daemon=True).start()

    def _load_deployment(self, last: Deployment) -> bool:
        """Load a champion, or refuse it if it does not load; return whether it was loaded."""
        try:
            value = self.load(self.registry.fetch(last.version))
        except BundleError as error:
            if self.actor is None:
                raise
            logger.error("model %s is refused: %s", last.version, error.message)
            self.registry.refuse(last.id, self.actor, error.message)
            count_swap("refused", last.created_at)
            return False
        self._replace(ActiveModel(last.id, last.version, value))
        return True

    def _replace(self, model: ActiveModel[T]) -> None:
        self._active = model
        self.on_change(model)
