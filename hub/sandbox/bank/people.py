"""Who banks here: parties, accounts, and customers with their published passwords. All of it is invented."""

from typing import Final

import msgspec

BANK_NAME: Final = "Model Bank"
BIC: Final = "MODLAEAD"
IBAN_BANK_CODE: Final = "990"


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a person or company the bank knows.

    Attributes:
        id: Customer id, stable.
        number: The customer number on paper.
        category: ``Retail``, ``SME`` or ``Corporate``.
        name: Full or business name.
        given: Given name; empty for companies.
        family: Family name; empty for companies.
        document: Emirates ID of a person, trade licence of a company.
        born: Date of birth, or of incorporation.
        line: First address line.
        town: Town.
        emirate: ``Dubai``, ``AbuDhabi`` ...
        phone: International format.
        email: In the reserved domain ``example``.
        work: Employer of a person, industry of a company.
        salary: Monthly, in whole dirhams; 0 for companies.
    """

    id: str
    number: str
    category: str
    name: str
    given: str = ""
    family: str = ""
    document: str
    born: str
    line: str
    town: str
    emirate: str
    phone: str
    email: str
    work: str
    salary: int = 0


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Say in which role a party holds an account."""

    party: str
    role: str = "Principal"
    type: str = "Sole"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one account.

    Attributes:
        id: What the Hub and TPPs see; at most 40 characters.
        number: 16 digits, the end of the IBAN.
        subtype: ``CurrentAccount``, ``Savings``, ``CreditCard``, ``Mortgage`` or ``Finance``.
        category: ``Retail``, ``SME`` or ``Corporate``.
        nickname: What the customer calls it.
        description: What the bank calls it.
        product: Product id.
        holdings: Who holds it; the first one names it.
        opening: Balance at the beginning of history, minor units.
        opened: Date.
        currency: ISO 4217.
        status: ``Active``, ``Suspended``, ``Closed`` ...
        sharia: Sharia compliant.
        credit_limit: Minor units, for credit cards.
        signatures: How many customers must approve a payment.
    """

    id: str
    number: str
    subtype: str
    category: str = "Retail"
    nickname: str
    description: str
    product: str
    holdings: tuple[Holding, ...]
    opening: int
    opened: str
    currency: str = "AED"
    status: str = "Active"
    sharia: bool = False
    credit_limit: int = 0
    signatures: int = 1

    @property
    def iban(self) -> str:
        """Return the IBAN with its check digits (ISO 13616)."""
        return iban(IBAN_BANK_CODE, self.number)


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one login; the password is published and worthless.

    Attributes:
        user_id: Stable and opaque; what the bank gives the Hub as ``psuIdentifiers.userId``.
        name: Whose login it is.
        username: For the login page.
        password: For the login page.
        party: The party it is.
        situation: One line for readers of the documentation.
        accounts: Identifiers of the accounts it may see.
    """

    user_id: str
    name: str
    username: str
    password: str
    party: str
    situation: str
    accounts: tuple[str, ...]


def iban(bank_code: str, number: str) -> str:
    """Return the UAE IBAN of a bank code (3 digits) and account number (16 digits)."""
    check = 98 - int(f"{bank_code}{number}101400") % 97
    return f"AE{check:02d}{bank_code}{number}"


def _person(number: int, given: str, family: str, **rest: str | int) -> Party:
    fields = {
        "id": f"cust-{number}",
        "number": f"70{number:06d}",
        "category": "Retail",
        "name": f"{given} {family}",
        "given": given,
        "family": family,
        "phone": f"+97150555{number:04d}",
        "email": f"{given.lower()}@post.example",
        **rest,
    }
    return msgspec.convert(fields, Party)


PARTIES: Final = {
    party.id: party
    for party in (
        _person(
            1001, "Aisha", "Rahman", document="784-1991-1234567-1", born="1991-04-12",
            line="Apartment 1204, Creek View Tower", town="Dubai", emirate="Dubai",
            work="Northern Light Engineering", salary=18_000,
        ),
        _person(
            1002, "Omar", "Haddad", document="784-1984-2345678-2", born="1984-11-02",
            line="Villa 17, Palm Street", town="Sharjah", emirate="Sharjah",
            work="Cedar Bakery", salary=14_000,
        ),
        _person(
            1003, "Noura", "Saleh", document="784-1979-3456789-3", born="1979-07-23",
            line="Villa 3, Harbour Lane", town="Abu Dhabi", emirate="AbuDhabi",
            work="Dhow Harbour Trading", salary=42_000,
        ),
        _person(
            1004, "Yusuf", "Karimi", document="784-1976-4567890-4", born="1976-01-30",
            line="Villa 3, Harbour Lane", town="Abu Dhabi", emirate="AbuDhabi",
            work="Dhow Harbour Trading", salary=39_000,
        ),
        _person(
            1005, "Hamad", "Nasser", document="784-1995-5678901-5", born="1995-09-09",
            line="Apartment 31, Old Market Road", town="Ajman", emirate="Ajman",
            work="Desert Logistics", salary=9_500,
        ),
        _person(
            1006, "Layla", "Fernandes", document="784-1988-6789012-6", born="1988-12-19",
            line="Apartment 802, Marina Walk", town="Dubai", emirate="Dubai",
            work="Coral Bay Hotels", salary=23_000,
        ),
        Party(
            id="cust-2001", number="80002001", category="SME", name="Cedar Bakery",
            document="CN-1180221", born="2016-02-14", line="Shop 4, Bakers Court", town="Sharjah",
            emirate="Sharjah", phone="+97165550201", email="office@cedar-bakery.example",
            work="Food manufacturing",
        ),
        Party(
            id="cust-3001", number="80003001", category="Corporate", name="Dhow Harbour Trading LLC",
            document="CN-2077310", born="2004-06-01", line="Warehouse 12, Free Port", town="Abu Dhabi",
            emirate="AbuDhabi", phone="+97125550301", email="finance@dhow-harbour.example",
            work="Wholesale trade",
        ),
    )
}  # fmt: skip

ACCOUNTS: Final = {
    account.id: account
    for account in (
        Account(
            id="100100000001", number="0000100100000001", subtype="CurrentAccount",
            nickname="Everyday", description="Everyday current account", product="everyday",
            holdings=(Holding(party="cust-1001"),), opening=1_250_000, opened="2019-03-04",
        ),
        Account(
            id="100100000002", number="0000100100000002", subtype="Savings", nickname="Rainy days",
            description="Sharia savings account", product="saver", sharia=True,
            holdings=(Holding(party="cust-1001"),), opening=2_400_000, opened="2019-03-04",
        ),
        Account(
            id="100200000001", number="0000100200000001", subtype="CurrentAccount",
            nickname="Personal", description="Everyday current account", product="everyday",
            holdings=(Holding(party="cust-1002"),), opening=1_640_000, opened="2014-08-20",
        ),
        Account(
            id="200100000001", number="0000200100000001", subtype="CurrentAccount", category="SME",
            nickname="Bakery", description="Business current account", product="business",
            holdings=(
                Holding(party="cust-2001"),
                Holding(party="cust-1002", role="SeniorManagingOfficial", type="Delegate"),
            ), opening=8_800_000, opened="2016-03-01",
        ),
        Account(
            id="300100000001", number="0000300100000001", subtype="CurrentAccount",
            category="Corporate", nickname="Operations", description="Corporate current account",
            product="business", signatures=2,
            holdings=(
                Holding(party="cust-3001"),
                Holding(party="cust-1003", role="Administrator", type="Delegate"),
                Holding(party="cust-1004", role="Administrator", type="Delegate"),
            ), opening=545_000_000, opened="2004-07-11",
        ),
        Account(
            id="100300000001", number="0000100300000001", subtype="CurrentAccount",
            nickname="Household", description="Joint current account", product="everyday",
            holdings=(
                Holding(party="cust-1003", type="Joint"),
                Holding(party="cust-1004", role="SecondaryOwner", type="Joint"),
            ), opening=3_100_000, opened="2008-10-05",
        ),
        Account(
            id="100500000001", number="0000100500000001", subtype="CurrentAccount",
            nickname="Salary", description="Everyday current account", product="everyday",
            holdings=(Holding(party="cust-1005"),), opening=910_000, opened="2020-01-15",
        ),
        Account(
            id="100500000002", number="0000100500000002", subtype="Savings", status="Suspended",
            nickname="Travel", description="Savings account", product="saver",
            holdings=(Holding(party="cust-1005"),), opening=320_000, opened="2021-05-02",
        ),
        Account(
            id="100500000003", number="0000100500000003", subtype="Savings", status="Closed",
            nickname="Old savings", description="Savings account", product="saver",
            holdings=(Holding(party="cust-1005"),), opening=0, opened="2017-02-11",
        ),
        Account(
            id="100600000001", number="0000100600000001", subtype="CurrentAccount",
            nickname="Main", description="Everyday current account", product="everyday",
            holdings=(Holding(party="cust-1006"),), opening=1_900_000, opened="2018-06-30",
        ),
        Account(
            id="100600000002", number="4000123412341006", subtype="CreditCard", nickname="Card",
            description="Cashback credit card", product="card", credit_limit=3_000_000,
            holdings=(Holding(party="cust-1006"),), opening=-210_000, opened="2018-07-12",
        ),
        Account(
            id="100600000003", number="0000100600000003", subtype="CurrentAccount", currency="USD",
            nickname="Dollars", description="Foreign currency account", product="currency",
            holdings=(Holding(party="cust-1006"),), opening=560_000, opened="2022-02-02",
        ),
        Account(
            id="100600000004", number="0000100600000004", subtype="Finance", nickname="Car",
            description="Auto finance", product="auto",
            holdings=(Holding(party="cust-1006"),), opening=-9_600_000, opened="2024-01-20",
        ),
    )
}  # fmt: skip

CUSTOMERS: Final = (
    Customer(
        user_id="u-7c1d5e01", name="Aisha Rahman", username="aisha", password="pearl-diver-21",
        party="cust-1001", situation="Salaried, current account and savings",
        accounts=("100100000001", "100100000002"),
    ),
    Customer(
        user_id="u-7c1d5e02", name="Omar Haddad", username="omar", password="cedar-oven-44",
        party="cust-1002", situation="Owner of a small business, which banks here too",
        accounts=("100200000001", "200100000001"),
    ),
    Customer(
        user_id="u-7c1d5e03", name="Noura Saleh", username="noura", password="harbour-light-7",
        party="cust-1003", situation="First of two signatories of a company; joint account",
        accounts=("300100000001", "100300000001"),
    ),
    Customer(
        user_id="u-7c1d5e04", name="Yusuf Karimi", username="yusuf", password="north-wind-90",
        party="cust-1004", situation="Second of two signatories of a company; joint account",
        accounts=("300100000001", "100300000001"),
    ),
    Customer(
        user_id="u-7c1d5e05", name="Hamad Nasser", username="hamad", password="falcon-road-63",
        party="cust-1005", situation="One account works, one is suspended, one is closed",
        accounts=("100500000001", "100500000002", "100500000003"),
    ),
    Customer(
        user_id="u-7c1d5e06", name="Layla Fernandes", username="layla", password="coral-reef-18",
        party="cust-1006", situation="Credit card, dollar account and car finance",
        accounts=("100600000001", "100600000002", "100600000003", "100600000004"),
    ),
)  # fmt: skip
