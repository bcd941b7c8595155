"""An application that answers only while its worker may trust its caches."""

from collections.abc import Callable
from typing import Final, final

from hub.model.http import Admission, App, Request, Response

_UNLEASED: Final = Response(status=503, headers=((b"retry-after", b"1"),))


@final
class Leased:
    """Answer 503 while the lease does not run, else as the application does; implements ``App``."""

    __slots__ = ("_admit", "_fresh", "respond")

    def __init__(self, app: App, fresh: Callable[[], bool]) -> None:
        """Take the application, and what tells whether the lease runs."""
        self._admit = app.admit
        self._fresh = fresh
        self.respond = app.respond

    def admit(self, request: Request) -> Admission | Response:
        """Say how a body is received, or that nothing can be answered now."""
        return self._admit(request) if self._fresh() else _UNLEASED
