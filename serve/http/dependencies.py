"""What each API process keeps in ``app.state`` for the routes."""

from fastapi import Request
from starlette.datastructures import State

from lesion.core.errors import LesionError
from lesion.database.storage import Storage
from lesion.intake.intake import Intake
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from serve.model_follower import ActiveModel, ModelFollower
from serve.observability.collectors import LoopCollector


def fill_state(state: State, bundle: Bundle, storage: Storage | None, intake: IntakeSettings) -> None:
    """Set ``bundle``, ``storage``, ``registry``, ``intake``, ``pulse`` and ``follower``.

    With a storage ``bundle`` follows its champion.

    Args:
        state: The app's.
        bundle: What is served at the start.
        storage: The loop's database and files, if there are any.
        intake: How uploaded images are judged.
    """
    state.bundle, state.storage = bundle, storage
    state.registry = state.follower = state.intake = state.pulse = None
    if storage is None:
        return
    state.registry = Registry(storage)
    state.pulse = LoopCollector(storage)
    state.intake = Intake(storage, bundle.classes, intake)

    def follow(held: ActiveModel[Bundle]) -> None:
        state.bundle = held.value

    state.follower = ModelFollower(state.registry, Bundle.open, on_change=follow)
    state.follower.hold(bundle.version, bundle)
    state.follower.start()


def storage_of(request: Request) -> Storage:
    """Return the server's storage.

    Raises:
        LesionError: It has none (``no_storage``).
    """
    storage: Storage | None = request.app.state.storage
    if storage is None:
        raise LesionError(
            "This server serves one bundle and keeps no state. Start it with storage=local for models, uploads and "
            "retraining.",
            code="no_storage",
            status=404,
        )
    return storage


def registry_of(request: Request) -> Registry:
    """Return the server's registry.

    Raises:
        LesionError: It has none (``no_storage``).
    """
    storage_of(request)
    registry: Registry = request.app.state.registry
    return registry


def check_label(request: Request, label: str) -> None:
    """Refuse what is no class of the champion's.

    Raises:
        LesionError: It is none (``label_unknown``).
    """
    classes = request.app.state.bundle.classes
    if label not in classes:
        raise LesionError(
            f"There is no class {label[:80]!r}. The classes are {', '.join(classes)}.", code="label_unknown", status=422
        )
