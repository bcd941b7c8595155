"""The pulse of an event loop: who runs one tells that it turns, who watches counts the looks without a beat.

Theory. A process that hangs does not die, so nobody who waits for its death notices. Each second the loop itself beats:
a worker by an octet into a pipe of its supervisor's, a node by a number that a thread of its own looks at. A loop that is
blocked, deadlocked or stopped does not beat. Silence is counted in the watcher's looks, never in time: of a machine that
was suspended for an hour, or of a tree of processes that was stopped, the watcher was part, and has looked once.

Invariants. The first sign of silence is loud; the end is SIGABRT, at which ``faulthandler`` writes where each thread is
(files, lines and names of functions, no values); a look later there is no asking any more. Before a worker's first beat its
own bound holds, since a slow start is no hang.
"""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from math import ceil
from typing import Final, final

import trio

from hub.config import Limits
from hub.observe import Observer

BEAT_S: Final = 1.0
"""Between two beats, and between two looks."""
HANGS: Final = 1
"""What ``Pulse.look`` says once, when the bound is reached; afterwards it says more."""
_ERRORS: Final = 2
_OCTETS: Final = 4096


def show_where_it_hangs() -> None:
    """Have SIGABRT, SIGVTALRM and any crash in C write every thread's stack to standard error before the process ends."""
    faulthandler.enable(_ERRORS)
    faulthandler.register(signal.SIGVTALRM, _ERRORS, chain=True)


def allow(seconds: float) -> None:
    """Have SIGVTALRM end this process when each of its threads could have computed for so long since; 0 allows everything.

    For C code, compiled modules of our own among it, that never gives the interpreter's lock back: no thread sees that it
    hangs. The process's own computing is counted, so the sleep of the machine, or a stopped process, is no silence.
    """
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds * threading.active_count())


@final
class Pulse:
    """Count the looks without a beat."""

    __slots__ = ("_bound", "_later", "_silent")

    def __init__(self, silent_s: float, start_s: float) -> None:
        """Allow a silence of ``silent_s`` seconds, and one of ``start_s`` before the first beat."""
        self._bound = ceil(start_s / BEAT_S)
        self._later = ceil(silent_s / BEAT_S)
        self._silent = 0

    def look(self, *, beaten: bool) -> int:
        """Return 0 for a loop that turns or may be slow, ``HANGS`` at the bound, and more for each look after it."""
        if beaten:
            self._bound, self._silent = self._later, 0
        else:
            self._silent += 1
        return max(0, self._silent - self._bound + 1)


def pipe() -> tuple[FileIO, FileIO]:
    """Return where beats are heard and where they are told; nobody ever waits at either end."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return FileIO(ends[0], "r"), FileIO(ends[1], "w")


def heard(beats: FileIO) -> bool:
    """Tell whether anything was told since the last look."""
    return not beats.closed and bool(beats.read(_OCTETS))


async def beat(end: int) -> None:
    """Tell whoever holds the other end of a pipe that this loop turns, until cancelled."""
    while True:
        with suppress(BlockingIOError, BrokenPipeError):  # nobody looks just now, or any more
            os.write(end, b".")
        await trio.sleep(BEAT_S)


async def guard(limits: Callable[[], Limits], observer: Observer) -> None:
    """Beat, with a thread that ends this process when the loop no longer turns, and a timer where the thread has no turn.

    Runs until cancelled.

    Whoever started the process starts it anew from what is durable, as after any other death.

    Args:
        limits: Those in force.
        observer: Told one look before the end.
    """
    heart = Heart(observer, limits)
    watch = threading.Thread(target=heart.watch, name="pulse", daemon=True)
    watch.start()
    try:
        while True:
            heart.beat()
            allow(limits().loop_silent_s + 2 * BEAT_S)
            await trio.sleep(BEAT_S)
    finally:
        allow(0)
        heart.over.set()


@final
class Heart:
    """Hold whether a loop has turned since the last look."""

    def __init__(
        self,
        observer: Observer,
        limits: Callable[[], Limits],
        end: Callable[[], None] = os.abort,
    ) -> None:
        """Begin with a beat; ``end`` ends the process."""
        self.over = threading.Event()
        self._observer = observer
        self._limits = limits
        self._end = end
        self._beaten = True

    def beat(self) -> None:
        """Tell that the loop turns."""
        self._beaten = True

    def watch(self, rest: Callable[[float], bool] | None = None) -> None:
        """Look each second until it is over, or the loop has been silent for the bound and one look more.

        Args:
            rest: Wait for that many seconds; true when it is over.
        """
        rest = rest or self.over.wait
        silent_s = self._limits().loop_silent_s
        pulse = Pulse(silent_s, silent_s)
        while not rest(BEAT_S):
            if self._limits().loop_silent_s != silent_s:
                silent_s = self._limits().loop_silent_s
                pulse = Pulse(silent_s, silent_s)
            beaten, self._beaten = self._beaten, False
            overdue = pulse.look(beaten=beaten)
            if overdue == HANGS:
                self._observer.note("loop_hangs", seconds=round(silent_s))
            elif overdue:
                self._end()
                return
