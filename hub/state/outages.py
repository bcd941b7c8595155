"""Planned outages: what an operator announces, kept as one record, for the portal, the reports and the ops face."""

from typing import Final

import msgspec

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.records import Setting
from hub.model.terms import Face
from hub.state.keeper import Conflict, Keeper, Put

NAME: Final = "outages"
MOST: Final = 100
"""So many are kept; the ones that ended longest ago are forgotten first."""
_LONGEST_S: Final = 30 * 86_400
_FURTHEST_S: Final = 366 * 86_400
_REASON: Final = 200
_ATTEMPTS: Final = 4


class Outage(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one planned outage: from and until in seconds, why, and whether it was called off."""

    id: str
    begins: int
    ends: int
    reason: str = ""
    cancelled: bool = False

    def now(self, now: int) -> bool:
        """Tell whether it is under way."""
        return not self.cancelled and self.begins <= now < self.ends


async def outages(keeper: Keeper) -> tuple[Outage, ...]:
    """Return what is kept, the earliest beginning first."""
    return (await _read(keeper))[0]


async def plan_outage(
    keeper: Keeper,
    clock: Clock,
    dice: Dice,
    *,
    begins: int,
    ends: int,
    reason: str,
    interaction_id: str,
) -> Outage | Fault:
    """Announce an outage.

    Args:
        keeper: Where it is kept.
        clock: Wall time.
        dice: For its id.
        begins: Seconds since 1970.
        ends: Later than ``begins``, at most thirty days after it, and within the next 366 days.
        reason: At most 200 characters, shown to bank staff.
        interaction_id: Of the operator's command.

    Faults: 400 ``outage.period``, ``outage.reason``; 503 of the keeper.

    Cancellation: it may or may not have been kept.
    """
    now = clock.now()
    if not begins < ends <= begins + _LONGEST_S or not now < ends <= now + _FURTHEST_S:
        public = (
            "expected an end after the beginning, at most thirty days later, within the next year"
        )
        return caller_fault(400, "GenericError", public, check="outage.period")
    if len(reason) > _REASON or not reason.isprintable():
        public = f"expected a reason of at most {_REASON} printable characters"
        return caller_fault(400, "GenericError", public, check="outage.reason")
    planned = Outage(id=dice.uuid(), begins=begins, ends=ends, reason=reason)
    return await _keep(keeper, clock, planned, "planned", interaction_id)


async def cancel_outage(
    keeper: Keeper, clock: Clock, outage_id: str, interaction_id: str
) -> Outage | Fault:
    """Call an outage off.

    Faults: 404 ``outage.unknown``; 503 of the keeper.

    Cancellation: it may or may not have been called off.
    """
    found = next((o for o in await outages(keeper) if o.id == outage_id), None)
    if found is None:
        return caller_fault(404, "GenericError", "No such outage.", check="outage.unknown")
    called_off = msgspec.structs.replace(found, cancelled=True)
    return await _keep(keeper, clock, called_off, "cancelled", interaction_id)


async def _read(keeper: Keeper) -> tuple[tuple[Outage, ...], int]:
    found = await keeper.lookup(Setting, NAME)
    if found is None:
        return (), 0
    return msgspec.json.decode(found[0].value, type=tuple[Outage, ...]), found[1]


async def _keep(
    keeper: Keeper, clock: Clock, outage: Outage, what: str, interaction_id: str
) -> Outage | Fault:
    event = Event(
        kind=Kind.ADMIN,
        time_ms=clock.now_ms(),
        interaction_id=interaction_id,
        face=Face.OPS,
        route="admin.outage",
        subject=outage.id,
        change=f"{what}:{outage.begins}..{outage.ends}",
    )
    for _ in range(_ATTEMPTS):
        held, version = await _read(keeper)
        others = sorted((o for o in held if o.id != outage.id), key=lambda o: o.ends)
        kept = sorted((*others[1 - MOST :], outage), key=lambda o: o.begins)
        setting = Setting(name=NAME, value=msgspec.json.encode(kept))
        done = await keeper.commit([Put(setting, version)], [event])
        if isinstance(done, Fault):
            return done
        if not isinstance(done, Conflict):
            return outage
    return hub_fault(
        503, "GenericRecoverableError", "Too many changes at once; try again.", check="keeper.busy"
    )
