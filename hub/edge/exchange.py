"""One request being answered: its body as it comes in, and how it can end early.

A complete body is credited to the peer's windows as it is stored (its size is bounded by the admission); a streamed
one only as its reader takes it, so that an upload nobody reads stops at its windows. Waiting for a body has a
deadline that moves with what has come: so many octets, so many seconds more.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, Self, final

import trio

from hub.config import Limits
from hub.model.http import Admission, Request

_SMALL: Final = 4096


class Scope(Protocol):
    """Be cancelled, by somebody or at a deadline (what ``trio.move_on_at`` gives)."""

    deadline: float

    @property
    def cancel_called(self) -> bool:
        """Tell whether somebody has cancelled it, or its deadline has passed."""
        ...

    def cancel(self) -> None:
        """Cancel what runs inside."""
        ...


class BodyFault(Exception):  # noqa: N818 - faults are what this project calls them
    """End an exchange because of its body."""

    def __init__(self, status: int = 0, check: str = "") -> None:
        """Hold the answer's status, 0 for none, and the name of its refusal (fields of the class would be lost by mypyc)."""
        super().__init__()
        self.status = status
        self.check = check


@final
class BodyTooLarge(BodyFault):
    """The body exceeds what was admitted."""

    def __init__(self) -> None:
        """Answer 413."""
        super().__init__(413)


@final
class BodyTooSlow(BodyFault):
    """The body came slower than ``body_rate_octets_s``."""

    def __init__(self) -> None:
        """Answer 408."""
        super().__init__(408)


@final
class NoRoomForBody(BodyFault):
    """All bodies of the listener together exceed ``bodies_octets``."""

    def __init__(self) -> None:
        """Answer 503."""
        super().__init__(503)


@final
class GaveWay(BodyFault):
    """The body had not come yet when its place was needed."""

    def __init__(self) -> None:
        """Answer 503 for want of room."""
        super().__init__(503, "edge.crowded")


@final
class CallerGone(BodyFault):
    """The peer reset the stream or left before the body was complete."""


@final
class Exchange:
    """Hold the state of one stream."""

    __slots__ = (
        "_consume", "_full", "_hold", "_limits", "_pieces", "admission", "began", "changed", "counted", "crowded", "dispatched", "ended", "gone", "held", "request",
        "scope", "size", "started", "stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: int,
        request: Request,
        admission: Admission,
        limits: Limits,
        consume: Callable[[int, int], None],
        hold: Callable[[int], bool],
    ) -> None:
        """Begin; ``consume(stream, octets)`` credits the peer's windows, ``hold`` asks for memory."""
        self.stream = stream
        self.request = request
        self.admission = admission
        self.ended = False
        self.gone = ""
        self.counted = False
        self.crowded = False
        self.dispatched = False
        self.started = False
        self.size = 0
        self.scope: Scope | None = None
        self.changed: trio.Event | None = None
        self.began = request.received_ns / 1e9
        self._limits = limits
        self._consume = consume
        self._hold = hold
        self.held = 0
        self._full = False
        self._pieces: deque[tuple[bytes, int]] = deque()

    def add(self, data: bytes, octets: int) -> None:
        """Take a piece of the body; ``octets`` is what it weighs in the windows."""
        self.size += len(data)
        if self.size > self.admission.limit or self._full:
            self.forgo()
            self._consume(self.stream, octets)
        elif self.admission.stream:
            self._keep(data, octets)
        elif self._hold(len(data)):
            self.held += len(data)
            self._keep(data, 0)
            self._consume(self.stream, octets)
        else:
            self._full = True
            self._consume(self.stream, octets)
        self.notify()

    def forgo(self) -> None:
        """Forget what has come of the body; what nobody will read is credited too, or the connection's window shrinks for good."""
        if self._pieces:
            octets = sum([weight for _, weight in self._pieces])
            self._pieces.clear()
            self._consume(self.stream, octets)

    def _keep(self, data: bytes, octets: int) -> None:
        """Join small pieces: kept alone, each octet of a body could take seventy of memory."""
        pieces = self._pieces
        if pieces and len(pieces[-1][0]) + len(data) <= _SMALL:
            last, weight = pieces[-1]
            pieces[-1] = (last + data, weight + octets)
        else:
            pieces.append((data, octets))

    def finish(self) -> None:
        """Note that the body is complete."""
        self.ended = True
        self.notify()

    def lose(self, reason: str) -> None:
        """Note that nobody waits for the answer; cancel unless the handler must finish."""
        self.gone = self.gone or reason
        if self.scope is not None and (self.admission.cancel_with_caller or not self.dispatched):
            self.scope.cancel()
        self.notify()

    def give_way(self) -> None:
        """Leave its place to a request that can be answered now; only who waits for its peer is told so."""
        self.crowded = True
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits for a change of this exchange."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def change(self) -> None:
        """Wait for the next change. Cancellation: nothing is lost; give it a deadline."""
        if self.changed is None:
            self.changed = trio.Event()
        await self.changed.wait()

    async def complete(self) -> bytes:
        """Wait for the whole body.

        Raises:
            BodyFault: too large, too slow, or the caller has gone.

        Cancellation: what has come stays.
        """
        while not self.ended:
            await self._more()
        self._judge()
        pieces = self._pieces
        return pieces[0][0] if len(pieces) == 1 else b"".join([data for data, _ in pieces])

    async def piece(self) -> bytes | None:
        """Return the next piece, credited to the peer as it is taken; None at the end; raises as ``complete`` does."""
        while not self._pieces:
            self._judge()
            if self.ended:
                return None
            await self._more()
        data, octets = self._pieces.popleft()
        self._consume(self.stream, octets)
        return data

    def _judge(self) -> None:
        if self.size > self.admission.limit:
            raise BodyTooLarge
        if self._full:
            raise NoRoomForBody
        if self.crowded:
            raise GaveWay
        if self.gone:
            raise CallerGone

    async def _more(self) -> None:
        """Wait for a change, no longer than a peer at the least allowed rate would need."""
        self._judge()
        limits = self._limits
        deadline = self.began + limits.header_s + self.size / limits.body_rate_octets_s
        with trio.move_on_at(deadline) as scope:
            await self.change()
        if scope.cancelled_caught:
            raise BodyTooSlow


@final
class Pieces:
    """Iterate over a streamed body (no generator: an application may stop half-way without closing it)."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        """Read the body of that exchange."""
        self._exchange = exchange

    def __aiter__(self) -> Self:
        """Return itself: a body is read once."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Cancellation: what was not taken stays."""
        piece = await self._exchange.piece()
        if piece is None:
            raise StopAsyncIteration
        return piece
