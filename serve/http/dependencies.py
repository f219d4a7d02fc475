"""What the routes take from the application, as typed dependencies: ``storage: StorageDep``."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from lesion.core.errors import NotFoundError
from lesion.core.roles import Role
from lesion.database.storage import Storage
from lesion.imaging.limits import Limits
from lesion.intake.intake import Intake
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from serve.http.auth import Authenticator, Principal
from serve.model_follower import ActiveModel, ModelFollower
from serve.observability.collectors import DatabaseCollector
from serve.observability.request_stats import RequestCounter
from serve.request_errors import ParameterError
from serve.settings import ServerSettings

if TYPE_CHECKING:
    from serve.inference.dispatcher import Dispatcher
    from serve.inference.shared_state import SharedState

_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="Authorization: Bearer lesion_…")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header")


@dataclass(frozen=True, slots=True)
class StorageServices:
    """What an API process has only if the server has a storage."""

    storage: Storage
    registry: Registry
    intake: Intake
    collector: DatabaseCollector
    follower: ModelFollower[Bundle]


@dataclass(slots=True)
class AppState:
    """What one API process keeps for its routes and middleware, as ``app.state.services``.

    Attributes:
        bundle: The bundle that is served; with a storage it follows the champion.
        stored: What there is only with a storage.
        event_streams: The number of open event streams.
    """

    settings: ServerSettings
    shared_state: "SharedState"
    dispatcher: "Dispatcher"
    authenticator: Authenticator
    request_counter: RequestCounter
    bundle: Bundle
    stored: StorageServices | None = None
    event_streams: int = 0

    def follow_champion(self, storage: Storage, intake: IntakeSettings) -> None:
        """Use a storage, and serve its champion from now on."""
        registry = Registry(storage)

        def serve(model: ActiveModel[Bundle]) -> None:
            self.bundle = model.value

        follower = ModelFollower(registry, Bundle.open, on_change=serve)
        follower.set_active(self.bundle.version, self.bundle)
        follower.start()
        self.stored = StorageServices(
            storage, registry, Intake(storage, self.bundle.classes, intake), DatabaseCollector(storage), follower
        )


# Asynchronous, since FastAPI runs each synchronous dependency in a thread.
async def app_state(request: Request) -> AppState:
    """Return what this API process keeps for its routes."""
    return cast(AppState, request.app.state.services)


StateDep = Annotated[AppState, Depends(app_state)]


@cache
def require(role: Role) -> Any:  # noqa: ANN401 - what Depends returns
    """Return the dependency of a route whose sender must have this role or a higher one."""

    async def check(
        request: Request,
        state: StateDep,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        header: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        key = bearer.credentials if bearer is not None else header
        request.state.principal = state.authenticator.admit(request, key, role)

    return Depends(check)


async def storage_services(state: StateDep) -> StorageServices:
    """Return what the server has with a storage.

    Raises:
        NotFoundError: It has no storage (``no_storage``).
    """
    if state.stored is None:
        raise NotFoundError(
            "This server serves one bundle and keeps no state. Start it with storage=local for models, uploads and "
            "retraining.",
            code="no_storage",
        )
    return state.stored


ServicesDep = Annotated[StorageServices, Depends(storage_services)]


async def _storage(services: ServicesDep) -> Storage:
    return services.storage


async def _registry(services: ServicesDep) -> Registry:
    return services.registry


async def _bundle(state: StateDep) -> Bundle:
    return state.bundle


async def _image_limits(state: StateDep) -> Limits:
    return state.settings.image_limits


async def _principal(request: Request) -> Principal:
    return cast(Principal, request.state.principal)


StorageDep = Annotated[Storage, Depends(_storage)]
RegistryDep = Annotated[Registry, Depends(_registry)]
CurrentBundle = Annotated[Bundle, Depends(_bundle)]
ImageLimits = Annotated[Limits, Depends(_image_limits)]
PrincipalDep = Annotated[Principal, Depends(_principal)]


def check_label(bundle: Bundle, label: str) -> None:
    """Refuse a label that is not a class of the champion.

    Raises:
        ParameterError: There is no such class (``label_unknown``).
    """
    if label not in bundle.classes:
        raise ParameterError(
            f"There is no class {label[:80]!r}. The classes are {', '.join(bundle.classes)}.", code="label_unknown"
        )
