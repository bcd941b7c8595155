"""A consent is revoked: what goes with it (its grants and tokens, in the same commit), and an operator's revocation."""

from typing import Final

import msgspec

from hub.model.clock import Clock, Dice
from hub.model.consent import Consent, Party
from hub.model.consent_history import history_line
from hub.model.consent_patch import revoke
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.records import AccessToken, Grant, RefreshToken
from hub.model.terms import Face
from hub.state.keeper import Change, Conflict, Keeper, Put, Query

_MOST: Final = 1000
_ATTEMPTS: Final = 4


async def revocation_of(keeper: Keeper, consent_id: str, now: int) -> tuple[Change, ...]:
    """Return the changes that kill every grant and token of a consent.

    Args:
        keeper: Where they are.
        consent_id: Of the revoked consent.
        now: Seconds since 1970.

    A token that is issued meanwhile is useless all the same: its consent is no longer Authorized.

    Cancellation: harmless.
    """
    changes: list[Change] = []
    for kind in ("grant", "refresh", "access"):
        page = await keeper.search(Query(kind=kind, where=(("consent", consent_id),), limit=_MOST))
        for item in page.items:
            record = item.record
            if isinstance(record, Grant | RefreshToken | AccessToken) and not record.revoked:
                dead = msgspec.structs.replace(record, revoked=now)
                changes.append(Put(dead, item.version))
    return tuple(changes)


async def revoke_for_operator(
    keeper: Keeper, clock: Clock, dice: Dice, consent_id: str, interaction_id: str
) -> Consent | Fault:
    """Revoke a consent in the bank's name, as its operator asks; its tokens die in the same commit.

    Args:
        keeper: Where it is.
        clock: For history and event.
        dice: For the history line's id.
        consent_id: Which.
        interaction_id: Of the operator's command.

    Faults: 404 ``consent.unknown``; 400 from a terminal state other than Revoked; 503 of the keeper.

    Cancellation: it may or may not have been revoked; never half.
    """
    for _ in range(_ATTEMPTS):
        found = await keeper.lookup(Consent, consent_id)
        if found is None:
            return caller_fault(404, "GenericError", "No such consent.", check="consent.unknown")
        consent, version = found
        now_ms = clock.now_ms()
        changed = revoke(consent, "LFI", now_ms, Party.BANK)
        if isinstance(changed, Fault) or changed is consent:
            return changed
        line = history_line(
            consent,
            line_id=dice.uuid(),
            time_ms=now_ms,
            interaction_id=interaction_id,
            patch={
                "consentBody.Data.Status": str(changed.status),
                "consentBody.Data.RevokedBy": "LFI",
            },
        )
        event = Event(
            kind=Kind.CONSENT,
            time_ms=now_ms,
            interaction_id=interaction_id,
            face=Face.OPS,
            client_id=consent.client_id,
            organisation_id=consent.organisation_id,
            consent_id=consent.id,
            route="admin.revoke",
            change=f"{consent.status}>{changed.status}",
        )
        killed = await revocation_of(keeper, consent.id, now_ms // 1000)
        done = await keeper.commit([Put(changed, version), Put(line, 0), *killed], [event])
        if isinstance(done, Fault):
            return done
        if not isinstance(done, Conflict):
            return changed
    return hub_fault(
        503, "GenericRecoverableError", "Too many changes at once; try again.", check="keeper.busy"
    )
