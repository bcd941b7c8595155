"""What the payment log keeps of a bank's payment: the members that Ozone Connect declares, and nothing that was put beside them.

The log shows ``paymentResponse`` to the bank itself, so it is kept in the bank's spelling. A bank may add members that nobody has
agreed to; a status that is none of the agreed words says nothing, so the payment is pending, as is one that was only received.

Source: Ozone Connect service initiation v2.1.7, ``POST /payments``; hub-apis 3.7.
"""

from typing import Any, Final

_LEAF: Final = None
_EXCHANGE: Final = dict.fromkeys(
    ("contractIdentification", "exchangeRate", "expirationDateTime", "rateType", "unitCurrency")
)
_AMOUNT: Final = dict.fromkeys(("amount", "currency"))
_SHAPE: Final[dict[str, Any]] = {
    "charges": [{"amount": _AMOUNT, "chargeBearer": _LEAF, "type": _LEAF}],
    "consentId": _LEAF,
    "creationDateTime": _LEAF,
    "currencyRequest": {
        "chargeBearer": _LEAF,
        "currencyOfTransfer": _LEAF,
        "destinationCountryCode": _LEAF,
        "exchangeRateInformation": _EXCHANGE,
        "extendedPurpose": _LEAF,
        "fxQuoteId": _LEAF,
        "instructionPriority": _LEAF,
    },
    "debtorReference": _LEAF,
    "exchangeRate": _EXCHANGE,
    "id": _LEAF,
    "instruction": {"Amount": _AMOUNT},
    "openFinanceBilling": dict.fromkeys(("MerchantId", "NumberOfSuccessfulTransactions", "Type")),
    "paymentPurposeCode": _LEAF,
    "paymentTransactionId": _LEAF,
    "rejectReasonCode": [dict.fromkeys(("code", "message"))],
    "status": _LEAF,
    "statusUpdateDateTime": _LEAF,
}
_WORDS: Final = frozenset(
    {
        "AcceptedCreditSettlementCompleted",
        "AcceptedSettlementCompleted",
        "AcceptedWithoutPosting",
        "Pending",
        "Rejected",
    }
)


def kept_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a bank's payment."""
    kept: dict[str, Any] = _declared(data, _SHAPE)
    if "status" in data:
        kept["status"] = word_of(data["status"])
    return kept


def word_of(status: object) -> str:
    """Return what a bank's status says of a payment to its TPP and in the log: ``Received`` and what nobody knows are pending."""
    return status if isinstance(status, str) and status in _WORDS else "Pending"


def _declared(value: Any, shape: Any) -> Any:
    """Return what a shape declares of a value; None for a value of another kind."""
    if isinstance(shape, list):
        items = [_declared(v, shape[0]) for v in value] if isinstance(value, list) else [None]
        return [item for item in items if item is not None] or None
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return None
        found = {n: _declared(value[n], inner) for n, inner in shape.items() if n in value}
        return {n: v for n, v in found.items() if v is not None}
    return None if isinstance(value, dict | list) else value
