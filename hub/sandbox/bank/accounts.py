"""The thirteen operations of bank data sharing: twelve reads and the payee query (Ozone Connect v2.1.11)."""

from datetime import date
from functools import partial
from typing import Any

from hub.sandbox.bank.agreements import (
    beneficiaries,
    direct_debits,
    products,
    scheduled_payments,
    standing_orders,
)
from hub.sandbox.bank.calendar import DAY, local_day, midnight, next_month, seconds_of, timestamp
from hub.sandbox.bank.connect import Answer, Call, Route, paged, refused, route
from hub.sandbox.bank.people import PARTIES, Account
from hub.sandbox.bank.shapes import (
    account_shape,
    balance_shapes,
    customer_shape,
    holder_shape,
    payee_shape,
    transaction_shape,
)
from hub.sandbox.bank.statements import months, statements


def _accounts(call: Call) -> Answer:
    wanted = [a for a in ",".join(call.query.get("accountIds", [])).split(",") if a]
    if not wanted:
        raise refused(400, "Resource.InvalidFormat", "accountIds is missing")
    found = [call.consented_account(account_id) for account_id in dict.fromkeys(wanted)]
    return paged(call, found, account_shape)


def _account(call: Call) -> Answer:
    return Answer(body={"data": account_shape(call.consented_account(call.parts[1])), "meta": {}})


def _balances(call: Call) -> Answer:
    account = call.open_account()
    now = call.book.now()
    closed = call.book.balance(account.id, midnight(local_day(now)) - 1)
    return paged(call, balance_shapes(account, call.book.balance(account.id), closed, now))


def _moment(call: Call, name: str) -> int | None:
    text = call.one(name)
    if not text:
        return None
    moment = seconds_of(text.replace(" ", "+"))
    if moment is None:
        raise refused(400, "Resource.InvalidFormat", f"{name} is not a date-time")
    return moment


def _transactions(call: Call) -> Answer:
    account = call.open_account()
    until = _moment(call, "toBookingDateTime")
    if until is not None and len(call.one("toBookingDateTime")) == 10:
        until += DAY - 1  # a bare date means the whole of that day
    lines = call.book.lines(account.id, _moment(call, "fromBookingDateTime"), until)
    if call.request.header("o3-fx-transactions").lower() == "true":
        lines = [line for line in lines if line.entry.foreign_currency]
    return paged(call, lines, partial(transaction_shape, account), paginated=True)


def _day(call: Call, name: str) -> date | None:
    moment = _moment(call, name)
    return None if moment is None else local_day(moment)


def _statements(call: Call) -> Answer:
    account = call.open_account()
    since, until = _day(call, "fromStatementDate"), _day(call, "toStatementDate")
    answer = paged(call, statements(call.book, account, since, until))
    body: dict[str, Any] = dict(answer.body or {})
    known = months(call.book)
    if known:
        body["meta"]["firstAvailableDateTime"] = timestamp(midnight(next_month(known[-1])))
        body["meta"]["lastAvailableDateTime"] = timestamp(midnight(next_month(known[0])))
    body["data"] = {
        "AccountId": account.id,
        "AccountSubType": account.subtype,
        "Statements": body["data"],
    }
    return Answer(body=body)


def _direct_debits(call: Call) -> Answer:
    return paged(call, direct_debits(call.book, call.open_account()))


def _standing_orders(call: Call) -> Answer:
    return paged(call, standing_orders(call.book, call.open_account()))


def _scheduled_payments(call: Call) -> Answer:
    return paged(call, scheduled_payments(call.book, call.open_account()))


def _beneficiaries(call: Call) -> Answer:
    return paged(call, beneficiaries(call.open_account()))


def _products(call: Call) -> Answer:
    return paged(call, products(call.open_account()))


def _holders(call: Call) -> Answer:
    return paged(call, call.open_account().holdings, holder_shape)


def _customer(call: Call) -> Answer:
    call.consent()
    return Answer(body={"data": customer_shape(PARTIES[call.customer().party]), "meta": {}})


def _payee(call: Call) -> Answer:
    account = _payee_account(call)
    found = [] if account is None else [payee_shape(PARTIES[account.holdings[0].party])]
    return paged(call, found)


def _payee_account(call: Call) -> Account | None:
    asked = call.json().get("data")
    account = asked.get("account") if isinstance(asked, dict) else None
    if not isinstance(account, dict) or account.get("schemeName") != "IBAN":
        raise refused(400, "Body.InvalidFormat", "data.account names no IBAN")
    known = call.book.account_by_iban(str(account.get("identification", "")))
    return None if known is None or known.status == "Closed" else known


ACCOUNT_ROUTES: tuple[Route, ...] = (
    route("GET", "/accounts", _accounts, "accounts", "payments"),
    route("GET", "/accounts/*", _account, "accounts", "payments"),
    route("GET", "/accounts/*/balances", _balances, "accounts", "payments"),
    route("GET", "/accounts/*/transactions", _transactions, "accounts"),
    route("GET", "/accounts/*/direct-debits", _direct_debits, "accounts"),
    route("GET", "/accounts/*/scheduled-payments", _scheduled_payments, "accounts"),
    route("GET", "/accounts/*/standing-orders", _standing_orders, "accounts"),
    route("GET", "/accounts/*/customer", _holders, "accounts"),
    route("GET", "/accounts/*/beneficiaries", _beneficiaries, "accounts"),
    route("GET", "/accounts/*/products", _products, "accounts"),
    route("GET", "/accounts/*/statements", _statements, "accounts"),
    route("GET", "/customer", _customer, "accounts"),
    route("POST", "/customers/action/cop-query", _payee, "confirmation-of-payee", "payments"),
)
