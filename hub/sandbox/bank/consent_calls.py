"""What the Hub asks and tells the bank of consents: validate before one is stored, augment, events (v2.1.6).

``validate`` judges what only the bank can: whether the sealed part opens and names somebody, whether the account to pay from
is ours, whether the kinds of accounts asked for exist here. Events are kept, the last hundred of them, for whoever wants to
look; the bank decides nothing by them, because the Hub's record is the truth.
"""

from collections import deque
from typing import Any, Final, final

import msgspec

from hub.sandbox.bank.book import Book
from hub.sandbox.bank.connect import Answer, Call, Route, refused, route
from hub.sandbox.bank.people import ACCOUNTS
from hub.sandbox.bank.pii import PiiReader, Unreadable, creditors_of, debtor_of
from hub.sandbox.bank.wording import ACCOUNT_ACCESS, INSURANCE, SERVICE_INITIATION, consent_of

Json = dict[str, Any]
_MOST_EVENTS: Final = 100


class ConsentEvent(msgspec.Struct, frozen=True):
    """Hold one event: ``post`` or ``patch``, the consent, the status it has now."""

    operation: str
    consent_id: str
    status: str


@final
class ConsentDesk:
    """Answer what the Hub asks of consents, and note what it tells."""

    __slots__ = ("_book", "_pii", "events")

    def __init__(self, book: Book, pii: PiiReader) -> None:
        """Take the book and what opens sealed parts."""
        self._book = book
        self._pii = pii
        self.events: deque[ConsentEvent] = deque(maxlen=_MOST_EVENTS)

    def routes(self) -> tuple[Route, ...]:
        """Return the operations on consents."""
        return (
            route("POST", "/consent/event/*", self._event, "consents"),
            route("POST", "/consent/action/validate", self._validate, "consents"),
            route("POST", "/consent/action/augment", self._augment, "consents"),
        )

    def _event(self, call: Call) -> Answer:
        record, operation = call.json(), call.parts[2]
        if operation not in {"post", "patch"} or not isinstance(record.get("id"), str):
            raise refused(400, "Body.InvalidFormat", "no such event")
        status = str(record.get("status", ""))
        self.events.append(ConsentEvent(operation, record["id"], status))
        return Answer(status=204)

    def _augment(self, call: Call) -> Answer:
        call.json()
        return Answer(body={"OpenFinanceBilling": {"IsLargeCorporate": False}})

    def _validate(self, call: Call) -> Answer:
        problem = self.problem(call.json())
        if problem is None:
            return Answer(body={"data": {"status": "valid"}, "meta": {}})
        code, description = problem
        data = {"status": "invalid", "code": code, "description": description}
        return Answer(body={"data": data, "meta": {}})

    def problem(self, record: Json) -> tuple[str, str] | None:
        """Return code and sentence of what makes a consent impossible here, or None."""
        kind, consent = record.get("consentType"), consent_of(record)
        if not str(record.get("standardVersion", "v2.1")).endswith("v2.1"):
            return "Consent.Invalid", "this version of the standard is not served here"
        if kind == ACCOUNT_ACCESS:
            return _no_such_accounts(consent)
        if kind == SERVICE_INITIATION:
            return self._payment_problem(consent)
        if kind == INSURANCE:  # not decided on our pages, but whoever plays the bank may decide it
            return None
        return "Consent.Invalid", "this kind of consent is not served here"

    def _payment_problem(self, consent: Json) -> tuple[str, str] | None:
        sealed = consent.get("PersonalIdentifiableInformation")
        if consent.get("CurrencyRequest") is not None:
            return "Consent.Invalid", "payments in other currencies are not served here"
        if sealed is None:
            return None
        try:
            pii = self._pii.read(sealed)
        except Unreadable:
            return "JWE.DecryptionError", "the sealed part is unreadable"
        debtor = debtor_of(pii)
        if debtor and self._book.account_by_iban(debtor) is None:
            return "Consent.Invalid", "the account to pay from is not of this bank"
        schedule = (consent.get("ControlParameters") or {}).get("ConsentSchedule") or {}
        if "SinglePayment" in schedule and len(creditors_of(pii)) != 1:
            return "Consent.Invalid", "a single payment has exactly one payee"
        return None


def _no_such_accounts(consent: Json) -> tuple[str, str] | None:
    for name, known in (
        ("AccountType", {a.category for a in ACCOUNTS.values()}),
        ("AccountSubType", {a.subtype for a in ACCOUNTS.values()}),
    ):
        asked = consent.get(name)
        if isinstance(asked, list) and asked and not known.intersection(asked):
            return "Consent.Invalid", f"no account here is of the {name} asked for"
    return None
