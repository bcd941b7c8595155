"""Page counts: how many pages of data were shared per customer and day, with the customer there or not.

They are prices, not limits: the standard names 15 attended and 5 unattended pages per customer and day. Each read says in its own
event which it was, so the counts are those of all workers, survive every restart, and can be derived again by whoever has the log.

Source: operations.md section 4; decisions.md section 4 (page counts).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from hub.audit.search import Selection, search
from hub.model.consent import Consent
from hub.model.event import Event, Verdict
from hub.state.open import Reader

ATTENDED: Final = "attended"
UNATTENDED: Final = "unattended"
FREE: Final = {ATTENDED: 15, UNATTENDED: 5}


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the pages of one customer on one day: how many, and how many of them beyond what is free."""

    day: str
    customer: str
    kind: str
    pages: int
    over: int


def count_pages(
    events: Iterable[Event], customers: Mapping[str, str], zone: ZoneInfo
) -> tuple[Pages, ...]:
    """Count the pages that events tell of.

    Args:
        events: Of any kind; only allowed reads of pages count.
        customers: The customer of each consent, by the consent's id; a consent that is not there counts for itself.
        zone: Whose days count.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.change in FREE and event.verdict is Verdict.ALLOWED and event.consent_id:
            day = datetime.fromtimestamp(event.time_ms / 1000, zone).date().isoformat()
            customer = customers.get(event.consent_id, event.consent_id)
            counts[day, customer, event.change] += 1
    return tuple(
        Pages(day=day, customer=customer, kind=kind, pages=n, over=max(0, n - FREE[kind]))
        for (day, customer, kind), n in sorted(counts.items())
    )


async def pages_between(
    reader: Reader, start_ms: int, end_ms: int, zone: ZoneInfo
) -> tuple[Pages, ...]:
    """Count the pages of a time, in milliseconds; an end of 0 is now.

    Cancellation: harmless.
    """
    chosen = Selection(start_ms=start_ms, end_ms=end_ms, verdict=Verdict.ALLOWED)
    found = [event for _, event in await search(reader, chosen, limit=sys.maxsize)]
    customers: dict[str, str] = {}
    for consent_id in {e.consent_id for e in found if e.consent_id and e.change in FREE}:
        held = await reader.lookup(Consent, consent_id)
        who = (held[0].psu_identifiers or {}).get("userId") if held is not None else None
        customers[consent_id] = str(who or consent_id)
    return count_pages(found, customers, zone)


async def tell_pages(
    start_ms: int, end_ms: int, zone: str, tell: Callable[[str], object], reader: Reader
) -> int:
    """Tell the pages of a time, one JSON object a line; return 0.

    Cancellation: harmless.
    """
    for row in await pages_between(reader, start_ms, end_ms, ZoneInfo(zone)):
        tell(msgspec.json.encode(row).decode())
    return 0
