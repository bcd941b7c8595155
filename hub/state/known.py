"""Records that are read again and again, as they stand: of a few kinds, and only so many octets.

Theory. A payment reads its consent and what was taken of it in each of its commits, writes both, and is followed by others
under the same consent. The store is the only writer, so what it wrote or read last is what stands there. What a group writes
is seen by that group at once (``current``) and by everybody else when it is durable (``committed``).

Invariants. ``committed`` never gives what is not durable, nor what is older than the last commit that has ended. What was read
while a commit ended is not remembered: it may be from before. Records from here are shared: nobody changes what is inside
them.
"""

from threading import Lock
from typing import Final, final

import msgspec

from hub.model.consent import Consent
from hub.model.limits import Allowance
from hub.state.entry import kind_of
from hub.state.keeper import Versioned

_OFTEN: Final = frozenset({kind_of(Consent), kind_of(Allowance)})


class Row(msgspec.Struct, frozen=True):
    """Hold a record as it stands: with its version, its index rows as they are stored, and the size of its body."""

    found: Versioned
    indexed: bytes
    octets: int


@final
class Known:
    """Remember records of the kinds that are read often; nothing of others."""

    def __init__(self, octets: int) -> None:
        """Start empty; when more than ``octets`` would be remembered, everything is forgotten."""
        self.commits = 0
        """How many commits have ended: told to ``keep`` by whoever reads the database itself."""
        self._most = octets
        self._octets = 0
        self._kept: dict[tuple[str, str], Row] = {}
        self._written: dict[tuple[str, str], Row | None] = {}
        """What the group has written; None where only the database knows it."""
        self._lock = Lock()  # readers, and the thread that commits

    def committed(self, kind: str, key: str) -> Row | None:
        """Return a record as it was last committed, if it is remembered."""
        return self._kept.get((kind, key))

    def current(self, kind: str, key: str) -> Row | None:
        """Return a record as it stands in the group that is being written, if it is remembered."""
        name = (kind, key)
        return self._written[name] if name in self._written else self._kept.get(name)

    def keep(self, kind: str, key: str, row: Row, commits: int) -> None:
        """Remember what was read when so many ``commits`` had ended."""
        if kind not in _OFTEN:
            return
        with self._lock:
            if commits == self.commits and (kind, key) not in self._written:
                self._put((kind, key), row)

    def write(self, kind: str, key: str, row: Row | None) -> None:
        """Note what the group writes; None: the record is not at hand, or is to be forgotten."""
        if kind in _OFTEN:
            with self._lock:
                self._written[kind, key] = row

    def end(self) -> None:
        """Take over what the group wrote: it is durable."""
        with self._lock:
            self.commits += 1
            for name, row in self._written.items():
                self._put(name, row)
            self._written = {}

    def undo(self) -> None:
        """Forget what the group wrote: it never was."""
        with self._lock:
            self._written = {}

    def _put(self, name: tuple[str, str], row: Row | None) -> None:
        before = self._kept.pop(name, None)
        if before is not None:
            self._octets -= before.octets
        if row is None or row.octets > self._most:
            return
        if self._octets + row.octets > self._most:
            self._kept.clear()
            self._octets = 0
        self._kept[name] = row
        self._octets += row.octets
