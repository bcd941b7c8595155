"""Records that are read again and again as they are: remembered with their octets, so that they are decoded once.

Theory. A payment reads its consent and what was taken of it in each of its commits, and writes both; what is written is
remembered as well, so that nothing is decoded that was in hand. A record is given out only where its octets are those that
the database just gave, so nothing has to be forgotten: not after a rollback, nor after another's write.

Invariants. Records from here are shared: nobody changes what is inside them. Their octets are at most ``octets`` together.
"""

from threading import Lock
from typing import Final, final

from hub.model.consent import Consent
from hub.model.limits import Allowance
from hub.model.records import Record
from hub.state.entry import decode, kind_of

_OFTEN: Final = frozenset({kind_of(Consent), kind_of(Allowance)})


@final
class Known:
    """Remember the records of a few kinds by their octets."""

    def __init__(self, octets: int) -> None:
        """Start empty; when ``octets`` would be exceeded, everything is forgotten."""
        self._most = octets
        self._octets = 0
        self._kept: dict[tuple[str, str], tuple[bytes, Record]] = {}
        self._lock = Lock()

    def read(self, kind: str, key: str, body: bytes) -> Record:
        """Return a record by its octets."""
        kept = self._kept.get((kind, key))
        if kept is not None and kept[0] == body:
            return kept[1]
        record = decode(kind, body)
        self.keep(kind, key, body, record)
        return record

    def keep(self, kind: str, key: str, body: bytes, record: Record) -> None:
        """Remember a record that ``decode`` would make of these octets, if it is of a kind that is read often."""
        if kind not in _OFTEN or len(body) > self._most:
            return
        with self._lock:  # what is large is prepared on a thread
            before = self._kept.pop((kind, key), None)
            self._octets += len(body) - (len(before[0]) if before is not None else 0)
            if self._octets > self._most:
                self._kept.clear()
                self._octets = len(body)
            self._kept[kind, key] = body, record
