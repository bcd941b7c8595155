"""What payments were worth and what became of consents: sums per day over the tenant's own records.

The log knows no amounts and no terms of consents, for it holds no payload; so these two reports are counted from the
records that the log's events changed, as they are now.

Source: operations.md sections 2 and 8 (payment values, payment volumes, consent statistics).
"""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from hub.model.consent import Consent, status_at
from hub.model.records import Payment
from hub.state.keeper import Query
from hub.state.open import Reader

_PAGE: Final = 1000

Row = dict[str, Any]


def payment_table(payments: Iterable[Payment], first: str, last: str) -> list[Row]:
    """Count and add up payments per day that they count for, TPP, type, purpose, status and currency.

    Args:
        payments: In any order.
        first: The first day, ``YYYY-MM-DD``.
        last: The last day, included.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    values: dict[tuple[str, ...], Decimal] = {}
    for one in payments:
        if first <= one.date <= last:
            purpose = str(one.response.get("paymentPurposeCode", ""))
            who = one.organisation_id, one.client_id
            key = (one.date, *who, one.payment_type, purpose, one.status, one.currency)
            counts[key] += 1
            values[key] = values.get(key, Decimal(0)) + Decimal(one.amount)
    names = ("day", "organisation", "client", "type", "purpose", "status", "currency")
    return [
        {**dict(zip(names, key, strict=True)), "payments": counts[key], "value": f"{values[key]:f}"}
        for key in sorted(counts)
    ]


def consent_table(
    consents: Iterable[Consent], first: str, last: str, zone: str, now: int
) -> list[Row]:
    """Count consents per day of their staging, TPP, type and the status that holds at ``now``, in seconds.

    The days are those of ``zone``, both ends included; ``used`` is how many of them a TPP has used.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    used: Counter[tuple[str, ...]] = Counter()
    for one in consents:
        day = datetime.fromtimestamp(one.created_ms / 1000, ZoneInfo(zone)).date().isoformat()
        if first <= day <= last:
            who = one.organisation_id, one.client_id
            key = (day, *who, str(one.consent_type), str(status_at(one, now)))
            counts[key] += 1
            used[key] += bool(one.usage)
    names = ("day", "organisation", "client", "type", "status")
    return [
        {**dict(zip(names, key, strict=True)), "consents": counts[key], "used": used[key]}
        for key in sorted(counts)
    ]


async def all_of(reader: Reader, kind: str) -> AsyncIterator[Any]:
    """Give every record of a kind once, page by page, while others write. Cancellation: harmless."""
    last = ""
    for offset in itertools.count(0, _PAGE):
        items = (await reader.search(Query(kind=kind, offset=offset, limit=_PAGE))).items
        for item in items:
            # A record that came meanwhile moves those behind it on: some of the last page come again.
            if item.record.key > last:
                last = item.record.key
                yield item.record
        if len(items) < _PAGE:
            return
