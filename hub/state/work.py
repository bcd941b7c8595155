"""What the writer is asked for, what it answers, and what a commit written down elsewhere must be."""

from collections.abc import Sequence
from typing import Final

import msgspec

from hub.model.event import Event
from hub.model.fault import Fault
from hub.state.entry import KINDS, LEAF_OCTETS, decode
from hub.state.keeper import Conflict, Granted, Once
from hub.state.steps import Entry, Leaf, Step

_EVENT: Final = msgspec.json.Decoder(Event)


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """Ask for all of these changes and events, or none."""

    steps: Sequence[Step]
    leaves: Sequence[Leaf]


class Claims(msgspec.Struct, frozen=True):
    """Ask for single-use values at a moment in seconds."""

    onces: Sequence[Once]
    now: int


class Purge(msgspec.Struct, frozen=True):
    """Ask to forget up to 1000 records that may be forgotten at a moment in seconds."""

    now: int


class Failed(msgspec.Struct, frozen=True):
    """Say that deciding a commit raised, before anything of it was written: whoever asked for it raises, nobody else."""

    error: Exception


Work = Commit | Claims | Purge
Done = (
    tuple[int, ...] | tuple[Granted, ...] | tuple[tuple[str, str], ...] | Conflict | Fault | Failed
)


def check_work(work: Commit) -> None:
    """Refuse a commit that another process wrote down wrongly; what is in the log stays there for ever.

    Raises:
        ValueError: There are changes and no events, a record or an event is none or under another's name, or an event is
            too long for the log.
        KeyError: No such kind of record.
    """
    if work.steps and not work.leaves:
        raise ValueError("changes without an event: no audit, no effect")
    for name, leaf in work.leaves:
        if len(leaf) > LEAF_OCTETS:
            raise ValueError(f"an event of {len(leaf)} octets is too long for the log")
        if _EVENT.decode(leaf).interaction_id != name:
            raise ValueError("an event under the interaction of another")
    for step in work.steps:
        if isinstance(step, Entry):
            _check_entry(step)


def _check_entry(entry: Entry) -> None:
    if entry.body is None:
        KINDS[entry.kind]
    elif decode(entry.kind, entry.body).key != entry.key:
        raise ValueError(f"a {entry.kind} under the key of another")
