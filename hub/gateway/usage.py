"""What a consent says of its own use: when data was last shared under it, to the minute (of payments: ``with_attempt``).

The consent is written with the event of a read, and only where its minute has passed: a busy consent costs one more record per
minute, whatever the number of reads and workers. Where somebody else changed the consent meanwhile, the read is not repeated
for it: the next one says it.

Source: hub-apis 3.2 (``consentUsage``).
"""

from typing import Final

import msgspec

from hub.audit.pages import ATTENDED, UNATTENDED
from hub.gateway.values import Access, Call
from hub.model.consent_change import date_time_of
from hub.model.route import TokenKind
from hub.state.keeper import Put

_SHARED: Final = "lastDataShared"
_MINUTE: Final = 16
"""Characters of a date-time up to its minute."""


def page_of(call: Call) -> str:
    """Say of a page of a customer's data whether the customer is there; what is no such page says nothing."""
    if not call.route.permissions or call.route.token is not TokenKind.USER:
        return ""
    there = b"x-fapi-customer-ip-address" in call.fields
    return ATTENDED if there else UNATTENDED


def shared(call: Call, access: Access) -> tuple[Put, ...]:
    """Return the change that notes that a customer's data was shared now; nothing where this minute is noted."""
    consent = access.consent
    if consent is None or call.route.token is not TokenKind.USER or not call.route.permissions:
        return ()
    now, held = date_time_of(call.now), consent.usage.get(_SHARED, "")
    # A bank may have written it, with another offset.
    if held[:_MINUTE] >= now[:_MINUTE] and held.endswith("Z"):
        return ()
    noted = msgspec.structs.replace(consent, usage={**consent.usage, _SHARED: now})
    return (Put(noted, expect=access.version),)
