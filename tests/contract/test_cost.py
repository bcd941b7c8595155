"""What mapping costs beside reading and writing the same JSON: a ratio, so that the machine matters little."""

import time

import orjson
import pytest

from bench.evidence import append
from hub.contract import Context
from hub.model.fault import Fault

CONTEXT = Context(url="https://hub.example/x", account_id="acc-1", extra={}, related=None)
CASES = [
    ("account-information.accounts", 2_000, 6.0),
    ("account-information.transactions", 20_000, 8.0),
]


ACCOUNT = {
    "id": "100100000001", "accountHolderName": "Aisha Rahman", "accountHolderShortName": "A Rahman",
    "status": "Active", "statusUpdateDateTime": "2026-01-01T08:00:00Z", "currency": "AED", "nickName": "Household",
    "openingDate": "2020-02-02", "accountType": "Retail", "accountSubType": "CurrentAccount",
    "description": "Everyday account", "accountNumbers": [
        {"schemeName": "IBAN", "identification": "AE279900000100100000001", "name": {"en": "Aisha Rahman"}},
        {"schemeName": "AccountNumber", "identification": "100100000001"},
    ],
    "servicer": {"schemeName": "BICFI", "identification": "MODLAEAD"},
    "product": {"id": "everyday", "productName": "Everyday"}, "multiAuth": False,
}  # fmt: skip
TRANSACTION = {
    "accountId": "100100000001", "transactionId": "T0001", "transactionDateTime": "2026-05-01T09:30:00Z",
    "transactionReference": "REF-1", "transactionType": "POS", "subTransactionType": "Purchase",
    "statementReference": ["2026-05"], "creditDebitIndicator": "Debit", "status": "Booked",
    "transactionMutability": "Immutable", "bookingDateTime": "2026-05-01T09:30:00Z",
    "valueDateTime": "2026-05-01T09:30:00Z", "transactionInformation": "Groceries",
    "amount": {"amount": "125.50", "currency": "AED"}, "localTimeZone": "UTC+04",
    "balance": {"creditDebitIndicator": "Credit", "type": "ClosingBooked", "amount": {"amount": "9000.00", "currency": "AED"}},
    "merchantDetails": {"merchantId": "12345", "merchantName": "Souk Mart", "merchantCategoryCode": "5411"},
    "creditorAgent": {"schemeName": "BICFI", "identification": "OTHRAEAD"},
    "creditorAccount": [{"schemeName": "IBAN", "identification": "AE460261001234567891234", "name": {"en": "Souk Mart"}}],
}  # fmt: skip
ITEMS = {"account-information.accounts": ACCOUNT, "account-information.transactions": TRANSACTION}


def answer_of(route_id, size):
    """Return a bank's answer of about ``size`` octets as banks send them: many items of the same shape."""
    item = ITEMS[route_id]
    count = -(-size // len(orjson.dumps(item)))
    meta = {"totalPages": 1, "totalRecords": count}
    return {"data": [dict(item) for _ in range(count)], "meta": meta}


def fastest(work, rounds):
    """Return the least time that one round of work took: what others on the machine cost is left out."""
    least = 1e9
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(20):
            work()
        least = min(least, time.perf_counter() - began)
    return least


def ratio(contract, route_id, size, rounds):
    mapper = contract.mapper(route_id)
    value = answer_of(route_id, size)
    octets, mapped = orjson.dumps(value), mapper(value, CONTEXT)
    assert not isinstance(mapped, Fault)
    assert len(orjson.dumps(mapped)) > size / 2
    plain = fastest(lambda: orjson.dumps(orjson.loads(octets)), rounds)
    return fastest(lambda: mapper(value, CONTEXT), rounds) / plain


@pytest.mark.parametrize(("route_id", "size", "most"), CASES)
def test_mapping_costs_a_small_multiple_of_reading_and_writing(contract, route_id, size, most):
    found = ratio(contract, route_id, size, 40)
    print(f"{route_id}: {found:.1f} times")
    assert found <= most


@pytest.mark.nightly
def test_the_cost_of_mapping_is_recorded(contract):
    found = {name: round(ratio(contract, name, size, 400), 2) for name, size, _ in CASES}
    append("mapping-cost", {"rounds": 400}, [3], found)
    assert all(found[name] <= most for name, _, most in CASES)
