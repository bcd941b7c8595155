"""Open the tenant's state: one folder, one process, one keeper on SQLite.

``open_keeper`` owns the writer's task and the purge's; both end with the ``async with`` block. If the disk breaks its
word, ``StoreFailedError`` cancels the block and leaves it (in an exception group, as nurseries do): ``hub.node`` ends the
process with a code other than zero.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast, final

import trio

from hub.config import Limits
from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.failpoint import Failpoint, no_failpoint
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
from hub.state.reserve import Reserve
from hub.state.schema import StoreError, StoreFailedError
from hub.state.sqlite import Store
from hub.state.work import Claims, Commit, Done, Failed, Purge
from hub.state.writer import Writer

R = TypeVar("R", bound=Record)

DATABASE: Final = "hub.db"
LOCK: Final = "lock"
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
        answers = iter(granted)
        now_ms = self._clock.now_ms()
        return tuple(
            next(answers) if isinstance(claim, Once) else self._buckets.answer(claim, now_ms)
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


@asynccontextmanager
async def open_keeper(
    folder: Path,
    *,
    clock: Clock,
    limits: Limits,
    failpoint: Failpoint = no_failpoint,
    vfs: str | None = None,
    reserve_octets: int = 0,
) -> AsyncIterator[SqliteKeeper]:
    """Open the state in ``folder`` (made with mode 0700 if missing) for this process alone.

    Args:
        folder: The tenant's folder.
        clock: For expiry.
        limits: ``commit_queue``, ``commit_s``, ``replay_entries``, ``buckets``.
        failpoint: For tests.
        vfs: For tests: a VFS without shared memory.
        reserve_octets: Space to set aside for the end on a full disk.

    Raises:
        StoreError: It cannot be opened: in use, too new, damaged, not ours. One line says why.
        StoreFailedError: While open, the disk broke its word; in an exception group.
    """
    with locked(folder):
        reserve = Reserve(folder, reserve_octets)
        reserve.hold()
        store = Store(
            _database(folder), replay_entries=limits.replay_entries, failpoint=failpoint, vfs=vfs
        )
        writer = Writer(
            store, queue=limits.commit_queue, patience_s=limits.commit_s, failpoint=failpoint
        )
        keeper = SqliteKeeper(store, writer, clock=clock, buckets=limits.buckets)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                nursery.start_soon(keeper.purge_forever)
                yield keeper
                nursery.cancel_scope.cancel()
        finally:
            if store.full:
                reserve.release()
            store.close()


@final
class Reader:
    """Read a tenant's state from another process, while its keeper has it open or not. Made by ``open_reader``."""

    def __init__(self, store: Store) -> None:
        """Read from this store."""
        self._store = store

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None."""
        found = await trio.to_thread.run_sync(self._store.lookup, kind_of(kind), key)
        return None if found is None else (cast("R", found.record), found.version)

    async def search(self, query: Query) -> Page:
        """Return the records that match.

        Raises:
            ValueError: The question cannot be asked.
        """
        check_query(query)
        return await trio.to_thread.run_sync(self._store.search, query)

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` (at most 1000) events from index ``start`` on."""
        return await trio.to_thread.run_sync(self._store.events, start, limit)

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first (at most 1000)."""
        return await trio.to_thread.run_sync(self._store.trace, interaction_id)

    async def head(self) -> TreeHead:
        """Return the tree head as last committed."""
        return await trio.to_thread.run_sync(self._store.head)


@contextmanager
def open_reader(folder: Path) -> Iterator[Reader]:
    """Open a tenant's state for reading only, one question at a time; for the command line.

    Raises:
        StoreError: There is none, or it cannot be read.
    """
    store = Store(folder / DATABASE, readonly=True)
    try:
        yield Reader(store)
    finally:
        store.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, mode 0700; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be used ({error}); check owner and mode") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreError(f"{folder}: another process has this state open; end it first") from None
    finally:
        os.close(lock)


def _database(folder: Path) -> Path:
    path = folder / DATABASE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return path


__all__ = [
    "Reader",
    "SqliteKeeper",
    "StoreError",
    "StoreFailedError",
    "open_keeper",
    "open_reader",
]
