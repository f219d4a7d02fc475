"""Whether the sender of a request still waits for its answer."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

KEY = "lesion.sender"  # of an ASGI scope


@dataclass(eq=False, slots=True)
class Sender:
    """The other side of a connection; ``on_leaving`` has what to call when it closes the connection."""

    gone: bool = field(default=False, init=False)
    on_leaving: set[Callable[[], None]] = field(default_factory=set, init=False)

    def leave(self) -> None:
        """Note that the connection is closed."""
        self.gone = True
        for call in list(self.on_leaving):
            call()


NOBODY = Sender()  # never leaves: of work that is done although nobody may wait for it
current: ContextVar[Sender] = ContextVar("sender", default=NOBODY)
