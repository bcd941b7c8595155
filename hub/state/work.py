"""What the writer is asked for, and what it answers."""

from collections.abc import Sequence

import msgspec

from hub.model.fault import Fault
from hub.state.keeper import Conflict, Granted, Once
from hub.state.plan import Leaf, Step


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


Work = Commit | Claims | Purge
Done = tuple[int, ...] | tuple[Granted, ...] | tuple[tuple[str, str], ...] | Conflict | Fault
