"""Payment values and consent statistics: sums that no rounding touches, days of the tenant's zone."""

from decimal import Decimal
from types import SimpleNamespace

import pytest

from hub.audit.turnover import all_of, consent_table, payment_table
from hub.model.consent import Consent, ConsentType, Status
from hub.model.records import Payment, Setting
from hub.state.keeper import Put
from tests.state.keepers import event

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200
"""12:00 UTC on 15 January 2027."""


def paid(number, amount, *, date="2027-01-15", status="Pending", organisation="o1", purpose="FIS"):
    return Payment(
        id=f"p{number}",
        consent_id="c",
        client_id="t1",
        organisation_id=organisation,
        payment_type="cbuae-payment",
        idempotency_key=f"k{number}",
        created_ms=0,
        updated_ms=0,
        amount=amount,
        date=date,
        response={"status": status, "paymentPurposeCode": purpose},
    )


def consent(number, seconds, *, status=Status.AUTHORIZED, expires=NOON * 2, usage=None):
    return Consent(
        id=f"c{number}",
        consent_type=ConsentType.ACCOUNT_ACCESS,
        rar_type="",
        standard_version="v2.1",
        client_id="t1",
        organisation_id="o1",
        status=status,
        group_id="",
        par_id="",
        request={},
        request_headers={},
        body={},
        tpp={},
        request_url="",
        created_ms=seconds * 1000,
        updated_ms=0,
        expires=expires,
        usage=usage or {},
    )


def test_values_add_up_to_the_last_fils():
    rows = payment_table([paid(n, "0.10") for n in range(3001)], "2027-01-15", "2027-01-15")
    assert [(row["payments"], row["value"]) for row in rows] == [(3001, "300.10")]
    large = payment_table(
        [paid(n, "9999999999999.99") for n in range(2)], "2027-01-01", "2027-02-01"
    )
    assert Decimal(large[0]["value"]) == Decimal("19999999999999.98")


def test_payments_are_told_apart_by_day_tpp_purpose_and_status():
    payments = [
        paid(1, "1.00"),
        paid(2, "2.00", status="Rejected"),
        paid(3, "4.00", organisation="o2"),
        paid(4, "8.00", purpose="ACM"),
        paid(5, "16.00", date="2027-01-16"),
        paid(6, "32.00", date="2027-01-14"),
        paid(7, "64.00", date="2027-01-17"),
    ]
    rows = payment_table(payments, "2027-01-15", "2027-01-16")
    assert sorted(row["value"] for row in rows) == ["1.00", "16.00", "2.00", "4.00", "8.00"]
    assert payment_table([], "2027-01-15", "2027-01-16") == []


@pytest.mark.parametrize(
    ("seconds", "day"), [(NOON + 7 * 3600, "2027-01-15"), (NOON + 8 * 3600, "2027-01-16")]
)
def test_a_consent_counts_for_the_day_of_the_tenants_zone(seconds, day):
    rows = consent_table([consent(1, seconds)], "2027-01-15", "2027-01-16", "Asia/Dubai", NOON)
    assert [row["day"] for row in rows] == [day]


def test_consents_are_counted_by_the_status_that_holds_now():
    consents = [
        consent(1, NOON, usage={"lastDataShared": "x"}),
        consent(2, NOON),
        consent(3, NOON, expires=NOON + 5),
        consent(4, NOON, status=Status.REVOKED),
    ]
    rows = consent_table(consents, "2027-01-15", "2027-01-15", "Asia/Dubai", NOON + 5)
    found = {row["status"]: (row["consents"], row["used"]) for row in rows}
    assert found == {"Authorized": (2, 1), "Expired": (1, 0), "Revoked": (1, 0)}


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 2001])
async def test_every_record_is_read(count):
    class Reader:
        async def search(self, query):
            some = range(count)[query.offset : query.offset + query.limit]
            records = [SimpleNamespace(key=f"{at:05}") for at in some]
            return SimpleNamespace(items=[SimpleNamespace(record=one) for one in records])

    read = [one.key async for one in all_of(Reader(), "payment")]
    assert read == [f"{at:05}" for at in range(count)]


async def test_records_that_come_while_all_are_read_make_none_count_twice(keeper):
    def settings(*names):
        return [Put(Setting(name=name, value=b"")) for name in names]

    read = []
    await keeper.commit(settings(*(f"m{at:05}" for at in range(2500))), [event()])
    async for one in all_of(keeper, "setting"):
        if len(read) in {500, 1500}:
            await keeper.commit(settings(f"a{len(read)}", f"b{len(read)}"), [event()])
        read.append(one.name)
    assert read == [f"m{at:05}" for at in range(2500)]
