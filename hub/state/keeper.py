"""The keeper's protocol: the one door to everything durable, in process and over a socket alike.

Theory. One keeper per tenant is the only writer of the database and the only sequencer of the audit log. Gateway
workers hold nothing but caches. The interface is small on purpose:

* ``lookup`` and ``search`` read records with their version;
* ``commit(changes, events)`` writes all of its changes and events in one transaction or none of them, and returns
  when they are durable and every worker has dropped what it cached of the changed records. Each change may name the
  version it expects (0: the record must not exist). If one does not hold, nothing is written and ``Conflict`` says
  which: the caller reads again and decides anew. That is all the concurrency control there is: two who redeem the
  same code at once both expect the same version, and one of them loses.
* ``claim(batch)`` answers independent single-use questions in one round trip; each granted one is durable on return.
* ``watch`` tells a worker's cache what to forget; it is called before the change is acknowledged.

Invariants. Indices of events are dense, start at 0, and never repeat. An event that was acknowledged is in the tree
whose root was committed with it. No change without an event: ``commit`` refuses changes with no events.

A payment's share is not taken by versions: sixty-four callers would all read the same one, and sixty-three would lose.
``Reserve`` and ``Settle`` are changes that name what is to be decided; the decision (``hub.model``) is made inside the
transaction, on what is there then.

Faults as values: ``Conflict`` when an expectation fails; ``Fault`` (status 503) when the store cannot take the write
(disk full, queue full, shutting down), or (status 400) what a ``Reserve`` was refused with. Anything else is a bug and raises.
"""

from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated, Protocol, TypeVar

import msgspec

from hub.model.event import Event
from hub.model.fault import Fault
from hub.model.records import Record

R = TypeVar("R", bound=Record)

Stored = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number that the store can hold; what comes over the socket is checked."""


class Put(msgspec.Struct, frozen=True, tag="put"):
    """Write a record whole. ``expect``: the version it must have now, 0 for "must not exist", None for any."""

    record: Record
    expect: int | None = None


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Forget a record. ``kind`` is the record's tag. Dropping what is not there is not an error unless expected."""

    kind: str
    key: str
    expect: int | None = None


class Reserve(msgspec.Struct, frozen=True, kw_only=True, tag="reserve"):
    """Take a payment's share of what its consent allows, decided inside the commit.

    The whole commit is refused with the Fault of ``model.limits.reserve`` where the limits do not allow the payment; it meets
    a ``Conflict`` where the consent is not Authorized (any more).

    Attributes:
        consent_id: Whose limits.
        payment: The share's name, used once.
        amount: Hundredths.
        currency: Of the payment.
        now_ms: The moment, milliseconds.
        day: Its date in the tenant's zone.
        anchored: Months are counted from the schedule's start.
        exact_days: Periodic payments only on the days on which the schedule's start recurs.
    """

    consent_id: str
    payment: str
    amount: int
    currency: str
    now_ms: int
    day: date
    anchored: bool = False
    exact_days: bool = False


class Settle(msgspec.Struct, frozen=True, kw_only=True, tag="settle"):
    """Bring a payment's status home: its share becomes final or free, the consent shows it, Consumed where nothing is left.

    Attributes:
        consent_id: Whose limits.
        payment: The share's name.
        status: ``Accepted...`` makes it final, ``Rejected`` gives it back, anything else leaves it taken.
        now_ms: The moment, milliseconds.
        day: Its date in the tenant's zone.
        line_id: For the line in the consent's history, if its state changes.
        event: The consent's own event, if its state changes; ``change`` is filled in. It follows those of the commit.
        anchored: Months are counted from the schedule's start.
        undone: Of a payment whose share may be final already and that is rejected now: its amount in hundredths, and the day
            that it counts for.
        attempted: When the payment was ordered, seconds: noted in the consent's usage; 0 notes nothing.
    """

    consent_id: str
    payment: str
    status: str
    now_ms: int
    day: date
    line_id: str
    event: Event
    anchored: bool = False
    undone: tuple[int, date] | None = None
    attempted: int = 0


Change = Put | Drop | Reserve | Settle


class Conflict(msgspec.Struct, frozen=True, tag="conflict"):
    """Say that nothing was written because ``changes[at]`` did not find the version it expected."""

    at: int


class Versioned(msgspec.Struct, frozen=True):
    """Hold a record with the version it has (1 for the first write, then one more each time)."""

    record: Record
    version: int


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for records of one kind.

    Attributes:
        kind: The record's tag.
        where: Pairs of index name and value; all must hold.
        at_least: Pairs of index name and integer: the index value must be greater than or equal.
        at_most: Pairs of index name and integer: less than or equal.
        order: Index to order by (ascending), then key; empty: by key. It must be one that holds at most one value per
            record; records without a value in it are left out.
        descending: The other way round, keys too.
        offset: How many to leave out.
        limit: At most this many, 1 to 1000.
        count: Also count all matches.
    """

    kind: str
    where: tuple[tuple[str, str | int], ...] = ()
    at_least: tuple[tuple[str, int], ...] = ()
    at_most: tuple[tuple[str, int], ...] = ()
    order: str = ""
    descending: bool = False
    offset: int = 0
    limit: int = 100
    count: bool = False


class Page(msgspec.Struct, frozen=True):
    """Hold the answer to a Query; ``total`` is -1 when not counted."""

    items: tuple[Versioned, ...]
    total: int = -1


class Once(msgspec.Struct, frozen=True, tag="once"):
    """Claim something single-use (a ``jti`` in its space) until a moment in seconds."""

    space: str
    value: str
    until: Stored


class Take(msgspec.Struct, frozen=True, tag="take"):
    """Claim one token of a bucket that refills at ``rate`` per second up to ``burst``. Not durable."""

    bucket: str
    rate: float
    burst: int


class Takes(msgspec.Struct, frozen=True, tag="takes"):
    """Claim one token of each of these buckets, or of none where one of them is empty."""

    takes: tuple[Take, ...]


Claim = Once | Take | Takes


class Granted(msgspec.Struct, frozen=True):
    """Answer one claim: granted or not, when to come back (seconds), and of ``Takes`` which bucket is empty."""

    granted: bool
    retry_after: int = 0
    at: int = 0


class Invalidation(msgspec.Struct, frozen=True):
    """Say that a record changed: forget what you cached of it. An empty key: of every record of that kind."""

    kind: str
    key: str


class TreeHead(msgspec.Struct, frozen=True):
    """Hold the size and the RFC 6962 root hash of the log of events, as last committed."""

    size: int
    root: bytes


class Keeper(Protocol):
    """Keep the tenant's state. See the module's text for the theory and the faults."""

    async def claim(self, batch: Sequence[Claim]) -> tuple[Granted, ...] | Fault:
        """Answer each claim of a batch, in order; durable on return.

        Cancellation: the claims may or may not have been made.
        """
        ...

    async def commit(
        self, changes: Sequence[Change], events: Sequence[Event]
    ) -> tuple[int, ...] | Conflict | Fault:
        """Write all changes and events, or none; return the events' indices when durable.

        Cancellation: the write may or may not have happened; it is never half done.
        """
        ...

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None. Never returns what is older than the last acknowledged commit."""
        ...

    async def search(self, query: Query) -> Page:
        """Return the records that match."""
        ...

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` (at most 1000) events from index ``start`` on."""
        ...

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction, oldest first (at most 1000)."""
        ...

    async def head(self) -> TreeHead:
        """Return the tree head as last committed."""
        ...

    def watch(self, forget: Callable[[Invalidation], None]) -> Callable[[], None]:
        """Call ``forget`` for each changed record before the change is acknowledged; return what ends it."""
        ...
