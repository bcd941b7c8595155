"""What all connections of a listener share: the application, limits, the Date line, memory for bodies.

The application is asked to admit a request here, inside a firewall of its own; ``contained`` is the firewall around
a whole connection. Besides these two only ``connection`` (around a stream) catches ``Exception``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Final, Protocol, final

from hub.config import Limits
from hub.edge.exchange import Exchange
from hub.edge.timekeeper import Timekeeper
from hub.model.caller import Peer
from hub.model.clock import Clock
from hub.model.http import Admission, App, Headers, Request, Response, UnavailableError
from hub.model.terms import Face
from hub.protocol.message import Head, Refused

_CHECKS: Final = {
    404: "edge.path_unknown",
    405: "edge.method",
    408: "edge.body_slow",
    413: "edge.body_large",
    421: "edge.authority",
    503: "edge.unavailable",
}


_OUR_FIELDS: Final = frozenset(
    (b"content-length", b"date", b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te")
)  # fmt: skip
_BODYLESS: Final = frozenset((204, 304))

CROWDED: Final = Response(status=503, headers=((b"retry-after", b"1"),))
"""The answer to a request beyond ``requests`` at once (RFC 9110 section 15.6.4)."""


class Told(Protocol):
    """Be told of each answer and of what is not a request; ``observe.Observer`` is."""

    def answered(self, request: Request, response: Response, duration_ns: int) -> None:
        """Take an answer that was handed to the transport."""
        ...

    def note(self, name: str, **fields: str | int | bool) -> None:
        """Take something that is not a request; ``name`` is a stable word, ``fields`` hold no secrets."""
        ...


@contextmanager
def contained(observer: Told, name: str) -> Iterator[None]:
    """Keep an exception inside: note it by type and go on. Cancellation passes."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the firewall of the connection
        observer.note(name, error=type(error).__name__)


class Register(Protocol):
    """Write down what the edge itself refused; ``node`` gives one that makes audit events."""

    async def refused(self, request: Request, response: Response, check: str) -> Response:
        """Write down one refused request; return the answer to give, which may carry the event.

        Cancellation: it may or may not have been written.
        """
        ...

    def turned_away(self, face: Face, address: str, check: str) -> None:
        """Count somebody who never came as far as a request."""
        ...


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
        "patient",
        "register",
        "resting",
        "times",
        "under_way",
    )

    def __init__(
        self,
        *,
        face: Face,
        app: App,
        limits: Limits,
        observer: Told,
        clock: Clock | None,
        hosts: tuple[str, ...],
        register: Register | None = None,
    ) -> None:
        """Hold it; ``hosts`` are the authorities to answer to, with or without port (empty: any)."""
        self.face = face
        self.register = register
        self.app = app
        self.limits = limits
        self.observer = observer
        self.hosts = _named(hosts)
        self._clock = clock
        self._date: Headers = ()
        self._date_at = -1
        self._held = 0
        self.resting = 0
        """Tasks that wait for a next exchange (``seat``), at most ``requests``."""
        self.times = Timekeeper()
        self.under_way = 0
        self.patient: dict[Exchange, None] = {}
        """Exchanges that wait for their peers, who has waited longest first."""

    def renew(self, app: App, limits: Limits, hosts: tuple[str, ...]) -> None:
        """Answer by another application within other limits from the next request on."""
        self.app = app
        self.limits = limits
        self.hosts = _named(hosts)

    async def refused(self, request: Request, response: Response, check: str = "") -> Response:
        """Have an answer of the edge's own written down; return the answer to give.

        Cancellation: it may or may not have been written.
        """
        if self.register is None or response.event is not None or response is CROWDED:
            return response
        try:
            name = check or _CHECKS.get(response.status, "edge.failed")
            return await self.register.refused(request, response, name)
        except UnavailableError:
            return Response(status=503)
        except Exception as error:  # noqa: BLE001 - the firewall around the register
            self.observer.note("register_failed", error=type(error).__name__)
            return response

    def turned_away(self, address: str, check: str) -> None:
        """Have somebody counted who never came as far as a request."""
        if self.register is not None:
            self.register.turned_away(self.face, address, check)

    def date(self) -> Headers:
        """Return the Date field, made once per second; none without a clock (RFC 9110 section 6.6.1)."""
        if self._clock is not None and (now := self._clock.now()) != self._date_at:
            self._date_at = now
            self._date = ((b"date", formatdate(now, usegmt=True).encode()),)
        return self._date

    def fields(self, response: Response, length: int | None) -> Headers:
        """Return the fields of an answer whose body has that length (None: not known yet); what is HTTP's own is ours."""
        fields = tuple([field for field in response.headers if field[0] not in _OUR_FIELDS])
        if length is not None and response.status not in _BODYLESS:
            fields += ((b"content-length", b"%d" % length),)
        return fields + self.date()

    def unread(self, peer: Peer, event: Refused) -> Headers:
        """Note a request whose head could not be read; return the fields of its answer."""
        request = Request(face=self.face, method="-", authority="", path="", peer=peer)
        response = Response(status=event.status)
        self.observer.note("request_refused", reason=event.reason, address=peer.address)
        self.turned_away(peer.address, f"edge.{event.reason}")
        self.observer.answered(request, response, 0)
        return self.fields(response, 0)

    def serves(self, authority: str) -> bool:
        """Tell whether a request for this authority came to the right place."""
        hosts = self.hosts
        return not hosts or authority in hosts or authority.rpartition(":")[0] in hosts

    @contextmanager
    def patience(self, exchange: Exchange) -> Iterator[None]:
        """Let an exchange wait for its peer: for a body, or for room to send to."""
        self.patient[exchange] = None
        try:
            yield
        finally:
            self.patient.pop(exchange, None)

    def _make_room(self) -> bool:
        """Have whoever has waited longest for its peer give its place to a request that can be answered.

        Else a handful of connections, with bodies that do not come and answers that nobody reads, would close the Hub.
        """
        exchange = next(iter(self.patient), None)
        if exchange is None:
            return False
        del self.patient[exchange]
        self.under_way -= exchange.counted
        exchange.counted = False
        exchange.give_way()
        return True

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
        """Ask the application how to go on, unless there is too much under way; what it raises is a 500."""
        while self.under_way >= self.limits.requests:
            if not self._make_room():
                self.turned_away(request.peer.address, "edge.crowded")
                return CROWDED
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


def _named(hosts: tuple[str, ...]) -> frozenset[str]:
    """Return the authorities as those of requests are compared: in lower case (RFC 3986 section 3.2.2)."""
    return frozenset([host.lower() for host in hosts])
