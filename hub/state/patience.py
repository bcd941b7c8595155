"""Wait for an answer that another task gives, with one clock for all who wait.

Theory. A deadline of one's own costs more than the waiting itself. Everybody who waits for the same thing has the same
patience: who came first is late first, so one task and one queue in the order of coming do for all.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast, final

import outcome
import trio

T = TypeVar("T")


class Waiting(Generic[T]):
    """Whoever waits; ``done`` once it was finished, or waits no more."""

    __slots__ = ("_task", "done", "until")

    def __init__(self) -> None:
        """Prepare; ``until`` is set by who is patient."""
        self.done = False
        self.until = 0.0
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> T:
        """Wait for ``finish``, which comes later and once. Cancellation: the result is forgotten."""
        self._task = trio.lowlevel.current_task()
        return cast("T", await trio.lowlevel.wait_task_rescheduled(self._leave))

    def _leave(self, _raise: object) -> trio.lowlevel.Abort:
        self._task = None
        self.done = True
        return trio.lowlevel.Abort.SUCCEEDED

    def finish(self, result: T) -> None:
        """Wake whoever waits; the first result is the one that counts."""
        self.done = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task, outcome.Value(result))


@final
class Patience(Generic[T]):
    """Answer everybody who has waited for too long."""

    def __init__(self, seconds: float, late: Callable[[], T]) -> None:
        """Prepare; ``late`` makes the answer of those who waited so many seconds."""
        self._seconds = seconds
        self._late = late
        self._queue: deque[Waiting[T]] = deque()

    def begin(self, waiting: Waiting[T]) -> None:
        """Be patient with one more, from now on."""
        waiting.until = trio.current_time() + self._seconds
        self._queue.append(waiting)

    def forget_done(self) -> None:
        """Let go of who was finished in the meantime, where it is at the front."""
        queue = self._queue
        while queue and queue[0].done:
            queue.popleft()

    async def run(self) -> None:
        """Finish who is late, until cancelled."""
        queue = self._queue
        while True:
            now = trio.current_time()
            while queue and (queue[0].done or queue[0].until <= now):
                queue.popleft().finish(self._late())
            await trio.sleep_until(queue[0].until if queue else now + self._seconds)
