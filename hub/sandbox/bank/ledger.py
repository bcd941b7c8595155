"""The bank's ledger: double entry in memory.

Invariants. Amounts are whole minor units (fils, cents), above zero; a sign never occurs in an entry, only in a balance.
Each entry takes from one account and gives to another of the same currency, so all balances together are zero at any
time. An account's balance is its opening balance plus what it received minus what it gave. Entries of one account are in
order of time, then of identifier.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import final

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one movement.

    Attributes:
        id: Unique in the bank; the transaction id of both sides.
        at: Seconds since 1970 UTC.
        giver: The account that pays.
        taker: The account that receives.
        amount: Minor units, 1 or more.
        type: Transaction type of the standard (``POS``, ``LocalBankTransfer`` ...).
        subtype: Sub-type of the standard (``Purchase``, ``MoneyTransfer`` ...).
        text: What the customer reads.
        flags: ``Payroll``, ``DirectDebit`` ...
        merchant: Key of the merchant, where one sold something.
        party_name: The other side, where it is a person or company elsewhere.
        party_iban: Its account.
        party_bic: Its bank.
        foreign: Amount in another currency, in its minor units, where one was converted.
        foreign_currency: That currency.
        rate: Units of the account's currency for one unit of the foreign one, as text.
        reference: The payer's or the payee's reference.
        purpose: Payment purpose code.
        payment_id: The payment that caused it.
    """

    id: str
    at: int
    giver: str
    taker: str
    amount: int
    type: str
    subtype: str
    text: str
    flags: tuple[str, ...] = ()
    merchant: str = ""
    party_name: str = ""
    party_iban: str = ""
    party_bic: str = ""
    foreign: int = 0
    foreign_currency: str = ""
    rate: str = ""
    reference: str = ""
    purpose: str = ""
    payment_id: str = ""


def _order(entry: Entry) -> tuple[int, str]:
    return (entry.at, entry.id)


@final
class Ledger:
    """Keep accounts and entries."""

    __slots__ = ("_balances", "_entries", "_openings", "_own")

    def __init__(self) -> None:
        """Begin with no account."""
        self._balances: dict[str, int] = {}
        self._openings: dict[str, int] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._own: set[str] = set()

    def open_account(self, account: str, opening: int, contra: str) -> None:
        """Open a customer's account with a balance (minor units, may be negative) taken from the bank's ``contra``."""
        self._own.add(account)
        self._entries[account] = []
        self._openings[account] = opening
        self._balances[account] = opening
        self._balances[contra] = self._balances.get(contra, 0) - opening

    def post(self, entry: Entry) -> None:
        """Book a movement.

        Raises:
            ValueError: The amount is not above zero or both sides are the same account.
        """
        if entry.amount <= 0 or entry.giver == entry.taker:
            raise ValueError(f"entry {entry.id} moves nothing")
        self._balances[entry.giver] = self._balances.get(entry.giver, 0) - entry.amount
        self._balances[entry.taker] = self._balances.get(entry.taker, 0) + entry.amount
        for side in (entry.giver, entry.taker):
            if side in self._own:
                insort(self._entries[side], entry, key=_order)

    def balance(self, account: str) -> int:
        """Return the balance now, in minor units."""
        return self._balances.get(account, 0)

    def opening(self, account: str) -> int:
        """Return the opening balance."""
        return self._openings[account]

    def balance_at(self, account: str, at: int) -> int:
        """Return the balance after the last entry whose time is ``at`` or before."""
        entries = self._entries[account]
        end = bisect_right(entries, at, key=lambda entry: entry.at)
        return self._openings[account] + sum(signed(entry, account) for entry in entries[:end])

    def entries(self, account: str) -> Sequence[Entry]:
        """Return all entries of a customer's account, oldest first."""
        return self._entries[account]

    def total(self) -> int:
        """Return the sum of all balances, the bank's own accounts included: zero, always."""
        return sum(self._balances.values())


def signed(entry: Entry, account: str) -> int:
    """Return an entry's effect on an account: above zero where it received."""
    return entry.amount if entry.taker == account else -entry.amount
