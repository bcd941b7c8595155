"""The keeper in this process: what is asked of it goes to the writer, or to the store."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar, cast, final

import trio

from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.fault import Fault
from hub.model.records import Record
from hub.state.bucket import Buckets
from hub.state.entry import check_commit, check_query, kind_of, leaf_of
from hub.state.keeper import (
    Change,
    Claim,
    Conflict,
    Granted,
    Invalidation,
    Once,
    Page,
    Query,
    TreeHead,
)
from hub.state.plan import steps_of
from hub.state.sqlite import Store
from hub.state.work import Claims, Commit, Done, Failed, Purge
from hub.state.writer import Writer

R = TypeVar("R", bound=Record)

_PURGE_S: Final = 60.0


@final
class SqliteKeeper:
    """Keep the tenant's state in one SQLite database. Made by ``open_keeper``."""

    def __init__(self, store: Store, writer: Writer, *, clock: Clock, buckets: int) -> None:
        """Join what ``open_keeper`` has opened."""
        self._store = store
        self._writer = writer
        self._clock = clock
        self._buckets = Buckets(buckets)
        self._readers = trio.CapacityLimiter(1)

    async def claim(self, batch: Sequence[Claim]) -> tuple[Granted, ...] | Fault:
        """Answer each claim of a batch, in order; durable on return.

        Faults: as ``Writer.submit``; 503 ``keeper.replay`` where the replay memory is full.
        Cancellation: the claims may or may not have been made.
        """
        onces = [claim for claim in batch if isinstance(claim, Once)]
        granted: Sequence[Granted] = ()
        if onces:
            done = await self._writer.submit(Claims(onces, self._clock.now()))
            if isinstance(done, Fault):
                return done
            granted = cast("Sequence[Granted]", done)
        else:
            await trio.lowlevel.checkpoint()
        answers = deque(granted)
        now_ms = self._clock.now_ms()
        return tuple(
            answers.popleft() if isinstance(claim, Once) else self._buckets.answer(claim, now_ms)
            for claim in batch
        )

    async def commit(
        self, changes: Sequence[Change], events: Sequence[Event]
    ) -> tuple[int, ...] | Conflict | Fault:
        """Write all changes and events, or none; return the events' indices when durable.

        Faults: as ``Writer.submit``.
        Cancellation: the write may or may not have happened; it is never half done.

        Raises:
            ValueError: There are changes and no events, or an event is too long for the log.
            Exception: Deciding a change raised; nothing was written.
        """
        check_commit(changes, events)
        steps = steps_of(changes)
        leaves = [leaf_of(event) for event in events]
        if not leaves:
            await trio.lowlevel.checkpoint()
            return ()
        done = await self._writer.submit(Commit(steps, leaves))
        if isinstance(done, Failed):
            raise done.error
        return cast("tuple[int, ...] | Conflict | Fault", done)

    async def commit_all(self, works: Sequence[Commit]) -> Sequence[Done]:
        """Do for each of some commits what ``commit`` does; for those of a worker, which come together."""
        return await self._writer.submit_all(works)

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None. Never older than the last acknowledged commit."""
        await trio.lowlevel.checkpoint()
        found = self._store.lookup(kind_of(kind), key)
        return None if found is None else (cast("R", found.record), found.version)

    def at_hand(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return what ``lookup`` would where it is in memory, without waiting; else None."""
        row = self._store.known.committed(kind_of(kind), key)
        return None if row is None else (cast("R", row.found.record), row.found.version)

    async def search(self, query: Query) -> Page:
        """Return the records that match.

        Raises:
            ValueError: An unknown kind, a limit outside 1 to 1000, or a negative offset.
        """
        check_query(query)
        return await trio.to_thread.run_sync(self._store.search, query, limiter=self._readers)

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` (at most 1000) events from index ``start`` on."""
        return await trio.to_thread.run_sync(
            self._store.events, start, limit, limiter=self._readers
        )

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first (at most 1000)."""
        return await trio.to_thread.run_sync(
            self._store.trace, interaction_id, limiter=self._readers
        )

    async def head(self) -> TreeHead:
        """Return the tree head as last committed."""
        await trio.lowlevel.checkpoint()
        return self._store.head()

    def watch(self, forget: Callable[[Invalidation], None]) -> Callable[[], None]:
        """Call ``forget`` for each changed record before the change is acknowledged; return what ends it."""
        return self._writer.watch(forget)

    def attend(
        self, tell: Callable[[Sequence[Invalidation]], Awaitable[None]]
    ) -> Callable[[], None]:
        """Await ``tell`` with what changed before a change is acknowledged; return what ends it."""
        return self._writer.attend(tell)

    async def purge(self) -> int:
        """Forget what may be forgotten by now; return how many records (none while the disk takes nothing)."""
        count = 0
        while True:
            done = await self._writer.submit(Purge(self._clock.now()))
            if isinstance(done, Fault | Conflict | Failed) or not done:
                return count
            count += len(done)

    async def backup(self, target: Path) -> None:
        """Copy the whole state as it is now into a new database file, while others write.

        Raises:
            StoreError: The target exists, or cannot be written.
        """
        await trio.to_thread.run_sync(self._store.backup, target, limiter=self._readers)

    async def purge_forever(self) -> None:
        """Purge each minute until cancelled."""
        while True:
            await trio.sleep(_PURGE_S)
            await self.purge()
