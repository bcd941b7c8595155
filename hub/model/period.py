"""Payment periods: which span of days a date falls into, counted from the schedule's start in the tenant's zone.

Day and calendar month go by the zone's midnight; weeks and years are counted from the start. Nothing comes before the
start; the first month ends with its calendar month. ``anchored`` months are the other reading: counted from the start,
a day that a month lacks becomes its last.

Source: consents 6.3; decisions.md section 3.
"""

import calendar
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache

import msgspec


class PeriodType(StrEnum):
    """Enumerate the standard's periods."""

    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"
    YEAR = "Year"


class Period(msgspec.Struct, frozen=True):
    """Hold a span of days, both inclusive."""

    first: date
    last: date


def local_date(now: int, zone: tzinfo) -> date:
    """Return the date of a moment (seconds since 1970) in a zone."""
    return datetime.fromtimestamp(now, UTC).astimezone(zone).date()


@lru_cache(maxsize=1024)
def period_of(kind: PeriodType, start: date, day: date, *, anchored: bool = False) -> Period | None:
    """Return the period that ``day`` falls into; None before ``start``."""
    if day < start:
        return None
    if kind is PeriodType.DAY:
        return Period(day, day)
    if kind is PeriodType.WEEK:
        first = start + timedelta(days=(day - start).days // 7 * 7)
        return Period(first, first + timedelta(days=6))
    if kind is PeriodType.MONTH and not anchored:
        first = max(start, day.replace(day=1))
        return Period(first, day.replace(day=_days_in(day.year, day.month)))
    step = 12 if kind is PeriodType.YEAR else 1
    count = ((day.year - start.year) * 12 + day.month - start.month) // step
    if _months_after(start, count * step) > day:
        count -= 1
    first = _months_after(start, count * step)
    return Period(first, _months_after(start, (count + 1) * step) - timedelta(days=1))


def recurs_on(kind: PeriodType, start: date, day: date) -> bool:
    """Tell whether a schedule's start recurs on a day; a day that a month lacks recurs on its last."""
    if kind is PeriodType.DAY:
        return day >= start
    if kind is PeriodType.WEEK:
        return day >= start and (day - start).days % 7 == 0
    step = 12 if kind is PeriodType.YEAR else 1
    months = (day.year - start.year) * 12 + day.month - start.month
    return months >= 0 and months % step == 0 and _months_after(start, months) == day


def _days_in(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


def _months_after(start: date, months: int) -> date:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    return date(year, month + 1, min(start.day, _days_in(year, month + 1)))
