"""Waiting in tests: the one module that lets time pass; each wait has a deadline and says what it waited for.

Where there is an event, wait for that: a ``trio.Event``, an answer on a socket, the end of a process (``ended``).
``until`` and ``until_blocking`` are for what only another process or thread can make true and nobody tells us of.
``virtual`` moves a mock clock; ``pause_of_a_peer`` is the pace of a peer that a test plays.
"""

import inspect
import math
import os
import select
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio
import trio.testing

T = TypeVar("T")
_LEAST_S, _MOST_S = 0.01, 0.1


def _pause(waited_s: float, look_s: float) -> float:
    """Return how long not to look: a tenth of what was waited, within bounds, and as long as a look takes."""
    return max(look_s, min(_MOST_S, _LEAST_S + waited_s / 10))


class Look:
    """What was seen last, and how to say that it was not enough."""

    def __init__(self, within_s: float, what: str, seen: Callable[[], object] | None) -> None:
        self.within_s, self.what, self.seen = within_s, what, seen
        self.found: object = None
        self.looked = False

    def failure(self) -> AssertionError:
        last = "nothing: the first look did not end" if not self.looked else repr(self.found)
        told = f"; {self.seen()}" if self.seen else ""
        return AssertionError(
            f"waited {self.within_s:g} s for {self.what}; last seen: {last}{told}"
        )


async def until(
    condition: Callable[[], T | Awaitable[T]],
    within_s: float,
    what: str,
    *,
    seen: Callable[[], object] | None = None,
) -> T:
    """Return the first true answer of ``condition``, which may be asynchronous; fail after ``within_s`` seconds.

    ``what`` completes "waited N s for ..."; ``seen`` adds what to tell when it failed (the end of a log).
    """
    look = Look(within_s, what, seen)
    start = time.monotonic()
    with trio.move_on_after(within_s):
        while True:
            began = time.monotonic()
            found = condition()
            look.found = await found if inspect.isawaitable(found) else found
            look.looked = True
            if look.found:
                return look.found
            await trio.sleep(_pause(began - start, time.monotonic() - began))
    raise look.failure()


def until_blocking(
    condition: Callable[[], T],
    within_s: float,
    what: str,
    *,
    seen: Callable[[], object] | None = None,
) -> T:
    """Do what ``until`` does where there is no event loop."""
    look = Look(within_s, what, seen)
    start = time.monotonic()
    while (began := time.monotonic()) < start + within_s:
        look.found = condition()
        look.looked = True
        if look.found:
            return look.found
        time.sleep(_pause(began - start, time.monotonic() - began))
    raise look.failure()


async def ended(pid: int, within_s: float, what: str) -> None:
    """Return when a process has ended, its parent's ``wait`` or not; fail after ``within_s`` seconds."""
    with suppress(ProcessLookupError):
        place = os.pidfd_open(pid)
        try:
            with trio.move_on_after(within_s) as scope:
                await trio.lowlevel.wait_readable(place)
        finally:
            os.close(place)
        assert not scope.cancelled_caught, f"waited {within_s:g} s for the end of {what} ({pid})"


def ended_blocking(pid: int, within_s: float, what: str) -> None:
    """Do what ``ended`` does where there is no event loop."""
    with suppress(ProcessLookupError):
        place = os.pidfd_open(pid)
        try:
            watch = select.poll()
            watch.register(place, select.POLLIN)
            found = watch.poll(math.ceil(within_s * 1000))
        finally:
            os.close(place)
        assert found, f"waited {within_s:g} s for the end of {what} ({pid})"


async def virtual(seconds: float) -> None:
    """Let ``seconds`` of a mock clock pass, so that all that is due in them happens; refuse a real clock."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock), "real time is not waited for: see until"
    assert clock.autojump_threshold < math.inf or clock.rate > 0, "nobody moves this clock"
    await trio.sleep(seconds)


async def pause_of_a_peer(seconds: float) -> None:
    """Be a peer with a pace of its own: slow in sending, patient before it asks again; never before an assertion."""
    await trio.sleep(seconds)
