"""Payments: an order moves money in the ledger, once per idempotency key, and its status follows (Ozone Connect v2.1.7).

Invariants. An order is refused before anything moves, or booked with its answer in one step. The same client's same key with
the same order gets the first answer again; with another order it is refused. A payment to an account of this bank is settled
at once; one to elsewhere is pending first. An amount that ends in 91 fils is turned down by the payee's bank, which gives the
money back.
"""

import base64
import hashlib
from typing import Any, Final, final

import msgspec

from hub.model.clock import Dice
from hub.sandbox.bank.book import Book, Granted, Payment
from hub.sandbox.bank.calendar import minor_units, money, timestamp
from hub.sandbox.bank.connect import BLOCKED, Answer, Call, Route, refused, route
from hub.sandbox.bank.history import WORLD
from hub.sandbox.bank.ledger import Entry
from hub.sandbox.bank.people import BIC, Account
from hub.sandbox.bank.pii import PiiReader, Unreadable, creditors_of
from hub.sandbox.bank.shapes import holder_name

Json = dict[str, Any]
FILE_PAYMENT: Final = "cbuae-file-payment"
FINAL: Final = frozenset(
    {"AcceptedCreditSettlementCompleted", "AcceptedWithoutPosting", "Rejected"}
)
REJECTED_FILS: Final = 91
PENDING_S: Final = 2
_REASON: Final = ("AANI.AC04", "the payee's account is closed")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one payment order as the Hub forwarded it."""

    consent_id: str
    client_id: str
    key: str
    kind: str
    amount: int
    creditor: tuple[str, str]
    data: Json
    fingerprint: str


@final
class PaymentDesk:
    """Take orders, tell what became of them, and settle what is pending."""

    __slots__ = ("_book", "_dice", "_pii")

    def __init__(self, book: Book, dice: Dice, pii: PiiReader) -> None:
        """Take the book, the dice for payment ids, and what opens the sealed parts."""
        self._book = book
        self._dice = dice
        self._pii = pii

    def routes(self) -> tuple[Route, ...]:
        """Return the operations of payments."""
        return (
            route("POST", "/payments", self._order, "payments"),
            route("GET", "/payments/*", self._read, "payments"),
            route("GET", "/payments/*/report-file", self._report, "payments"),
            route("POST", "/payment-consents", self._file_consent, "payments"),
            route("POST", "/payment-consents/*/file", self._file, "payments"),
            route("GET", "/payment-consents/*/refund", self._refund, "payments"),
        )

    def due(self) -> list[Payment]:
        """Return the payments that have been pending long enough."""
        now = self._book.now()
        return [p for p in self._book.pending() if now - p.created >= PENDING_S]

    def settle(self, payment: Payment) -> Payment:
        """Finish a pending payment: posted to the payee, or given back."""
        now = self._book.now()
        entry = payment.entry
        rejected = entry is not None and entry.amount % 100 == REJECTED_FILS
        status = "Rejected" if rejected else "AcceptedWithoutPosting"
        answer = {**payment.answer, "status": status, "statusUpdateDateTime": timestamp(now)}
        if rejected:
            answer["rejectReasonCode"] = [{"code": _REASON[0], "message": _REASON[1]}]
        settled = msgspec.structs.replace(
            payment,
            status=status,
            updated=now,
            answer=answer,
            reason=_REASON if rejected else ("", ""),
            back=_back(entry, now) if rejected and entry is not None else None,
        )
        self._book.record(settled)
        return settled

    def _order(self, call: Call) -> Answer:
        order = self._understood(call)
        known = self._book.payment_by_key(order.client_id, order.key)
        if known is not None:
            if known.fingerprint != order.fingerprint:
                raise refused(409, "GenericError", "the key was used for another order")
            self._book.repeated(known)
            return Answer(status=201, body={"data": known.answer, "meta": {}})
        account = self._debtor(call, order)
        payment = self._booked(order, account)
        self._book.record(payment)
        return Answer(status=201, body={"data": payment.answer, "meta": {}})

    def _understood(self, call: Call) -> Order:
        body = call.json()
        kind, request, headers = (body.get(k) for k in ("paymentType", "request", "requestHeaders"))
        data = request.get("Data") if isinstance(request, dict) else None
        if not isinstance(data, dict) or not isinstance(headers, dict):
            raise refused(400, "Body.InvalidFormat", "request.Data or requestHeaders is missing")
        names = {str(k).lower(): str(v) for k, v in headers.items()}
        consent_id = str(data.get("ConsentId", ""))
        if consent_id != call.request.header("o3-consent-id"):
            raise refused(400, "Consent.Invalid", "ConsentId is not the one of o3-consent-id")
        digest = hashlib.sha256(msgspec.json.encode([kind, data], order="deterministic"))
        file = kind == FILE_PAYMENT
        return Order(
            consent_id=consent_id,
            client_id=call.request.header("o3-caller-client-id"),
            key=names.get("x-idempotency-key", ""),
            kind=str(kind),
            amount=self._file_sum(consent_id) if file else _amount(data),
            creditor=("", "A file of payments") if file else self._creditor(data),
            data=data,
            fingerprint=digest.hexdigest(),
        )

    def _file_sum(self, consent_id: str) -> int:
        announced = self._book.file_consent(consent_id)
        total = minor_units(str((announced or {}).get("ControlSum", "")))
        if not total:
            raise refused(400, "Consent.Invalid", "no file was announced under this consent")
        return total

    def _creditor(self, data: Json) -> tuple[str, str]:
        sealed = data.get("PersonalIdentifiableInformation")
        if sealed is None:
            return ("", "")
        try:
            named = creditors_of(self._pii.read(sealed))
        except Unreadable:
            raise refused(400, "JWE.DecryptionError", "the sealed part is unreadable") from None
        if len(named) != 1:
            raise refused(400, "Body.InvalidFormat", "the sealed part names no one creditor")
        return named[0]

    def _debtor(self, call: Call, order: Order) -> Account:
        granted = call.consent()
        if granted.kind != "payment" or len(granted.accounts) != 1:
            raise refused(400, "Consent.Invalid", "the consent is not for payments")
        account = call.consented_account(granted.accounts[0])
        code = BLOCKED.get(account.status)
        if code is not None:
            raise refused(403, code, f"the account is {account.status}")
        self._allowed(order, granted, account)
        return account

    def _allowed(self, order: Order, granted: Granted, account: Account) -> None:
        if len(granted.approvals) < account.signatures:
            raise refused(400, "Consent.Invalid", "not every signatory has approved")
        creditors = {iban for iban, _ in granted.creditors}
        if order.kind != FILE_PAYMENT and creditors and order.creditor[0] not in creditors:
            raise refused(400, "Consent.FailsControlParameters", "the creditor is another one")
        if self._book.balance(account.id) < order.amount:
            raise refused(400, "GenericError", "there is not enough money")
        for other in self._book.payments_of(order.consent_id):
            same = other.fingerprint == order.fingerprint
            if same and other.status == "Pending" and order.key != other.key:
                raise refused(409, "Payment.DuplicateInFlight", "the same payment is pending")

    def _booked(self, order: Order, account: Account) -> Payment:
        now = self._book.now()
        payment_id = self._dice.uuid()
        iban = order.creditor[0]
        inside = self._book.account_by_iban(iban) if iban else None
        own = inside is not None and inside.currency == account.currency and inside.id != account.id
        status = "Received" if order.kind == FILE_PAYMENT else "Pending"
        if own:
            status = "AcceptedCreditSettlementCompleted"
        entry = _entry(
            order,
            account,
            payment_id,
            now,
            taker=inside.id if own and inside is not None else f"{WORLD}:{account.currency}",
        )
        return Payment(
            id=payment_id,
            consent_id=order.consent_id,
            key=order.key,
            client_id=order.client_id,
            fingerprint=order.fingerprint,
            created=now,
            updated=now,
            status=status,
            answer=_answer(order, payment_id, entry, status, now),
            entry=entry,
        )

    def _found(self, call: Call) -> Payment:
        payment = self._book.payment(call.parts[1])
        if payment is None or payment.consent_id != call.request.header("o3-consent-id"):
            raise refused(400, "Resource.InvalidFormat", "no such payment")
        return payment

    def _read(self, call: Call) -> Answer:
        return Answer(body={"data": self._found(call).answer, "meta": {}})

    def _report(self, call: Call) -> Answer:
        payment = self._found(call)
        text = f"payment,status,amount\n{payment.id},{payment.status},{_moved(payment)}\n"
        return Answer(raw=text.encode(), media_type="text/csv")

    def _file_consent(self, call: Call) -> Answer:
        body = call.json()
        consent_id, request = body.get("consentId"), body.get("request")
        if not isinstance(consent_id, str) or not isinstance(request, dict):
            raise refused(400, "Body.InvalidFormat", "consentId or request is missing")
        if not minor_units(str(request.get("ControlSum", ""))):
            raise refused(400, "Body.InvalidFormat", "request.ControlSum is no amount")
        self._book.keep_file_consent(consent_id, request)
        return Answer(status=201)

    def _file(self, call: Call) -> Answer:
        announced = self._book.file_consent(call.parts[1])
        if announced is None:
            raise refused(400, "Consent.Invalid", "no file was announced under this consent")
        digest = base64.b64encode(hashlib.sha256(call.request.body).digest()).decode()
        if digest != announced.get("FileHash"):
            raise refused(400, "Consent.FailsControlParameters", "the file is another one")
        return Answer(status=204)

    def _refund(self, call: Call) -> Answer:
        granted = self._book.granted(call.parts[1])
        if granted is None or granted.kind != "payment":
            raise refused(400, "Consent.Invalid", "no payment consent of a customer here")
        account = self._book.account(granted.accounts[0])
        if account is None or account.status == "Closed":
            raise refused(403, "Consent.PermanentAccountAccessFailure", "the account is closed")
        refund = {
            "schemeName": "IBAN",
            "identification": account.iban,
            "name": {"en": holder_name(account)[:70]},
        }
        return Answer(body={"data": {"consentId": call.parts[1], "refundAccount": refund}})


def _amount(data: Json) -> int:
    instruction = data.get("Instruction")
    amount = instruction.get("Amount") if isinstance(instruction, dict) else None
    if not isinstance(amount, dict) or amount.get("Currency") != "AED":
        raise refused(400, "Body.InvalidFormat", "Instruction.Amount is not in AED")
    minor = minor_units(str(amount.get("Amount", "")))
    if not minor:
        raise refused(400, "Body.InvalidFormat", "Instruction.Amount is no amount")
    return minor


def _entry(order: Order, account: Account, payment_id: str, now: int, *, taker: str) -> Entry:
    inside = not taker.startswith(WORLD)
    iban, name = order.creditor
    return Entry(
        id=f"P{payment_id.replace('-', '')[:24].upper()}",
        at=now,
        giver=account.id,
        taker=taker,
        amount=order.amount,
        type="SameBankTransfer" if inside else "LocalBankTransfer",
        subtype="MoneyTransfer",
        text=str(order.data.get("DebtorReference") or f"Payment to {name or 'a payee'}"),
        flags=("OpenFinance",),
        party_name=name,
        party_iban=iban,
        party_bic=BIC if inside else "OTHRAEAD",
        reference=str(order.data.get("CreditorReference") or ""),
        purpose=str(order.data.get("PaymentPurposeCode") or ""),
        payment_id=payment_id,
    )


def _back(entry: Entry, now: int) -> Entry:
    return msgspec.structs.replace(
        entry,
        id=f"R{entry.id[1:]}",
        at=now,
        giver=entry.taker,
        taker=entry.giver,
        subtype="Reversal",
        text=f"Returned: {entry.text}"[:140],
    )


def _moved(payment: Payment) -> str:
    return money(payment.entry.amount) if payment.entry is not None else "0.00"


def _answer(order: Order, payment_id: str, entry: Entry, status: str, now: int) -> Json:
    data, moment = order.data, timestamp(now)
    answer: Json = {
        "id": payment_id,
        "consentId": order.consent_id,
        "paymentTransactionId": entry.id,
        "status": status,
        "statusUpdateDateTime": moment,
        "creationDateTime": moment,
        "instruction": {"Amount": {"amount": money(order.amount), "currency": "AED"}},
        "paymentPurposeCode": data.get("PaymentPurposeCode", "ACM"),
        "openFinanceBilling": _billing(data),
    }
    if data.get("DebtorReference"):
        answer["debtorReference"] = data["DebtorReference"]
    return answer


def _billing(data: Json) -> Json:
    billing = data.get("OpenFinanceBilling")
    billing = billing if isinstance(billing, dict) else {}
    kept = {k: billing[k] for k in ("Type", "MerchantId") if k in billing}
    return {"Type": "PushP2P", **kept}
