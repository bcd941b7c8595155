"""What a commit comes to: may its changes be made, and which records and events are they then.

Run by every keeper inside its transaction, so that what is decided here (a payment's share) is decided on what is there,
and nobody has to come back because somebody else was faster.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, final

import msgspec

from hub.model.consent import Consent, Status
from hub.model.consent_change import as_of
from hub.model.consent_history import history_line
from hub.model.fault import Fault
from hub.model.limits import Allowance
from hub.model.payment_effect import settled, take_share, undone, with_attempt, with_consumption
from hub.model.records import Record
from hub.state.entry import decode, entry_of, kind_of, leaf_of, put_entry
from hub.state.keeper import (
    Change,
    Conflict,
    Drop,
    Invalidation,
    Put,
    Reserve,
    Settle,
    Versioned,
)
from hub.state.steps import Entry, Leaf, Plan, Step

R = TypeVar("R", bound=Record)


def steps_of(changes: Sequence[Change]) -> tuple[Step, ...]:
    """Write down what can be written down before the transaction.

    Raises:
        KeyError: No such kind of record.
    """
    if not changes:  # most commits hold an event alone
        return ()
    return tuple(
        entry_of(change) if isinstance(change, Put | Drop) else change for change in changes
    )


def touched(steps: Sequence[Step]) -> list[Invalidation]:
    """Return the records that a commit may have changed."""
    found = []
    for step in steps:
        if isinstance(step, Entry):
            found.append(Invalidation(step.kind, step.key))
        else:
            found.append(Invalidation(kind_of(Allowance), step.consent_id))
        if isinstance(step, Settle):
            found.append(Invalidation(kind_of(Consent), step.consent_id))
    return found


def plan(
    steps: Sequence[Step],
    version_of: Callable[[str, str], int],
    record_of: Callable[[str, str], Versioned | None],
) -> Plan | Conflict | Fault:
    """Decide a commit; a later change sees what an earlier one does.

    Args:
        steps: Of ``steps_of``.
        version_of: Give the version that a record has now, 0 if it does not exist.
        record_of: Give a record as it is now.

    Faults: what a ``Reserve`` was refused with.
    """
    sight = _Sight(version_of, record_of)
    for at, step in enumerate(steps):
        if isinstance(step, Entry):
            if not sight.write(step):
                return Conflict(at)
            continue
        if isinstance(step, Settle):
            _settle(sight, step)
            continue
        refused = _reserve(sight, step)
        if refused is not None:
            return Conflict(at) if isinstance(refused, Conflict) else refused
    return Plan(tuple(sight.entries), tuple(sight.leaves))


@final
class _Sight:
    """See the store as it will be after what is planned so far."""

    def __init__(
        self,
        version_of: Callable[[str, str], int],
        record_of: Callable[[str, str], Versioned | None],
    ) -> None:
        self._version_of = version_of
        self._record_of = record_of
        self._seen: dict[tuple[str, str], tuple[int, Entry]] = {}
        self._read: dict[tuple[str, str], Versioned] = {}
        self.entries: list[tuple[Entry, int, Record | None]] = []
        self.leaves: list[Leaf] = []

    def write(self, entry: Entry, record: Record | None = None) -> bool:
        """Plan an entry; False where it does not find the version it expects."""
        name = (entry.kind, entry.key)
        version = self._version(name)
        if entry.expect is not None and entry.expect != version:
            return False
        self.entries.append((entry, version, record))
        self._seen[name] = (0 if entry.body is None else version + 1, entry)
        return True

    def _version(self, name: tuple[str, str]) -> int:
        if name in self._seen:
            return self._seen[name][0]
        read = self._read.get(name)
        return read.version if read is not None else self._version_of(*name)

    def read(self, kind: type[R], key: str) -> R | None:
        """Return a record, or None."""
        tag = kind_of(kind)
        if (tag, key) in self._seen:
            body = self._seen[tag, key][1].body
            record: Record | None = None if body is None else decode(tag, body)
        else:
            found = self._record_of(tag, key)
            record = None
            if found is not None:
                self._read[tag, key] = found
                record = found.record
        return record if isinstance(record, kind) else None

    def put(self, record: Record) -> None:
        """Plan a record whole."""
        self.write(put_entry(Put(record)), record)


def _reserve(sight: _Sight, ask: Reserve) -> Conflict | Fault | None:
    consent = sight.read(Consent, ask.consent_id)
    if consent is None or as_of(consent, ask.now_ms).status is not Status.AUTHORIZED:
        return Conflict(0)
    held = sight.read(Allowance, ask.consent_id) or Allowance(consent_id=ask.consent_id)
    taken = take_share(
        consent,
        held,
        ask.payment,
        ask.amount,
        ask.currency,
        ask.day,
        anchored=ask.anchored,
        exact_days=ask.exact_days,
    )
    if isinstance(taken, Fault):
        return taken
    sight.put(taken)
    return None


def _settle(sight: _Sight, ask: Settle) -> None:
    held = sight.read(Allowance, ask.consent_id)
    consent = sight.read(Consent, ask.consent_id)
    if held is None or consent is None:
        return
    taken = settled(held, ask.payment, ask.status)
    if taken is held and ask.undone is not None:
        taken = undone(consent, held, *ask.undone, anchored=ask.anchored)
    if taken is not held:
        sight.put(taken)
    changed = with_consumption(consent, taken, ask.now_ms, ask.day, anchored=ask.anchored)
    changed = with_attempt(changed, ask.attempted)
    if changed is consent:
        return
    sight.put(changed)
    if changed.status is not consent.status:
        _tell(sight, ask, consent, changed)


def _tell(sight: _Sight, ask: Settle, before: Consent, after: Consent) -> None:
    """Plan the history line and the event of a consent that became another."""
    sight.put(
        history_line(
            before,
            line_id=ask.line_id,
            time_ms=ask.now_ms,
            interaction_id=ask.event.interaction_id,
            patch={"consentBody.Data.Status": str(after.status)},
        )
    )
    change = f"{before.status}>{after.status}"
    sight.leaves.append(leaf_of(msgspec.structs.replace(ask.event, change=change)))
