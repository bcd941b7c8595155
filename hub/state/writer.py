"""Group commit: whoever waits while the disk syncs is written together in the next transaction.

Theory. One task takes everything that waits, writes it into one transaction, has one thread commit it, and wakes all of it
when it is durable. While the thread is away, the next group gathers; so the slower the disk, the larger the groups, and
durability costs latency but no throughput. What computes is done by the task itself: on the thread, each statement would
give the interpreter away and get it back a switch interval later. What is large is prepared on the thread all the same, so
that nobody waits for it. Before a change is acknowledged, everybody who caches is told to forget it: watchers at once, an audience
(the socket's workers) by awaiting them, which does not hold up the next group.

Invariants. Acknowledgement comes after durability, and after forgetting. At most ``queue`` works are waiting, in
writing or being told at any moment. After ``StoreFailedError`` nothing is acknowledged any more.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar, final

import trio
from typing_extensions import override

from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault
from hub.state.entry import unavailable
from hub.state.keeper import Conflict, Invalidation
from hub.state.patience import Patience, Waiting
from hub.state.plan import touched
from hub.state.schema import StoreFailedError
from hub.state.sqlite import FullError, Store
from hub.state.thread import Thread
from hub.state.work import Claims, Commit, Done, Failed, Purge, Work

T = TypeVar("T")
Forget = Callable[[Invalidation], None]
Tell = Callable[[Sequence[Invalidation]], Awaitable[None]]

_GROUP: Final = 512
"""Events of a group at most."""
_STEP: Final = 4
"""Events that cost what one change does, at least."""
_LARGE: Final = 16
"""A work of more changes than this is prepared on the thread: the task may be held for a millisecond, not for ten."""


class _Waiting(Waiting[Done]):
    """One work and whoever waits for it."""

    __slots__ = ("work",)

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work


@final
class _Together(Waiting[None]):
    """Works that came together, and whoever waits for all of them."""

    __slots__ = ("left", "results")

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count
        self.results: list[Done] = [()] * count


@final
class _Part(_Waiting):
    """One of the works that came together."""

    __slots__ = ("_at", "_together")

    def __init__(self, work: Work, together: _Together, at: int) -> None:
        super().__init__(work)
        self._together = together
        self._at = at

    @override
    def finish(self, result: Done) -> None:
        """Note the result; the last one wakes whoever waits."""
        if not self.done:
            self.done = True
            self._together.results[self._at] = result
            self._together.left -= 1
            if not self._together.left:
                self._together.finish(None)


@final
class Writer:
    """Gather works, write them in groups, tell who must forget, wake who waits."""

    def __init__(
        self, store: Store, *, queue: int, patience_s: float, failpoint: Failpoint = no_failpoint
    ) -> None:
        """Prepare; ``run`` does the work.

        Args:
            store: Where to.
            queue: The most works under way at once; beyond it they are refused.
            patience_s: How long a work waits before it is answered with "unknown"; seconds.
            failpoint: For tests.
        """
        self._store = store
        self._queue = queue
        self._failpoint = failpoint
        self._waiting: list[_Waiting] = []
        late = unavailable("keeper.deadline", f"not durable after {patience_s} seconds")
        self._patience: Patience[Done] = Patience(patience_s, lambda: late)
        self._under_way = 0
        self._wake = trio.Event()
        self._committer = Thread("commit")
        self._watchers: list[Forget] = []
        self._audience: list[Tell] = []
        self._closed = ""

    async def submit(self, work: Work) -> Done:
        """Wait until a work is durable and told.

        Faults: 503 ``keeper.queue`` (refused at once), ``keeper.disk`` (nothing was written), ``keeper.deadline``
        (unknown: it may yet be written), ``keeper.stopping``.
        Cancellation: the work may or may not be done.
        """
        refused = self._refusal()
        if refused is not None:
            # Whoever tries again at once must not keep the loop from ending what failed.
            await trio.lowlevel.checkpoint()
            return refused
        waiting = _Waiting(work)
        self._add(waiting)
        return await waiting.wait()

    async def submit_all(self, works: Sequence[Work]) -> Sequence[Done]:
        """Wait until works that came together are durable and told; one result each, as of ``submit``."""
        together = _Together(len(works))
        for at, work in enumerate(works):
            part, refused = _Part(work, together, at), self._refusal()
            if refused is None:
                self._add(part)
            else:
                part.finish(refused)
        if together.left:
            await together.wait()
        else:
            await trio.lowlevel.checkpoint()
        return together.results

    def _add(self, waiting: _Waiting) -> None:
        self._under_way += 1
        if not self._waiting:
            self._wake.set()
        self._waiting.append(waiting)
        self._patience.begin(waiting)

    def _refusal(self) -> Fault | None:
        if self._closed:
            return unavailable("keeper.stopping", self._closed)
        if self._under_way >= self._queue:
            return unavailable("keeper.queue", f"{self._under_way} works are under way")
        return None

    async def run(self) -> None:
        """Write group after group until cancelled.

        Raises:
            StoreFailedError: The process must end.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._patience.run)
                while True:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    while self._waiting:
                        await self._write_group(nursery)
        finally:
            self._closed = self._closed or "the keeper is stopping"
            self._finish(
                self._waiting, [unavailable("keeper.stopping", self._closed)] * len(self._waiting)
            )
            self._waiting = []
            self._committer.close()

    async def _write_group(self, nursery: trio.Nursery) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        group = self._next_group()
        self._failpoint(Point.BEFORE_GROUP)
        try:
            results = await self._written([waiting.work for waiting in group])
        except FullError as error:
            refusal = unavailable("keeper.disk", str(error))
            self._finish(group, [refusal] * len(group))
            return
        except BaseException as broken:
            self._closed = f"the store failed: {broken}"
            self._finish(group, [unavailable("keeper.stopping", self._closed)] * len(group))
            raise
        self._failpoint(Point.BEFORE_INVALIDATION)
        self._acknowledge(nursery, group, results)
        if self._store.untidy:
            await self._committer.run(self._store.tidy)

    def _next_group(self) -> list[_Waiting]:
        """Take what has waited longest, as much as is prepared in a few milliseconds, and at least one work."""
        count = weight = 0
        for waiting in self._waiting[:_GROUP]:
            weight += _weight(waiting.work)
            if weight > _GROUP and count:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _written(self, works: Sequence[Work]) -> list[Done]:
        """Write a group, on the thread what waits or is large; nothing here can be cancelled half-way."""
        store = self._store
        if not store.divisible or any(map(_is_large, works)):
            return await self._committer.run(lambda: store.write(works))
        results = store.prepare(works)
        await self._committer.run(store.commit)
        return results

    def _acknowledge(
        self, nursery: trio.Nursery, group: list[_Waiting], results: list[Done]
    ) -> None:
        changed = [
            one
            for waiting, result in zip(group, results, strict=True)
            for one in _changed(waiting.work, result)
        ]
        for forget in list(self._watchers) if changed else ():
            for one in changed:
                forget(one)
        if changed and self._audience:
            nursery.start_soon(self._tell, changed, group, results)
        else:
            self._finish(group, results)

    async def _tell(
        self, changed: list[Invalidation], group: list[_Waiting], results: list[Done]
    ) -> None:
        """Tell the audience, then acknowledge; a keeper that stops meanwhile has written, but promises nothing."""
        stopping = unavailable("keeper.stopping", "written, but not everybody has heard of it")
        answers: Sequence[Done] = [stopping] * len(group)
        try:
            async with trio.open_nursery() as nursery:
                for tell in list(self._audience):
                    nursery.start_soon(tell, changed)
            answers = results
        finally:
            self._finish(group, answers)

    def _finish(self, group: list[_Waiting], results: Sequence[Done]) -> None:
        self._under_way -= len(group)
        self._failpoint(Point.BEFORE_ACK)
        for waiting, result in zip(group, results, strict=True):
            waiting.finish(result)
        self._patience.forget_done()

    def watch(self, forget: Forget) -> Callable[[], None]:
        """Call ``forget`` for each changed record before the change is acknowledged; return what ends it."""
        self._watchers.append(forget)
        return lambda: _leave(self._watchers, forget)

    def attend(self, tell: Tell) -> Callable[[], None]:
        """Await ``tell`` with what changed before a change is acknowledged; return what ends it."""
        self._audience.append(tell)
        return lambda: _leave(self._audience, tell)


def _changed(work: Work, result: Done) -> list[Invalidation]:
    if isinstance(result, Conflict | Fault | Failed):
        return []
    if isinstance(work, Commit):
        return touched(work.steps) if work.steps else []
    if isinstance(work, Purge):
        return [Invalidation(str(kind), str(key)) for kind, key in result]  # type: ignore[misc]
    return []


def _weight(work: Work) -> int:
    """Return what preparing a work costs, in events; what is large goes to the thread, whatever it weighs."""
    if isinstance(work, Commit):
        return 1 + _STEP * len(work.steps)
    return _STEP * len(work.onces) if isinstance(work, Claims) else 1


def _is_large(work: Work) -> bool:
    match work:
        case Commit():
            return len(work.steps) > _LARGE or len(work.leaves) > _LARGE
        case Claims():
            return len(work.onces) > _LARGE
        case Purge():
            return True


def _leave(those: list[T], this: T) -> None:
    with suppress(ValueError):
        those.remove(this)


__all__ = ["StoreFailedError", "Writer"]
