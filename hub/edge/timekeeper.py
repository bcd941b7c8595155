"""Deadlines that move with every request: one task of the listener cancels whose time is over.

Theory. To move the deadline of a scope costs as much as a tenth of trio's part of a request. Here it costs one entry of a
dictionary. The task sleeps until the earliest time that it knows of; most often that is of a request which was answered
long ago, and whose seat has a later time by then, so it looks again about once per ``request_s``.

Invariants. A time that comes before the one which the task waits for wakes it, so no scope outlives its time. A scope that was
cancelled here counts as lifted: its time never comes again.
"""

import math
from typing import Final, Protocol, final

import trio


class Cancelled(Protocol):
    """Be cancelled (what ``trio.move_on_at`` gives)."""

    def cancel(self) -> None:
        """Cancel what runs inside."""
        ...


_NEVER: Final = math.inf


@final
class Timekeeper:
    """Hold until when each scope may run."""

    __slots__ = ("_next", "_until", "_wake")

    def __init__(self) -> None:
        """Hold none; nothing is cancelled before ``run``."""
        self._until: dict[Cancelled, float] = {}
        self._next = _NEVER
        self._wake = trio.Event()

    def allow(self, scope: Cancelled, until: float) -> None:
        """Let a scope run until then, by trio's clock."""
        self._until[scope] = until
        if until < self._next:
            self._next = until
            self._wake.set()

    def lift(self, scope: Cancelled) -> None:
        """Let a scope run without an end; whoever waits inside has a deadline of its own."""
        self._until[scope] = _NEVER

    def lifted(self, scope: Cancelled) -> bool:
        """Tell whether a scope has no end, was cancelled here, or is not known."""
        return self._until.get(scope, _NEVER) == _NEVER

    def forget(self, scope: Cancelled) -> None:
        """Let go of a scope that was left."""
        self._until.pop(scope, None)

    async def run(self) -> None:
        """Cancel whose time is over, until cancelled."""
        while True:
            self._wake = trio.Event()
            self._next = min(self._until.values(), default=_NEVER)
            with trio.move_on_at(self._next):
                await self._wake.wait()
            now = trio.current_time()
            for scope in [one for one, until in self._until.items() if until <= now]:
                self.lift(scope)
                scope.cancel()
