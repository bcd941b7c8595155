"""What an operator may tell a running node: the tables of commands of all packages, behind one socket.

``hub admin`` speaks to the socket; the portal calls the same functions. To add a command, add its name and its async
function to the tables that ``operator_commands`` joins; nothing else has to change.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from hub.config import Settings
from hub.model.fault import Fault
from hub.model.records import Delivery
from hub.node.build import Given
from hub.node.errors import StartError
from hub.state.keeper import Query
from hub.state.outages import cancel_outage, outages, plan_outage
from hub.state.revocation import revoke_for_operator
from hub.trust.admin import Command, Office, Reply, refusal, serve_admin, trust_commands
from hub.trust.trust import Trust
from hub.upstream.outbox import replay

_SHOWN: Final = 200
_MOST_INDEX: Final = 2**53
_MARK_S: Final = 1.0


def admin_socket(settings: Settings) -> Path:
    """Return where the node listens to its operator."""
    return settings.state.folder / "admin.sock"


async def listen_to_operator(
    given: Given,
    trust: Trust,
    reload: Callable[[], None],
    more: Mapping[str, Command],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the operator's socket in the keeper's process until cancelled.

    Raises:
        StartError: The socket cannot be bound.

    Cancellation: closes the socket and removes its file.
    """
    office = Office(
        operator_commands(given, trust, reload, more),
        keeper=given.keeper,
        clock=given.clock,
        dice=given.dice,
    )
    path = admin_socket(given.settings)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_mark_outages, given)
            await nursery.start(serve_admin, path, office)
            task_status.started()
    except* OSError as group:
        error = group.exceptions[0]
        raise StartError(f"{path}: the operator's socket cannot be opened: {error}") from None


def operator_commands(
    given: Given, trust: Trust, reload: Callable[[], None], more: Mapping[str, Command]
) -> Mapping[str, Command]:
    """Join the tables of commands, and ``more`` that the caller has.

    Raises:
        ValueError: Two packages claim one name.
    """
    tables = (
        trust_commands(trust=trust, keeper=given.keeper, clock=given.clock),
        consent_commands(given),
        outage_commands(given),
        delivery_commands(given),
        process_commands(reload),
        {"audit": _read_of_log},
        more,
    )
    joined: dict[str, Command] = {}
    for table in tables:
        if twice := joined.keys() & table.keys():
            raise ValueError(f"commands claimed twice: {sorted(twice)}")
        joined.update(table)
    return joined


def consent_commands(given: Given) -> dict[str, Command]:
    """Return ``revoke`` (of a ``consent``)."""

    async def revoke(asked: Mapping[str, Any]) -> Reply:
        consent = asked.get("consent")
        if not isinstance(consent, str) or not consent:
            return refusal("expected consent: an id")
        done = await revoke_for_operator(
            given.keeper, given.clock, given.dice, consent, str(asked.get("interaction_id", ""))
        )
        if isinstance(done, Fault):
            return refusal(done.public, done.check)
        return {"consent": done.id, "status": str(done.status)}

    return {"revoke": revoke}


def outage_commands(given: Given) -> dict[str, Command]:
    """Return ``outage`` (plans one from ``begins`` to ``ends``), ``outages`` and ``outage-cancel``."""

    async def plan(asked: Mapping[str, Any]) -> Reply:
        begins, ends, reason = asked.get("begins"), asked.get("ends"), asked.get("reason", "")
        if type(begins) is not int or type(ends) is not int or not isinstance(reason, str):
            return refusal("expected begins and ends in seconds since 1970, and a reason")
        return _shown(
            await plan_outage(
                given.keeper,
                given.clock,
                given.dice,
                begins=begins,
                ends=ends,
                reason=reason,
                interaction_id=str(asked.get("interaction_id", "")),
            )
        )

    async def cancel(asked: Mapping[str, Any]) -> Reply:
        interaction_id = str(asked.get("interaction_id", ""))
        outage_id = str(asked.get("outage", ""))
        return _shown(await cancel_outage(given.keeper, given.clock, outage_id, interaction_id))

    async def every(_asked: Mapping[str, Any]) -> Reply:
        return {"outages": msgspec.to_builtins(await outages(given.keeper))}

    def _shown(done: object) -> Reply:
        if isinstance(done, Fault):
            return refusal(done.public, done.check)
        return {"outage": msgspec.to_builtins(done)}

    return {"outage": plan, "outage-cancel": cancel, "outages": every}


def delivery_commands(given: Given) -> dict[str, Command]:
    """Return ``dead-letters`` and ``replay`` (of those from event ``first`` on, in ``state`` dead or told)."""

    async def dead(_asked: Mapping[str, Any]) -> Reply:
        page = await given.keeper.search(
            Query(
                kind="delivery",
                where=(("state", "dead"),),
                order="index",
                limit=_SHOWN,
                count=True,
            )
        )
        rows = [i.record for i in page.items if isinstance(i.record, Delivery)]
        return {"dead": msgspec.to_builtins(rows), "total": page.total}

    async def again(asked: Mapping[str, Any]) -> Reply:
        first, state = asked.get("first", 0), asked.get("state", "dead")
        known = isinstance(state, str) and state in {"dead", "told"}
        if type(first) is not int or not 0 <= first < _MOST_INDEX or not known:
            return refusal("expected first: the index of an event, and state: dead or told")
        made = await replay(given.keeper, given.clock, first, state)
        return refusal(made.public, made.check) if isinstance(made, Fault) else {"replayed": made}

    return {"dead-letters": dead, "replay": again}


def process_commands(reload: Callable[[], None]) -> dict[str, Command]:
    """Return ``reload``: read certificates and CA bundles again, in every process."""

    async def read_again(_asked: Mapping[str, Any]) -> Reply:
        reload()
        return {}

    return {"reload": read_again}


async def _read_of_log(_asked: Mapping[str, Any]) -> Reply:
    """Do nothing but become an event: somebody reads the audit log (``level``: how; ``subject``: what for)."""
    return {}


async def _mark_outages(given: Given) -> None:
    """Say in the metrics whether a planned outage is under way, until cancelled."""
    while True:
        now = given.clock.now()
        under_way = any(outage.now(now) for outage in await outages(given.keeper))
        given.observer.gauge(
            "hub_planned_outage", "1 while a planned outage is under way", int(under_way)
        )
        await trio.sleep(_MARK_S)
