"""A commit written down: the entries of its records, its events, and what is decided only in the transaction."""

import msgspec

from hub.model.records import Record
from hub.state.keeper import Reserve, Settle, Stored

IndexRow = tuple[str, str | Stored]
"""An index's name and one value in it."""

Leaf = tuple[str, bytes]
"""The interaction of an event, and its leaf."""


class Entry(msgspec.Struct, frozen=True, tag="entry"):
    """Hold one change ready to be stored; ``body`` is None where the record is to be forgotten."""

    kind: str
    key: str
    expect: int | None
    body: bytes | None = None
    rows: tuple[IndexRow, ...] = ()
    purge_at: Stored | None = None


Step = Entry | Reserve | Settle


class Plan(msgspec.Struct, frozen=True):
    """Hold what to write: entries, each with the version its record has before, and further events.

    A record that was decided here is beside its entry, so that who reads it next need not decode it.
    """

    entries: tuple[tuple[Entry, int, Record | None], ...]
    leaves: tuple[Leaf, ...] = ()
