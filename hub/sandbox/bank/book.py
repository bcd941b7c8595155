"""The bank's book: accounts with their history, and what changed since: payments, consents given, accounts blocked.

History is made again at each start (``history``); everything else is a line of ``bank.jsonl`` in the bank's folder, appended
before the change is made and answered. A last line that was cut short never was answered and is dropped. The book is the only
writer of the ledger.
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

BOOK_NAME: Final = "bank.jsonl"


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


class Founded(msgspec.Struct, frozen=True, tag="founded"):
    """Note when the bank was founded."""

    at: int


class GrantNote(msgspec.Struct, frozen=True, tag="granted"):
    """Note what a customer agreed to."""

    consent_id: str
    granted: Granted


class PaymentNote(msgspec.Struct, frozen=True, tag="payment"):
    """Note a payment, as it is now."""

    payment: Payment


class StatusNote(msgspec.Struct, frozen=True, tag="status"):
    """Note the state of an account."""

    account_id: str
    status: str


class FileNote(msgspec.Struct, frozen=True, tag="file"):
    """Note what a file consent announced."""

    consent_id: str
    request: dict[str, object]


class AgainNote(msgspec.Struct, frozen=True, tag="again"):
    """Note that an order came again under the key of a payment; nothing moved."""

    payment_id: str


Note = Founded | GrantNote | PaymentNote | StatusNote | FileNote | AgainNote


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one entry as one account sees it: its effect, and the balance after it."""

    entry: Entry
    change: int
    balance: int


@final
class Book:
    """Keep accounts, movements and consents of one bank."""

    __slots__ = (
        "_by_consent",
        "_by_key",
        "_clock",
        "_files",
        "_founded",
        "_granted",
        "_history",
        "_ledger",
        "_path",
        "_payments",
        "_statuses",
    )

    def __init__(self, path: Path, founded: int, clock: Clock) -> None:
        """Make the history again; ``open`` reads what changed since."""
        self._path = path
        self._clock = clock
        self._founded = founded
        self._granted: dict[str, Granted] = {}
        self._payments: dict[str, Payment] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._by_consent: dict[str, list[str]] = {}
        self._statuses: dict[str, str] = {}
        self._files: dict[str, dict[str, object]] = {}
        self._ledger = Ledger()
        for account in ACCOUNTS.values():
            self._ledger.open_account(account.id, account.opening, f"bank:{account.currency}")
        self._history = History(founded)
        self.catch_up()

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Self:
        """Open the book in a folder, or found the bank there.

        Raises:
            OSError: The folder cannot be used.
            msgspec.DecodeError: ``bank.jsonl`` is damaged.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / BOOK_NAME
        notes = _read(path)
        if notes and isinstance(notes[0], Founded):
            book = cls(path, notes[0].at, clock)
            for note in notes[1:]:
                book._apply(note)
            return book
        book = cls(path, clock.now(), clock)
        book._append(Founded(book._founded))
        return book

    def _note(self, note: Note) -> None:
        """Keep a change, then make it."""
        self._append(note)
        self._apply(note)

    def _append(self, note: Note) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self._path, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(note) + b"\n")

    def _apply(self, note: Note) -> None:
        match note:
            case GrantNote(consent_id, granted):
                self._granted[consent_id] = granted
            case PaymentNote(payment):
                self._apply_payment(payment)
            case StatusNote(account_id, status):
                self._statuses[account_id] = status
            case FileNote(consent_id, request):
                self._files[consent_id] = request
            case Founded() | AgainNote():
                pass

    def _apply_payment(self, payment: Payment) -> None:
        known = self._payments.get(payment.id)
        for entry in _entries(payment):
            if entry not in _entries(known):
                self._ledger.post(entry)
        self._payments[payment.id] = payment
        if known is None:
            self._by_consent.setdefault(payment.consent_id, []).append(payment.id)
            if payment.key:
                self._by_key[payment.client_id, payment.key] = payment.id

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
        status = self._statuses.get(account_id, account.status)
        return msgspec.structs.replace(account, status=status)

    def account_by_iban(self, iban: str) -> Account | None:
        """Return the account with an IBAN, or None."""
        found = next((a.id for a in ACCOUNTS.values() if a.iban == iban), "")
        return self.account(found)

    def set_status(self, account_id: str, status: str) -> None:
        """Block, unblock or close an account."""
        self._note(StatusNote(account_id, status))

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
        return self._founded

    def total(self) -> int:
        """Return the sum over the whole ledger: zero."""
        return self._ledger.total()

    def grant(self, consent_id: str, granted: Granted) -> None:
        """Remember what a customer agreed to."""
        self._note(GrantNote(consent_id, granted))

    def granted(self, consent_id: str) -> Granted | None:
        """Return what was agreed to under a consent, or None."""
        return self._granted.get(consent_id)

    def waiting_for(self, customer: Customer) -> list[str]:
        """Return the payment consents that wait for this customer as the next signatory."""
        return [
            consent_id
            for consent_id, granted in self._granted.items()
            if granted.kind == "payment"
            and customer.user_id not in granted.approvals
            and granted.accounts[0] in customer.accounts
            and len(granted.approvals) < ACCOUNTS[granted.accounts[0]].signatures
        ]

    def payment(self, payment_id: str) -> Payment | None:
        """Return a payment, or None."""
        return self._payments.get(payment_id)

    def payment_by_key(self, client_id: str, key: str) -> Payment | None:
        """Return the payment that a client ordered under an idempotency key, or None."""
        found = self._by_key.get((client_id, key))
        return None if found is None else self._payments[found]

    def payments_of(self, consent_id: str) -> list[Payment]:
        """Return the payments ordered under a consent, oldest first."""
        return [self._payments[found] for found in self._by_consent.get(consent_id, ())]

    def pending(self) -> list[Payment]:
        """Return the payments whose status is not final, oldest first."""
        return [p for p in self._payments.values() if p.status == "Pending"]

    def record(self, payment: Payment) -> None:
        """Book and keep a payment, or a change of its status."""
        self._note(PaymentNote(payment))

    def repeated(self, payment: Payment) -> None:
        """Keep that a payment was ordered again."""
        self._note(AgainNote(payment.id))

    def keep_file_consent(self, consent_id: str, request: dict[str, object]) -> None:
        """Keep what a file consent announced."""
        self._note(FileNote(consent_id, request))

    def file_consent(self, consent_id: str) -> dict[str, object] | None:
        """Return what a file consent announced, or None."""
        return self._files.get(consent_id)


def _read(path: Path) -> list[Note]:
    if not path.exists():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) != len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [msgspec.json.decode(line, type=Note) for line in whole.splitlines()]


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
