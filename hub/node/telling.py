"""Build what asks and tells others of consents: validate at the bank, events to the bank, webhooks to TPPs."""

from zoneinfo import ZoneInfo

import trio

from hub.node.build import Given, bank_of, consent_calls_of, signing_keys
from hub.node.errors import StartError
from hub.state.allowance import Consumption
from hub.trust.view import TrustView
from hub.upstream.bank import Bank
from hub.upstream.consent_calls import bank_target
from hub.upstream.outbox import Outbox, Target
from hub.upstream.webhook import Webhooks


def outbox_of(given: Given, bank: Bank, trust: TrustView) -> Outbox:
    """Make the tenant's outbox; exactly one runs per tenant.

    Raises:
        StartError: The Trust Framework's CA bundle cannot be read.
    """
    settings = given.settings
    targets: dict[str, Target] = {}
    try:
        webhooks = Webhooks(
            settings=settings,
            trust=trust,
            signing_key=signing_keys(settings, given.clock)[0],
            clock=given.clock,
            keeper=given.keeper,
        )
    except OSError as error:
        raise StartError(f"[trust] {settings.trust.ca}: {error}") from None
    targets["webhook"] = webhooks.target()
    if settings.bank.events:
        targets["bank"] = bank_target(consent_calls_of(given, bank))
    return Outbox(
        keeper=given.keeper,
        targets=targets,
        limits=settings.limits,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
        consumption=Consumption(
            given.keeper,
            ZoneInfo(settings.tenant.time_zone),
            anchored=settings.switches.month_periods == "anchored",
        ),
    )


async def tell_others(
    given: Given,
    trust: TrustView,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the outbox over connections of its own, in a process that has no others.

    Raises:
        StartError: A key or certificate cannot be used.

    Cancellation: the only way to end it.
    """
    bank = bank_of(given)
    async with trio.open_nursery() as nursery:
        await nursery.start(bank.run)
        await nursery.start(outbox_of(given, bank, trust).run)
        task_status.started()
