"""What an account has agreed for the future: direct debits, standing orders, scheduled payments, beneficiaries, products.

Direct debits and standing orders are the very rules that made the history, so what they announce is what happened.
"""

from datetime import date
from typing import Any, Final

from hub.sandbox.bank.book import Book
from hub.sandbox.bank.calendar import DAY, local_day, midnight, money, next_month, timestamp
from hub.sandbox.bank.history import RULES, YEARS, Monthly
from hub.sandbox.bank.people import BIC, Account
from hub.sandbox.bank.shapes import amount, holder_name

Shape = dict[str, Any]
PAYMENT_ACCOUNTS: Final = frozenset({"CurrentAccount", "Savings"})


def _monthly(account: Account, flag: str) -> list[Monthly]:
    if account.subtype not in PAYMENT_ACCOUNTS:
        return []
    return [
        rule
        for rule in RULES
        if isinstance(rule, Monthly) and rule.account == account.id and flag in rule.flags
    ]


def _next_day(rule: Monthly, today: date) -> date:
    day = today.replace(day=rule.day)
    return day if day > today else next_month(today).replace(day=rule.day)


def direct_debits(book: Book, account: Account) -> list[Shape]:
    """Return an account's direct debits with the last collection of each."""
    return [_direct_debit(book, account, rule) for rule in _monthly(account, "DirectDebit")]


def _direct_debit(book: Book, account: Account, rule: Monthly) -> Shape:
    shape: Shape = {
        "accountId": account.id,
        "directDebitId": f"DD-{account.id}-{rule.day:02d}",
        "mandateIdentification": f"M{account.number[-8:]}{rule.day:02d}",
        "directDebitStatusCode": "Active",
        "name": rule.party,
        "frequency": "Monthly",
    }
    last = next((e for e in reversed(book.entries(account.id)) if e.text == rule.text), None)
    if last is not None:
        shape["previousPaymentDateTime"] = timestamp(last.at)
        shape["previousPaymentAmount"] = amount(last.amount, account.currency)
    return shape


def standing_orders(book: Book, account: Account) -> list[Shape]:
    """Return an account's standing orders."""
    today = local_day(book.now())
    first = local_day(book.begins()) - YEARS
    return [
        _standing_order(account, rule, today, first) for rule in _monthly(account, "StandingOrder")
    ]


def _standing_order(account: Account, rule: Monthly, today: date, first: date) -> Shape:
    sum_ = amount(rule.amount, account.currency)
    shape: Shape = {
        "accountId": account.id,
        "standingOrderId": f"SO-{account.id}-{rule.day:02d}",
        "accountHolderName": holder_name(account),
        "standingOrderType": rule.type,
        "frequency": "Monthly",
        "creditorReference": rule.text,
        "purpose": rule.text,
        "firstPaymentDateTime": timestamp(midnight(_next_day(rule, first))),
        "nextPaymentDateTime": timestamp(midnight(_next_day(rule, today))),
        "standingOrderStatusCode": "Active",
        "firstPaymentAmount": sum_,
        "nextPaymentAmount": sum_,
    }
    if rule.party_iban:
        shape["creditorAgent"] = {"schemeName": "BICFI", "identification": "OTHRAEAD"}
        shape["creditorAccount"] = [{"schemeName": "IBAN", "identification": rule.party_iban}]
    return shape


def scheduled_payments(book: Book, account: Account) -> list[Shape]:
    """Return an account's one payment in the future: the school fee, in nine days."""
    if account.subtype != "CurrentAccount" or account.category != "Retail":
        return []
    when = midnight(local_day(book.now())) + 9 * DAY
    rent = next((r for r in _monthly(account, "StandingOrder") if r.party_iban), None)
    if rent is None:
        return []
    return [
        {
            "accountId": account.id,
            "scheduledPaymentId": f"SP-{account.id}-{local_day(when):%y%m%d}",
            "accountHolderName": holder_name(account),
            "scheduledType": "Execution",
            "scheduledPaymentDateTime": timestamp(when),
            "creditorReference": "School fee",
            "debtorReference": "Fee second term",
            "instructedAmount": amount(125_000, account.currency),
            "creditorAgent": {"schemeName": "BICFI", "identification": "OTHRAEAD"},
            "creditorAccount": [{"schemeName": "IBAN", "identification": rent.party_iban}],
        }
    ]


def beneficiaries(account: Account) -> list[Shape]:
    """Return whom an account's holder has paid before and keeps a note of."""
    rules = [r for r in _monthly(account, "StandingOrder") if r.party_iban]
    return [
        {
            "accountId": account.id,
            "beneficiaryId": f"BN-{account.id}-{rule.day:02d}",
            "beneficiaryType": "Activated",
            "addedViaOF": False,
            "accountHolderName": rule.party,
            "reference": rule.text,
            "servicer": {
                "schemeName": "BICFI",
                "identification": "OTHRAEAD",
                "name": "Other Bank",
                "postalAddress": {
                    "addressType": "Business",
                    "addressLine": ["1 Clock Tower Road"],
                    "townName": "Dubai",
                    "countrySubDivision": "Dubai",
                    "country": "AE",
                },
            },
            "creditorAccount": [{"schemeName": "IBAN", "identification": rule.party_iban}],
        }
        for rule in rules
    ]


def _charge(name: str, kind: str, minor: int, frequency: str, description: str) -> Shape:
    return {
        "Type": kind,
        "Name": name,
        "Description": description,
        "Charge": [{"Amount": {"Amount": money(minor), "Currency": "AED"}}],
        "Frequency": frequency,
    }


_MONTHLY: Final = _charge(
    "Monthly fee", "MonthlyFees", 2_500, "Monthly", "Waived with a balance of 3,000 dirhams"
)
_LATE: Final = _charge(
    "Late payment", "LatePayment", 23_000, "PerEvent", "When the minimum is late"
)
_SETTLE: Final = _charge("Early settlement", "EarlySettlement", 10_000, "Once", "At full repayment")

_PRODUCTS: Final[dict[str, Shape]] = {
    "everyday": {"Charges": [_MONTHLY], "IsSecured": False, "IsSalaryTransferRequired": True},
    "saver": {
        "IsSecured": False,
        "DepositRates": {
            "RateType": "VariableProfit",
            "RateDetails": [
                {
                    "RateCategory": "Applied",
                    "AnnualRate": 2.1,
                    "CalculationMethod": "MinimumMonthlyBalance",
                    "CalculationFrequency": "Monthly",
                    "ApplicationFrequency": "Monthly",
                }
            ],
        },
    },
    "business": {"Charges": [_MONTHLY], "IsSecured": False, "IsSalaryTransferRequired": False},
    "card": {
        "Charges": [_LATE],
        "IsSecured": False,
        "FinanceRates": {"RateType": "FixedInterest", "Description": "Purchases", "Rate": 39.0},
        "RewardsBenefits": [
            {
                "Type": "Cashback",
                "Name": "Cashback",
                "Description": "One percent of purchases",
                "FrequencyPaid": "Monthly",
            }
        ],
    },
    "currency": {"IsSecured": False, "IsSalaryTransferRequired": False},
    "auto": {
        "Charges": [_SETTLE],
        "IsSecured": True,
        "FinanceRates": {
            "RateType": "FixedInterest",
            "Description": "Fixed for the whole tenor",
            "Rate": 3.9,
            "InterestCalculationMethod": "OutstandingBalance",
        },
        "Tenor": {"OriginalTenor": "P5Y", "RemainingTenor": "P2Y3M"},
    },
}


def products(account: Account) -> list[Shape]:
    """Return the product an account is."""
    return [{"AccountId": account.id, **_PRODUCTS[account.product]}]


def own_agent() -> Shape:
    """Return this bank as a payment's agent."""
    return {"schemeName": "BICFI", "identification": BIC}
