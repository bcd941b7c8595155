"""Payments: one share, one request, one outcome; never twice under one key."""

import gc
from base64 import urlsafe_b64encode
from copy import deepcopy
from datetime import datetime
from typing import Any

import orjson
import pytest

from hub.lfi.payment_log import payment_entry
from hub.model.consent import Consent, ConsentType
from hub.model.limits import Allowance
from hub.model.records import Payment
from hub.protocol.jose import PublicKey, sign
from hub.upstream.bank import BankAnswer
from hub.upstream.faults import bank_failure
from hub.upstream.webhook import payment_message
from tests.gateway.test_payment_consents import DATA, PAYMENT, message_of, signed
from tests.gateway.world import (
    BASE,
    CLIENT,
    CONSENT,
    KEY,
    NOW,
    World,
    answer_of,
    client_token,
    consent_of,
    contract,
    token_of,
)

JWE = ".".join(
    urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"RSA-OAEP-256","enc":"A256GCM","kid":"k"}', b"x", b"x", b"x", b"x")
)
MULTI = {
    "ControlParameters": {
        "ConsentSchedule": {
            "MultiPayment": {
                "MaximumCumulativeNumberOfPayments": 2,
                "PeriodicSchedule": {
                    "Type": "FixedOnDemand",
                    "PeriodType": "Day",
                    "PeriodStartDate": "2020-01-01",
                    "Amount": {"Amount": "10.00", "Currency": "AED"},
                    "Controls": {"MaximumCumulativeNumberOfPaymentsPerPeriod": 9},
                },
            }
        }
    }
}
MADE = {
    "data": {
        "id": "p-1",
        "status": "Pending",
        "statusUpdateDateTime": "2026-01-01T00:00:00Z",
        "creationDateTime": "2026-01-01T00:00:00Z",
        "paymentPurposeCode": "ACM",
    }
}


async def started(terms: Any = DATA, **changes: Any) -> World:
    """Start a world with an Authorized payment consent and its user token."""
    asked = {"PaymentPurposeCode": "ACM", **terms}
    consent = consent_of(
        consent_type=ConsentType.SERVICE_INITIATION,
        data=DATA,
        request={"consent": asked},
        **changes,
    )
    world = await World().start(consent, scope="openid payments")
    world.trust.roles = ("BSIP",)
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    world.bank.answer = answer_of(MADE, 201)
    return world


def message(amount: str = "10.00", **changes: Any) -> dict[str, Any]:
    """Make a payment's message."""
    data = {
        "ConsentId": CONSENT, "PaymentPurposeCode": "ACM", "PersonalIdentifiableInformation": JWE,
        "Instruction": {"Amount": {"Amount": amount, "Currency": "AED"}},
        "OpenFinanceBilling": {"Type": "PushP2P"}, **changes,
    }  # fmt: skip
    return {"Data": data}


async def pay(world: World, body: Any = None, key: bytes | None = b"k-1", **more: bytes):
    """Send a payment."""
    headers = {b"content-type": b"application/jwt", b"x-idempotency-key": key}
    headers |= {name.replace("_", "-").encode(): value for name, value in more.items()}
    sent = signed(body or message())
    return await world.send("POST", f"{PAYMENT}/payments", headers=headers, body=sent)


async def taken(world: World) -> Allowance:
    """Return what is taken of the consent."""
    return (await world.keeper.lookup(Allowance, CONSENT))[0]


def error_of(response) -> str:
    """Return the code of a signed refusal."""
    return message_of(response)["Errors"][0]["Code"]


async def test_no_version_of_a_consent_but_the_latest_stays_in_memory():
    """What is remembered of a consent is remembered of one version of it: each payment makes another."""
    terms = deepcopy(MULTI)
    terms["ControlParameters"]["ConsentSchedule"]["MultiPayment"]["MaximumCumulativeNumberOfPayments"] = 99  # fmt: skip
    terms["ControlParameters"]["ConsentSchedule"]["MultiPayment"]["PeriodicSchedule"][
        "Controls"
    ] = {}
    world = await started(terms)
    alive = []
    for at in range(12):
        made = {"data": {**MADE["data"], "id": f"p-{at}"}}
        world.bank.answer = answer_of(made, 201)
        assert (await pay(world, key=b"k-%d" % at)).status == 201
        gc.collect()
        alive.append(sum(type(one) is Consent and one.id == CONSENT for one in gc.get_objects()))
    assert alive[11] <= alive[3], alive


async def test_a_payment_is_made():
    world = await started()
    response = await pay(world)
    assert response.status == 201
    said = message_of(response)
    assert contract().check_answer("payment.payments.make", said) is None
    url = f"{BASE}{PAYMENT}/payments/p-1"
    assert said["Data"]["PaymentId"] == "p-1"
    assert said["Links"] == {"Self": url, "Related": f"{BASE}{PAYMENT}/payment-consents/{CONSENT}"}
    headers = dict(response.headers)
    assert (headers[b"location"], headers[b"x-idempotency-key"]) == (url.encode(), b"k-1")
    payment, _ = await world.keeper.lookup(Payment, "p-1")
    assert (payment.consent_id, payment.amount) == (CONSENT, "10.00")
    kinds = [e["kind"] for e in await world.events()]
    assert kinds == ["intent", "outcome", "call"]


async def test_a_payment_is_kept_though_the_banks_answer_is_too_deep_to_be_told():
    world = await started()
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    body = orjson.dumps(MADE).replace(b'"ACM"', deep)
    world.bank.answer = BankAnswer(status=201, headers=(), body=body)
    first, second = await pay(world), await pay(world)
    assert (first.status, error_of(first)) == (500, "GenericError")
    assert (second.status, len(world.bank.calls)) == (500, 1), "told again, not paid again"
    payment, _ = await world.keeper.lookup(Payment, "p-1")
    assert (payment.status, (await taken(world)).total.number) == ("Pending", 1)
    events = [(e["kind"], e.get("check")) for e in await world.events()]
    assert events[:3] == [("intent", None), ("outcome", None), ("call", "bank.unmappable")]


async def test_the_bank_gets_the_message_inside_a_record_of_the_call():
    world = await started()
    await pay(world)
    [call] = world.bank.calls
    sent = orjson.loads(call.body)
    assert (call.path, call.family, call.repeatable) == ("/payments", "service-initiation", False)
    assert sent["request"] == message()
    assert sent["paymentType"] == "cbuae-payment"
    assert sent["requestHeaders"]["x-idempotency-key"] == "k-1"
    assert "authorization" not in sent["requestHeaders"]
    assert sent["tpp"]["tppName"] == "A TPP"


async def test_the_banks_own_token_takes_the_place_of_ours():
    world = await started(connect_token="bank-token")
    await pay(world)
    assert world.bank.calls[0].bearer == "bank-token"


async def test_the_same_key_gets_the_first_answer_and_no_second_payment():
    world = await started(MULTI)
    first, second = await pay(world), await pay(world)
    assert (first.status, second.status) == (201, 201)
    assert message_of(first)["Data"] == message_of(second)["Data"]
    assert len(world.bank.calls) == 1
    assert (await taken(world)).total.number == 1


async def test_a_key_is_not_for_another_payment():
    world = await started(MULTI)
    await pay(world)
    response = await pay(world, message(DebtorReference="other"))
    assert (response.status, error_of(response)) == (409, "GenericError")
    assert len(world.bank.calls) == 1


async def test_a_key_is_free_after_a_day():
    world = await started(MULTI, expires=1_790_000_000)
    await pay(world)
    world.clock.advance(86_400)
    await world.keep(token_of(scope="openid payments", expires=1_790_000_000))
    world.bank.answer = answer_of({"data": {**MADE["data"], "id": "p-2"}}, 201)
    body = signed_now(world)
    headers = {b"content-type": b"application/jwt", b"x-idempotency-key": b"k-1"}
    response = await world.send("POST", f"{PAYMENT}/payments", headers=headers, body=body)
    assert response.status == 201
    assert len(world.bank.calls) == 2


def signed_now(world: World) -> bytes:
    """Sign a payment at the world's own time."""
    now = world.clock.now()
    claims = {"iss": CLIENT, "aud": [BASE], "nbf": now, "exp": now + 60, "message": message()}
    return sign(orjson.dumps(claims), KEY).encode()


async def test_no_more_is_paid_than_the_consent_allows():
    world = await started(MULTI)
    codes = []
    for number in range(3):
        world.bank.answer = answer_of({"data": {**MADE["data"], "id": f"p-{number}"}}, 201)
        codes.append((await pay(world, key=b"k-%d" % number)).status)
    assert codes == [201, 201, 400]
    assert len(world.bank.calls) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (message("10.01"), "Consent.FailsControlParameters"),
        (message(PaymentPurposeCode="SAA"), "Consent.BusinessRuleViolation"),
        (message(ConsentId="99999999-9999-4999-8999-999999999999"), "Consent.Invalid"),
        (message(Extra="x"), "Body.InvalidFormat"),
        (message("10"), "Body.InvalidFormat"),
    ],
)
async def test_a_payment_that_differs_from_its_consent_never_reaches_the_bank(body, code):
    world = await started()
    response = await pay(world, body)
    assert (response.status, error_of(response)) == (400, code)
    assert world.bank.calls == []


@pytest.mark.parametrize("key", [None, b"", b"a b", b"x" * 41])
async def test_a_payment_needs_a_key(key):
    world = await started()
    response = await pay(world, key=key)
    assert (response.status, error_of(response)) == (400, "Resource.InvalidFormat")


async def test_another_consent_id_in_the_header_is_refused():
    world = await started()
    response = await pay(world, x_consent_id=b"99999999-9999-4999-8999-999999999999")
    assert (response.status, error_of(response)) == (400, "Consent.Invalid")


async def test_a_refused_payment_gives_its_share_back_and_is_refused_again():
    world = await started()
    world.bank.answer = answer_of({"errorCode": "AANI.AM04", "errorMessage": "no"}, 400)
    first, second = await pay(world), await pay(world)
    assert [error_of(r) for r in (first, second)] == ["AANI.AM04", "AANI.AM04"]
    assert len(world.bank.calls) == 1
    assert (await taken(world)).total.number == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (bank_failure("bank.timeout", "no answer", sent=True), 500),
        (answer_of({}, 502), 500),
        (answer_of({"data": {}}, 201), 500),
        (answer_of({"errorCode": "GenericRecoverableError"}, 409), 409),
    ],
)
async def test_an_unknown_outcome_is_never_guessed_and_never_sent_again(
    answer, status, autojump_clock
):
    world = await started()
    world.bank.answer = answer
    assert (await pay(world)).status == status
    world.bank.answer = answer_of(MADE, 201)
    again = await pay(world)
    assert (again.status, error_of(again)) == (409, "GenericRecoverableError")
    assert len(world.bank.calls) == 1
    assert (await taken(world)).total.number == 1


async def test_what_was_never_sent_does_not_use_the_key_up():
    world = await started()
    world.bank.answer = bank_failure("bank.unreachable", "refused", sent=False)
    assert (await pay(world)).status == 500
    assert (await taken(world)).total.number == 0
    world.bank.answer = answer_of(MADE, 201)
    assert (await pay(world)).status == 201


async def test_an_accepted_single_payment_consumes_its_consent():
    world = await started()
    data = {**MADE["data"], "status": "AcceptedSettlementCompleted"}
    world.bank.answer = answer_of({"data": data}, 201)
    assert (await pay(world)).status == 201
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert str(consent.status) == "Consumed"


async def test_an_outcome_is_of_the_moment_at_which_the_bank_had_answered():
    world = await started()
    exchange = world.bank.exchange

    async def slowly(asked):
        world.clock.advance(5)
        return await exchange(asked)

    world.bank.exchange = slowly
    world.bank.answer = answer_of({"data": {**MADE["data"], "status": "AcceptedWithoutPosting"}})
    await pay(world)
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert (consent.status, consent.updated_ms) == ("Consumed", (NOW + 5) * 1000)
    payment, _ = await world.keeper.lookup(Payment, "p-1")
    assert (payment.created_ms, payment.updated_ms) == (NOW * 1000, (NOW + 5) * 1000)
    moments = {e["kind"]: e["time_ms"] // 1000 - NOW for e in await world.events()}
    assert moments == {"intent": 0, "outcome": 5, "consent": 5, "call": 0}


@pytest.mark.parametrize("status", [201, 400])
async def test_a_consent_says_when_a_payment_was_last_ordered_under_it(status):
    world = await started(MULTI)
    for at, moment in enumerate(("20:26:40Z", "20:27:10Z")):
        world.bank.answer = answer_of({"data": {**MADE["data"], "id": f"p-{at}"}}, status)
        assert (await pay(world, key=b"k-%d" % at)).status == status
        consent, _ = await world.keeper.lookup(Consent, CONSENT)
        assert consent.usage == {"lastServiceInitiationAttempt": f"2026-05-28T{moment}"}
        world.clock.advance(30)


async def test_a_payment_is_read_and_found_by_its_key():
    world = await started()
    await pay(world)
    await world.keep(token_of(scope="openid payments", **client_token()))
    world.bank.answer = answer_of({"data": {**MADE["data"], "status": "Received"}})
    read = await world.send("GET", f"{PAYMENT}/payments/p-1")
    assert message_of(read)["Data"]["Status"] == "Pending"
    headers = {b"x-idempotency-key": b"k-1"}
    found = await world.send("GET", f"{PAYMENT}/payments", headers=headers)
    assert message_of(found)["Links"] == {"Self": f"{BASE}{PAYMENT}/payments/p-1"}
    other = await world.send("GET", f"{PAYMENT}/payments", headers={b"x-idempotency-key": b"k-2"})
    assert (other.status, other.body) == (404, b"")


async def test_a_payment_is_told_from_the_log_while_the_bank_is_away():
    world = await started()
    await pay(world)
    await world.keep(token_of(scope="openid payments", **client_token()))
    world.bank.answer = bank_failure("bank.timeout", "no answer", sent=True)
    assert (
        message_of(await world.send("GET", f"{PAYMENT}/payments/p-1"))["Data"]["PaymentId"] == "p-1"
    )


@pytest.mark.parametrize("status", ["Received", "Whatever", None])
async def test_a_payment_has_a_status_of_the_standard_wherever_it_is_shown(status):
    world = await started()
    world.bank.answer = answer_of({"data": {**MADE["data"], "status": status}}, 201)
    assert message_of(await pay(world))["Data"]["Status"] == "Pending"
    payment, _ = await world.keeper.lookup(Payment, "p-1")
    assert payment_entry(payment)["paymentResponse"]["status"] == "Pending"
    assert payment_message(payment, "post", 0)["Data"]["Status"] == "Pending"
    await world.keep(token_of(scope="openid payments", **client_token()))
    world.bank.answer = bank_failure("bank.timeout", "no answer", sent=True)
    read = message_of(await world.send("GET", f"{PAYMENT}/payments/p-1"))
    assert contract().check_answer("payment.payment", read) is None
    assert read["Data"]["Status"] == "Pending"


async def test_an_unknown_payment_is_404():
    world = await started()
    await world.keep(token_of(scope="openid payments", **client_token()))
    assert (await world.send("GET", f"{PAYMENT}/payments/p-9")).status == 404


def consumption_of(response) -> dict[str, Any]:
    """Return what a consent read says of its payments."""
    return message_of(response)["Data"]["PaymentConsumption"]


async def test_what_was_consumed_of_a_period_is_not_shown_in_the_next():
    world = await started(MULTI, expires=1_790_000_000)
    await pay(world)
    await world.keep(token_of(scope="openid payments", **client_token()))
    path = f"{PAYMENT}/payment-consents/{CONSENT}"
    today = consumption_of(await world.send("GET", path))
    assert today["CumulativeNumberOfPaymentsInCurrentPeriod"] == 1
    world.clock.advance(86_400)
    later = token_of(scope="openid payments", expires=1_790_000_000, **client_token())
    await world.keep(later)
    tomorrow = consumption_of(await world.send("GET", path))
    assert tomorrow == {
        "CumulativeNumberOfPayments": 1,
        "CumulativeValueOfPayments": {"Amount": "10.00", "Currency": "AED"},
    }


def on_demand(period: str, start: str) -> dict[str, Any]:
    """Make a consent to one payment of 10.00 in each period."""
    plan = {
        "Type": "FixedOnDemand",
        "PeriodType": period,
        "PeriodStartDate": start,
        "Amount": {"Amount": "10.00", "Currency": "AED"},
        "Controls": {"MaximumCumulativeNumberOfPaymentsPerPeriod": 1},
    }
    return {"ControlParameters": {"ConsentSchedule": {"MultiPayment": {"PeriodicSchedule": plan}}}}


@pytest.mark.parametrize(
    ("period", "start", "last_second"),
    [
        ("Day", "2028-01-01", "2028-02-28T23:59:59+04:00"),
        ("Day", "2028-01-01", "2028-02-29T23:59:59+04:00"),
        ("Week", "2028-02-24", "2028-03-01T23:59:59+04:00"),
        ("Month", "2028-01-15", "2028-01-31T23:59:59+04:00"),
        ("Month", "2028-01-15", "2028-02-29T23:59:59+04:00"),
        ("Year", "2027-03-01", "2028-02-29T23:59:59+04:00"),
        ("Year", "2028-02-29", "2029-02-27T23:59:59+04:00"),
    ],
)
async def test_a_periods_share_is_there_again_in_the_second_it_begins(period, start, last_second):
    last = datetime.fromisoformat(last_second).timestamp()
    world = await started(on_demand(period, start), expires=2_000_000_000)
    await world.keep(token_of(scope="openid payments", expires=2_000_000_000))

    async def at(moment: float, number: int) -> int:
        world.clock.advance(moment - world.clock.now())
        world.bank.answer = answer_of({"data": {**MADE["data"], "id": f"p-{number}"}}, 201)
        headers = {b"content-type": b"application/jwt", b"x-idempotency-key": b"k-%d" % number}
        body = signed_now(world)
        return (await world.send("POST", f"{PAYMENT}/payments", headers=headers, body=body)).status

    assert await at(last - 1, 1) == 201
    assert await at(last, 2) == 400
    assert await at(last + 1, 3) == 201
    assert await at(last + 2, 4) == 400
    assert len(world.bank.calls) == 2


@pytest.mark.parametrize(("second", "status"), [(-1, 400), (0, 201)])
async def test_nothing_is_paid_before_the_schedule_begins(second, status):
    start = datetime.fromisoformat("2028-02-01T00:00:00+04:00").timestamp()
    world = await started(on_demand("Month", "2028-02-01"), expires=2_000_000_000)
    await world.keep(token_of(scope="openid payments", expires=2_000_000_000))
    world.clock.advance(start + second - world.clock.now())
    headers = {b"content-type": b"application/jwt", b"x-idempotency-key": b"k-1"}
    body = signed_now(world)
    response = await world.send("POST", f"{PAYMENT}/payments", headers=headers, body=body)
    assert response.status == status
