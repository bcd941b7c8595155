"""What a consent says, in words a customer reads: pure functions over the consent record."""

from datetime import datetime
from typing import Any, Final

import msgspec

from hub.sandbox.bank.book import Book
from hub.sandbox.bank.calendar import DUBAI, money, seconds_of
from hub.sandbox.bank.people import Account, Customer

Json = dict[str, Any]

ACCOUNT_ACCESS: Final = "cbuae-account-access-consents"
SERVICE_INITIATION: Final = "cbuae-service-initiation-consents"
INSURANCE: Final = "cbuae-insurance-consents"
_GROUPS: Final = (
    ("Your accounts", ("ReadAccountsBasic", "ReadAccountsDetail"),
     "name, number, kind and currency of the accounts you choose"),
    ("Balances", ("ReadBalances",), "how much is on them, and your credit lines"),
    ("Transactions", ("ReadTransactionsBasic", "ReadTransactionsDetail", "ReadTransactionsCredits",
     "ReadTransactionsDebits"), "what came in and what went out, when, and with whom"),
    ("Foreign currency", ("ReadFXTransactionsBasic", "ReadFXTransactionsDetail",
     "ReadFXRemittanceCharges"), "payments in other currencies, their rates and charges"),
    ("Regular payments", ("ReadDirectDebits", "ReadStandingOrdersBasic", "ReadStandingOrdersDetail",
     "ReadScheduledPaymentsBasic", "ReadScheduledPaymentsDetail"),
     "direct debits, standing orders and payments you have planned"),
    ("People you pay", ("ReadBeneficiariesBasic", "ReadBeneficiariesDetail"),
     "the beneficiaries you keep with us"),
    ("Statements", ("ReadStatements",), "your monthly statements"),
    ("Products and rates", ("ReadProduct", "ReadProductFinanceRates"),
     "fees, rates and benefits of your accounts"),
    ("Who you are", ("ReadParty", "ReadPartyUser", "ReadPartyUserIdentity"),
     "the name, contact details and identity we hold of you"),
    ("Refund account", ("ReadRefundAccount",), "where money comes from, so that it can be returned"),
)  # fmt: skip
_PERIODS: Final = {"Day": "day", "Week": "week", "Month": "month", "Year": "year"}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what the consent page shows.

    Attributes:
        who: Who asks.
        behalf: On whose behalf, where it is for somebody else.
        payment: It is about payments, and takes exactly one account.
        items: Heading and sentence of each thing asked for.
        until: When it ends, in words; empty where it does not say.
        span: Which days the data may be of, in words; empty where it does not say.
        purpose: What for, in words.
    """

    who: str
    behalf: str
    payment: bool
    items: tuple[tuple[str, str], ...]
    until: str
    span: str
    purpose: str


def consent_of(record: Json) -> Json:
    """Return what the TPP asked for in its consent."""
    request = record.get("request")
    consent = request.get("consent") if isinstance(request, dict) else None
    return consent if isinstance(consent, dict) else {}


def ask_of(record: Json, tpp_name: str) -> Ask:
    """Return what a consent record asks."""
    consent = consent_of(record)
    behalf = consent.get("OnBehalfOf")
    billing = consent.get("OpenFinanceBilling")
    payment = record.get("consentType") == SERVICE_INITIATION
    return Ask(
        who=tpp_name or str((record.get("tpp") or {}).get("tppName", "")) or "A provider",
        behalf=str(behalf.get("TradingName", "")) if isinstance(behalf, dict) else "",
        payment=payment,
        items=_payment_items(consent) if payment else _items(consent),
        until=in_words(str(consent.get("ExpirationDateTime", ""))),
        span=_span(consent),
        purpose=_spaced(str(billing.get("Purpose", ""))) if isinstance(billing, dict) else "",
    )


def in_words(moment: str) -> str:
    """Return a date-time as ``1 June 2026, 12:00``, local; empty where it is none."""
    seconds = seconds_of(moment)
    if seconds is None:
        return ""
    local = datetime.fromtimestamp(seconds, DUBAI)
    return f"{local.day} {local:%B %Y, %H:%M}"


def _spaced(word: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in word).strip()


def _span(consent: Json) -> str:
    since, until = str(consent.get("FromDate", ""))[:10], str(consent.get("ToDate", ""))[:10]
    parts = [f"from {since}" if since else "", f"to {until}" if until else ""]
    return " ".join(part for part in parts if part)


def _items(consent: Json) -> tuple[tuple[str, str], ...]:
    asked = consent.get("Permissions")
    names = {str(p) for p in asked} if isinstance(asked, list) else set()
    return tuple(
        (title, sentence) for title, codes, sentence in _GROUPS if names.intersection(codes)
    )


def _payment_items(consent: Json) -> tuple[tuple[str, str], ...]:
    control = consent.get("ControlParameters")
    control = control if isinstance(control, dict) else {}
    schedule = control.get("ConsentSchedule")
    schedule = schedule if isinstance(schedule, dict) else {}
    items = [("Payment", _schedule_words(schedule))]
    for label, key in (
        ("Their reference", "CreditorReference"),
        ("Your reference", "DebtorReference"),
    ):
        if consent.get(key):
            items.append((label, str(consent[key])))
    return (*items, *_items(consent))


def _sum(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    return f"{value.get('Amount', '')} {value.get('Currency', '')}".strip()


def _schedule_words(schedule: Json) -> str:
    single, multi = schedule.get("SinglePayment"), schedule.get("MultiPayment")
    if isinstance(single, dict):
        return f"one payment of {_sum(single.get('Amount'))}, now"
    if isinstance(schedule.get("FilePayment"), dict):
        file = schedule["FilePayment"]
        count, total = file.get("NumberOfTransactions"), file.get("ControlSum")
        return f"a file of {count} payments of {total} AED together"
    if not isinstance(multi, dict):
        return "payments whose amounts the provider decides together with you"
    periodic = multi.get("PeriodicSchedule")
    return _periodic_words(periodic if isinstance(periodic, dict) else {}, multi)


def _periodic_words(periodic: Json, multi: Json) -> str:
    period = _PERIODS.get(str(periodic.get("PeriodType", "")), "")
    exact, most = _sum(periodic.get("Amount")), _sum(periodic.get("MaximumIndividualAmount"))
    words = ["several payments"]
    if exact:
        words.append(f"of {exact} each")
    if most:
        words.append(f"of at most {most} each")
    if period:
        words.append(f"counted per {period}")
    total = _sum(multi.get("MaximumCumulativeValueOfPayments"))
    if total:
        words.append(f"never more than {total} together")
    return " ".join(words)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one account that may be chosen, as the page shows it."""

    id: str
    name: str
    number: str
    balance: str
    note: str = ""


def eligible(book: Book, customer: Customer, record: Json) -> list[Account]:
    """Return the customer's accounts that a consent can be about."""
    consent = consent_of(record)
    found = [a for a in map(book.account, customer.accounts) if a is not None]
    if record.get("consentType") == SERVICE_INITIATION:
        return [
            a
            for a in found
            if a.status == "Active"
            and a.currency == "AED"
            and a.subtype in {"CurrentAccount", "Savings"}
        ]
    kinds, subtypes = consent.get("AccountType"), consent.get("AccountSubType")
    return [
        a
        for a in found
        if a.status not in {"Closed", "Deceased"}
        and (not kinds or a.category in kinds)
        and (not subtypes or a.subtype in subtypes)
    ]


def choices(book: Book, accounts: list[Account]) -> list[Choice]:
    """Return accounts as the page shows them."""
    return [
        Choice(
            id=account.id,
            name=f"{account.nickname} ({account.description})",
            number=f"ending in {account.number[-4:]}",
            balance=_balance(book, account),
            note="blocked for now: nothing is shared until it is unblocked"
            if account.status == "Suspended"
            else "",
        )
        for account in accounts
    ]


def _balance(book: Book, account: Account) -> str:
    minor = book.balance(account.id)
    return f"{'-' if minor < 0 else ''}{money(minor)} {account.currency}"
