"""What is kept of a bank's payment."""

import pytest

from hub.config import config_folder
from hub.contract.compiling import read_schemas
from hub.contract.mapping import resolved
from hub.gateway.payment_kept import _SHAPE, kept_of

PAYMENT = {
    "id": "p-1",
    "status": "Pending",
    "instruction": {"Amount": {"amount": "1.00", "currency": "AED"}},
    "rejectReasonCode": [{"code": "AANI.AM04", "message": "no funds"}],
}


def test_what_is_declared_is_kept_as_it_is():
    assert kept_of(PAYMENT) == PAYMENT


def test_members_that_nobody_declared_are_not_kept_at_any_depth():
    told = {
        **PAYMENT,
        "customer": "Aisha",
        "instruction": {"Amount": {"amount": "1.00", "currency": "AED", "note": "x"}, "by": "y"},
        "rejectReasonCode": [{"code": "AANI.AM04", "message": "no funds", "trace": {"a": 1}}],
    }
    assert kept_of(told) == PAYMENT


@pytest.mark.parametrize(
    "status", ["Whatever", "Received", "", 7, None, ["Pending"], {"Pending": 1}]
)
def test_a_word_that_was_not_agreed_says_nothing(status):
    assert kept_of({"id": "p-1", "status": status}) == {"id": "p-1", "status": "Pending"}


@pytest.mark.parametrize(
    "told",
    [
        {"instruction": [1]},
        {"instruction": "text"},
        {"charges": {"type": "VAT"}},
        {"charges": ["text"]},
        {"debtorReference": {"a": "text"}},
        {"debtorReference": ["text"]},
    ],
)
def test_a_value_of_another_kind_is_not_kept(told):
    assert kept_of({"id": "p-1", **told}) == {"id": "p-1"}


def test_the_shape_is_that_of_the_banks_schema():
    schemas = read_schemas(config_folder() / "contract")["service-initiation"]

    def names(kind):
        kind = resolved(kind, schemas.types)
        if isinstance(kind, dict) and "$list" in kind:
            return [names(kind["$list"])]
        if not isinstance(kind, dict):
            return None
        return {n.removesuffix("!"): names(k) for n, k in kind.items() if not n.startswith("$")}

    assert names(schemas.sites["POST /payments 201"])["data"] == _without_one(_SHAPE)


def _without_one(shape):
    """Leave out the one member that stands in only one of the two rates."""
    asked = {**shape["currencyRequest"]}
    asked["exchangeRateInformation"] = {
        n: k for n, k in asked["exchangeRateInformation"].items() if n != "expirationDateTime"
    }
    return {**shape, "currencyRequest": asked}
