"""What a counterparty's site is: requests, answers, bounds, and the faults it can be told to make.

A site is one listening address with one handler. ``sandbox.server`` moves the bytes; this module holds the values
and decides what becomes of one request: wait, refuse, ask the handler, spoil the answer. The parts of a fault that
concern the connection (half an answer, GOAWAY, reset, close) are carried back to the transport in ``Outcome``.

Invariants. A handler that raises or overruns its deadline is answered with 500; nothing it does ends the
connection's task, let alone the site. A fault applies to the requests whose path begins with its ``path``; with
``times`` above zero it is used up after that many of them.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec
import trio

LOG = logging.getLogger("hub.sandbox.server")
BODYLESS: Final = frozenset({204, 304})
"""Statuses whose answers carry neither a body nor its length (RFC 9110 section 6.4.1)."""


class SiteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request to a counterparty: header names in lower case, the peer's certificate in DER or empty."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    certificate: bytes

    def header(self, name: str) -> str:
        """Return the first value of a header given in lower case, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")


class SiteResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one answer of a counterparty."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


SiteHandler = Callable[[SiteRequest], Awaitable[SiteResponse]]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bound what one site accepts; times in seconds, sizes in octets.

    Attributes:
        head: Request line and headers.
        body: One request's body.
        connections: Open at once.
        streams: Open at once on one HTTP/2 connection.
        resets: Streams a peer may reset on one HTTP/2 connection before it is closed.
        handshake_s: For the TLS handshake.
        idle_s: Between two requests of a connection.
        receive_s: From the first octet of a request to its last.
        handler_s: For the handler.
        send_s: For one answer to be taken by the peer.
    """

    head: int = 65_536
    body: int = 8_388_608
    connections: int = 256
    streams: int = 100
    resets: int = 200
    handshake_s: float = 10.0
    idle_s: float = 60.0
    receive_s: float = 20.0
    handler_s: float = 30.0
    send_s: float = 20.0


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Say what goes wrong with a request.

    Attributes:
        path: Only requests whose path begins with this.
        times: For so many requests; 0 until cleared.
        latency_s: Wait so long before anything else.
        status: Answer this instead of asking the handler; 0 asks it.
        wrong_shape: Put JSON of another shape in the place of the answer.
        half_answer: Announce the whole answer, send half, end the connection.
        goaway: HTTP/2: GOAWAY with the answer. HTTP/1.1: ``Connection: close``.
        reset: The handler runs, then the stream (HTTP/2) or connection is reset without an answer.
        close: The connection ends before the handler is asked.
    """

    path: str = "/"
    times: int = 0
    latency_s: float = 0.0
    status: int = 0
    wrong_shape: bool = False
    half_answer: bool = False
    goaway: bool = False
    reset: bool = False
    close: bool = False


NO_FAULT = FaultPlan()


@final
class Faults:
    """The fault knobs of one site: what is set, and for how many requests more."""

    __slots__ = ("_left", "_plan")

    def __init__(self) -> None:
        """Begin without a fault."""
        self._plan = NO_FAULT
        self._left = 0

    @property
    def plan(self) -> FaultPlan:
        """Return what is set; ``NO_FAULT`` where nothing is."""
        return self._plan

    def set(self, plan: FaultPlan) -> None:
        """Put a fault in the place of whatever was set."""
        self._plan = plan
        self._left = plan.times

    def clear(self) -> None:
        """Behave well again."""
        self.set(NO_FAULT)

    def take(self, path: str) -> FaultPlan:
        """Return the fault for a request to ``path`` and count it."""
        plan = self._plan
        if plan is NO_FAULT or not path.startswith(plan.path):
            return NO_FAULT
        if plan.times:
            self._left -= 1
            if self._left <= 0:
                self.clear()
        return plan


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a transport must do: the answer (None for none at all), and the fault to act out with it."""

    response: SiteResponse | None
    plan: FaultPlan


@final
class Site:
    """One handler with its bounds and faults."""

    __slots__ = ("bounds", "faults", "handler")

    def __init__(self, handler: SiteHandler, bounds: Bounds, faults: Faults) -> None:
        """Join them."""
        self.handler = handler
        self.bounds = bounds
        self.faults = faults

    async def outcome(self, request: SiteRequest) -> Outcome:
        """Decide what becomes of one complete request.

        Cancellation: the handler's is passed on; nothing is answered.
        """
        plan = self.faults.take(request.path)
        if plan.latency_s:
            await trio.sleep(plan.latency_s)
        if plan.close:
            return Outcome(response=None, plan=plan)
        if plan.status:
            return Outcome(response=_refusal(plan.status), plan=plan)
        response = await self._asked(request)
        if plan.reset:
            return Outcome(response=None, plan=plan)
        return Outcome(response=_spoiled(response) if plan.wrong_shape else response, plan=plan)

    async def _asked(self, request: SiteRequest) -> SiteResponse:
        try:
            with trio.fail_after(self.bounds.handler_s):
                return await self.handler(request)
        except Exception:  # containment: one request's bug is one request's 500
            LOG.exception("handler failed: %s %s", request.method, request.path)
            return _refusal(500)


def _refusal(status: int) -> SiteResponse:
    body = b'{"errorCode":"GenericRecoverableError","errorMessage":"the site failed"}'
    return SiteResponse(status=status, headers=(("content-type", "application/json"),), body=body)


def _spoiled(response: SiteResponse) -> SiteResponse:
    return SiteResponse(
        status=response.status,
        headers=(("content-type", "application/json"),),
        body=b'{"unexpected":[{"shape":true}]}',
    )
