"""Open the tenant's state: one folder, one process, one keeper on SQLite.

``open_keeper`` owns the writer's task and the purge's; both end with the ``async with`` block. If the disk breaks its
word, ``StoreFailedError`` cancels the block and leaves it (in an exception group, as nurseries do): ``hub.node`` ends the
process with a code other than zero.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast, final

import trio

from hub.config import Limits
from hub.model.clock import Clock
from hub.model.failpoint import Failpoint, no_failpoint
from hub.model.records import Record
from hub.state.entry import check_query, kind_of
from hub.state.keeper import (
    Page,
    Query,
    TreeHead,
)
from hub.state.local import SqliteKeeper
from hub.state.reserve import Reserve
from hub.state.schema import StoreError, StoreFailedError
from hub.state.sqlite import Store
from hub.state.writer import Writer

R = TypeVar("R", bound=Record)

DATABASE: Final = "hub.db"
LOCK: Final = "lock"


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
