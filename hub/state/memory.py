"""The keeper in memory: the smallest thing that obeys the protocol; the oracle of the real ones, and for tests.

Nothing is durable here. Every operation is one step (no other task runs in between), so it is linearizable by
construction; ``tests/state`` holds the real keepers against it. Records are kept as bytes, as in the database.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar, cast, final

import msgspec
import trio

from hub.model.clock import Clock
from hub.model.event import Event
from hub.model.fault import Fault
from hub.model.records import Record, Seen
from hub.protocol.merkle import Frontier, leaf_hash
from hub.state.bucket import Buckets
from hub.state.entry import (
    MOST,
    check_commit,
    check_query,
    decode,
    kind_of,
    leaf_of,
    put_entry,
    unavailable,
)
from hub.state.keeper import (
    Change,
    Claim,
    Conflict,
    Granted,
    Invalidation,
    Once,
    Page,
    Put,
    Query,
    TreeHead,
    Versioned,
)
from hub.state.plan import plan, steps_of, touched
from hub.state.steps import Entry, Plan
from hub.state.work import Commit, Done

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class _Row(msgspec.Struct, frozen=True):
    version: int
    entry: Entry

    def values(self, index: str) -> list[str | int]:
        """Return the record's values in an index."""
        return [value for name, value in self.entry.rows if name == index]

    def read(self) -> Versioned:
        """Return the record with its version."""
        return Versioned(decode(self.entry.kind, self.entry.body or b""), self.version)


@final
class MemoryKeeper:
    """Keep the tenant's state until the process ends."""

    def __init__(
        self, *, clock: Clock, replay_entries: int = 1_000_000, buckets: int = 100_000
    ) -> None:
        """Start empty.

        Args:
            clock: For the end of single-use claims and the refilling of buckets.
            replay_entries: The most single-use values remembered at once.
            buckets: The most buckets remembered at once.
        """
        self._clock = clock
        self._rows: dict[tuple[str, str], _Row] = {}
        self._events: list[tuple[str, bytes]] = []
        self._frontier = Frontier()
        self._buckets = Buckets(buckets)
        self._replay_entries = replay_entries
        self._watchers: list[Callable[[Invalidation], None]] = []
        self._audience: list[Callable[[Sequence[Invalidation]], Awaitable[None]]] = []
        self.refusal: Fault | None = None
        """Set by a test: what every write is answered with, until it is None again."""

    async def claim(self, batch: Sequence[Claim]) -> tuple[Granted, ...] | Fault:
        """Answer each claim of a batch, in order."""
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            return self.refusal
        if self._replay_full(sum(isinstance(claim, Once) for claim in batch)):
            return unavailable("keeper.replay", "the replay memory is full")
        return tuple(self._claim(claim) for claim in batch)

    def _replay_full(self, more: int) -> bool:
        return more > 0 and self._count_seen() + more > self._replay_entries

    def _count_seen(self) -> int:
        return sum(kind == kind_of(Seen) for kind, _ in self._rows)

    def _claim(self, claim: Claim) -> Granted:
        if not isinstance(claim, Once):
            return self._buckets.answer(claim, self._clock.now_ms())
        record = Seen(space=claim.space, value=claim.value, until=claim.until)
        row = self._rows.get((kind_of(Seen), record.key))
        if row is not None and (row.entry.purge_at or 0) > self._clock.now():
            return Granted(granted=False)
        self._apply(put_entry(Put(record)), 0 if row is None else row.version)
        return Granted(granted=True)

    async def commit(
        self, changes: Sequence[Change], events: Sequence[Event]
    ) -> tuple[int, ...] | Conflict | Fault:
        """Write all changes and events, or none; return the events' indices."""
        check_commit(changes, events)
        return await self._commit(Commit(steps_of(changes), [leaf_of(event) for event in events]))

    async def commit_all(self, works: Sequence[Commit]) -> Sequence[Done]:
        """Do for each of some commits what ``commit`` does."""
        return [await self._commit(work) for work in works]

    async def _commit(self, work: Commit) -> tuple[int, ...] | Conflict | Fault:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            return self.refusal
        planned = plan(work.steps, self._version_of, self._record_of)
        if not isinstance(planned, Plan):
            return planned
        for entry, version, _ in planned.entries:
            self._apply(entry, version)
        indices = tuple(self._append(*leaf) for leaf in work.leaves)
        for leaf in planned.leaves:
            self._append(*leaf)
        await self._announce(touched(work.steps))
        return indices

    def _record_of(self, kind: str, key: str) -> Versioned | None:
        row = self._rows.get((kind, key))
        return None if row is None else row.read()

    def _version_of(self, kind: str, key: str) -> int:
        row = self._rows.get((kind, key))
        return 0 if row is None else row.version

    def _apply(self, entry: Entry, before: int) -> None:
        if entry.body is None:
            self._rows.pop((entry.kind, entry.key), None)
        else:
            self._rows[entry.kind, entry.key] = _Row(before + 1, entry)

    def _append(self, interaction_id: str, leaf: bytes) -> int:
        self._events.append((interaction_id, leaf))
        self._frontier.append(leaf_hash(leaf))
        return len(self._events) - 1

    async def _announce(self, changed: Sequence[Invalidation]) -> None:
        for forget in list(self._watchers):
            for one in changed:
                forget(one)
        for tell in list(self._audience) if changed else ():
            await tell(changed)

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None."""
        await trio.lowlevel.checkpoint()
        row = self._rows.get((kind_of(kind), key))
        if row is None:
            return None
        found = row.read()
        return cast("R", found.record), found.version

    async def search(self, query: Query) -> Page:
        """Return the records that match."""
        check_query(query)
        await trio.lowlevel.checkpoint()
        rows = [row for (kind, _), row in self._rows.items() if kind == query.kind]
        rows = [row for row in rows if _matches(row, query)]
        rows.sort(key=lambda row: _place(row, query.order), reverse=query.descending)
        page = rows[query.offset : query.offset + query.limit]
        return Page(tuple(row.read() for row in page), len(rows) if query.count else -1)

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` events from index ``start`` on."""
        await trio.lowlevel.checkpoint()
        first, most = max(0, start), max(0, min(limit, MOST))
        return tuple(leaf for _, leaf in self._events[first : first + most])

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first."""
        await trio.lowlevel.checkpoint()
        found = [
            (at, leaf) for at, (name, leaf) in enumerate(self._events) if name == interaction_id
        ]
        return tuple(found[:MOST]) if interaction_id else ()

    async def head(self) -> TreeHead:
        """Return the tree head."""
        await trio.lowlevel.checkpoint()
        return TreeHead(self._frontier.size, self._frontier.root())

    def watch(self, forget: Callable[[Invalidation], None]) -> Callable[[], None]:
        """Call ``forget`` for each changed record before the change is acknowledged; return what ends it."""
        self._watchers.append(forget)
        return lambda: _forget(self._watchers, forget)

    def attend(
        self, tell: Callable[[Sequence[Invalidation]], Awaitable[None]]
    ) -> Callable[[], None]:
        """Await ``tell`` with what changed before a change is acknowledged; return what ends it."""
        self._audience.append(tell)
        return lambda: _forget(self._audience, tell)

    async def purge(self) -> int:
        """Forget what may be forgotten by now; return how many records."""
        await trio.lowlevel.checkpoint()
        now = self._clock.now()
        old = [name for name, row in self._rows.items() if _is_old(row.entry, now)]
        for name in old:
            del self._rows[name]
        await self._announce([Invalidation(*name) for name in old])
        return len(old)


def _is_old(entry: Entry, now: int) -> bool:
    return entry.purge_at is not None and entry.purge_at <= now


def _forget(those: list[T], this: T) -> None:
    with suppress(ValueError):
        those.remove(this)


def _matches(row: _Row, query: Query) -> bool:
    if query.order and not row.values(query.order):
        return False
    return (
        all(value in row.values(name) for name, value in query.where)
        and all(any(_whole(v) >= low for v in row.values(n)) for n, low in query.at_least)
        and all(any(-_whole(v) >= -high for v in row.values(n)) for n, high in query.at_most)
    )


def _whole(value: str | int) -> float:
    return value if isinstance(value, int) else float("nan")


def _place(row: _Row, order: str) -> tuple[list[tuple[bool, str | int]], str]:
    values = [(isinstance(value, str), value) for value in row.values(order)]
    return values, row.entry.key
