"""A worker's memory of hot records (tokens, consents), bounded, and never older than the last acknowledged commit.

Theory. The keeper calls ``watch`` before it acknowledges a change, so dropping an entry there is enough, but for one
race: a lookup that was answered before the change and arrives after it would put the old record back. Each lookup
therefore leaves a mark under its key; a change wipes the mark, and what the lookup brings is kept only if its mark is
still there. Two generations of entries (young and old) approximate "least recently used": a hit
costs one dictionary access, and no order is kept.

Invariants. Records from here are shared: nobody changes what is inside them. At most ``entries`` records of each kind. ``peek`` never answers while ``fresh`` says no (a worker without
a lease does not hear of changes). A record that does not exist is not remembered.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast, final

from hub.model.records import Record
from hub.state.entry import kind_of
from hub.state.keeper import Invalidation, Keeper

R = TypeVar("R", bound=Record)
Found = tuple[Any, int]


def _nothing(_kind: type, _key: str) -> None:
    return None


@final
class _Shelf:
    """Hold the records of one kind."""

    __slots__ = ("half", "marks", "old", "young")

    def __init__(self, entries: int) -> None:
        self.half = max(1, entries // 2)
        self.marks: dict[str, object] = {}
        self.young: dict[str, Found] = {}
        self.old: dict[str, Found] = {}

    def keep(self, key: str, found: Found) -> None:
        """Remember; when the young half is full, the old half is forgotten."""
        if len(self.young) >= self.half and key not in self.young:
            self.young, self.old = {}, self.young
        self.young[key] = found

    def forget(self, key: str) -> None:
        self.marks.pop(key, None)
        self.young.pop(key, None)
        self.old.pop(key, None)

    def clear(self) -> None:
        self.marks.clear()
        self.young, self.old = {}, {}


@final
class Cache:
    """Remember records of some kinds; close it to stop watching."""

    def __init__(
        self,
        keeper: Keeper,
        entries: Mapping[type[Record], int],
        *,
        fresh: Callable[[], bool] | None = None,
    ) -> None:
        """Start watching.

        Args:
            keeper: Where records come from.
            entries: The kinds to remember, each with the most records of it, 2 or more.
            fresh: Tell whether changes are being heard now; by default ``keeper.fresh`` if it has one, else always.
        """
        self._keeper = keeper
        self._fresh: Callable[[], bool] | None = fresh or getattr(keeper, "fresh", None)
        self._at_hand: Callable[[type, str], Found | None] = getattr(keeper, "at_hand", _nothing)
        self._shelves: dict[type, _Shelf] = {kind: _Shelf(n) for kind, n in entries.items()}
        self._tags = {kind_of(kind): shelf for kind, shelf in self._shelves.items()}
        self.close = keeper.watch(self._forget)
        """Stop watching; the cache must not be asked afterwards."""

    def peek(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a remembered record with its version, or None where it is not remembered; never waits."""
        if self._fresh is not None and not self._fresh():
            return None
        shelf = self._shelves[kind]
        found = shelf.young.get(key)
        if found is None:
            # Nobody waits for the keeper's own memory, so no change can come between: no mark is needed.
            found = shelf.old.pop(key, None) or self._at_hand(kind, key)
            if found is not None:
                shelf.keep(key, found)
        return found

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return what ``get`` returns: the cache takes the keeper's place for readers.

        Cancellation: nothing is remembered.
        """
        return await self.get(kind, key)

    async def get(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, from memory or from the keeper, or None.

        Cancellation: nothing is remembered.
        """
        found = self.peek(kind, key)
        if found is not None:
            return found
        shelf = self._shelves[kind]
        mark = shelf.marks[key] = object()
        try:
            read = await self._keeper.lookup(kind, key)
            if read is not None and shelf.marks.get(key) is mark:
                shelf.keep(key, cast("Found", read))
            return read
        finally:
            if shelf.marks.get(key) is mark:
                del shelf.marks[key]

    @property
    def size(self) -> int:
        """Return how many records are remembered."""
        return sum(len(shelf.young) + len(shelf.old) for shelf in self._shelves.values())

    def clear(self) -> None:
        """Forget everything, and what is being looked up at this moment."""
        for shelf in self._shelves.values():
            shelf.clear()

    def _forget(self, one: Invalidation) -> None:
        shelf = self._tags.get(one.kind)
        if shelf is None:
            return
        if one.key:
            shelf.forget(one.key)
        else:
            shelf.clear()
