"""One thread that waits for the disk in the place of one task.

Theory. A hop to trio's shared threads costs some 55 us: a limiter, a context, a name for the thread, and its locks. A group
commit makes one hop for each group, always from the same task, so one thread that lives as long as its owner and takes one
job at a time does the same for half of that.

Invariants. ``run`` returns only when the job has ended, also when its task is cancelled: what the job touches is never used
by two at once. Cancellation is felt at the task's next checkpoint.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar, cast, final

import outcome
import trio

T = TypeVar("T")
_Job = tuple[Callable[[], Any], trio.lowlevel.Task, trio.lowlevel.TrioToken]


@final
class Thread:
    """Run jobs one after the other on a thread of their own; ``close`` it in the end."""

    __slots__ = ("_jobs", "_name", "_thread")

    def __init__(self, name: str) -> None:
        """Prepare; the thread starts with the first job."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job and return its result, or raise what it raised; for one task at a time.

        Cancellation: waits for the job all the same.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        lowlevel = trio.lowlevel
        self._jobs.put((job, lowlevel.current_task(), lowlevel.current_trio_token()))
        return cast("T", await lowlevel.wait_task_rescheduled(_not_before_its_end))

    def close(self) -> None:
        """End the thread, which has nothing to do."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (given := self._jobs.get()) is not None:
            job, task, token = given
            result = outcome.capture(job)
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(trio.lowlevel.reschedule, task, result)
            del given, job, task, token, result


def _not_before_its_end(_raise: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
