"""Follows the champion ledger: a new champion is loaded beside the old one, then takes its place in one assignment."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from lesion.core.errors import BundleError, LesionError
from lesion.database.tables import Deployment
from lesion.registry.deployments import RegistryError
from lesion.registry.registry import Registry
from serve.observability.prometheus import count_swap

logger = logging.getLogger(__name__)

POLL_S = 1.0
_MAX_PAUSE_S = 30.0  # between two looks while the ledger, the store or the loading fails

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ActiveModel(Generic[T]):
    """What is served.

    Attributes:
        deployment: The id of the ledger's row; 0 when the ledger could not be asked.
        version: The bundle's version.
        value: What was loaded of it.
    """

    deployment: int
    version: str
    value: T


class ModelFollower(Generic[T]):
    """Keeps what is loaded of the champion in step with the ledger.

    ``held`` is replaced whole, by one thread. Who reads it once and works with what it got never mixes two versions.

    Args:
        registry: The ledger and the bundles.
        load: Makes something of a verified bundle's folder, such as a predictor, or raises BundleError.
        actor: Who refuses a champion that does not load; None only follows and leaves that to others.
        on_change: Called with what is held from now on.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Path], T],
        actor: str | None = None,
        on_change: Callable[[ActiveModel[T]], None] = lambda held: None,
    ) -> None:
        self._registry = registry
        self._load = load
        self._actor = actor
        self._on_change = on_change
        self._held: ActiveModel[T] | None = None
        self._pause = POLL_S
        self.trouble = ""

    @property
    def held(self) -> ActiveModel[T]:
        """What is served now; there is something after ``load_champion`` or ``hold``."""
        assert self._held is not None
        return self._held

    @property
    def well(self) -> bool:
        """Whether the last look at the ledger, and what it asked for, succeeded; ``trouble`` says why not."""
        return not self.trouble

    def load_champion(self) -> ActiveModel[T]:
        """Load the champion; those that do not load are refused one after another, if there is an ``actor``.

        Raises:
            RegistryError: No model was deployed (``ledger_empty``), or none loads (``nothing_before``).
            BundleError: The champion does not load, and there is no ``actor``.
            StoreError: The store does not answer.
            SQLAlchemyError: The database does not answer.
        """
        while True:
            last = self._registry.champion()
            if last is None:
                raise RegistryError("No model was deployed in this storage yet.", code="ledger_empty")
            if self._take(last):
                return self.held

    def hold(self, version: str, value: T, deployment: int = 0) -> None:
        """Begin with something that is loaded already."""
        self._hold(ActiveModel(deployment, version, value))

    def step(self) -> None:
        """Look at the ledger once: take a new champion, or refuse it.

        Raises:
            Exception: As :meth:`load_champion`; what is held stays.
        """
        last = self._registry.champion()
        held = self.held
        if last is None or last.id == held.deployment:
            return
        if last.version == held.version:
            self._held = replace(held, deployment=last.id)
            return
        if self._take(last):
            logger.warning("model %s serves from now on, in place of %s", last.version, held.version)
            if self._actor is not None:
                count_swap("swapped", last.created_at)

    def attempt(self) -> None:
        """Look at the ledger once; on trouble keep what is held, say so, and wait longer before the next look."""
        try:
            self.step()
        except Exception as error:  # the thread must outlive whatever fails: a dead follower would never swap again
            said = error.message if isinstance(error, LesionError) else str(error).partition("\n")[0]
            trouble = f"{type(error).__name__}: {said}"
            if trouble != self.trouble:
                logger.warning("the champion cannot be followed, %s serves on: %s", self.held.version, trouble)
            self.trouble = trouble
            self._pause = min(2 * self._pause, _MAX_PAUSE_S)
            return
        if self.trouble:
            logger.warning("the champion is followed again")
        self.trouble = ""
        self._pause = POLL_S

    def start(self, on_look: Callable[[bool], None] = lambda well: None) -> None:
        """Follow in a thread of its own until the process ends.

        Args:
            on_look: Called after each look with whether it succeeded.
        """

        def run() -> None:
            while True:
                time.sleep(self._pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that processes spread out
                self.attempt()
                on_look(self.well)

        threading.Thread(target=run, name="follow-ledger", daemon=True).start()

    def _take(self, last: Deployment) -> bool:
        """Load a champion; whether it was, since one that does not load is refused."""
        try:
            value = self._load(self._registry.fetch(last.version))
        except BundleError as error:
            if self._actor is None:
                raise
            logger.error("model %s is refused: %s", last.version, error.message)
            self._registry.refuse(last.id, self._actor, error.message)
            count_swap("refused", last.created_at)
            return False
        self._hold(ActiveModel(last.id, last.version, value))
        return True

    def _hold(self, held: ActiveModel[T]) -> None:
        self._held = held
        self._on_change(held)
