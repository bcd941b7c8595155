"""Where an exchange is served: a task and a cancel scope, its own while it lasts.

A seat whose exchange ended well rests for the next one of its connection: a new task with a new scope costs 10 us of a
request's 200. Invariants. A seat serves one exchange at a time; it belongs to the connection's nursery. A scope that was
cancelled, or whose time (``timekeeper``) was lifted, is never used again. A seat that rests keeps the deadline of its last exchange,
and goes with it; so an idle connection soon holds none. One that rests takes 3 KB: all connections of a listener together
hold as many as it answers requests at once.
"""

from typing import Final, final

import trio

from hub.edge.desk import Desk
from hub.edge.exchange import Exchange, Scope
from hub.model.http import Response

_RESTING_MOST: Final = 16
"""As many rest on one connection; a TPP rarely has more requests at once."""


@final
class Seat:
    """Hold the exchange that a task serves; ``given`` is its answer where that is known already."""

    __slots__ = ("exchange", "given", "scope", "task")

    def __init__(self, exchange: Exchange, given: Response | None) -> None:
        """Begin with this exchange; the task enters the scope itself."""
        self.exchange: Exchange | None = exchange
        self.given = given
        self.scope: Scope | None = None
        self.task: trio.lowlevel.Task | None = None


@final
class Seats:
    """Hold the seats of one connection that rest."""

    __slots__ = ("_closed", "_desk", "_resting")

    def __init__(self, desk: Desk) -> None:
        """Hold none yet; the desk counts those of all connections."""
        self._desk = desk
        self._resting: list[Seat] = []
        self._closed = False

    def take(self, exchange: Exchange, given: Response | None, deadline: float) -> bool:
        """Give an exchange to a seat that rests, until that deadline; False if there is none."""
        if not self._resting:
            return False
        seat = self._up()
        assert seat.scope is not None  # noqa: S101 - it has served
        assert seat.task is not None  # noqa: S101 - it rests
        seat.exchange, seat.given = exchange, given
        self._desk.times.allow(seat.scope, deadline)
        trio.lowlevel.reschedule(seat.task)
        return True

    async def rest(self, seat: Seat) -> bool:
        """Wait for the next exchange of a seat; False if its task is to end.

        Cancellation: the seat is forgotten.
        """
        scope, desk = seat.scope, self._desk
        if self._closed or len(self._resting) >= _RESTING_MOST:
            return False
        if desk.resting >= desk.limits.requests:
            return False
        if scope is None or scope.cancel_called or desk.times.lifted(scope):
            return False
        self._resting.append(seat)
        desk.resting += 1
        seat.task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._resting.remove(seat)
            desk.resting -= 1
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return seat.exchange is not None

    def close(self) -> None:
        """Let all go; nobody rests any more."""
        self._closed = True
        while self._resting:
            seat = self._up()
            assert seat.task is not None  # noqa: S101 - it rests
            trio.lowlevel.reschedule(seat.task)

    def _up(self) -> Seat:
        self._desk.resting -= 1
        return self._resting.pop()
