"""Two years of synthetic history: the same for the same founding day, and growing as the clock moves on.

Each account has rules: what happens on a day of each month, and what happens now and then. A rule's outcome for a day
depends only on the rule and that day (SHA-256 over both), so history can be made again at any time, in any order, and a
restart shows the same transactions. ``History.until`` gives the entries whose moment has passed since it was last asked.
"""

import hashlib
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, final

import msgspec

from hub.sandbox.bank.calendar import local_day, midnight
from hub.sandbox.bank.ledger import Entry
from hub.sandbox.bank.people import ACCOUNTS, BIC

WORLD: Final = "world"
"""The bank's account with everybody else; one per currency (``world:AED``)."""
YEARS: Final = timedelta(days=731)
MOST_DAYS: Final = 4_000


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """Hold somebody who sells."""

    name: str
    code: str
    id: str
    terminal: str


def _merchants(*rows: tuple[str, str, str]) -> dict[str, Merchant]:
    return {
        key: Merchant(name=name, code=code, id=f"9000{at:06d}", terminal=f"8100{at:06d}")
        for at, (key, name, code) in enumerate(rows, 1)
    }


MERCHANTS: Final = _merchants(
    ("grocer", "Green Basket Supermarket", "5411"),
    ("cafe", "Corner Coffee House", "5814"),
    ("fuel", "Desert Road Fuel", "5541"),
    ("pharmacy", "Well Street Pharmacy", "5912"),
    ("cinema", "Lagoon Cinema", "7832"),
    ("clothes", "Thread and Needle", "5651"),
    ("books", "Lighthouse Books", "5942"),
    ("hotel", "Hillside Hotel London", "7011"),
    ("flour", "Millstone Flour Supply", "5046"),
)


class Monthly(msgspec.Struct, frozen=True, kw_only=True):
    """Say what happens on a day of each month (1 to 28): below zero the account pays, above it receives.

    ``other`` is another account of this bank, or empty for the rest of the world; ``spread`` is how far the amount may
    vary, in percent.
    """

    name: str
    account: str
    day: int
    amount: int
    type: str
    subtype: str
    text: str
    flags: tuple[str, ...] = ()
    other: str = ""
    party: str = ""
    party_iban: str = ""
    spread: int = 0
    purpose: str = ""


class NowAndThen(msgspec.Struct, frozen=True, kw_only=True):
    """Say what happens on about ``per_month`` days of thirty: a sale, a purchase, a withdrawal."""

    name: str
    account: str
    per_month: int
    least: int
    most: int
    type: str = "POS"
    subtype: str = "Purchase"
    text: str = ""
    merchant: str = ""
    incoming: bool = False
    foreign_currency: str = ""
    rate: str = ""
    party: str = ""


Rule = Monthly | NowAndThen


def _iban(tail: int) -> str:
    return f"AE{98 - int(f'991{tail:016d}101400') % 97:02d}991{tail:016d}"


def _salary(account: str, dirhams: int, employer: str) -> Monthly:
    return Monthly(
        name="salary", account=account, day=25, amount=dirhams * 100, type="LocalBankTransfer",
        subtype="MoneyTransfer", text=f"Salary {employer}", flags=("Payroll",), party=employer,
        party_iban=_iban(5001), purpose="SAL",
    )  # fmt: skip


def _rent(account: str, dirhams: int) -> Monthly:
    return Monthly(
        name="rent", account=account, day=1, amount=-dirhams * 100, type="LocalBankTransfer",
        subtype="MoneyTransfer", text="Rent", flags=("StandingOrder",), party="Skyline Homes",
        party_iban=_iban(5002), purpose="RNT",
    )  # fmt: skip


def _bill(account: str, name: str, day: int, dirhams: int, spread: int) -> Monthly:
    return Monthly(
        name=name.lower(), account=account, day=day, amount=-dirhams * 100, type="BillPayments",
        subtype="Repayments", text=name, flags=("DirectDebit",), party=name, spread=spread,
        party_iban=_iban(5100 + day), purpose="UTL",
    )  # fmt: skip


def _move(
    name: str, account: str, other: str, day: int, dirhams: int, text: str, spread: int = 0
) -> Monthly:
    return Monthly(
        name=name, account=account, day=day, amount=-dirhams * 100, type="SameBankTransfer",
        subtype="MoneyTransfer", text=text, flags=("StandingOrder",), other=other, spread=spread,
    )  # fmt: skip


def _shops(account: str, *, many: int) -> tuple[NowAndThen, ...]:
    rows = (
        ("grocer", many, 4_000, 32_000),
        ("cafe", many, 1_500, 5_500),
        ("fuel", 3, 7_000, 14_000),
        ("pharmacy", 1, 2_000, 12_000),
        ("cinema", 1, 4_500, 13_000),
        ("books", 1, 3_000, 16_000),
    )
    return tuple(
        NowAndThen(
            name=key, account=account, per_month=times, least=least, most=most, merchant=key,
            text=MERCHANTS[key].name,
        )
        for key, times, least, most in rows
    )  # fmt: skip


def _household(
    account: str, employer: str, *, salary: int, rent: int, many: int, family: int
) -> tuple[Rule, ...]:
    cash = NowAndThen(
        name="cash", account=account, per_month=1, least=20_000, most=60_000, type="ATM",
        subtype="Withdrawal", text="Cash withdrawal",
    )  # fmt: skip
    return (
        _salary(account, salary, employer),
        _rent(account, rent),
        _bill(account, "Electricity and Water", 10, 420, 40),
        _bill(account, "Telecom", 12, 359, 0),
        Monthly(
            name="family",
            account=account,
            day=27,
            amount=-family * 100,
            type="InternationalTransfer",
            subtype="MoneyTransfer",
            text="Family support",
            flags=("StandingOrder",),
            party="Family",
            party_iban=_iban(5005),
            spread=10,
            purpose="FIS",
        ),
        *_shops(account, many=many),
        cash,
    )


RULES: Final[tuple[Rule, ...]] = (
    *_household("100100000001", "Northern Light Engineering", salary=18_000, rent=6_500, many=7, family=3500),
    _move("saving", "100100000001", "100100000002", 26, 4_000, "Monthly saving"),
    Monthly(
        name="profit", account="100100000002", day=28, amount=4_200, type="Other", subtype="Profit",
        text="Profit share", spread=20,
    ),
    *_household("100200000001", "Cedar Bakery", salary=14_000, rent=5_200, many=6, family=5000),
    NowAndThen(
        name="takings", account="200100000001", per_month=26, least=180_000, most=420_000,
        type="Teller", subtype="Deposit", text="Card and cash takings", incoming=True,
    ),
    NowAndThen(
        name="flour", account="200100000001", per_month=7, least=350_000, most=780_000,
        merchant="flour", text=MERCHANTS["flour"].name,
    ),
    _rent("200100000001", 14_000),
    _bill("200100000001", "Electricity and Water", 9, 3_100, 25),
    Monthly(
        name="wages", account="200100000001", day=25, amount=-1_450_000, type="LocalBankTransfer",
        subtype="MoneyTransfer", text="Wages", party="Staff of Cedar Bakery", party_iban=_iban(5003),
        purpose="SAL",
    ),
    NowAndThen(
        name="invoice", account="300100000001", per_month=12, least=4_000_000, most=21_000_000,
        type="LocalBankTransfer", subtype="MoneyTransfer", text="Customer invoice", incoming=True,
        party="Harbour Retail Group",
    ),
    NowAndThen(
        name="import", account="300100000001", per_month=8, least=6_000_000, most=24_000_000,
        type="InternationalTransfer", subtype="MoneyTransfer", text="Import of goods",
        foreign_currency="USD", rate="3.6725", party="Pacific Freight Inc",
    ),
    Monthly(
        name="payroll", account="300100000001", day=24, amount=-28_500_000,
        type="LocalBankTransfer", subtype="MoneyTransfer", text="Payroll",
        party="Staff of Dhow Harbour Trading LLC", party_iban=_iban(5004), purpose="SAL",
    ),
    *_household("100300000001", "Dhow Harbour Trading", salary=26_000, rent=12_000, many=9, family=8500),
    *_household("100500000001", "Desert Logistics", salary=9_500, rent=3_400, many=5, family=2600),
    *_household("100600000001", "Coral Bay Hotels", salary=23_000, rent=7_800, many=5, family=7000),
    _move("card", "100600000001", "100600000002", 5, 2_250, "Credit card payment", 10),
    _move("car", "100600000001", "100600000004", 15, 1_850, "Auto finance instalment"),
    NowAndThen(
        name="clothes", account="100600000002", per_month=4, least=9_000, most=48_000,
        type="ECommerce", merchant="clothes", text=MERCHANTS["clothes"].name,
    ),
    NowAndThen(
        name="hotel", account="100600000002", per_month=1, least=60_000, most=140_000,
        merchant="hotel", text=MERCHANTS["hotel"].name, foreign_currency="GBP", rate="4.6512",
    ),
    NowAndThen(
        name="freelance", account="100600000003", per_month=2, least=25_000, most=90_000,
        type="InternationalTransfer", subtype="MoneyTransfer", text="Design work", incoming=True,
        party="Blue Ridge Studio",
    ),
    NowAndThen(
        name="books", account="100600000003", per_month=2, least=1_500, most=9_000,
        type="ECommerce", merchant="books", text=MERCHANTS["books"].name,
    ),
)  # fmt: skip


@final
class History:
    """Give the entries of the accounts' past, once each, as their moments pass."""

    __slots__ = ("_day", "_pending", "_upto")

    def __init__(self, founded: int) -> None:
        """Begin two years before ``founded``."""
        self._day = local_day(founded) - YEARS
        self._upto = midnight(self._day)
        self._pending: list[Entry] = []

    @property
    def begins(self) -> int:
        """Return the time up to which history was given: at first, its beginning."""
        return self._upto

    def until(self, now: int) -> list[Entry]:
        """Return the entries since the last call up to ``now``, oldest first; at most 4,000 days at once."""
        last = min(local_day(now), self._day + timedelta(days=MOST_DAYS))
        while self._day <= last:
            self._pending += _of_day(self._day)
            self._day += timedelta(days=1)
        due = sorted((e for e in self._pending if e.at <= now), key=lambda e: (e.at, e.id))
        self._pending = [e for e in self._pending if e.at > now]
        self._upto = max(self._upto, now)
        return due


@lru_cache(maxsize=MOST_DAYS)
def _of_day(day: date) -> tuple[Entry, ...]:
    """Return everything that happens on a day; kept, because the ledger holds the same entries anyway."""
    return tuple(entry for rule in RULES for entry in _outcome(rule, day))


def _outcome(rule: Rule, day: date) -> Iterator[Entry]:
    draw = hashlib.sha256(f"{rule.account}:{rule.name}:{day}".encode()).digest()
    if isinstance(rule, Monthly):
        if day.day == rule.day:
            yield _monthly(rule, day, draw)
    elif int.from_bytes(draw[:2]) % 30 < rule.per_month:
        yield _now_and_then(rule, day, draw)


def _moment(day: date, draw: bytes) -> int:
    """Return a time between 06:00 and 22:00 of a day."""
    return midnight(day) + 21_600 + int.from_bytes(draw[2:6]) % 57_600


def _sides(account: str, other: str, currency: str, *, incoming: bool) -> tuple[str, str]:
    far = other or f"{WORLD}:{currency}"
    return (far, account) if incoming else (account, far)


def _monthly(rule: Monthly, day: date, draw: bytes) -> Entry:
    size = abs(rule.amount)
    if rule.spread:
        reach = size * rule.spread // 100
        size += int.from_bytes(draw[6:10]) % (2 * reach + 1) - reach
    giver, taker = _sides(
        rule.account, rule.other, ACCOUNTS[rule.account].currency, incoming=rule.amount > 0
    )
    return Entry(
        id=f"T{day:%y%m%d}{draw[10:16].hex().upper()}",
        at=_moment(day, draw),
        giver=giver,
        taker=taker,
        amount=size,
        type=rule.type,
        subtype=rule.subtype,
        text=rule.text,
        flags=rule.flags,
        party_name=rule.party,
        party_iban=rule.party_iban,
        party_bic=("" if rule.other else "OTHRAEAD") if rule.party else (BIC if rule.other else ""),
        purpose=rule.purpose,
    )


def _now_and_then(rule: NowAndThen, day: date, draw: bytes) -> Entry:
    size = rule.least + int.from_bytes(draw[6:10]) % (rule.most - rule.least + 1)
    giver, taker = _sides(rule.account, "", ACCOUNTS[rule.account].currency, incoming=rule.incoming)
    return Entry(
        id=f"T{day:%y%m%d}{draw[10:16].hex().upper()}",
        at=_moment(day, draw),
        giver=giver,
        taker=taker,
        amount=size,
        type=rule.type,
        subtype=rule.subtype,
        text=rule.text,
        merchant=rule.merchant,
        party_name=rule.party,
        party_iban=_iban(6000 + draw[16]) if rule.party else "",
        party_bic="OTHRAEAD" if rule.party else "",
        foreign=round(size / float(rule.rate)) if rule.rate else 0,
        foreign_currency=rule.foreign_currency,
        rate=rule.rate,
    )
