"""The bank's book: accounts with their history, and what changed since: payments, consents given, accounts blocked.

History is made again at each start (``history``); everything else is kept in ``bank.json`` in the bank's folder, written
whole after each change and before the change is answered. The book is the only writer of the ledger.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self, final

import msgspec

from hub.model.clock import Clock
from hub.sandbox.bank.history import History
from hub.sandbox.bank.ledger import Entry, Ledger, signed
from hub.sandbox.bank.people import ACCOUNTS, CUSTOMERS, Account, Customer

BOOK_NAME: Final = "bank.json"


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a customer agreed to.

    Attributes:
        user_id: Whom the Hub was told it was.
        accounts: Identifiers of the chosen accounts.
        kind: ``account-access`` or ``payment``.
        approvals: User ids of the signatories that have approved.
        creditors: IBAN and name of each payee that the consent names; empty where any may be paid.
    """

    user_id: str
    accounts: tuple[str, ...]
    kind: str = "account-access"
    approvals: tuple[str, ...] = ()
    creditors: tuple[tuple[str, str], ...] = ()


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one payment order and what became of it.

    Attributes:
        id: The bank's payment id.
        consent_id: Under which it was ordered.
        key: The TPP's idempotency key; empty where none came.
        client_id: Whose key it is.
        fingerprint: SHA-256 of the order, to tell a repetition from another order under the same key.
        created: Seconds since 1970.
        updated: Seconds since 1970.
        status: Of the standard.
        answer: The ``data`` of the answer, as it was given.
        entry: The movement it caused; None where it was rejected.
        reason: Code and message of a rejection.
        back: The movement that gave the money back; None where none did.
    """

    id: str
    consent_id: str
    key: str
    client_id: str
    fingerprint: str
    created: int
    updated: int
    status: str
    answer: dict[str, object]
    entry: Entry | None = None
    reason: tuple[str, str] = ("", "")
    back: Entry | None = None


class Saved(msgspec.Struct, kw_only=True):
    """Hold everything that is kept on disk."""

    version: int = 1
    founded: int
    granted: dict[str, Granted] = {}
    payments: dict[str, Payment] = {}
    statuses: dict[str, str] = {}
    file_consents: dict[str, dict[str, object]] = {}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one entry as one account sees it: its effect, and the balance after it."""

    entry: Entry
    change: int
    balance: int


@final
class Book:
    """Keep accounts, movements and consents of one bank."""

    __slots__ = ("_clock", "_history", "_ledger", "_path", "_saved")

    def __init__(self, path: Path, saved: Saved, clock: Clock) -> None:
        """Make the history again and book the payments that were kept."""
        self._path = path
        self._saved = saved
        self._clock = clock
        self._ledger = Ledger()
        for account in ACCOUNTS.values():
            self._ledger.open_account(account.id, account.opening, f"bank:{account.currency}")
        currencies = {account.id: account.currency for account in ACCOUNTS.values()}
        self._history = History(saved.founded, currencies)
        for payment in saved.payments.values():
            for entry in _entries(payment):
                self._ledger.post(entry)
        self.catch_up()

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Self:
        """Open the book in a folder, or found the bank there.

        Raises:
            OSError: The folder cannot be used.
            msgspec.DecodeError: ``bank.json`` is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / BOOK_NAME
        if path.exists():
            return cls(path, msgspec.json.decode(path.read_bytes(), type=Saved), clock)
        book = cls(path, Saved(founded=clock.now()), clock)
        book.save()
        return book

    def save(self) -> None:
        """Write the changes, whole or not at all."""
        part = self._path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self._saved))
        part.replace(self._path)

    def now(self) -> int:
        """Return the bank's time."""
        return self._clock.now()

    def catch_up(self) -> None:
        """Book what happened since the last look at the clock."""
        for entry in self._history.until(self._clock.now()):
            self._ledger.post(entry)

    def account(self, account_id: str) -> Account | None:
        """Return an account as it stands now, or None."""
        account = ACCOUNTS.get(account_id)
        if account is None:
            return None
        status = self._saved.statuses.get(account_id, account.status)
        return msgspec.structs.replace(account, status=status)

    def account_by_iban(self, iban: str) -> Account | None:
        """Return the account with an IBAN, or None."""
        found = next((a.id for a in ACCOUNTS.values() if a.iban == iban), "")
        return self.account(found)

    def set_status(self, account_id: str, status: str) -> None:
        """Block, unblock or close an account."""
        self._saved.statuses[account_id] = status
        self.save()

    def balance(self, account_id: str, at: int | None = None) -> int:
        """Return an account's balance in minor units, now or after its last entry up to ``at``."""
        if at is None:
            return self._ledger.balance(account_id)
        return self._ledger.balance_at(account_id, at)

    def entries(self, account_id: str) -> Sequence[Entry]:
        """Return an account's entries, oldest first."""
        return self._ledger.entries(account_id)

    def lines(self, account_id: str, since: int | None, until: int | None) -> list[Line]:
        """Return an account's entries from ``since`` to ``until`` (both included), newest first, with balances."""
        out: list[Line] = []
        balance = self._ledger.opening(account_id)
        for entry in self._ledger.entries(account_id):
            change = signed(entry, account_id)
            balance += change
            if (since is None or entry.at >= since) and (until is None or entry.at <= until):
                out.append(Line(entry=entry, change=change, balance=balance))
        return out[::-1]

    def begins(self) -> int:
        """Return the time of the founding."""
        return self._saved.founded

    def total(self) -> int:
        """Return the sum over the whole ledger: zero."""
        return self._ledger.total()

    def grant(self, consent_id: str, granted: Granted) -> None:
        """Remember what a customer agreed to."""
        self._saved.granted[consent_id] = granted
        self.save()

    def granted(self, consent_id: str) -> Granted | None:
        """Return what was agreed to under a consent, or None."""
        return self._saved.granted.get(consent_id)

    def waiting_for(self, customer: Customer) -> list[str]:
        """Return the payment consents that wait for this customer as the next signatory."""
        return [
            consent_id
            for consent_id, granted in self._saved.granted.items()
            if granted.kind == "payment"
            and customer.user_id not in granted.approvals
            and granted.accounts[0] in customer.accounts
            and len(granted.approvals) < ACCOUNTS[granted.accounts[0]].signatures
        ]

    def payment(self, payment_id: str) -> Payment | None:
        """Return a payment, or None."""
        return self._saved.payments.get(payment_id)

    def payment_by_key(self, client_id: str, key: str) -> Payment | None:
        """Return the payment that a client ordered under an idempotency key, or None."""
        if not key:
            return None
        return next(
            (p for p in self._saved.payments.values() if (p.client_id, p.key) == (client_id, key)),
            None,
        )

    def payments_of(self, consent_id: str) -> list[Payment]:
        """Return the payments ordered under a consent, oldest first."""
        return [p for p in self._saved.payments.values() if p.consent_id == consent_id]

    def pending(self) -> list[Payment]:
        """Return the payments whose status is not final, oldest first."""
        return [p for p in self._saved.payments.values() if p.status == "Pending"]

    def record(self, payment: Payment) -> None:
        """Book and keep a payment, or a change of its status."""
        known = _entries(self._saved.payments.get(payment.id))
        for entry in _entries(payment):
            if entry not in known:
                self._ledger.post(entry)
        self._saved.payments[payment.id] = payment
        self.save()

    def keep_file_consent(self, consent_id: str, request: dict[str, object]) -> None:
        """Keep what a file consent announced."""
        self._saved.file_consents[consent_id] = request
        self.save()

    def file_consent(self, consent_id: str) -> dict[str, object] | None:
        """Return what a file consent announced, or None."""
        return self._saved.file_consents.get(consent_id)


def _entries(payment: Payment | None) -> list[Entry]:
    if payment is None:
        return []
    return [entry for entry in (payment.entry, payment.back) if entry is not None]


def customer_by_user(user_id: str) -> Customer | None:
    """Return the customer with a user id, or None."""
    return next((c for c in CUSTOMERS if c.user_id == user_id), None)


def customer_by_username(username: str) -> Customer | None:
    """Return the customer with a username, or None."""
    return next((c for c in CUSTOMERS if c.username == username), None)
