"""The payment log: every published spelling of the bank's word on a payment, and what is final stays so."""

import json
from datetime import date

import msgspec
import pytest
import trio

from hub.model.consent import ConsentType, Status
from hub.model.limits import Allowance, reserve, terms_of
from hub.model.records import Attempt, Payment
from tests.lfi.desk import NOW, Desk, consent
from tests.waiting import virtual


def payment(payment_id="pay-1", **over):
    values = {
        "consent_id": "c1",
        "client_id": "tpp",
        "organisation_id": "org",
        "payment_type": "cbuae-payment",
        "idempotency_key": "k",
        "created_ms": NOW * 1000,
        "updated_ms": NOW * 1000,
        "response": {"id": payment_id, "status": "Pending"},
        "account_id": "a1",
        "psu_identifiers": {"userId": "u"},
    }
    return Payment(id=payment_id, **(values | over))


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path)
    await made.put(payment())
    yield made
    made.observer.close()


ACCEPTED = "AcceptedSettlementCompleted"
SPELLINGS = [
    {"paymentResponse.status": ACCEPTED, "paymentResponse.paymentTransactionId": "t"},
    {"paymentResponse": {"status": ACCEPTED, "paymentTransactionId": "t"}},
    {"data": {"paymentResponse.status": ACCEPTED, "paymentResponse.paymentTransactionId": "t"}},
    {"data": {"paymentResponse": {"status": ACCEPTED, "paymentTransactionId": "t"}}},
    {"status": ACCEPTED, "paymentTransactionId": "t"},
    {"paymentResponse.Status": ACCEPTED, "paymentResponse.PaymentTransactionId": "t"},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_every_published_spelling_is_understood(desk, spelling):
    desk.clock.advance(60)
    assert (await desk.call("PATCH", "/v2025.32/payment-log/pay-1", spelling))[0] == 204
    _, body, _ = await desk.call("GET", "/payment-log?consentId=c1")
    shown = body["data"][0]["paymentResponse"]
    assert (shown["status"], shown["paymentTransactionId"]) == (ACCEPTED, "t")
    assert shown["statusUpdateDateTime"] == "2026-06-01T08:01:00Z"
    assert body["meta"] == {}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "paymentResponse.status: is required"),
        ([], "body"),
        ({"paymentResponse.status": "Received"}, "paymentResponse.status"),
        ({"paymentResponse.status": "Rejected", "rejectReasonCode": []}, "rejectReasonCode"),
        (
            {
                "paymentResponse.status": "Rejected",
                "paymentResponse.rejectReasonCode": [{"code": "AANI", "message": "m"}],
            },
            "paymentResponse.rejectReasonCode[0].code",
        ),
        ({"paymentResponse.status": "Pending", "amount": "1.00"}, "amount: is not known"),
        (
            {"paymentResponse.status": "Pending", "status": "Rejected"},
            "status: stands twice",
        ),
        (
            {"paymentResponse.status": "Pending", "paymentResponse.paymentTransactionId": "x" * 41},
            "paymentResponse.paymentTransactionId: expected 1 to 40 characters, got 41",
        ),
    ],
)
async def test_a_wrong_patch_says_exactly_which_field_and_why(desk, body, named):
    status, answer, _ = await desk.call("PATCH", "/payment-log/pay-1", body)
    assert (status, answer["errorCode"]) == (400, "Body.InvalidFormat")
    assert named in answer["errorMessage"]


def rejected(code):
    return {
        "paymentResponse.status": "Rejected",
        "paymentResponse.RejectReasonCode": [{"code": code, "message": "m"}],
    }


async def test_what_is_billed_has_one_place_whatever_it_is_called(desk):
    billed = {"Type": "Collection", "NumberOfSuccessfulTransactions": 0}
    await desk.put(payment("pay-2", response={"id": "pay-2", "openFinanceBilling": billed}))
    said = {"status": ACCEPTED, "OpenFinanceBilling": {"NumberOfSuccessfulTransactions": 5}}
    assert (await desk.call("PATCH", "/payment-log/pay-2", {"paymentResponse": said}))[0] == 204
    stored, _ = await desk.keeper.lookup(Payment, "pay-2")
    now = {"Type": "Collection", "NumberOfSuccessfulTransactions": 5}
    assert stored.response["openFinanceBilling"] == now
    shown = (await desk.call("GET", "/payment-log?consentId=c1"))[1]["data"][1]["paymentResponse"]
    assert shown["OpenFinanceBilling"] == now
    assert "openFinanceBilling" not in shown


async def test_reasons_are_only_added_and_a_final_status_stays(desk):
    assert (await desk.call("PATCH", "/payment-log/pay-1", rejected("AANI.X1")))[0] == 204
    assert (await desk.call("PATCH", "/payment-log/pay-1", rejected("LFI.Y2")))[0] == 204
    assert (await desk.call("PATCH", "/payment-log/pay-1", rejected("LFI.Y2")))[0] == 204
    shown = (await desk.call("GET", "/payment-log?consentId=c1"))[1]["data"][0]["paymentResponse"]
    assert [reason["code"] for reason in shown["rejectReasonCode"]] == ["AANI.X1", "LFI.Y2"]
    back = {"paymentResponse.status": "Pending"}
    status, answer, _ = await desk.call("PATCH", "/payment-log/pay-1", back)
    assert (status, answer["errorCode"]) == (400, "Consent.BusinessRuleViolation")


async def test_what_stands_beside_a_reason_is_lawful_and_not_kept(desk):
    reasons = [{"code": "AANI.X1", "message": "no", "Detail": {"customer": "canary"}}]
    said = {"paymentResponse.status": "Rejected", "paymentResponse.rejectReasonCode": reasons}
    assert (await desk.call("PATCH", "/payment-log/pay-1", said))[0] == 204
    shown = (await desk.call("GET", "/payment-log?consentId=c1"))[1]["data"][0]["paymentResponse"]
    assert shown["rejectReasonCode"] == [{"code": "AANI.X1", "message": "no"}]


async def test_the_log_is_listed_by_consent_in_order(desk):
    await desk.put(payment("pay-0", created_ms=NOW * 1000 - 1), payment("x", consent_id="c2"))
    _, body, _ = await desk.call("GET", "/payment-log?consentId=c1")
    assert [entry["paymentId"] for entry in body["data"]] == ["pay-0", "pay-1"]
    asked = "/payment-log?consentId=AE070331234567890123456"
    assert (await desk.call("GET", asked))[1]["data"] == []
    assert [e.get("consent_id", "") for e in await desk.events()][-2:] == ["c1", ""]
    assert (await desk.call("GET", "/payment-log"))[0] == 400
    assert (await desk.call("PATCH", "/payment-log/none", rejected("LFI.X")))[0] == 404


async def test_the_newest_payments_of_a_consent_are_always_in_its_log(desk):
    many = [payment(f"p-{at:04d}", created_ms=NOW * 1000 + 1 + at) for at in range(1200)]
    for first in range(0, 1200, 400):
        await desk.put(*many[first : first + 400])
    _, body, _ = await desk.call("GET", "/payment-log?consentId=c1")
    shown = [entry["paymentId"] for entry in body["data"]]
    assert shown == [one.id for one in many[200:]]


def ordered(name="k"):
    """Return the use of a key whose order the bank has not answered."""
    return Attempt(
        id=name, client_id="tpp", consent_id="c1", digest="d", reservation="r", created=NOW
    )


async def test_a_bank_may_speak_of_a_payment_before_its_order_is_answered(desk, autojump_clock):
    await desk.put(ordered())
    said = {"paymentResponse.status": ACCEPTED}
    answers = []

    async def patch(payment_id):
        answers.append(
            (payment_id, (await desk.call("PATCH", f"/payment-log/{payment_id}", said))[0])
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(patch, "pay-7")
        nursery.start_soon(patch, "pay-8")
        await virtual(1)
        assert answers == []
        await desk.put(payment("pay-7"))
    assert answers == [("pay-7", 204), ("pay-8", 404)]
    assert trio.current_time() < 3
    assert (await desk.keeper.lookup(Payment, "pay-7"))[0].status == ACCEPTED


async def test_a_payment_that_nobody_orders_is_unknown_at_once(desk, autojump_clock):
    began = trio.current_time()
    said = {"paymentResponse.status": ACCEPTED}
    assert (await desk.call("PATCH", "/payment-log/pay-7", said))[0] == 404
    assert trio.current_time() == began


SINGLE = {
    "ConsentSchedule": {
        "SinglePayment": {
            "Type": "SingleInstantPayment",
            "Amount": {"Amount": "10.00", "Currency": "AED"},
        }
    }
}


async def put_single_payment(desk):
    staged = consent("p1", ConsentType.SERVICE_INITIATION, Status.AUTHORIZED)
    request = {"consent": {**staged.request["consent"], "ControlParameters": SINGLE}}
    taken = Allowance(consent_id="p1")
    taken = reserve(terms_of(SINGLE), taken, "share", 1000, "AED", date(2026, 6, 1))
    await desk.put(
        msgspec.structs.replace(staged, request=request),
        taken,
        payment("pay-9", consent_id="p1", reservation="share"),
    )


async def test_an_accepted_single_payment_consumes_its_consent(desk):
    await put_single_payment(desk)
    await desk.call("PATCH", "/payment-log/pay-9", {"paymentResponse.status": ACCEPTED})
    record = (await desk.call("GET", "/consents/p1"))[1]["data"]
    assert record["status"] == "Consumed"
    shown = record["consentBody"]["Data"]["PaymentConsumption"]
    assert shown["CumulativeNumberOfPayments"] == 1
    assert shown["CumulativeValueOfPayments"] == {"Amount": "10.00", "Currency": "AED"}
    changed = [e for e in await desk.events() if e.get("change") == "Authorized>Consumed"]
    assert len(changed) == 1
    assert changed[0]["consent_id"] == "p1"


MULTI = {
    "ConsentSchedule": {
        "MultiPayment": {
            "MaximumCumulativeNumberOfPayments": 5,
            "PeriodicSchedule": {
                "Type": "VariableOnDemand",
                "PeriodType": "Month",
                "PeriodStartDate": "2026-05-01",
                "Controls": {"MaximumCumulativeNumberOfPaymentsPerPeriod": 2},
            },
        }
    }
}


@pytest.mark.parametrize("between", [(), ("Pending",)])
async def test_a_settled_payment_that_is_rejected_after_all_gives_its_share_back(desk, between):
    staged = consent("m1", ConsentType.SERVICE_INITIATION, Status.AUTHORIZED)
    request = {"consent": {**staged.request["consent"], "ControlParameters": MULTI}}
    taken = Allowance(consent_id="m1")
    for share, amount in (("one", 1000), ("two", 250)):
        taken = reserve(terms_of(MULTI), taken, share, amount, "AED", date(2026, 5, 31))
    made = {"consent_id": "m1", "date": "2026-05-31"}
    await desk.put(
        msgspec.structs.replace(staged, request=request),
        taken,
        payment("pay-1", **made, amount="10.00", reservation="one"),
        payment("pay-2", **made, amount="2.50", reservation="two"),
    )
    for status in (ACCEPTED, *between):
        said = {"paymentResponse.status": status}
        assert (await desk.call("PATCH", "/payment-log/pay-1", said))[0] == 204
    for _ in range(2):
        assert (await desk.call("PATCH", "/payment-log/pay-1", rejected("AANI.X1")))[0] == 204
        held = (await desk.keeper.lookup(Allowance, "m1"))[0]
        assert (held.total.number, held.total.value, list(held.open)) == (1, 250, ["two"])
        assert {day: one.number for day, one in held.periods.items()} == {"2026-05-01": 1}
    shown = (await desk.stored("m1")).body["Data"]["PaymentConsumption"]
    assert shown["CumulativeValueOfPayments"] == {"Amount": "2.50", "Currency": "AED"}


async def test_a_consent_that_was_used_up_while_suspended_is_consumed_when_that_ends(desk):
    await put_single_payment(desk)
    channel = {"authorizationChannel": "App"}
    suspended = {**channel, "status": "Suspended"}
    assert (await desk.call("PATCH", "/consents/p1", suspended))[0] == 204
    await desk.call("PATCH", "/payment-log/pay-9", {"paymentResponse.status": ACCEPTED})
    assert (await desk.stored("p1")).status is Status.SUSPENDED
    assert (await desk.call("PATCH", "/consents/p1", {**channel, "status": "Authorized"}))[0] == 204
    assert (await desk.stored("p1")).status is Status.CONSUMED
    changes = [e["change"] for e in await desk.events() if ">" in e.get("change", "")]
    assert changes[-2:] == ["Suspended>Authorized", "Authorized>Consumed"]
    lines = (await desk.call("GET", "/consents/p1/audit"))[1]["data"]
    assert [json.loads(line["patch"]).popitem()[1] for line in lines[-2:]] == [
        "Authorized",
        "Consumed",
    ]


async def test_a_suspended_consent_with_something_left_is_authorized_when_that_ends(desk):
    await put_single_payment(desk)
    for status in ("Suspended", "Authorized"):
        patch = {"authorizationChannel": "App", "status": status}
        assert (await desk.call("PATCH", "/consents/p1", patch))[0] == 204
        assert (await desk.stored("p1")).status == status


async def test_a_rejected_payment_gives_its_share_back(desk):
    await put_single_payment(desk)
    await desk.call("PATCH", "/payment-log/pay-9", rejected("AANI.X1"))
    taken = (await desk.keeper.lookup(Allowance, "p1"))[0]
    assert (taken.total.number, taken.total.value, taken.open) == (0, 0, {})
    record = (await desk.call("GET", "/consents/p1"))[1]["data"]
    assert record["status"] == "Authorized"
    assert "PaymentConsumption" not in record["consentBody"]["Data"]
