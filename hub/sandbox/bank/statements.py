"""Monthly statements: opening and closing balance, and what happened in between, summed by kind."""

from datetime import date, timedelta
from typing import Any

from hub.sandbox.bank.book import Book, Line
from hub.sandbox.bank.calendar import local_day, midnight, next_month
from hub.sandbox.bank.history import YEARS
from hub.sandbox.bank.people import Account
from hub.sandbox.bank.shapes import capital_amount, indicator

Shape = dict[str, Any]


def months(book: Book) -> list[date]:
    """Return the first day of each month that is complete, newest first."""
    month = next_month(local_day(book.begins()) - YEARS)
    today = local_day(book.now())
    out = []
    while next_month(month) <= today:
        out.append(month)
        month = next_month(month)
    return out[::-1]


def statements(book: Book, account: Account, since: date | None, until: date | None) -> list[Shape]:
    """Return the statements dated from ``since`` to ``until``, newest first."""
    out = []
    for month in months(book):
        dated = next_month(month)
        if (since is None or dated >= since) and (until is None or dated <= until):
            out.append(_statement(book, account, month, dated))
    return out


def _statement(book: Book, account: Account, month: date, dated: date) -> Shape:
    begin, end = midnight(month), midnight(dated) - 1
    shape: Shape = {
        "StatementId": f"ST-{account.id}-{month:%Y%m}",
        "StatementDate": dated.isoformat(),
        "OpeningDate": month.isoformat(),
        "ClosingDate": (dated - timedelta(days=1)).isoformat(),
        "OpeningBalance": _balance(account, book.balance(account.id, begin - 1)),
        "ClosingBalance": _balance(account, book.balance(account.id, end)),
        "Summary": _summary(account, book.lines(account.id, begin, end)),
    }
    if account.credit_limit:
        shape["CreditLine"] = capital_amount(account.credit_limit, account.currency)
    return shape


def _balance(account: Account, minor: int) -> Shape:
    return {
        "CreditDebitIndicator": indicator(minor),
        "Amount": capital_amount(minor, account.currency),
    }


def _summary(account: Account, lines: list[Line]) -> list[Shape]:
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for line in lines:
        kind = (indicator(line.change), line.entry.type, line.entry.subtype)
        total, count = sums.get(kind, (0, 0))
        sums[kind] = (total + line.entry.amount, count + 1)
    return [
        {
            "CreditDebitIndicator": side,
            "TransactionType": type_,
            "SubTransactionType": subtype,
            "Amount": capital_amount(total, account.currency),
            "Count": count,
        }
        for (side, type_, subtype), (total, count) in sorted(sums.items())
    ]
