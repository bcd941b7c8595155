"""What ran out is written down: consents whose time is over get their final state, with an event, to the second.

The sweep decides nothing: ``status_at`` has held since the second itself. It makes the state visible in lists, events
and history. It looks every second, because the clock of a sandbox may be moved.
"""

from typing import Final

import trio

from hub.model.clock import Clock, Dice
from hub.model.consent import Consent
from hub.model.consent_change import as_of
from hub.model.consent_history import history_line
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.observe import Observer
from hub.state.keeper import Change, Conflict, Keeper, Put, Query

_BATCH: Final = 100
_EVERY_S: Final = 1.0


async def settle_due(keeper: Keeper, clock: Clock, dice: Dice) -> Fault | None:
    """Write the final state of every consent whose time is over.

    Faults: 503 of the keeper.

    Cancellation: some may be written, each whole.
    """
    while True:
        now_ms = clock.now_ms()
        page = await keeper.search(
            Query(
                kind="consent",
                at_most=(("due", now_ms // 1000),),
                order="due",
                limit=_BATCH,
            )
        )
        changes: list[Change] = []
        events: list[Event] = []
        for item in page.items:
            if isinstance(item.record, Consent):
                _settle(item.record, item.version, now_ms, dice, changes, events)
        if not changes:
            return None
        committed = await keeper.commit(tuple(changes), tuple(events))
        if isinstance(committed, Fault):
            return committed
        if isinstance(committed, Conflict):
            await trio.lowlevel.checkpoint()  # somebody changed one of them: look again


def _settle(
    consent: Consent,
    version: int,
    now_ms: int,
    dice: Dice,
    changes: list[Change],
    events: list[Event],
) -> None:
    changed = as_of(consent, now_ms)
    if changed is consent:
        return
    interaction_id = dice.uuid()
    line = history_line(
        consent,
        line_id=dice.uuid(),
        time_ms=now_ms,
        interaction_id=interaction_id,
        patch={"consentBody.Data.Status": str(changed.status)},
    )
    changes += [Put(changed, version), Put(line, 0)]
    events.append(
        Event(
            kind=Kind.CONSENT,
            time_ms=now_ms,
            interaction_id=interaction_id,
            client_id=consent.client_id,
            organisation_id=consent.organisation_id,
            consent_id=consent.id,
            route="consents.sweep",
            change=f"{consent.status}>{changed.status}",
        )
    )


async def sweep(
    keeper: Keeper,
    clock: Clock,
    dice: Dice,
    observer: Observer,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Settle what is due, every second, until cancelled; started once per tenant.

    Cancellation: the only way to end it.
    """
    task_status.started()
    while True:
        fault = await settle_due(keeper, clock, dice)
        if fault is not None:
            observer.note("consents.sweep_failed", check=fault.check)
        await trio.sleep(_EVERY_S)
