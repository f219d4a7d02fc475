"""What the routes take from the application, as typed dependencies: ``storage: StorageDep``."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from lesion.core.errors import InvalidValueError, NotFoundError
from lesion.core.roles import ROLES, Role
from lesion.database.storage import Storage
from lesion.imaging.limits import Limits
from lesion.intake.intake import Intake
from lesion.intake.rules import IntakeSettings
from lesion.model.bundle import Bundle
from lesion.registry.registry import Registry
from serve.http.auth import Authenticator, Principal
from serve.model_follower import ActiveModel, ModelFollower
from serve.observability.answer_recorder import AnswerRecorder
from serve.observability.collectors import DatabaseCollector
from serve.observability.request_stats import RequestCounter
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

    With a storage, ``bundle`` follows the champion.
    """

    settings: ServerSettings
    shared_state: "SharedState"
    dispatcher: "Dispatcher"
    authenticator: Authenticator
    request_counter: RequestCounter
    bundle: Bundle
    stored: StorageServices | None = None
    recorder: AnswerRecorder | None = None
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


def _admit(
    request: Request, state: AppState, bearer: HTTPAuthorizationCredentials | None, header: str | None, role: Role
) -> None:
    """Find out who sent a request, with the key that either header has; see :meth:`Authenticator.admit`."""
    key = bearer.credentials if bearer is not None else header
    request.state.principal = state.authenticator.admit(request, key, role)


@cache
def require(role: Role) -> Any:  # noqa: ANN401 - what Depends returns
    """Return the dependency of a route whose sender must have this role or a higher one."""

    async def check(
        request: Request,
        state: StateDep,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        header: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        if not hasattr(request.state, "principal"):  # KeyFirstRoute admitted it already
            _admit(request, state, bearer, header, role)

    check.__dict__["role"] = role
    return Depends(check)


class KeyFirstRoute(APIRoute):
    """A route that admits a request by its headers before a byte of its body is read.

    FastAPI itself reads and parses the whole body before it asks a dependency such as :func:`require`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request: first the key of the highest role that is required, then the rest."""
        answer = super().get_route_handler()
        required = [getattr(depends.dependency, "role", None) for depends in self.dependencies]
        roles = [role for role in required if role is not None]

        async def admit_and_answer(request: Request) -> Response:
            if roles:
                state, bearer, header = await app_state(request), await _BEARER(request), await _HEADER(request)
                _admit(request, state, bearer, header, max(roles, key=ROLES.index))
            return await answer(request)

        return admit_and_answer


async def storage_services(state: StateDep) -> StorageServices:
    """Return what the server has with a storage, or raise a NotFoundError if it has none (``no_storage``)."""
    if state.stored is None:
        raise NotFoundError(
            "This server serves one bundle and keeps no state. Start it with storage=local for models, uploads and "
            "retraining.",
            code="no_storage",
        )
    return state.stored


StorageServicesDep = Annotated[StorageServices, Depends(storage_services)]


async def _principal(request: Request) -> Principal:
    return cast(Principal, request.state.principal)


def _part(of: Callable[..., Awaitable[Any]], name: str) -> Any:  # noqa: ANN401 - what Depends returns
    """Return the dependency that gives an attribute of another dependency's result."""

    async def part(owner: Annotated[Any, Depends(of)]) -> Any:  # noqa: ANN401
        return attrgetter(name)(owner)

    return Depends(part)


StorageDep = Annotated[Storage, _part(storage_services, "storage")]
HeldOutShare = Annotated[float, _part(storage_services, "intake.settings.holdout")]  # of all uploads, for the gate
RegistryDep = Annotated[Registry, _part(storage_services, "registry")]
CurrentBundle = Annotated[Bundle, _part(app_state, "bundle")]
ImageLimits = Annotated[Limits, _part(app_state, "settings.image_limits")]
PrincipalDep = Annotated[Principal, Depends(_principal)]


def check_label(bundle: Bundle, label: str) -> None:
    """Raise an InvalidValueError if a label is not a class of the champion (``label_unknown``)."""
    if label not in bundle.classes:
        message = f"There is no class {label[:80]!r}. The classes are {', '.join(bundle.classes)}."
        raise InvalidValueError(message, code="label_unknown")
