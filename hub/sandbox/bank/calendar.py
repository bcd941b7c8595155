"""The bank's calendar: local days in Dubai, and the texts of times and amounts."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

DUBAI: Final = timezone(timedelta(hours=4))
DAY: Final = 86_400


def local_day(at: int) -> date:
    """Return the local day of a time in seconds since 1970 UTC."""
    return datetime.fromtimestamp(at, DUBAI).date()


def midnight(day: date) -> int:
    """Return the time at which a local day begins."""
    return int(datetime(day.year, day.month, day.day, tzinfo=DUBAI).timestamp())


def timestamp(at: int) -> str:
    """Return a time as the standard writes it: ``2026-06-01T08:00:00Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> int | None:
    """Return the time that a date or date-time names (without an offset: local), or None where it is neither."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=DUBAI)).timestamp())


def first_of_month(day: date) -> date:
    """Return the first day of a day's month."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """Return the first day of the month after a day's."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def money(minor: int) -> str:
    """Return an amount without its sign: ``123456`` is ``1234.56``."""
    units, cents = divmod(abs(minor), 100)
    return f"{units}.{cents:02d}"


def minor_units(text: str) -> int | None:
    """Return an amount's minor units, or None where it is not an amount of at most two decimals."""
    units, dot, cents = text.partition(".")
    if not text.isascii() or not units.isdigit() or len(units) > 13:
        return None
    if dot and not cents.isdigit():
        return None
    if cents[2:].strip("0"):
        return None
    return int(units) * 100 + int((cents + "00")[:2])
