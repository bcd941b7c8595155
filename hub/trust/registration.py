"""Registration and the three levels of activation: what an operator or a TPP may do to a registration, as one commit each.

Theory. A registration has three levels in this order: TPP (the organisation), software statement, client. A level
becomes active only after the one above it; blocking is allowed at each at any time. The TPP level belongs to the
organisation: changing it changes every registration of that organisation in the same commit. Each act is an event.

Sources: trust-framework.md 7; hub-behaviour.md section 3.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from hub.model.clock import Clock, Dice
from hub.model.event import Event, Kind
from hub.model.fault import Fault, caller_fault, hub_fault
from hub.model.records import Registration
from hub.model.terms import Face
from hub.state.keeper import Change, Conflict, Keeper, Put, Query
from hub.trust.mirror import Client

_ATTEMPTS: Final = 4
_MOST: Final = 1000


class Level(StrEnum):
    """Enumerate the levels, highest first."""

    TPP = "tpp"
    STATEMENT = "statement"
    CLIENT = "client"


class Act(StrEnum):
    """Enumerate what may be done to a level."""

    ACTIVATE = "activate"
    BLOCK = "block"
    UNBLOCK = "unblock"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Say who acts: the face it came in by, the route there, and the interaction it is part of."""

    face: Face
    route: str
    interaction_id: str = ""


_FIELDS: Final = {
    Level.TPP: "tpp_state",
    Level.STATEMENT: "statement_state",
    Level.CLIENT: "client_state",
}
_ABOVE: Final = {Level.STATEMENT: Level.TPP, Level.CLIENT: Level.STATEMENT}


def stepped(registration: Registration, level: Level, act: Act) -> Registration | Fault:
    """Return a registration after one act at one level, or say why it is not allowed. Pure.

    Faults: 409 ``registration.order`` when the level above is not active; ``registration.state`` when the act does not
    apply to the state (activating what is blocked: it must be unblocked).
    """
    state = getattr(registration, _FIELDS[level])
    above = _ABOVE.get(level)
    if act is Act.BLOCK:
        return registration if state == "blocked" else _with(registration, level, "blocked", state)
    if act is Act.ACTIVATE and state == "blocked":
        return _refused("registration.state", f"The {level} is blocked: unblock it instead.")
    if act is Act.UNBLOCK and state != "blocked":
        return _refused("registration.state", f"The {level} is {state}, not blocked.")
    if act is Act.UNBLOCK:
        return _with(registration, level, registration.blocked_from.get(level, "inactive"))
    if above and getattr(registration, _FIELDS[above]) != "active":
        return _refused("registration.order", f"Activate the {above} before the {level}.")
    return _with(registration, level, "active")


def _with(registration: Registration, level: Level, state: str, before: str = "") -> Registration:
    """Return a registration with a level in a state, remembering what a blocked one was before."""
    remembered = {name: was for name, was in registration.blocked_from.items() if name != level}
    if before:
        remembered[level.value] = before
    return msgspec.structs.replace(registration, blocked_from=remembered, **{_FIELDS[level]: state})


def _refused(check: str, public: str) -> Fault:
    return caller_fault(409, "GenericError", public, check=check)


def all_active(registration: Registration) -> Registration:
    """Return a registration with every level that is not blocked active."""
    for level in Level:
        done = stepped(registration, level, Act.ACTIVATE)
        registration = registration if isinstance(done, Fault) else done
    return registration


async def act_on(
    keeper: Keeper, clock: Clock, client_id: str, level: Level, act: Act, actor: Actor
) -> Registration | Fault:
    """Activate, block or unblock one level of a registration.

    Faults: as ``stepped``; 404 ``registration.unknown``; 503 as the keeper says.

    Cancellation: the act may or may not have been done; it is never half done.
    """
    return await _change(keeper, clock, client_id, actor, lambda held: stepped(held, level, act))


async def activate_all(
    keeper: Keeper, clock: Clock, client_id: str, actor: Actor
) -> Registration | Fault:
    """Activate TPP, software statement and client, in this order, as one act.

    Faults: 409 ``registration.state`` when a level is blocked; 404 ``registration.unknown``; 503 as the keeper says.

    Cancellation: the act may or may not have been done; it is never half done.
    """

    def every(held: Registration) -> Registration | Fault:
        for level in Level:
            done = stepped(held, level, Act.ACTIVATE)
            if isinstance(done, Fault):
                return done
            held = done
        return held

    return await _change(keeper, clock, client_id, actor, every)


async def _change(
    keeper: Keeper,
    clock: Clock,
    client_id: str,
    actor: Actor,
    decide: Callable[[Registration], Registration | Fault],
) -> Registration | Fault:
    for _ in range(_ATTEMPTS):
        found = await keeper.lookup(Registration, client_id)
        if found is None:
            return caller_fault(
                404, "GenericError", "No such registration.", check="registration.unknown"
            )
        before, version = found
        after = decide(before)
        if isinstance(after, Fault):
            return after
        changes: list[Change] = [Put(after, version)]
        changes += await _siblings(keeper, after)
        done = await keeper.commit(changes, [event_of(clock, before, after, actor)])
        if isinstance(done, Fault):
            return done
        if not isinstance(done, Conflict):
            return after
    return _busy()


async def _siblings(keeper: Keeper, changed: Registration) -> list[Change]:
    """Return the changes that carry a new TPP state to the organisation's other registrations."""
    query = Query(
        kind="registration", where=(("organisation", changed.organisation_id),), limit=_MOST
    )
    return [
        Put(_like(held, changed), item.version)
        for item in (await keeper.search(query)).items
        if isinstance(held := item.record, Registration)
        and held.client_id != changed.client_id
        and held.tpp_state != changed.tpp_state
    ]


def _like(held: Registration, changed: Registration) -> Registration:
    """Return a registration with the TPP level of another one of the same organisation."""
    before = changed.blocked_from.get(Level.TPP, "")
    return _with(held, Level.TPP, changed.tpp_state, before)


async def register(
    keeper: Keeper,
    clock: Clock,
    dice: Dice,
    client: Client,
    *,
    activate: bool,
    events: Sequence[Event],
) -> Registration | Fault:
    """Write or re-synchronise the registration of a client that the framework vouches for.

    A new one begins inactive (with its organisation's state at the TPP level), or active where ``activate`` says so; a
    known one keeps its states.

    Cancellation: it may or may not have been written; it is never half done.
    """
    for _ in range(_ATTEMPTS):
        found = await keeper.lookup(Registration, client.client_id)
        before, version = found or (await _fresh(keeper, clock, dice, client), 0)
        after = msgspec.structs.replace(before, framework=described(client))
        after = all_active(after) if activate else after
        changes: list[Change] = [Put(after, version)]
        changes += await _siblings(keeper, after)
        done = await keeper.commit(changes, events)
        if isinstance(done, Fault):
            return done
        if not isinstance(done, Conflict):
            return after
    return _busy()


async def _fresh(keeper: Keeper, clock: Clock, dice: Dice, client: Client) -> Registration:
    query = Query(kind="registration", where=(("organisation", client.organisation_id),), limit=1)
    sibling = next(iter((await keeper.search(query)).items), None)
    fresh = Registration(
        client_id=client.client_id,
        organisation_id=client.organisation_id,
        software_statement_id=client.software_statement_id,
        tpp_id=dice.uuid(),
        registered=clock.now(),
    )
    known = sibling.record if sibling is not None else None
    if not isinstance(known, Registration):
        return fresh
    return msgspec.structs.replace(_like(fresh, known), tpp_id=known.tpp_id)


def described(client: Client) -> dict[str, object]:
    """Return what the portal shows of a client."""
    return {
        "name": client.name,
        "status": client.status,
        "roles": list(client.roles),
        "redirect_uris": list(client.redirect_uris),
        "webhook_uris": list(client.webhook_uris),
    }


def event_of(clock: Clock, before: Registration, after: Registration, actor: Actor) -> Event:
    """Return the event of a change: which level went from where to where."""
    steps = [
        f"{level}:{getattr(before, field)}>{getattr(after, field)}"
        for level, field in _FIELDS.items()
        if getattr(before, field) != getattr(after, field)
    ]
    return Event(
        kind=Kind.REGISTRATION,
        time_ms=clock.now_ms(),
        interaction_id=actor.interaction_id,
        face=actor.face,
        client_id=after.client_id,
        organisation_id=after.organisation_id,
        subject=after.client_id,
        change=" ".join(steps) or "unchanged",
        route=actor.route,
    )


def _busy() -> Fault:
    return hub_fault(
        503, "GenericRecoverableError", "Too many changes at once; try again.", check="keeper.busy"
    )
