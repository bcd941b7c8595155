"""Build what looks for payments without an outcome; exactly one runs per tenant."""

from hub.gateway.payment_recovery import Recovery
from hub.node.build import Given
from hub.upstream.bank import Bank


def recovery_of(given: Given, bank: Bank) -> Recovery:
    """Make the tenant's recovery of payments."""
    settings = given.settings
    return Recovery(
        keeper=given.keeper,
        bank=bank,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
        time_zone=settings.tenant.time_zone,
        at_once=settings.limits.payments_again,
        anchored=settings.switches.month_periods == "anchored",
        failpoint=given.failpoint,
    )
