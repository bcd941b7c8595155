"""The Hub's rules for payment consents that no schema states.

Source: the UAE standard's requirement pages for service initiation; decisions 2, 3 and section 6 (purpose codes).
"""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo

from hub.authz.detail_checks import moment_of
from hub.authz.facts import Facts, refuse
from hub.authz.tables import DETAIL_TYPES
from hub.model.consent import ConsentType
from hub.model.fault import Fault
from hub.model.limits import Schedule, Terms, amount_text, terms_of
from hub.model.period import local_date
from hub.model.purposes import PURPOSES
from hub.protocol.jose import JWE_ALG, JWE_ENC, decode_b64url, decode_json
from hub.protocol.oauth import show

_KINDS: Final = ("SinglePayment", "MultiPayment", "FilePayment")
_PERIODIC: Final = frozenset({"FixedPeriodicSchedule", "VariablePeriodicSchedule"})
_MOST: Final = 2**31 - 1
"""The highest count; nobody pays more often."""
_YEAR: Final = timedelta(days=366)


def _bad(check: str, public: str) -> Fault:
    return refuse("invalid_authorization_details", check, public)


def _is_payment(facts: Facts) -> bool:
    return DETAIL_TYPES[facts.detail["type"]].consent_type is ConsentType.SERVICE_INITIATION


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _control(facts: Facts) -> Mapping[str, Any]:
    return _mapping(facts.asked.get("ControlParameters"))


def _schedules(facts: Facts) -> Mapping[str, Any]:
    return _mapping(_control(facts).get("ConsentSchedule"))


def _periodic(facts: Facts) -> Mapping[str, Any]:
    return _mapping(_mapping(_schedules(facts).get("MultiPayment")).get("PeriodicSchedule"))


def payment_schedule(facts: Facts) -> Fault | None:
    """Expect exactly one schedule, none with delegated authentication, and a count with periodic ones."""
    if not _is_payment(facts):
        return None
    found = [kind for kind in _KINDS if kind in _schedules(facts)]
    wanted = 0 if _control(facts).get("IsDelegatedAuthentication") is True else 1
    if len(found) != wanted:
        return _bad(
            "payment.schedule", f"ConsentSchedule: expected {wanted} schedule, got {len(found)}"
        )
    multi = _mapping(_schedules(facts).get("MultiPayment"))
    if (
        _periodic(facts).get("Type") in _PERIODIC
        and "MaximumCumulativeNumberOfPayments" not in multi
    ):
        return _bad(
            "payment.schedule", "MaximumCumulativeNumberOfPayments: expected with this schedule"
        )
    return None


def payment_amounts(facts: Facts) -> Fault | None:
    """Expect amounts above zero in AED, and counts from one to what can be counted."""
    if not _is_payment(facts):
        return None
    for name, value in _members(_schedules(facts)):
        if name == "Currency" and value != "AED":
            return _bad("payment.amounts", f"Currency: expected 'AED', got {show(value)}")
        if name in {"Amount", "ControlSum"} and isinstance(value, str) and not _is_positive(value):
            return _bad("payment.amounts", f"{name}: expected more than zero, got {show(value)}")
        if name.startswith(("MaximumCumulativeNumber", "NumberOf")) and not _is_count(value):
            return _bad("payment.amounts", f"{name}: expected 1 to {_MOST}, got {show(value)}")
    return None


def _members(value: object) -> Iterator[tuple[str, Any]]:
    """Yield each member below a value; depth and size are bounded by the request object's parser."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield name, child
            yield from _members(child)
    elif isinstance(value, list):
        for child in value:
            yield from _members(child)


def _is_positive(text: str) -> bool:
    try:
        return Decimal(text) > 0
    except InvalidOperation:
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def payment_dates(facts: Facts) -> Fault | None:
    """Expect dates from today on (a file's from tomorrow on), within the consent, without repetition, ending with it."""
    if not _is_payment(facts):
        return None
    zone = ZoneInfo(facts.rules.time_zone)
    today = local_date(facts.now, zone)
    end = local_date(moment_of(facts.asked.get("ExpirationDateTime")) or 0, zone)
    start = _periodic(facts).get("PeriodStartDate")
    if start is not None and not _within(start, today, end):
        return _bad(
            "payment.dates", f"PeriodStartDate: expected {today} to {end}, got {show(start)}"
        )
    file_day = _mapping(_schedules(facts).get("FilePayment")).get("RequestedExecutionDate")
    tomorrow = today + timedelta(days=1)
    if file_day is not None and not _within(file_day, tomorrow, min(end, today + _YEAR)):
        return _bad(
            "payment.dates",
            f"RequestedExecutionDate: expected {tomorrow} to {end}, got {show(file_day)}",
        )
    return _defined_dates(_periodic(facts).get("Schedule"), today, end)


def _defined_dates(schedule: object, today: date, end: date) -> Fault | None:
    if not isinstance(schedule, list):
        return None
    days = [str(_mapping(entry).get("PaymentExecutionDate")) for entry in schedule]
    for day in days:
        if not _within(day, today, end) or days.count(day) > 1:
            return _bad(
                "payment.dates",
                f"PaymentExecutionDate: expected once, {today} to {end}, got {show(day)}",
            )
    if days and max(days) != end.isoformat():
        return _bad(
            "payment.dates", f"ExpirationDateTime: expected on the last payment's day, got {end}"
        )
    return None


def _within(text: object, first: date, last: date) -> bool:
    try:
        return isinstance(text, str) and first <= date.fromisoformat(text) <= last
    except ValueError:
        return False


def payment_limits(facts: Facts) -> Fault | None:
    """Expect limits that can be met: one payment within a period's value, and that within the value of all."""
    if not _is_payment(facts):
        return None
    terms = terms_of(_control(facts))
    if terms is None:
        return _bad("payment.limits", "ConsentSchedule: expected a schedule of a known kind")
    for name, value, most in _bounds(terms):
        if value is not None and most is not None and value > most:
            came, limit = amount_text(value), amount_text(most)
            return _bad("payment.limits", f"{name}: expected at most {limit}, got {came}")
    return None


def _bounds(terms: Terms) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield each amount that another one bounds: its name, itself, the most it may be."""
    one = terms.exact if terms.exact is not None else terms.largest
    yield "Amount", one, terms.period_value
    yield "Amount", one, terms.value
    yield "MaximumCumulativeValueOfPaymentsPerPeriod", terms.period_value, terms.value
    fixed = terms.schedule is Schedule.FIXED_DEFINED
    amounts = list(terms.dates.values())
    together = sum(amounts) if fixed else max(amounts, default=0)
    yield "Schedule", together, terms.value


def payment_purpose(facts: Facts) -> Fault | None:
    """Expect PaymentPurposeCode to be on the AANI list."""
    came = facts.asked.get("PaymentPurposeCode")
    if not _is_payment(facts) or came in PURPOSES:
        return None
    return _bad("payment.purpose", f"PaymentPurposeCode: expected an AANI code, got {show(came)}")


def payment_pii(facts: Facts) -> Fault | None:
    """Expect PersonalIdentifiableInformation to be a compact JWE, RSA-OAEP-256 with A256GCM."""
    if not _is_payment(facts):
        return None
    came = facts.asked.get("PersonalIdentifiableInformation")
    parts = came.split(".") if isinstance(came, str) else []
    header = decode_json(decode_b64url(parts[0]) or b"null") if len(parts) == 5 else None
    algorithms = (header.get("alg"), header.get("enc")) if isinstance(header, dict) else None
    if algorithms == (JWE_ALG, JWE_ENC):
        return None
    public = f"PersonalIdentifiableInformation: expected a JWE with {JWE_ALG} and {JWE_ENC}"
    return _bad("payment.pii", public)
