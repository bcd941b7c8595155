"""``GET /tpp-reports``: what a TPP may know of its own calls, and of how long bank and Hub answered.

Volumes and times are of the calling client only; availability is of the routes, and the same for everybody. The figures
come from the index of the audit log, brought up to date first; so they can be derived again by whoever has the log.

Source: reporting v2.1; operations.md section 7.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import parse_qsl

import trio

from hub.audit.index import Index, open_index
from hub.audit.reports import (
    Operation,
    Period,
    availability_rows,
    performance_rows,
    volume_rows,
)
from hub.config import Tenant
from hub.gateway.values import Access, Call, Reply
from hub.model.fault import Fault, caller_fault
from hub.model.route import Route
from hub.state.keeper import Keeper
from hub.state.outages import outages

MOST_DAYS: Final = 93
_API_SETS: Final = {
    "account-information": "BankDataSharing",
    "product": "BankDataSharing",
    "atm": "BankDataSharing",
    "payment": "BankServiceInitation",
    "confirmation-of-payee": "BankServiceInitation",
    "insurance": "InsuranceDataSharing",
}
"""By family; the spelling is the standard's."""


def operations_of(routes: Sequence[Route], resource_base: str) -> dict[str, Operation]:
    """Return the operations that reports speak of, by route."""
    return {
        route.id: Operation(route.method, resource_base + route.path, _API_SETS[route.family])
        for route in routes
        if route.family in _API_SETS
    }


@final
class Reports:
    """Answer the report API; implements nothing but ``read``."""

    def __init__(
        self, *, keeper: Keeper, folder: Path, tenant: Tenant, routes: Sequence[Route]
    ) -> None:
        """Report on the calls that the log in ``folder`` holds; the index is opened at the first question."""
        self._keeper = keeper
        self._folder = folder
        self._tenant = tenant
        self._operations = operations_of(routes, tenant.resource_base)
        self._index: Index | None = None
        self._opening = trio.Lock()

    async def read(self, call: Call, access: Access) -> Reply | Fault:
        """Return the rows of one type of report, or of all.

        Faults: 400 where the period is upside down or longer than 93 days.
        """
        asked = dict(parse_qsl(call.request.query))
        period = self._period(asked)
        if isinstance(period, Fault):
            return period
        index = await self._followed()
        wanted, mine = asked.get("ReportType", ""), access.caller.client_id
        rows = await self._rows(index, period, call.now, wanted, mine)
        query = f"?{call.request.query}" if call.request.query else ""
        links = {"Self": f"{self._tenant.resource_base}{call.request.path}{query}"}
        return Reply(status=200, value={"Data": rows, "Links": links, "Meta": {}})

    async def _rows(
        self, index: Index, period: Period, now: int, wanted: str, client: str
    ) -> list[dict[str, Any]]:
        lfi: Mapping[str, str] = {
            "LfiId": self._tenant.organisation_id,
            "LfiName": self._tenant.organisation_name,
        }
        seconds = period.seconds(now)
        mine = await index.sums(period.first.isoformat(), period.last.isoformat(), client)
        sums = [one for one in mine if one.face == "tpp"]
        spans = await index.spans(*seconds)
        planned = [(o.begins, o.ends) for o in await outages(self._keeper) if not o.cancelled]
        known = self._operations
        rows = volume_rows(sums, known, lfi)
        for party in ("LFI", "OFP"):
            rows += availability_rows(party, spans, planned, known, lfi, period, now)
            rows += performance_rows(party, sums, known, lfi, period)
        return [row for row in rows if wanted in {"", row["Type"]}]

    def _period(self, asked: Mapping[str, str]) -> Period | Fault:
        first = date.fromisoformat(asked["ReportingPeriodStartDate"])
        last = date.fromisoformat(asked["ReportingPeriodEndDate"])
        if last < first:
            what = "ReportingPeriodEndDate: is before ReportingPeriodStartDate"
        elif (last - first).days >= MOST_DAYS:
            what = f"ReportingPeriodEndDate: a period has at most {MOST_DAYS} days"
        else:
            return Period(first, last, self._tenant.time_zone)
        return caller_fault(400, "Resource.InvalidFormat", what, check="reports.period")

    async def _followed(self) -> Index:
        async with self._opening:
            if self._index is None:
                self._index = await trio.to_thread.run_sync(
                    open_index, self._folder, self._tenant.time_zone
                )
            await self._index.follow(self._keeper)
            return self._index
