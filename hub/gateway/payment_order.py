"""A payment order before it is sent: what its consent says of it, what the bank is asked, what the log will say.

Source: routes.md T6; hub-apis 3.7; decisions.md section 3.
"""

from datetime import date
from typing import Any, Final, final

import orjson

from hub.gateway.enrich import o3_headers
from hub.gateway.files import FILE_PAYMENT, payment_type
from hub.gateway.values import Access, Call
from hub.model.consent import Consent
from hub.model.fault import Fault, caller_fault
from hub.model.limits import hundredths
from hub.model.payment_file import file_of
from hub.model.purposes import PURPOSES
from hub.model.records import Payment, Question
from hub.state.keeper import Reserve
from hub.upstream.bank import BankCall

_SECRET: Final = frozenset({b"authorization", b"dpop", b"cookie", b"proxy-authorization"})
_SAME_OF_FILE: Final = ("PaymentPurposeCode", "DebtorReference")
"""The order of a file has no place for a ``CreditorReference``, which its consent may have."""
_SAME: Final = (*_SAME_OF_FILE, "CreditorReference")


@final
class Order:
    """Hold one order: a call, its access, the message, and the day it counts for."""

    def __init__(self, call: Call, access: Access, body: dict[str, Any], day: date) -> None:
        """Take what was sent; ``body`` has passed the contract."""
        self._call = call
        self._access = access
        self._body = body
        self._day = day
        self._type = payment_type(call.route.path)
        self._headers = _headers(call)
        self._tpp = access.caller.tpp_block()

    @property
    def _file(self) -> dict[str, Any] | None:
        return file_of(self._access.consent)

    @property
    def _amount(self) -> dict[str, str]:
        """Return the order's amount; a file's is its consent's control sum, in dirhams."""
        if self._type == FILE_PAYMENT:
            return {"Amount": str((self._file or {}).get("ControlSum", "0.00")), "Currency": "AED"}
        amount: dict[str, str] = self._body["Data"]["Instruction"]["Amount"]
        return amount

    def fault(self) -> Fault | None:
        """Return why the order is not one of its consent's, or None.

        Faults: 400 ``Consent.Invalid``, ``Consent.BusinessRuleViolation``, ``Body.InvalidFormat``.
        """
        call, access, body = self._call, self._access, self._body
        if hundredths(self._amount["Amount"]) is None:
            text = "/Data/Instruction/Amount/Amount: expected up to 16 digits and two decimals"
            return caller_fault(400, "Body.InvalidFormat", text, check="payment.amount")
        consent_id, named = access.token.consent_id, call.request.header(b"x-consent-id")
        ids = {body["Data"]["ConsentId"], *([named.decode("latin-1")] if named is not None else [])}
        if ids != {consent_id} or access.consent is None:
            text = "The payment names another consent than the token's."
            return caller_fault(400, "Consent.Invalid", text, check="payment.consent")
        if body["Data"].get("PaymentPurposeCode") not in PURPOSES:
            text, path = (
                "/Data/PaymentPurposeCode: expected an AANI code",
                "/Data/PaymentPurposeCode",
            )
            code = "Consent.BusinessRuleViolation"
            return caller_fault(400, code, text, check="payment.purpose", path=path)
        file, asked = self._file, access.consent.request.get("consent", {})
        if (self._type == FILE_PAYMENT) is not (file is not None):
            text = "The consent is to payments of another kind."
            return caller_fault(400, "Consent.Invalid", text, check="payment.kind")
        if file is not None and body["Data"].get("Instruction", file) != file:
            text, path = "/Data/Instruction: differs from the consent", "/Data/Instruction"
            code = "Consent.BusinessRuleViolation"
            return caller_fault(400, code, text, check="payment.differs", path=path)
        if file is None and "SinglePayment" not in (
            _control(access.consent).get("ConsentSchedule") or {}
        ):
            return None
        for name in _SAME if file is None else _SAME_OF_FILE:
            if body["Data"].get(name) != asked.get(name):
                text = f"/Data/{name}: differs from the consent"
                code = "Consent.BusinessRuleViolation"
                return caller_fault(400, code, text, check="payment.differs", path=f"/Data/{name}")
        return None

    def question(self, base: str, provider_id: str) -> BankCall:
        """Return what the bank is asked: the message inside a record of the call."""
        call, access = self._call, self._access
        consent = access.consent
        envelope: dict[str, Any] = {
            "requestUrl": base + call.request.path,
            "paymentType": self._type,
            "request": _for_bank(self._body),
            "requestHeaders": self._headers,
            "tpp": self._tpp,
        }
        if consent is not None and consent.supplementary:
            envelope["supplementaryInformation"] = consent.supplementary
        json = (b"content-type", b"application/json")
        return BankCall(
            method="POST",
            path=call.route.bank_path,
            family=call.route.bank_family,
            headers=(*o3_headers(call, access, provider_id), json),
            body=orjson.dumps(envelope),
            scope=" ".join(call.route.scopes),
            bearer=consent.connect_token if consent is not None else "",
            deadline_ms=call.route.deadline_ms,
        )

    def kept(self, asked: BankCall) -> Question:
        """Return what the bank is asked, to be kept until the outcome is known; without its bearer."""
        return Question(
            path=asked.path,
            family=asked.family,
            headers=asked.headers,
            body=asked.body,
            scope=asked.scope,
        )

    def draft(self, reservation: str) -> Payment:
        """Return the payment as far as it is known before the bank has given it an id."""
        call, access, body = self._call, self._access, self._body
        consent, amount = access.consent, self._amount
        if self._type == FILE_PAYMENT:
            # What a file's payment is read with later: the instruction may be left out of the order.
            body = {**body, "Data": {**body["Data"], "Instruction": self._file}}
        return Payment(
            id="",
            consent_id=access.token.consent_id,
            client_id=access.caller.client_id,
            organisation_id=access.caller.organisation_id,
            payment_type=self._type,
            idempotency_key=(call.request.header(b"x-idempotency-key") or b"").decode("latin-1"),
            created_ms=call.now_ms,
            updated_ms=call.now_ms,
            amount=amount["Amount"],
            currency=amount["Currency"],
            date=self._day.isoformat(),
            request_body=body,
            request_headers=self._headers,
            tpp=self._tpp,
            account_id=next(iter(consent.account_ids), "") if consent is not None else "",
            psu_identifiers=(consent.psu_identifiers or {}) if consent is not None else {},
            interaction_id=call.interaction_id,
            client_interaction_id=call.interaction_id if call.sent_id else "",
            access_token_hash=access.token.digest,
            reservation=reservation,
        )

    def reserve(self, reservation: str, *, anchored: bool, exact_days: bool) -> Reserve:
        """Return the claim to its share of the consent's limits."""
        call, amount = self._call, self._amount
        return Reserve(
            consent_id=self._access.token.consent_id,
            payment=reservation,
            amount=hundredths(amount["Amount"]) or 0,
            currency=amount["Currency"],
            now_ms=call.now_ms,
            day=self._day,
            anchored=anchored,
            exact_days=exact_days,
        )


def _control(consent: Consent) -> dict[str, Any]:
    control = consent.request.get("consent", {}).get("ControlParameters", {})
    return control if isinstance(control, dict) else {}


def _headers(call: Call) -> dict[str, str]:
    """Return the TPP's headers without credentials, as the bank and the payment log want them."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in call.request.headers
        if name not in _SECRET
    }


def _for_bank(body: dict[str, Any]) -> dict[str, Any]:
    """Return the message as the bank's closed schema wants it: the quote's id stands one level higher."""
    data = dict(body["Data"])
    currency = dict(data.get("CurrencyRequest") or {})
    quote = currency.pop("FxQuoteId", None)
    if quote is not None:
        data |= {"CurrencyRequest": currency, "FxQuoteId": quote}
    return {**body, "Data": data}
