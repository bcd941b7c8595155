"""What the bank may say of a payment afterwards, in every published spelling, and what becomes of the record.

The documents contradict each other (dotted, nested, wrapped in ``data``, capital letters); all are brought to one form.
A final status is final; reasons of a rejection are only ever added.

Source: hub-apis 3.7; hub-behaviour 5.4; journeys 3.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hub.model.consent_change import date_time_of
from hub.model.fault import Fault, caller_fault
from hub.model.records import Payment
from hub.model.shape import Check, integer, items, members, one_of, text

FINAL: Final = frozenset(
    {"AcceptedCreditSettlementCompleted", "AcceptedWithoutPosting", "Rejected"}
)
_BILLING: Final = "OpenFinanceBilling"
_BANKS_BILLING: Final = "openFinanceBilling"
"""As the bank's own answers spell it, and so does the record of a payment."""
_REASONS: Final = "rejectReasonCode"
_REASON: Final[Mapping[str, Check]] = {
    "code": text(3, 128, r"[A-Za-z]+\.[A-Za-z0-9]+"),
    "message": text(1, 500),
}
"""What is kept of a reason; the published schema lets more stand beside it."""
_FIELDS: Final[Mapping[str, Check]] = {
    "status": one_of(
        "Pending",
        "AcceptedSettlementCompleted",
        "AcceptedCreditSettlementCompleted",
        "AcceptedWithoutPosting",
        "Rejected",
    ),
    _BILLING: members({}, {"NumberOfSuccessfulTransactions": integer}),
    "paymentTransactionId": text(1, 40),
    _REASONS: items(members(_REASON, closed=False), 1),
}
_SPELLING: Final = {name.lower(): name for name in _FIELDS}


def read_payment_patch(body: Any) -> dict[str, Any] | Fault:
    """Read a patch of the payment log into plain member names.

    Faults: 400 ``Body.InvalidFormat``, naming the member.
    """
    if isinstance(body, dict) and set(body) == {"data"}:
        body = body["data"]
    if not isinstance(body, dict):
        return _malformed("body", "expected a JSON object")
    fields: dict[str, Any] = {}
    for given, value in _members_of(body):
        name = _SPELLING.get(given.removeprefix("paymentResponse.").lower())
        if name is None:
            known = ", ".join(f"paymentResponse.{member}" for member in _FIELDS)
            return _malformed(given[:128], f"is not known; known are {known}")
        if fields.setdefault(name, value) != value:
            return _malformed(given, "stands twice with different values")
        wrong = _FIELDS[name](value)
        if wrong is not None:
            return _malformed(given + wrong.path, wrong.expected)
    if "status" not in fields:
        return _malformed("paymentResponse.status", "is required")
    if _REASONS in fields:
        fields[_REASONS] = [{name: one[name] for name in _REASON} for one in fields[_REASONS]]
    return fields


def _members_of(body: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in body.items():
        if name == "paymentResponse" and isinstance(value, dict):
            found += [(f"paymentResponse.{inner}", member) for inner, member in value.items()]
        else:
            found.append((name, value))
    return found


def apply_payment_patch(
    payment: Payment, fields: Mapping[str, Any], now_ms: int
) -> Payment | Fault:
    """Decide a patch; the very same object comes back if nothing changes.

    Faults: 400 ``Consent.BusinessRuleViolation`` for a final payment.
    """
    held = payment.response
    status = fields["status"]
    if payment.status in FINAL and status != payment.status:
        return caller_fault(
            400,
            "Consent.BusinessRuleViolation",
            f"paymentResponse.status: the payment is {payment.status}, which is final",
            check="payment.final",
            path="paymentResponse.status",
        )
    said = {name: value for name, value in fields.items() if name != _BILLING}
    response = {**held, **said}
    if _REASONS in fields:
        earlier = list(held.get(_REASONS, []))
        added = [reason for reason in fields[_REASONS] if reason not in earlier]
        response[_REASONS] = earlier + added
    if _BILLING in fields:
        response[_BANKS_BILLING] = {**held.get(_BANKS_BILLING, {}), **fields[_BILLING]}
    if response == held:
        return payment
    if status != payment.status:
        response["statusUpdateDateTime"] = date_time_of(now_ms // 1000)
    return msgspec.structs.replace(payment, response=response, updated_ms=now_ms)


def shown_response(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bank's word on a payment as the payment log spells it."""
    shown = {name: value for name, value in response.items() if name != _BANKS_BILLING}
    if _BANKS_BILLING in response:
        shown[_BILLING] = {**response[_BANKS_BILLING], **response.get(_BILLING, {})}
    return shown


def _malformed(field: str, why: str) -> Fault:
    return caller_fault(
        400, "Body.InvalidFormat", f"{field}: {why}", check="payment.patch_format", path=field
    )
