"""The model bank's ledger and history: amounts add up, the past is always the same, and it grows as time passes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.clock import FixedClock
from hub.sandbox.bank.book import Book
from hub.sandbox.bank.calendar import minor_units, money, seconds_of, timestamp
from hub.sandbox.bank.history import History
from hub.sandbox.bank.ledger import Entry, Ledger, signed
from hub.sandbox.bank.people import ACCOUNTS, CUSTOMERS, PARTIES, iban
from tests.sandbox.bank_world import NOW

YEAR = 365 * 86_400


def test_history_covers_two_years_for_every_account_that_works(tmp_path: Path) -> None:
    book = Book.open(tmp_path, FixedClock(NOW))
    for account in ACCOUNTS.values():
        if account.status == "Active":
            entries = book.entries(account.id)
            assert entries[0].at < NOW - 2 * YEAR + 40 * 86_400, account.id
            assert entries[-1].at > NOW - 40 * 86_400, account.id


@pytest.mark.parametrize("founded", [NOW - YEAR, NOW, NOW + 200 * 86_400, NOW + 2 * YEAR])
def test_amounts_add_up_and_no_account_is_overdrawn(tmp_path: Path, founded: int) -> None:
    book = Book.open(tmp_path, FixedClock(founded))
    assert book.total() == 0
    for account in ACCOUNTS.values():
        balance = account.opening
        floor = min(0, account.opening) - account.credit_limit
        for entry in book.entries(account.id):
            balance += signed(entry, account.id)
            assert balance >= floor, (account.id, entry)
        assert book.balance(account.id) == balance


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40 * 86_400), max_size=6))
def test_history_is_the_same_however_often_one_looks(steps: list[int]) -> None:
    looks = History(NOW)
    seen = looks.until(NOW)
    now = NOW
    for step in steps:
        now += step
        fresh = looks.until(now)
        assert all(entry.at <= now for entry in fresh)
        seen += fresh
    assert sorted(seen, key=lambda e: (e.at, e.id)) == History(NOW).until(now)


def test_identifiers_of_entries_are_unique() -> None:
    entries = History(NOW).until(NOW)
    assert len({entry.id for entry in entries}) == len(entries)


def test_clock_that_goes_back_takes_nothing_away() -> None:
    history = History(NOW)
    history.until(NOW)
    assert history.until(NOW - YEAR) == []
    assert history.until(NOW) == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "world"]),
            st.sampled_from(["a", "b", "world"]),
            st.integers(-5, 10_000),
            st.integers(0, 100),
        ),
        max_size=30,
    )
)
def test_ledger_is_balanced_whatever_is_posted(moves: list[tuple[str, str, int, int]]) -> None:
    ledger = Ledger()
    ledger.open_account("a", 500, "bank")
    ledger.open_account("b", -70, "bank")
    for number, (giver, taker, amount, at) in enumerate(moves):
        entry = Entry(
            id=str(number),
            at=at,
            giver=giver,
            taker=taker,
            amount=amount,
            type="Other",
            subtype="Deposit",
            text="",
        )
        if amount <= 0 or giver == taker:
            with pytest.raises(ValueError, match="moves nothing"):
                ledger.post(entry)
        else:
            ledger.post(entry)
    assert ledger.total() == 0
    for account in ("a", "b"):
        entries = ledger.entries(account)
        assert [e.at for e in entries] == sorted(e.at for e in entries)
        assert ledger.balance(account) == ledger.balance_at(account, 100)


@given(st.integers(0, 10**15 - 1))
def test_money_is_written_and_read_back(minor: int) -> None:
    assert minor_units(money(minor)) == minor


@pytest.mark.parametrize("text", ["", ".", "1.", "-1", "1.005", "1,00", "٣", "1e2", " 1", "9" * 14])
def test_text_that_is_no_amount_is_not_read(text: str) -> None:
    assert minor_units(text) is None


def test_times_are_read_with_and_without_offset() -> None:
    assert timestamp(seconds_of("2026-03-01T00:00:00Z") or 0) == "2026-03-01T00:00:00Z"
    assert timestamp(seconds_of("2026-03-01") or 0) == "2026-02-28T20:00:00Z"
    assert seconds_of("yesterday") is None


def test_ibans_have_right_check_digits() -> None:
    assert iban("033", "1234567890123456") == "AE070331234567890123456"
    for account in ACCOUNTS.values():
        text = account.iban[4:] + "1014" + account.iban[2:4]
        assert int(text) % 97 == 1
        assert len(account.iban) == 23


def test_customers_accounts_and_parties_fit_together() -> None:
    assert len({c.user_id for c in CUSTOMERS}) == len({c.username for c in CUSTOMERS}) == 6
    for customer in CUSTOMERS:
        assert customer.party in PARTIES
        for account_id in customer.accounts:
            assert customer.party in {h.party for h in ACCOUNTS[account_id].holdings}


def test_line_that_was_cut_short_is_dropped_and_the_book_goes_on(tmp_path: Path) -> None:
    clock = FixedClock(NOW)
    book = Book.open(tmp_path, clock)
    book.set_status("100100000001", "Suspended")
    path = tmp_path / "bank.jsonl"
    with path.open("ab") as file:
        file.write(b'{"type":"status","account_id":"1001')
    again = Book.open(tmp_path, clock)
    again.set_status("100100000002", "Closed")
    third = Book.open(tmp_path, FixedClock(NOW + YEAR))
    states = [third.account(f"10010000000{n}") for n in (1, 2)]
    assert [a.status for a in states if a is not None] == ["Suspended", "Closed"]
    assert third.begins() == NOW
    assert path.stat().st_mode & 0o777 == 0o600
