"""Throttle: how often a client, its organisation and everybody may call, counted by the keeper for all workers.

Theory. One Hub serves one bank, so the standard's five levels are four here: a client at one operation, a client, a TPP (its
organisation), the platform. Each level that the tenant limits is a token bucket that holds two seconds' worth; all are asked in
one claim. The first that is empty refuses, and says when to come back; what is refused takes nothing from the others, so that one
client's refused calls use up neither its organisation's share nor everybody's.

Pages of a customer's data are counted by the audit log, and limited only where the tenant says so: then the keeper holds one
bucket per customer, day and kind, which nothing refills. What is asked for counts, whatever the bank answers; a keeper that starts
anew begins the day anew.

Source: errors.md section 7 (429 without a body); decisions.md section 4 (page counts).
"""

from datetime import datetime, time, timedelta
from math import ceil
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from hub.audit.pages import ATTENDED, UNATTENDED
from hub.config import Limits
from hub.gateway.errors import at_resources
from hub.gateway.usage import page_of
from hub.gateway.values import Access, Call
from hub.model.fault import Fault, caller_fault
from hub.state.keeper import Keeper, Take, Takes

_BURST_S: Final = 2


class Throttle:
    """Count calls against the tenant's limits."""

    def __init__(self, *, keeper: Keeper, limits: Limits, time_zone: str) -> None:
        """Take the keeper, which counts, the rates (0 is no limit), and the zone whose days count."""
        self._keeper = keeper
        self._zone = ZoneInfo(time_zone)
        self._pages = {
            ATTENDED: limits.pages_attended_per_day,
            UNATTENDED: limits.pages_unattended_per_day,
        }
        self._rates = {
            "operation": limits.calls_operation_per_s,
            "client": limits.calls_client_per_s,
            "organisation": limits.calls_organisation_per_s,
            "platform": limits.calls_platform_per_s,
        }
        self._limited = tuple(level for level, rate in self._rates.items() if rate > 0)
        self.limits_calls = bool(self._limited)
        """The tenant limits calls at all; one that does not costs nothing."""
        self.limits_pages = any(self._pages.values())
        """The tenant limits pages at all."""

    async def judge(self, call: Call, access: Access) -> Fault | None:
        """Count one call against every level that the tenant limits.

        Faults: 429 without a body, checks ``throttle.operation``, ``throttle.client``, ``throttle.organisation``,
        ``throttle.platform``.

        Cancellation: the call may have been counted.
        """
        caller = access.caller
        names = {
            "operation": f"{caller.client_id} {call.route.id}",
            "client": caller.client_id,
            "organisation": caller.organisation_id,
            "platform": "",
        }
        takes = Takes(tuple(self._take(level, names[level]) for level in self._limited))
        granted = await self._keeper.claim([takes])
        if isinstance(granted, Fault):
            return at_resources(granted)
        if granted[0].granted:
            return None
        fault = caller_fault(429, "", "", check=f"throttle.{self._limited[granted[0].at]}")
        return msgspec.structs.replace(fault, retry_after=granted[0].retry_after)

    async def judge_page(self, call: Call, access: Access) -> Fault | None:
        """Count one page of a customer's data against the day's limit, where there is one.

        Faults: 429 without a body until the day is over, checks ``throttle.attended`` and ``throttle.unattended``.

        Cancellation: the page may have been counted.
        """
        kind = page_of(call)
        most = self._pages.get(kind, 0)
        if not most or access.consent is None:
            return None
        now = datetime.fromtimestamp(call.now, self._zone)
        customer = (access.consent.psu_identifiers or {}).get("userId") or access.consent.id
        bucket = f"pages.{kind} {now.date()} {customer}"
        granted = await self._keeper.claim([Take(bucket, 0.0, most)])
        if isinstance(granted, Fault):
            return at_resources(granted)
        if granted[0].granted:
            return None
        fault = caller_fault(429, "", "", check=f"throttle.{kind}")
        return msgspec.structs.replace(fault, retry_after=_until_midnight(now))

    def _take(self, level: str, name: str) -> Take:
        rate = self._rates[level]
        return Take(f"calls.{level} {name}", rate, max(1, round(rate * _BURST_S)))


def _until_midnight(now: datetime) -> int:
    """Return the seconds until the next day begins in the zone of ``now``, 1 or more."""
    tomorrow = datetime.combine(now.date() + timedelta(days=1), time(), now.tzinfo)
    return max(1, ceil(tomorrow.timestamp() - now.timestamp()))
