"""Reports over the index: volumes, error rates, true percentiles of Hub and bank time apart, availability.

Days are the tenant's. A call volume counts answers; an error rate counts 5xx. Availability is counted by the second over
the whole period, up to now: every second in which a route did not answer (see ``hub.audit.index``) counts, planned or not,
5xx of every kind; planned seconds are shown apart but not forgiven.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from hub.audit.histogram import Histogram
from hub.audit.index import Span, Sum

DAY_S: Final = 86_400


class Operation(msgspec.Struct, frozen=True):
    """Say which operation a route is: its method, its address, and the set of APIs it belongs to."""

    method: str
    url: str
    api_set: str


class Period(msgspec.Struct, frozen=True):
    """Hold days of one time zone, first and last included."""

    first: date
    last: date
    zone: str

    def seconds(self, now: int) -> tuple[int, int]:
        """Return its beginning and its end, never later than now, in seconds since 1970."""
        zone = ZoneInfo(self.zone)
        begin = datetime(self.first.year, self.first.month, self.first.day, tzinfo=zone)
        after = min(self.last, date.max - timedelta(days=1)) + timedelta(days=1)
        end = datetime(after.year, after.month, after.day, tzinfo=zone)
        return int(begin.timestamp()), max(int(begin.timestamp()), min(int(end.timestamp()), now))


class Load(msgspec.Struct):
    """Hold what some answers amount to: how many, how many 5xx, and how long Hub and bank took."""

    calls: int = 0
    failed: int = 0
    hub: Histogram = msgspec.field(default_factory=Histogram)
    bank: Histogram = msgspec.field(default_factory=Histogram)

    def add(self, one: Sum) -> None:
        """Add the sums of one day."""
        self.calls += one.hub.total
        self.failed += one.hub.total if one.status >= 500 else 0
        self.hub.join(one.hub)
        self.bank.join(one.bank)

    @property
    def error_percent(self) -> float:
        """Return the share of 5xx in percent."""
        return 100 * self.failed / self.calls if self.calls else 0.0


def loads(sums: Iterable[Sum], by: Sequence[str]) -> dict[tuple[str, ...], Load]:
    """Group sums by some of ``day``, ``face``, ``route``, ``client``, ``organisation``, ``status``, ``group`` (2xx)."""
    found: dict[tuple[str, ...], Load] = {}
    for one in sums:
        key = tuple(
            f"{one.status // 100}xx" if name == "group" else str(getattr(one, name)) for name in by
        )
        found.setdefault(key, Load()).add(one)
    return dict(sorted(found.items()))


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Hold how long a route answered, in seconds."""

    total: int
    down: int
    planned: int
    """Of ``down``."""

    @property
    def percent(self) -> float:
        """Return the share of time in which it answered, in percent."""
        return 100 * (self.total - self.down) / self.total if self.total else 100.0


def availability(
    spans: Iterable[Span], planned: Sequence[tuple[int, int]], begin: int, end: int
) -> Availability:
    """Join spans of silence that may overlap, cut to a period, and tell how much of them was planned."""
    cut = sorted((max(begin, s.first), min(end, s.end or end)) for s in spans)
    down = _joined([one for one in cut if one[0] < one[1]])
    outages = _joined(
        sorted((max(begin, a), min(end, b)) for a, b in planned if a < end and b > begin)
    )
    shared = sum(max(0, min(b, d) - max(a, c)) for a, b in down for c, d in outages)
    return Availability(total=end - begin, down=sum(b - a for a, b in down), planned=shared)


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in spans:
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined


# The rows of the bank's reports


def timing(load: Load) -> dict[str, int | float]:
    """Return the members of a row that say how long answers took: percentiles of Hub and bank apart, in milliseconds."""
    row: dict[str, int | float] = {
        "calls": load.calls,
        "errorPercent": round(load.error_percent, 3),
    }
    for party, times in (("hub", load.hub), ("bank", load.bank)):
        row |= {
            f"{party}P{name}": round(times.percentile(share) / 1000, 3)
            for name, share in (("50", 0.5), ("95", 0.95), ("99", 0.99))
        }
        row |= {f"{party}Max": times.most / 1000, f"{party}Mean": times.mean / 1000}
    return row


def table(sums: Iterable[Sum], by: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a report on calls, grouped as asked."""
    return [dict(zip(by, key, strict=True)) | timing(load) for key, load in loads(sums, by).items()]


def availability_table(
    spans: Sequence[Span],
    planned: Sequence[tuple[int, int]],
    routes: Iterable[str],
    seconds: tuple[int, int],
) -> list[dict[str, Any]]:
    """Return the rows of a report on availability: each route, for the bank and for the Hub."""
    rows = []
    for party in ("bank", "hub"):
        for route in sorted(routes):
            mine = [one for one in spans if (one.party, one.route) == (party, route)]
            found = availability(mine, planned, *seconds)
            rows.append(
                {
                    "party": party,
                    "route": route,
                    "totalSeconds": found.total,
                    "downSeconds": found.down,
                    "plannedDownSeconds": found.planned,
                    "availabilityPercent": round(found.percent, 4),
                }
            )
    return rows


# The rows of the TPP report API (reporting v2.1)


def volume_rows(
    sums: Iterable[Sum], operations: Mapping[str, Operation], lfi: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return ``API Call Volume``: per day, operation and group of status."""
    return [
        {
            "Type": "API Call Volume",
            "ReportingPeriodDate": day,
            **lfi,
            **_named(operations[route]),
            "HttpResponseCodeGroup": group,
            "TotalCalls": load.calls,
        }
        for (day, route, group), load in loads(sums, ("day", "route", "group")).items()
        if route in operations
    ]


def performance_rows(
    party: str,
    sums: Iterable[Sum],
    operations: Mapping[str, Operation],
    lfi: Mapping[str, str],
    period: Period,
) -> list[dict[str, Any]]:
    """Return ``LFI Performance`` (the bank's time) or ``OFP Performance`` (the Hub's) over the period.

    The share of errors is that of the operation: within one group of status it would always be 0 or 100.
    """
    rows, given = [], list(sums)
    whole = loads(given, ("route",))
    for (route, group), load in loads(given, ("route", "group")).items():
        times = load.bank if party == "LFI" else load.hub
        if route not in operations or not times.total:
            continue
        rows.append(
            {
                "Type": f"{party} Performance",
                **_dates(period),
                **lfi,
                **_named(operations[route]),
                "HttpResponseCodeGroup": group,
                "MaximumResponseTimeMicroseconds": times.most,
                "MinimumResponseTimeMicroseconds": times.least,
                "AverageResponseTimeMicroseconds": times.mean,
                "TotalCalls": load.calls,
                "ErrorRatePercentage": round(whole[route,].error_percent),
            }
        )
    return rows


def availability_rows(
    party: str,
    spans: Sequence[Span],
    planned: Sequence[tuple[int, int]],
    operations: Mapping[str, Operation],
    lfi: Mapping[str, str],
    period: Period,
    now: int,
) -> list[dict[str, Any]]:
    """Return ``LFI Availability`` or ``OFP Availability``: whole minutes, a begun minute of silence counts whole."""
    rows = []
    whose = "bank" if party == "LFI" else "hub"
    for route, operation in sorted(operations.items()):
        mine = [one for one in spans if (one.party, one.route) == (whose, route)]
        found = availability(mine, planned, *period.seconds(now))
        total, down = found.total // 60, -(-found.down // 60)
        planned_minutes = min(down, -(-found.planned // 60))
        share = -(-100 * down // total) if total else 0
        unplanned = -(-100 * (down - planned_minutes) // total) if total else 0
        rows.append(
            {
                "Type": f"{party} Availability",
                **_dates(period),
                **lfi,
                **_named(operation),
                "TotalTimeMinutes": total,
                "TotalUptimeMinutes": max(0, total - down),
                "PlannedDowntimeMinutes": planned_minutes,
                "UnplannedDowntimeMinutes": down - planned_minutes,
                "TotalDowntimeMinutes": down,
                "UptimePercentage": max(0, 100 - share),
                "DowntimePercentage": min(100, share),
                "UnplannedDowntimePercentage": min(100, unplanned),
            }
        )
    return rows


def _named(operation: Operation) -> dict[str, str]:
    return {"ApiSet": operation.api_set, "HttpMethod": operation.method, "Url": operation.url}


def _dates(period: Period) -> dict[str, str]:
    return {
        "PeriodStartDate": period.first.isoformat(),
        "PeriodEndDate": period.last.isoformat(),
    }
