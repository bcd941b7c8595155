"""What all connections of a listener share: the application, limits, the Date line, memory for bodies.

The application is asked to admit a request here, inside a firewall of its own; ``contained`` is the firewall around
a whole connection. Besides these two only ``connection`` (around a stream) catches ``Exception``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import final

from hub.config import Limits
from hub.model.clock import Clock
from hub.model.http import Admission, App, Headers, Request, Response
from hub.model.terms import Face
from hub.observe import Observer
from hub.protocol.message import Head


@contextmanager
def contained(observer: Observer, name: str) -> Iterator[None]:
    """Keep an exception inside: note it by type and go on. Cancellation passes."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the firewall of the connection
        observer.note(name, error=type(error).__name__)


@final
class Desk:
    """Hold what all connections of a listener share."""

    __slots__ = (
        "_clock",
        "_date",
        "_date_at",
        "_held",
        "app",
        "face",
        "hosts",
        "limits",
        "observer",
    )

    def __init__(
        self,
        *,
        face: Face,
        app: App,
        limits: Limits,
        observer: Observer,
        clock: Clock | None,
        hosts: tuple[str, ...],
    ) -> None:
        """Hold it; ``hosts`` are the authorities to answer to, with or without port (empty: any)."""
        self.face = face
        self.app = app
        self.limits = limits
        self.observer = observer
        self.hosts = frozenset(hosts)
        self._clock = clock
        self._date: Headers = ()
        self._date_at = -1
        self._held = 0

    def date(self) -> Headers:
        """Return the Date field, made once per second; none without a clock (RFC 9110 section 6.6.1)."""
        if self._clock is not None and (now := self._clock.now()) != self._date_at:
            self._date_at = now
            self._date = ((b"date", formatdate(now, usegmt=True).encode()),)
        return self._date

    def serves(self, authority: str) -> bool:
        """Tell whether a request for this authority came to the right place."""
        hosts = self.hosts
        return not hosts or authority in hosts or authority.rpartition(":")[0] in hosts

    def hold(self, octets: int) -> bool:
        """Take memory for a body; False when all bodies together have the most they may."""
        if self._held + octets > self.limits.bodies_octets:
            return False
        self._held += octets
        return True

    def let_go(self, octets: int) -> None:
        """Give memory of a body back."""
        self._held -= octets

    def admit(self, request: Request, head: Head) -> Admission | Response:
        """Ask the application how to go on; what it raises is a 500."""
        if not self.serves(head.authority):
            return Response(status=421)
        try:
            verdict = self.app.admit(request)
        except Exception as error:  # noqa: BLE001 - the firewall around the application
            self.observer.note("admission_failed", error=type(error).__name__)
            return Response(status=500)
        if isinstance(verdict, Admission) and (head.content_length or 0) > verdict.limit:
            return Response(status=413)
        return verdict
