"""Files of payments over the wire: announced at the push, checked against their hash, ordered once, reported."""

import subprocess
import sys

import msgspec
import pytest
import trio

from tests.wire.operations import (
    FILE,
    PAYMENTS,
    Known,
    call,
    code_in,
    file_object,
    file_order,
    message_of,
    prepare,
    signed_message,
)
from tests.wire.world import ROOT

pytestmark = pytest.mark.wire
BASE = "/open-finance/payment/v2.1"


@pytest.fixture(scope="module")
def known(sandbox) -> Known:
    """Prepare consents, tokens, payments and files."""
    return trio.run(prepare, sandbox)


async def upload(tpp, known, consent_id, content, key="k-1", **headers):
    sent = {"x-idempotency-key": key, "content-type": "text/csv", **headers}
    path = f"{BASE}/payment-consents/{consent_id}/file"
    return await call(tpp, "POST", path, known.clients[PAYMENTS], headers=sent, content=content)


async def test_another_file_than_the_announced_one_never_reaches_the_bank(tpp, known):
    answer = await upload(tpp, known, known.uploadable, FILE + "99.00,AE460261001234567891234\n")
    assert (answer.status, code_in(answer, known)) == (400, "Consent.FailsControlParameters")
    again = await upload(tpp, known, known.uploadable, FILE)
    assert again.status == 200
    twice = await upload(tpp, known, known.uploadable, FILE)
    assert twice.status == 200


async def test_a_file_needs_a_consent_to_a_file_that_nobody_has_decided_on(tpp, known):
    for consent_id in (known.poor, known.filed[0]):
        answer = await upload(tpp, known, consent_id, FILE)
        assert (answer.status, code_in(answer, known)) == (400, "Consent.Invalid")


async def test_a_file_over_the_bound_is_refused(tpp, known):
    answer = await upload(tpp, known, known.uploadable, "x" * 8_388_609)
    assert answer.status == 413


async def order(tpp, known, consent, key, **changes):
    body = file_order(consent[0])
    body["Data"] |= changes
    headers = {"x-idempotency-key": key}
    return await call(
        tpp, "POST", f"{BASE}/file-payments", consent[1], headers=headers, body=body, signed=True
    )


async def test_a_file_is_paid_once_and_is_no_single_payment(tpp, known):
    consent = known.file_payable
    wrong = await order(
        tpp, known, consent, "f-0", Instruction={**file_object(), "ControlSum": "31.00"}
    )
    assert (wrong.status, code_in(wrong, known)) == (400, "Consent.BusinessRuleViolation")
    made = await order(tpp, known, consent, "f-1")
    assert made.status == 201, message_of(made, known)
    data = message_of(made, known)["Data"]
    assert data["Instruction"] == file_object()
    assert data["Status"] == "Received"
    assert made.headers["location"].endswith(f"/file-payments/{data['PaymentId']}")
    repeated = await order(tpp, known, consent, "f-1")
    assert message_of(repeated, known)["Data"]["PaymentId"] == data["PaymentId"]
    second = await order(tpp, known, consent, "f-2")
    assert second.status == 400
    token = known.clients[PAYMENTS]
    as_single = await call(tpp, "GET", f"{BASE}/payments/{data['PaymentId']}", token)
    assert as_single.status == 404
    key = {"x-idempotency-key": "f-1"}
    assert (await call(tpp, "GET", f"{BASE}/payments", token, headers=key)).status == 404
    shown = await call(tpp, "GET", f"{BASE}/payment-consents/{consent[0]}", token)
    related = message_of(shown, known)["Links"]["Related"]
    assert [link.rpartition("/")[2] for link in related] == [data["PaymentId"]]


async def test_a_consent_to_one_payment_pays_no_file_and_the_other_way_round(tpp, known):
    answer = await order(tpp, known, known.payable, "f-3", Instruction=file_object())
    assert (answer.status, code_in(answer, known)) == (400, "Consent.Invalid")


async def test_a_report_of_any_type_is_given_whatever_the_caller_accepts(tpp, known):
    path = f"{BASE}/file-payments/{known.file_payment_id}/report"
    answer = await call(tpp, "GET", path, known.clients[PAYMENTS], headers={"accept": "text/csv"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv")
    assert answer.headers["x-content-type-options"] == "nosniff"
    single = f"{BASE}/file-payments/{known.payment_id}/report"
    assert (await call(tpp, "GET", single, known.clients[PAYMENTS])).status == 404


async def test_a_part_sealed_for_a_key_that_is_not_the_banks_is_refused_before_the_bank(tpp, known):
    from hub.sandbox.tpp.payment import seal
    from tests.wire.operations import SHOP, payment

    other = {"keys": [{**key, "kid": "withdrawn"} for key in known.bank_keys["keys"]]}
    body = payment(known, tpp, known.payable[0])
    body["Data"]["PersonalIdentifiableInformation"] = seal(tpp.identity, other, SHOP)
    headers = {"x-idempotency-key": "sealed-1"}
    answer = await call(
        tpp, "POST", f"{BASE}/payments", known.payable[1], headers=headers, body=body, signed=True
    )
    assert (answer.status, code_in(answer, known)) == (400, "JWE.InvalidHeader")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "https://another.example"}, "JWS.InvalidClaim"),
        ({"iss": "somebody"}, "JWS.InvalidClaim"),
        ({"exp": 1}, "JWS.InvalidClaim"),
        ({"nbf": 1}, "JWS.InvalidClaim"),
    ],
)
async def test_claims_of_a_signed_body_are_checked(tpp, known, claims, code):
    content = signed_message(tpp, file_order(known.file_payable[0]), **claims)
    headers = {"content-type": "application/jwt", "x-idempotency-key": "claims"}
    path = f"{BASE}/file-payments"
    answer = await call(tpp, "POST", path, known.file_payable[1], headers=headers, content=content)
    assert (answer.status, code_in(answer, known)) == (400, code)


async def test_a_signed_body_that_was_changed_is_refused(tpp, known):
    head, _, tail = signed_message(tpp, file_order(known.file_payable[0])).rpartition(".")
    content = f"{head}.{'A' if tail[0] != 'A' else 'B'}{tail[1:]}"
    headers = {"content-type": "application/jwt", "x-idempotency-key": "claims"}
    path = f"{BASE}/file-payments"
    answer = await call(tpp, "POST", path, known.file_payable[1], headers=headers, content=content)
    assert (answer.status, code_in(answer, known)) == (400, "JWS.InvalidSignature")


async def test_refund_names_the_payments_of_its_consent(tpp, known):
    path = f"{BASE}/payment-consents/{known.paid[0]}/refund"
    message = message_of(await call(tpp, "GET", path, known.clients[PAYMENTS]), known)
    assert [link.rpartition("/")[2] for link in message["Links"]["Related"]] == [known.payment_id]
    assert message["Data"]["RefundAccount"]["SchemeName"] == "IBAN"


async def test_an_answer_of_account_data_is_signed_where_the_caller_asks(tpp, known):
    path = "/open-finance/account-information/v2.1/accounts"
    plain = await call(tpp, "GET", path, known.user, headers={"accept": "application/json"})
    signed = await call(tpp, "GET", path, known.user, headers={"accept": "application/jwt"})
    assert plain.headers["content-type"].startswith("application/json")
    assert signed.headers["content-type"] == "application/jwt"
    assert message_of(signed, known)["Data"] == plain.json()["Data"]


def test_pages_are_counted_per_customer_and_day(sandbox, known):
    told = subprocess.run(
        [sys.executable, "-m", "hub", "audit", "--config", str(sandbox.folder / "hub.toml"), "pages", "--from", "2020-01-01"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    rows = [msgspec.json.decode(line) for line in told.stdout.splitlines()]
    assert any(row["kind"] == "attended" and row["customer"].startswith("u-") for row in rows)
