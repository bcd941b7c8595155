"""Page counts: how many pages of data were shared per customer and day, with the customer there or not.

They are prices, not limits: the standard names 15 attended and 5 unattended pages per customer and day. Each read says in its own
event which it was, so the counts are those of all workers, survive every restart, and can be derived again by whoever has the log.

Source: operations.md section 4; decisions.md section 4 (page counts).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from hub.audit.search import Selection, event_of
from hub.model.consent import Consent
from hub.model.event import Event, Verdict
from hub.state.open import Reader

ATTENDED: Final = "attended"
UNATTENDED: Final = "unattended"
_READ: Final = 1000
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
    by_consent: Counter[tuple[str, str, str]] = Counter()
    _count(events, zone, by_consent)
    return _rows(by_consent, customers)


def _count(events: Iterable[Event], zone: ZoneInfo, counts: Counter[tuple[str, str, str]]) -> None:
    for event in events:
        if event.change in FREE and event.verdict is Verdict.ALLOWED and event.consent_id:
            day = datetime.fromtimestamp(event.time_ms / 1000, zone).date().isoformat()
            counts[day, event.consent_id, event.change] += 1


def _rows(
    by_consent: Counter[tuple[str, str, str]], customers: Mapping[str, str]
) -> tuple[Pages, ...]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for (day, consent_id, kind), n in by_consent.items():
        counts[day, customers.get(consent_id, consent_id), kind] += n
    return tuple(
        Pages(day=day, customer=customer, kind=kind, pages=n, over=max(0, n - FREE[kind]))
        for (day, customer, kind), n in sorted(counts.items())
    )


async def pages_between(
    reader: Reader, start_ms: int, end_ms: int, zone: ZoneInfo
) -> tuple[Pages, ...]:
    """Count the pages of a time, in milliseconds; an end of 0 is now. The log is read piece by piece.

    Cancellation: harmless.
    """
    chosen = Selection(start_ms=start_ms, end_ms=end_ms)
    counts: Counter[tuple[str, str, str]] = Counter()
    size = (await reader.head()).size
    for start in range(0, size, _READ):
        leaves = await reader.events(start, min(_READ, size - start))
        _count((e for e in map(event_of, leaves) if chosen.takes(e)), zone, counts)
    customers: dict[str, str] = {}
    for consent_id in {consent_id for _, consent_id, _ in counts}:
        held = await reader.lookup(Consent, consent_id)
        who = (held[0].psu_identifiers or {}).get("userId") if held is not None else None
        customers[consent_id] = str(who or consent_id)
    return _rows(counts, customers)


async def tell_pages(
    start_ms: int, end_ms: int, zone: str, tell: Callable[[str], object], reader: Reader
) -> int:
    """Tell the pages of a time, one JSON object a line; return 0.

    Cancellation: harmless.
    """
    for row in await pages_between(reader, start_ms, end_ms, ZoneInfo(zone)):
        tell(msgspec.json.encode(row).decode())
    return 0
