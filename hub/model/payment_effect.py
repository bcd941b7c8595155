"""What a payment's status does to its consent: shares become final or free, consumption is shown, the used up is Consumed.

Source: consents 6.4; decisions.md section 3 and section 2 (Consumed).
"""

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

import msgspec

from hub.model.consent import Consent, Party, Status, may_become
from hub.model.consent_change import as_of, date_time_of, with_data, with_status
from hub.model.fault import Fault, caller_fault
from hub.model.limits import (
    Allowance,
    Share,
    Taken,
    Terms,
    confirm,
    consumption,
    give_back,
    is_used_up,
    period_key,
    release,
    reserve,
    terms_of,
)


def terms_in(consent: Consent, *, anchored: bool = False) -> Terms | None:
    """Return what a consent allows; None if it allows no payments."""
    request, name = consent.request, (consent.id, anchored)
    kept = _TERMS.get(name)
    if kept is not None and kept[0] is request:
        return kept[1]
    control = request.get("consent", {}).get("ControlParameters", {})
    terms = terms_of(control, anchored=anchored)
    if len(_TERMS) >= _KEPT_MOST:
        _TERMS.clear()
    _TERMS[name] = request, terms
    return terms


_ATTEMPT: Final = "lastServiceInitiationAttempt"
_KEPT_MOST: Final = 1024
_TERMS: Final[dict[tuple[str, bool], tuple[Mapping[str, Any], Terms | None]]] = {}
"""Terms by the consent, with the request that they were read from: it is never changed, and one payment asks for them four times."""


def take_share(
    consent: Consent,
    taken: Allowance,
    payment: str,
    amount: int,
    currency: str,
    day: date,
    *,
    anchored: bool = False,
    exact_days: bool = False,
) -> Allowance | Fault:
    """Decide a payment under a consent and take its share.

    Faults: those of ``limits.reserve``; 400 ``Consent.Invalid`` where the consent allows no payments.
    """
    terms = terms_in(consent, anchored=anchored)
    if terms is None:
        text = "The consent allows no payment of this kind."
        return caller_fault(400, "Consent.Invalid", text, check="limits.terms")
    strict = msgspec.structs.replace(terms, exact_days=exact_days)
    return reserve(strict, taken, payment, amount, currency, day)


def settled(taken: Allowance, share: str, status: str) -> Allowance:
    """Make the share of an accepted payment final, give back that of a rejected one; else return the same object."""
    if status.startswith("Accepted"):
        return confirm(taken, share)
    if status == "Rejected":
        return release(taken, share)
    return taken


def undone(
    consent: Consent, taken: Allowance, amount: int, day: date, *, anchored: bool = False
) -> Allowance:
    """Give back the final share of a payment that was made on a day and is rejected all the same."""
    terms = terms_in(consent, anchored=anchored)
    period = period_key(terms, day) if terms is not None else None
    counted = taken.periods.get(period, Taken()) if period else taken.total
    if period is None or not counted.number:
        return taken
    return give_back(taken, Share(amount, period))


def with_consumption(
    consent: Consent, taken: Allowance, now_ms: int, day: date, *, anchored: bool = False
) -> Consent:
    """Return the consent with its ``PaymentConsumption`` of now, Consumed if nothing is left.

    Args:
        consent: A service-initiation consent.
        taken: What its payments have taken.
        now_ms: The moment, milliseconds.
        day: Its date in the tenant's zone.
        anchored: Months are counted from the schedule's start.
    """
    terms = terms_in(consent, anchored=anchored)
    if terms is None:
        return consent
    changed = with_shown_consumption(consent, taken, day, anchored=anchored)
    status = as_of(consent, now_ms).status
    lawful = may_become(consent.consent_type, status, Status.CONSUMED, Party.HUB)
    if lawful and is_used_up(terms, taken, day):
        return with_status(changed, Status.CONSUMED, now_ms)
    if changed is consent:
        return consent
    return msgspec.structs.replace(changed, updated_ms=now_ms)


def with_shown_consumption(
    consent: Consent, taken: Allowance, day: date, *, anchored: bool = False
) -> Consent:
    """Return the consent with its ``PaymentConsumption`` of a day; the same object if it shows that already."""
    terms = terms_in(consent, anchored=anchored)
    if terms is None:
        return consent
    shown = consumption(terms, taken, day)
    data = consent.body.get("Data", {})
    if shown is not None and data.get("PaymentConsumption") != shown:
        return with_data(consent, PaymentConsumption=shown)
    if shown is None and "PaymentConsumption" in data:
        left = {name: value for name, value in data.items() if name != "PaymentConsumption"}
        return msgspec.structs.replace(consent, body={**consent.body, "Data": left})
    return consent


def with_attempt(consent: Consent, attempted: int) -> Consent:
    """Return the consent whose usage says when a payment was last ordered under it, in seconds; the same object if it does."""
    if not attempted:
        return consent
    said, held = date_time_of(attempted), consent.usage.get(_ATTEMPT, "")
    if held.endswith("Z") and held >= said:  # a bank may have written it, with another offset
        return consent
    return msgspec.structs.replace(consent, usage={**consent.usage, _ATTEMPT: said})
