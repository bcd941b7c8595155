"""How a record is written down: its tag, its bytes, what it is found by.

A record is stored as msgpack with its tag; the tag is the ``kind`` of the store. Both keepers (SQLite and memory)
and the socket use this module, so that what goes in comes out the same everywhere: a tuple inside free-form JSON
comes back as a list, in the oracle too.
"""

from collections.abc import Sequence
from typing import Final, TypeVar, get_args

import msgspec

from hub.model.event import Event, leaf_bytes
from hub.model.fault import Fault, Source
from hub.model.records import Record
from hub.state.keeper import Change, Drop, Put, Query
from hub.state.steps import Entry, IndexRow

R = TypeVar("R", bound=Record)

LEAF_OCTETS: Final = 65_535
"""The longest event: the log's tiles write its length in two octets."""

MOST: Final = 1000
"""The most items that one question may ask for."""


def _tag(record: type) -> str:
    return str(record.__struct_config__.tag)  # type: ignore[attr-defined]


KINDS: Final[dict[str, type[Record]]] = {_tag(record): record for record in get_args(Record)}
_TAGS: Final[dict[type, str]] = {record: tag for tag, record in KINDS.items()}
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODERS: Final = {tag: msgspec.msgpack.Decoder(record) for tag, record in KINDS.items()}


def kind_of(record: type[R]) -> str:
    """Return the tag of a type of record."""
    return _TAGS[record]


def decode(kind: str, body: bytes) -> Record:
    """Return the record that ``entry_of`` wrote down."""
    return _DECODERS[kind].decode(body)


def entry_of(change: Put | Drop) -> Entry:
    """Write a change down.

    Raises:
        KeyError: No such kind of record.
    """
    if isinstance(change, Drop):
        return Entry(_TAGS[KINDS[change.kind]], change.key, change.expect)
    return put_entry(change)


def put_entry(change: Put) -> Entry:
    """Write a record down."""
    record = change.record
    rows: list[IndexRow] = []
    for name, values in record.indexes().items():
        if len(values) == 1:  # nearly always: one after the other costs a third
            rows.append((name, values[0]))
        elif values:
            rows += [(name, value) for value in dict.fromkeys(values)]
    return Entry(
        kind=_TAGS[type(record)],
        key=record.key,
        expect=change.expect,
        body=_ENCODER.encode(record),
        rows=tuple(rows),
        purge_at=record.purge_at(),
    )


def leaf_of(event: Event) -> tuple[str, bytes]:
    """Write an event down: its interaction id and its leaf.

    Raises:
        ValueError: It is too long for the log.
    """
    leaf = leaf_bytes(event)
    if len(leaf) > LEAF_OCTETS:
        raise ValueError(f"an event of {len(leaf)} octets is too long for the log")
    return event.interaction_id, leaf


def check_commit(changes: Sequence[Change], events: Sequence[Event]) -> None:
    """Refuse changes that nobody accounts for.

    Raises:
        ValueError: There are changes and no events.
    """
    if changes and not events:
        raise ValueError("changes without an event: no audit, no effect")


def check_query(query: Query) -> None:
    """Refuse a question that cannot be asked.

    Raises:
        ValueError: An unknown kind, a limit outside 1 to 1000, or a negative offset.
    """
    if query.kind not in KINDS:
        raise ValueError(f"no such kind of record: {query.kind!r}")
    if not 1 <= query.limit <= MOST or query.offset < 0:
        raise ValueError(f"limit {query.limit} or offset {query.offset} out of range")


def unavailable(check: str, private: str) -> Fault:
    """Make the Fault of a store that cannot take a write now. ``check`` is ``keeper.disk``, ``keeper.queue`` ..."""
    return Fault(
        source=Source.HUB,
        status=503,
        code="temporarily_unavailable",
        public="The service cannot store the request at the moment; try again later.",
        private=private,
        check=check,
        retry_after=1,
    )
