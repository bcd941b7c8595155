"""The payment-limit engine: what a consent allows, what is taken, what is left; pure, exact, to the day.

Theory. Amounts are whole hundredths, never floats. ``Allowance`` is what payments have taken of one consent: totals, totals
per period, and every payment whose end is not known yet (``open``). ``reserve`` decides a payment and takes its share in one
step; written with the version that was read, two payments can never both take the last share. ``confirm`` makes a share
final, ``release`` gives it back, also much later, when a pending payment is rejected. What is reserved counts as taken.

Invariants: totals equal the sum of the shares that were reserved and not released; no limit of the consent is ever
exceeded by them; a released share can be reserved again.

Source: consents 5, 6; decisions.md section 3.
"""

import re
from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Any, Final

import msgspec

from hub.model.fault import Fault, caller_fault
from hub.model.period import PeriodType, period_of, recurs_on

_AMOUNT: Final = re.compile(r"[0-9]{1,16}\.[0-9]{2}")
CURRENCY: Final = "AED"
_COUNTABLE: Final = 10**18 - 1
"""The most that all payments of a consent may come to, in hundredths: what an amount of the standard can say."""


class Schedule(StrEnum):
    """Enumerate the kinds of payment consents."""

    SINGLE = "SingleInstantPayment"
    FIXED_DEFINED = "FixedDefinedSchedule"
    VARIABLE_DEFINED = "VariableDefinedSchedule"
    FIXED_PERIODIC = "FixedPeriodicSchedule"
    VARIABLE_PERIODIC = "VariablePeriodicSchedule"
    FIXED_ON_DEMAND = "FixedOnDemand"
    VARIABLE_ON_DEMAND = "VariableOnDemand"
    FILE = "FilePayment"
    DELEGATED = "Delegated"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a consent allows, in hundredths and counts; None: no such limit.

    Attributes:
        schedule: Its kind.
        exact: Each payment must be exactly this.
        largest: Each payment may be at most this.
        value: All payments together.
        number: All payments together.
        period_value: Together in one period.
        period_number: In one period.
        period: The kind of period, with ``start``.
        start: ``PeriodStartDate``.
        dates: Of a defined schedule: each date's exact or largest amount.
        anchored: Months are counted from ``start``.
        exact_days: Periodic payments only on the days on which ``start`` recurs.
    """

    schedule: Schedule
    exact: int | None = None
    largest: int | None = None
    value: int | None = None
    number: int | None = None
    period_value: int | None = None
    period_number: int | None = None
    period: PeriodType | None = None
    start: date | None = None
    dates: dict[date, int] = {}
    anchored: bool = False
    exact_days: bool = False


class Taken(msgspec.Struct, frozen=True):
    """Hold how many payments, and how many hundredths together."""

    number: int = 0
    value: int = 0

    def plus(self, amount: int) -> "Taken":
        """Return this and one payment more."""
        return Taken(self.number + 1, self.value + amount)

    def minus(self, amount: int) -> "Taken":
        """Return this and one payment less."""
        return Taken(self.number - 1, self.value - amount)


class Share(msgspec.Struct, frozen=True):
    """Hold what one payment took: hundredths, and the first day of its period (empty without periods)."""

    amount: int
    period: str


class Allowance(msgspec.Struct, frozen=True, kw_only=True, tag="allowance"):
    """Hold what the payments of one consent have taken; kept in the store under the consent's id."""

    consent_id: str
    total: Taken = Taken()
    periods: dict[str, Taken] = {}
    open: dict[str, Share] = {}

    @property
    def key(self) -> str:
        """Return the key in the store."""
        return self.consent_id

    def indexes(self) -> dict[str, tuple[str | int, ...]]:
        """Return what the store finds it by."""
        return {}

    def purge_at(self) -> int | None:
        """Return when the store may forget it: never by itself, but with its consent."""
        return None


def hundredths(text: Any) -> int | None:
    """Return an amount text as whole hundredths, or None if it is none."""
    if not isinstance(text, str) or not _AMOUNT.fullmatch(text):
        return None
    return int(text.replace(".", ""))


def amount_text(value: int) -> str:
    """Return whole hundredths as amount text."""
    return f"{value // 100}.{value % 100:02d}"


def terms_of(control: Any, *, anchored: bool = False) -> Terms | None:
    """Read ``ControlParameters``; None if they are of no known kind, or make no sense."""
    try:
        return _terms(control, anchored=anchored)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _terms(control: Mapping[str, Any], *, anchored: bool) -> Terms | None:
    schedule = control.get("ConsentSchedule") or {}
    if control.get("IsDelegatedAuthentication") and not schedule:
        return Terms(schedule=Schedule.DELEGATED)
    if single := schedule.get("SinglePayment"):
        if single.get("Type") != Schedule.SINGLE:
            return None
        return Terms(schedule=Schedule.SINGLE, exact=_money(single.get("Amount")), number=1)
    if schedule.get("FilePayment"):
        exact = hundredths(schedule["FilePayment"].get("ControlSum"))
        return Terms(schedule=Schedule.FILE, exact=exact, number=1)
    if multi := schedule.get("MultiPayment"):
        return _multi(multi, anchored=anchored)
    return None


def _multi(multi: Mapping[str, Any], *, anchored: bool) -> Terms | None:
    plan = multi.get("PeriodicSchedule") or {}
    try:
        kind = Schedule(str(plan.get("Type")))
    except ValueError:
        return None
    controls = plan.get("Controls") or {}
    start = plan.get("PeriodStartDate")
    periodic = kind in {Schedule.FIXED_PERIODIC, Schedule.VARIABLE_PERIODIC}
    return Terms(
        schedule=kind,
        exact=_money(plan.get("Amount")),
        largest=_money(
            plan.get("MaximumIndividualAmount") or controls.get("MaximumIndividualAmount")
        ),
        value=_money(multi.get("MaximumCumulativeValueOfPayments")),
        number=multi.get("MaximumCumulativeNumberOfPayments"),
        period_value=_money(controls.get("MaximumCumulativeValueOfPaymentsPerPeriod")),
        period_number=1 if periodic else controls.get("MaximumCumulativeNumberOfPaymentsPerPeriod"),
        period=PeriodType(plan["PeriodType"]) if plan.get("PeriodType") else None,
        start=date.fromisoformat(start) if start else None,
        dates=_dates(plan.get("Schedule") or ()),
        anchored=anchored,
    )


def _dates(entries: Any) -> dict[date, int]:
    found: dict[date, int] = {}
    for entry in entries:
        amount = _money(entry.get("Amount") or entry.get("MaximumIndividualAmount"))
        found[date.fromisoformat(entry["PaymentExecutionDate"])] = amount or 0
    return found


def _money(amount: Any) -> int | None:
    return hundredths(amount.get("Amount")) if isinstance(amount, Mapping) else None


def period_key(terms: Terms, day: date) -> str | None:
    """Return the first day of the period that ``day`` counts in; empty without periods, None outside of all."""
    if terms.dates:
        return day.isoformat() if day in terms.dates else None
    if terms.period is None or terms.start is None:
        return ""
    period = period_of(terms.period, terms.start, day, anchored=terms.anchored)
    return period.first.isoformat() if period is not None else None


def reserve(
    terms: Terms, taken: Allowance, payment: str, amount: int, currency: str, day: date
) -> Allowance | Fault:
    """Decide a payment and take its share.

    Args:
        terms: What the consent allows.
        taken: What is taken already.
        payment: A name for the share, to confirm or release it by; used once.
        amount: Hundredths.
        currency: Of the payment.
        day: Today in the tenant's zone.

    Faults: 400 ``Consent.FailsControlParameters``, naming the limit.
    """
    period = period_key(terms, day)
    if period is None or not _on_its_day(terms, day):
        return _refused("date", "no payment may be made on this day")
    fault = _amount_fault(terms, amount, currency, day) or _total_fault(terms, taken, amount)
    fault = fault or _period_fault(terms, taken.periods.get(period, Taken()), amount, period)
    if fault is not None:
        return fault
    periods = dict(taken.periods)
    if period:
        periods[period] = periods.get(period, Taken()).plus(amount)
    return msgspec.structs.replace(
        taken,
        total=taken.total.plus(amount),
        periods=periods,
        open={**taken.open, payment: Share(amount, period)},
    )


def _on_its_day(terms: Terms, day: date) -> bool:
    periodic = terms.schedule in {Schedule.FIXED_PERIODIC, Schedule.VARIABLE_PERIODIC}
    if not terms.exact_days or not periodic or terms.period is None or terms.start is None:
        return True
    return recurs_on(terms.period, terms.start, day)


def _amount_fault(terms: Terms, amount: int, currency: str, day: date) -> Fault | None:
    if currency != CURRENCY:
        return _refused("currency", f"expected {CURRENCY}")
    if amount <= 0:
        return _refused("amount", "expected more than 0.00")
    exact, largest = terms.exact, terms.largest
    if terms.schedule is Schedule.FIXED_DEFINED:
        exact = terms.dates[day]
    elif terms.schedule is Schedule.VARIABLE_DEFINED:
        largest = terms.dates[day]
    if exact is not None and amount != exact:
        return _refused("amount", "differs from the amount of the consent")
    if largest is not None and amount > largest:
        return _refused("amount", "is above the largest single payment of the consent")
    return None


def _total_fault(terms: Terms, taken: Allowance, amount: int) -> Fault | None:
    if terms.number is not None and taken.total.number >= terms.number:
        return _refused("number", "the number of payments of the consent is used up")
    if terms.value is not None and taken.total.value + amount > terms.value:
        return _refused("value", "is more than is left of the consent's total value")
    if taken.total.value + amount > _COUNTABLE:
        return _refused("countable", "is more than can be counted of one consent")
    return None


def _period_fault(terms: Terms, inside: Taken, amount: int, period: str) -> Fault | None:
    most = 1 if terms.dates else terms.period_number
    if period and most is not None and inside.number >= most:
        return _refused("period_number", "the number of payments of this period is used up")
    if terms.period_value is not None and inside.value + amount > terms.period_value:
        return _refused("period_value", "is more than is left of this period's value")
    return None


def _refused(limit: str, why: str) -> Fault:
    return caller_fault(
        400,
        "Consent.FailsControlParameters",
        f"{limit}: {why}",
        check=f"limits.{limit}",
    )


def confirm(taken: Allowance, payment: str) -> Allowance:
    """Make a share final; the same object comes back if it is not open."""
    if payment not in taken.open:
        return taken
    left = {name: share for name, share in taken.open.items() if name != payment}
    return msgspec.structs.replace(taken, open=left)


def release(taken: Allowance, payment: str) -> Allowance:
    """Give a share back; the same object comes back if it is not open."""
    share = taken.open.get(payment)
    return taken if share is None else give_back(confirm(taken, payment), share)


def give_back(taken: Allowance, share: Share) -> Allowance:
    """Give back a share that was final: of a payment whose settlement was undone.

    Args:
        taken: With the share counted, and not open.
        share: What the payment took; nobody gives the same one back twice.
    """
    periods = dict(taken.periods)
    if share.period:
        periods[share.period] = periods[share.period].minus(share.amount)
        if not periods[share.period].number:
            del periods[share.period]
    return msgspec.structs.replace(taken, total=taken.total.minus(share.amount), periods=periods)


def is_used_up(terms: Terms, taken: Allowance, day: date) -> bool:
    """Tell whether no payment can follow and all that were counted are final: the consent becomes Consumed."""
    if taken.open or not taken.total.number:
        return False
    if terms.number is not None and taken.total.number >= terms.number:
        return True
    if terms.value is not None and taken.total.value + _smallest(terms) > terms.value:
        return True
    if not terms.dates:
        return False
    return all(when < day or when.isoformat() in taken.periods for when in terms.dates)


def _smallest(terms: Terms) -> int:
    """Return the smallest payment that could follow."""
    return terms.exact if terms.exact is not None else 1


def consumption(terms: Terms, taken: Allowance, day: date) -> dict[str, Any] | None:
    """Return ``PaymentConsumption``; None while nothing was taken, as its counts begin at 1."""
    if not taken.total.number:
        return None
    shown: dict[str, Any] = {
        "CumulativeNumberOfPayments": taken.total.number,
        "CumulativeValueOfPayments": _shown(taken.total.value),
    }
    inside = taken.periods.get(period_key(terms, day) or "")
    if inside is not None:
        shown["CumulativeNumberOfPaymentsInCurrentPeriod"] = inside.number
        shown["CumulativeValueOfPaymentsInCurrentPeriod"] = _shown(inside.value)
    return shown


def _shown(value: int) -> dict[str, str]:
    return {"Amount": amount_text(value), "Currency": CURRENCY}


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is left, in hundredths and counts; None: no such limit."""

    number: int | None
    value: int | None
    period_number: int | None
    period_value: int | None


def remaining(terms: Terms, taken: Allowance, day: date) -> Left:
    """Return what is left of each limit on a day."""
    period = period_key(terms, day)
    inside = taken.periods.get(period or "", Taken())
    most = 1 if terms.dates else terms.period_number
    if period is None:
        most = 0

    def left(limit: int | None, used: int) -> int | None:
        return None if limit is None else max(0, limit - used)

    return Left(
        number=left(terms.number, taken.total.number),
        value=left(terms.value, taken.total.value),
        period_number=left(most, inside.number),
        period_value=left(terms.period_value, inside.value),
    )
