"""The payment-limit engine against a plain re-count, and the standard's periods day by day."""

import calendar
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.fault import Fault
from hub.model.limits import (
    Allowance,
    Schedule,
    amount_text,
    confirm,
    consumption,
    hundredths,
    is_used_up,
    period_key,
    release,
    remaining,
    reserve,
    terms_of,
)
from hub.model.period import PeriodType, local_date, period_of, recurs_on

DUBAI = ZoneInfo("Asia/Dubai")
START = date(2026, 1, 15)


def money(text):
    return {"Amount": text, "Currency": "AED"}


def multi(plan, **wrapper):
    return terms_of({"ConsentSchedule": {"MultiPayment": {"PeriodicSchedule": plan, **wrapper}}})


def periodic(kind, period="Month", start=START, **more):
    return {"Type": kind, "PeriodType": period, "PeriodStartDate": start.isoformat(), **more}


def nothing():
    return Allowance(consent_id="c")


def pay(terms, taken, text, day, name=None, currency="AED"):
    name = name or f"p{taken.total.number}-{len(taken.open)}"
    return reserve(terms, taken, name, hundredths(text), currency, day)


def refused(result, limit):
    assert isinstance(result, Fault), result
    assert (result.status, result.code) == (400, "Consent.FailsControlParameters")
    assert result.check == f"limits.{limit}"
    return True


@pytest.mark.parametrize(
    "text", ["1", "1.0", "1.000", "-1.00", "1e2", " 1.00", "", None, 1.0, "\u0661.00"]
)
def test_an_amount_is_exact_text_or_nothing(text):
    assert hundredths(text) is None


@given(st.integers(0, 10**18 - 1))
def test_amounts_survive_without_rounding(value):
    assert hundredths(amount_text(value)) == value


def test_midnight_is_the_tenants():
    eve = int(datetime(2026, 1, 31, 19, 59, 59, tzinfo=UTC).timestamp())
    assert local_date(eve, DUBAI) == date(2026, 1, 31)
    assert local_date(eve + 1, DUBAI) == date(2026, 2, 1)


@given(
    st.sampled_from(PeriodType),
    st.dates(date(2023, 1, 1), date(2028, 12, 31)),
    st.integers(0, 1500),
    st.booleans(),
)
def test_each_day_is_in_exactly_one_period_and_periods_join_without_a_gap(
    kind, start, offset, anchored
):
    day = start + timedelta(days=offset)
    period = period_of(kind, start, day, anchored=anchored)
    assert period.first <= day <= period.last
    assert period_of(kind, start, period.first, anchored=anchored) == period
    assert period_of(kind, start, period.last, anchored=anchored) == period
    after = period_of(kind, start, period.last + timedelta(days=1), anchored=anchored)
    assert after.first == period.last + timedelta(days=1)
    assert period_of(kind, start, start - timedelta(days=1), anchored=anchored) is None


def test_the_first_calendar_month_ends_with_its_month():
    assert period_of(PeriodType.MONTH, START, date(2026, 1, 31)).first == START
    february = period_of(PeriodType.MONTH, START, date(2026, 2, 1))
    assert (february.first, february.last) == (date(2026, 2, 1), date(2026, 2, 28))
    assert period_of(PeriodType.MONTH, START, date(2028, 2, 29)).last == date(2028, 2, 29)


def test_anchored_months_and_years_take_the_last_day_of_what_is_shorter():
    start = date(2024, 1, 31)
    february = period_of(PeriodType.MONTH, start, date(2024, 2, 29), anchored=True)
    assert (february.first, february.last) == (date(2024, 2, 29), date(2024, 3, 30))
    leap = date(2024, 2, 29)
    year = period_of(PeriodType.YEAR, leap, date(2025, 2, 28))
    assert (year.first, year.last) == (date(2025, 2, 28), date(2026, 2, 27))
    assert calendar.isleap(2024)


def test_a_single_payment_is_exact_and_once_and_a_rejected_one_may_be_repeated():
    terms = terms_of(
        {
            "ConsentSchedule": {
                "SinglePayment": {"Type": "SingleInstantPayment", "Amount": money("10.00")}
            }
        }
    )
    assert refused(pay(terms, nothing(), "10.01", START), "amount")
    assert refused(pay(terms, nothing(), "10.00", START, currency="EUR"), "currency")
    taken = pay(terms, nothing(), "10.00", START, "a")
    assert refused(pay(terms, taken, "10.00", START), "number")
    assert not is_used_up(terms, taken, START), "it is not final yet"
    again = pay(terms, release(taken, "a"), "10.00", START, "b")
    assert is_used_up(terms, confirm(again, "b"), START)


@pytest.mark.parametrize("kind", ["FixedDefinedSchedule", "VariableDefinedSchedule"])
def test_a_defined_schedule_pays_once_on_each_of_its_dates(kind):
    member = "Amount" if kind.startswith("Fixed") else "MaximumIndividualAmount"
    days = [date(2026, 2, 1), date(2026, 3, 1)]
    plan = {
        "Type": kind,
        "Schedule": [{"PaymentExecutionDate": d.isoformat(), member: money("5.00")} for d in days],
    }
    terms = multi(plan)
    assert refused(pay(terms, nothing(), "5.00", date(2026, 2, 2)), "date")
    assert refused(pay(terms, nothing(), "5.01", days[0]), "amount")
    lower = pay(terms, nothing(), "4.99", days[0])
    assert isinstance(lower, Fault) is kind.startswith("Fixed")
    taken = pay(terms, nothing(), "5.00", days[0], "a")
    assert refused(pay(terms, taken, "5.00", days[0]), "period_number")
    taken = confirm(pay(terms, confirm(taken, "a"), "5.00", days[1], "b"), "b")
    assert is_used_up(terms, taken, days[1])


@pytest.mark.parametrize(
    ("kind", "lower_allowed"),
    [("FixedPeriodicSchedule", False), ("VariablePeriodicSchedule", True)],
)
def test_a_periodic_schedule_pays_once_in_each_period(kind, lower_allowed):
    member = "MaximumIndividualAmount" if lower_allowed else "Amount"
    terms = multi(periodic(kind, **{member: money("5.00")}), MaximumCumulativeNumberOfPayments=2)
    assert refused(pay(terms, nothing(), "5.00", START - timedelta(days=1)), "date")
    assert isinstance(pay(terms, nothing(), "4.00", START), Fault) is not lower_allowed
    taken = pay(terms, nothing(), "5.00", START, "a")
    assert refused(pay(terms, taken, "5.00", date(2026, 1, 31)), "period_number")
    taken = pay(terms, taken, "5.00", date(2026, 2, 1), "b")
    assert refused(pay(terms, taken, "5.00", date(2026, 3, 1)), "number")
    assert not is_used_up(terms, confirm(taken, "a"), START)
    assert is_used_up(terms, confirm(confirm(taken, "a"), "b"), START)


def test_payments_on_demand_stay_within_their_periods_and_totals():
    controls = {
        "MaximumIndividualAmount": money("4.00"),
        "MaximumCumulativeValueOfPaymentsPerPeriod": money("10.00"),
        "MaximumCumulativeNumberOfPaymentsPerPeriod": 3,
    }
    plan = periodic("VariableOnDemand", "Week", Controls=controls)
    terms = multi(plan, MaximumCumulativeValueOfPayments=money("13.00"))
    taken = nothing()
    for name in "ab":
        taken = pay(terms, taken, "4.00", START, name)
    assert refused(pay(terms, taken, "4.01", START), "amount")
    assert refused(pay(terms, taken, "2.01", START), "period_value")
    taken = pay(terms, taken, "2.00", START, "c")
    assert refused(pay(terms, taken, "0.01", START), "period_number")
    next_week = START + timedelta(days=7)
    assert refused(pay(terms, taken, "3.01", next_week), "value")
    left = remaining(terms, taken, next_week)
    assert (left.value, left.period_number, left.period_value, left.number) == (300, 3, 1000, None)
    shown = consumption(terms, taken, START)
    assert shown["CumulativeValueOfPaymentsInCurrentPeriod"] == money("10.00")
    assert shown["CumulativeNumberOfPayments"] == 3
    assert "CumulativeNumberOfPaymentsInCurrentPeriod" not in consumption(terms, taken, next_week)


def test_delegated_payments_have_no_limits_and_nothing_else_is_guessed():
    terms = terms_of({"IsDelegatedAuthentication": True, "ConsentSchedule": {}})
    assert terms.schedule is Schedule.DELEGATED
    taken = confirm(pay(terms, nothing(), "999999.00", START, "a"), "a")
    assert not is_used_up(terms, taken, START)
    assert terms_of({}) is None
    assert (
        terms_of({"ConsentSchedule": {"SinglePayment": {"Type": "SingleFutureDatedPayment"}}})
        is None
    )


@st.composite
def on_demand(draw):
    def some(strategy):
        return draw(st.none() | strategy)

    value = st.integers(1, 3000).map(lambda v: money(amount_text(v)))
    controls = {
        "MaximumIndividualAmount": some(value),
        "MaximumCumulativeValueOfPaymentsPerPeriod": some(value),
        "MaximumCumulativeNumberOfPaymentsPerPeriod": some(st.integers(1, 4)),
    }
    wrapper = {
        "MaximumCumulativeValueOfPayments": some(value),
        "MaximumCumulativeNumberOfPayments": some(st.integers(1, 8)),
    }
    plan = periodic("VariableOnDemand", draw(st.sampled_from(PeriodType)), Controls=controls)
    return multi(plan, **wrapper)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("pppcr"), st.integers(1, 1200), st.integers(0, 70), st.integers(0, 9)
    ),
    max_size=40,
)


@given(on_demand(), STEPS)
def test_the_engine_agrees_with_a_plain_recount(terms, steps):
    taken, counted, still_open = nothing(), {}, []
    for number, (what, amount, offset, pick) in enumerate(steps):
        day = START + timedelta(days=offset)
        if what != "p":
            if not still_open:
                continue
            name = still_open.pop(pick % len(still_open))
            taken = confirm(taken, name) if what == "c" else release(taken, name)
            if what == "r":
                del counted[name]
            continue
        period = period_key(terms, day)
        inside = [a for a, p in counted.values() if p == period]
        allowed = (
            (terms.largest is None or amount <= terms.largest)
            and (terms.number is None or len(counted) < terms.number)
            and (terms.value is None or sum(a for a, _ in counted.values()) + amount <= terms.value)
            and (terms.period_number is None or len(inside) < terms.period_number)
            and (terms.period_value is None or sum(inside) + amount <= terms.period_value)
        )
        result = reserve(terms, taken, f"n{number}", amount, "AED", day)
        assert isinstance(result, Allowance) is allowed
        if isinstance(result, Allowance):
            taken = result
            counted[f"n{number}"] = (amount, period)
            still_open.append(f"n{number}")
    assert taken.total.number == len(counted)
    assert taken.total.value == sum(a for a, _ in counted.values())
    assert set(taken.open) == set(still_open)
    for period, inside in taken.periods.items():
        assert inside.value == sum(a for a, p in counted.values() if p == period)


def test_a_share_is_confirmed_or_released_once():
    terms = terms_of({"IsDelegatedAuthentication": True})
    taken = pay(terms, nothing(), "1.00", START, "a")
    done = confirm(taken, "a")
    assert confirm(done, "a") is done
    assert release(done, "a") is done, "what is final is not given back"


def test_exact_days_are_the_start_and_its_recurrences():
    start = date(2024, 1, 31)
    terms = multi(
        periodic("FixedPeriodicSchedule", "Month", start, Amount=money("5.00")),
        MaximumCumulativeNumberOfPayments=9,
    )
    strict = msgspec.structs.replace(terms, exact_days=True)
    assert isinstance(pay(terms, nothing(), "5.00", date(2024, 2, 10)), Allowance)
    assert refused(pay(strict, nothing(), "5.00", date(2024, 2, 10)), "date")
    assert isinstance(pay(strict, nothing(), "5.00", date(2024, 2, 29)), Allowance)
    assert refused(pay(strict, nothing(), "5.00", date(2024, 2, 28)), "date")


@given(
    st.sampled_from(PeriodType), st.dates(date(2023, 1, 1), date(2028, 12, 31)), st.integers(0, 900)
)
def test_a_start_recurs_once_in_each_anchored_period_and_on_its_first_day(kind, start, offset):
    day = start + timedelta(days=offset)
    period = period_of(kind, start, day, anchored=True)
    assert recurs_on(kind, start, day) is (day == period.first)
    assert not recurs_on(kind, start, start - timedelta(days=1))


@pytest.mark.parametrize(
    ("zone", "eve", "midnight"),
    [
        ("Asia/Dubai", "2026-01-31T19:59:59", date(2026, 2, 1)),
        ("UTC", "2028-02-28T23:59:59", date(2028, 2, 29)),
        ("Europe/Berlin", "2026-03-28T22:59:59", date(2026, 3, 29)),
        ("Europe/Berlin", "2026-10-25T22:59:59", date(2026, 10, 26)),
        ("America/New_York", "2025-12-31T04:59:59", date(2025, 12, 31)),
    ],
)
def test_a_period_begins_at_midnight_of_the_tenants_zone_to_the_second(zone, eve, midnight):
    """A day's share is used up in its last second and there again in the next."""
    moment = int(datetime.fromisoformat(eve).replace(tzinfo=UTC).timestamp())
    controls = {"MaximumCumulativeNumberOfPaymentsPerPeriod": 1}
    start = midnight - timedelta(days=40)
    terms = multi(periodic("FixedOnDemand", "Day", start, Amount=money("1.00"), Controls=controls))
    last, first = (local_date(at, ZoneInfo(zone)) for at in (moment, moment + 1))
    assert (last, first) == (midnight - timedelta(days=1), midnight)
    taken = pay(terms, nothing(), "1.00", last, "a")
    assert refused(pay(terms, taken, "1.00", last), "period_number")
    assert isinstance(pay(terms, taken, "1.00", first), Allowance)


def test_more_than_can_be_counted_is_refused_and_what_can_be_is_stored():
    terms = terms_of({"IsDelegatedAuthentication": True})
    most = 10**18 - 1
    taken = reserve(terms, nothing(), "a", most - 1, "AED", START)
    taken = reserve(terms, taken, "b", 1, "AED", START)
    assert refused(reserve(terms, taken, "c", 1, "AED", START), "countable")
    shown = consumption(terms, taken, START)["CumulativeValueOfPayments"]["Amount"]
    assert hundredths(shown) == most, "it can be said in the standard's sixteen digits"
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(taken), type=Allowance)
    assert again == taken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "ConsentSchedule", "MultiPayment", "PeriodicSchedule", "Schedule", "Type", "Amount",
                    "PeriodType", "PeriodStartDate", "Controls", "PaymentExecutionDate", "SinglePayment",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_control_parameters_that_make_no_sense_are_of_no_kind(control):
    found = terms_of(control)
    assert found is None or found.schedule in set(Schedule)


@pytest.mark.parametrize(
    "plan",
    [
        {"Type": "FixedOnDemand", "PeriodType": "Decade", "PeriodStartDate": "2026-01-01"},
        {"Type": "FixedOnDemand", "PeriodType": "Day", "PeriodStartDate": "yesterday"},
        {"Type": "FixedDefinedSchedule", "Schedule": [{"Amount": money("1.00")}]},
        {"Type": "FixedDefinedSchedule", "Schedule": ["2026-01-01"]},
        {"Type": ["FixedOnDemand"]},
    ],
)
def test_a_plan_that_cannot_be_read_is_of_no_kind(plan):
    assert multi(plan) is None
