"""The schedules of payment consents, one maker per kind (consents.md section 5.1); amounts are texts with two decimals."""

from typing import Any

Schedule = dict[str, Any]


def dirhams(amount: str) -> dict[str, str]:
    """Return an amount in AED."""
    return {"Amount": amount, "Currency": "AED"}


def single(amount: str) -> Schedule:
    """Return the schedule of one payment, at once."""
    return {"SinglePayment": {"Type": "SingleInstantPayment", "Amount": dirhams(amount)}}


def fixed_defined(amounts: dict[str, str]) -> Schedule:
    """Return a schedule of dates, each with what is paid on it."""
    entries = [{"PaymentExecutionDate": day, "Amount": dirhams(a)} for day, a in amounts.items()]
    return multi({"Type": "FixedDefinedSchedule", "Schedule": entries})


def variable_defined(amounts: dict[str, str]) -> Schedule:
    """Return a schedule of dates, each with the most that is paid on it."""
    entries = [
        {"PaymentExecutionDate": day, "MaximumIndividualAmount": dirhams(a)}
        for day, a in amounts.items()
    ]
    return multi({"Type": "VariableDefinedSchedule", "Schedule": entries})


def fixed_periodic(period: str, start: str, amount: str, *, number: int) -> Schedule:
    """Return a schedule of one payment of this amount in each period."""
    return multi(_plan("FixedPeriodicSchedule", period, start, Amount=dirhams(amount)), number)


def variable_periodic(period: str, start: str, most: str, *, number: int) -> Schedule:
    """Return a schedule of one payment of at most so much in each period."""
    plan = _plan("VariablePeriodicSchedule", period, start, MaximumIndividualAmount=dirhams(most))
    return multi(plan, number)


def fixed_on_demand(
    period: str, start: str, amount: str, controls: dict[str, Any], number: int | None = None
) -> Schedule:
    """Return a schedule of payments of this amount, whenever they are wanted, within controls per period."""
    plan = _plan("FixedOnDemand", period, start, Amount=dirhams(amount), Controls=controls)
    return multi(plan, number)


def variable_on_demand(
    period: str, start: str, controls: dict[str, Any], number: int | None = None, value: str = ""
) -> Schedule:
    """Return a schedule of payments, whenever they are wanted, within controls."""
    return multi(_plan("VariableOnDemand", period, start, Controls=controls), number, value)


def controls(*, number: int | None = None, value: str = "", most: str = "") -> dict[str, Any]:
    """Return controls: payments in a period, their value, the most of one of them."""
    found: dict[str, Any] = {}
    if number is not None:
        found["MaximumCumulativeNumberOfPaymentsPerPeriod"] = number
    if value:
        found["MaximumCumulativeValueOfPaymentsPerPeriod"] = dirhams(value)
    if most:
        found["MaximumIndividualAmount"] = dirhams(most)
    return found


def multi(plan: dict[str, Any], number: int | None = None, value: str = "") -> Schedule:
    """Return a plan with limits over all of its payments."""
    wrapper: dict[str, Any] = {"PeriodicSchedule": plan}
    if number is not None:
        wrapper["MaximumCumulativeNumberOfPayments"] = number
    if value:
        wrapper["MaximumCumulativeValueOfPayments"] = dirhams(value)
    return {"MultiPayment": wrapper}


def _plan(kind: str, period: str, start: str, **members: Any) -> dict[str, Any]:
    return {"Type": kind, "PeriodType": period, "PeriodStartDate": start, **members}
