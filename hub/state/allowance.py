"""A payment consent with its consumption as of today: a period that has ended is not shown as the current one."""

from datetime import tzinfo
from typing import final

from hub.model.consent import Consent, ConsentType
from hub.model.limits import Allowance
from hub.model.payment_effect import with_shown_consumption
from hub.model.period import local_date
from hub.state.keeper import Keeper


@final
class Consumption:
    """Bring what consents show of their payments up to date when they are read."""

    def __init__(self, keeper: Keeper, zone: tzinfo, *, anchored: bool) -> None:
        """Take the store, the zone whose days count, and whether months are counted from a schedule's start."""
        self._keeper = keeper
        self._zone = zone
        self._anchored = anchored

    async def current(self, consent: Consent, now: int) -> Consent:
        """Return a consent as it is to be shown at a moment in seconds; the same object where nothing is to change.

        Cancellation: harmless.
        """
        payments = consent.consent_type is ConsentType.SERVICE_INITIATION
        if not payments or "PaymentConsumption" not in consent.body.get("Data", {}):
            return consent
        held = await self._keeper.lookup(Allowance, consent.id)
        if held is None:
            return consent
        day = local_date(now, self._zone)
        return with_shown_consumption(consent, held[0], day, anchored=self._anchored)
