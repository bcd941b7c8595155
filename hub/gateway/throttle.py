"""Throttle: how often a client, its organisation and everybody may call, counted by the keeper for all workers.

Theory. One Hub serves one bank, so the standard's five levels are four here: a client at one operation, a client, a TPP (its
organisation), the platform. Each level that the tenant limits is a token bucket that holds two seconds' worth; all are asked in
one claim. The first that is empty refuses, and says when to come back.

Source: errors.md section 7 (429 without a body).
"""

from typing import Final

import msgspec

from hub.config import Limits
from hub.gateway.errors import at_resources
from hub.gateway.values import Access, Call
from hub.model.fault import Fault, caller_fault
from hub.state.keeper import Keeper, Take

_BURST_S: Final = 2


class Throttle:
    """Count calls against the tenant's limits."""

    def __init__(self, *, keeper: Keeper, limits: Limits) -> None:
        """Take the keeper, which counts, and the rates; a rate of 0 is no limit."""
        self._keeper = keeper
        self._rates = {
            "operation": limits.calls_operation_per_s,
            "client": limits.calls_client_per_s,
            "organisation": limits.calls_organisation_per_s,
            "platform": limits.calls_platform_per_s,
        }
        self._limited = tuple(level for level, rate in self._rates.items() if rate > 0)

    async def judge(self, call: Call, access: Access) -> Fault | None:
        """Count one call; a tenant without limits costs nothing.

        Faults: 429 without a body, checks ``throttle.operation``, ``throttle.client``, ``throttle.organisation``,
        ``throttle.platform``.

        Cancellation: the call may have been counted.
        """
        if not self._limited:
            return None
        caller = access.caller
        names = {
            "operation": f"{caller.client_id} {call.route.id}",
            "client": caller.client_id,
            "organisation": caller.organisation_id,
            "platform": "",
        }
        claims = [self._take(level, names[level]) for level in self._limited]
        granted = await self._keeper.claim(claims)
        if isinstance(granted, Fault):
            return at_resources(granted)
        for level, grant in zip(self._limited, granted, strict=True):
            if not grant.granted:
                fault = caller_fault(429, "", "", check=f"throttle.{level}")
                return msgspec.structs.replace(fault, retry_after=grant.retry_after)
        return None

    def _take(self, level: str, name: str) -> Take:
        rate = self._rates[level]
        return Take(f"calls.{level} {name}", rate, max(1, round(rate * _BURST_S)))
