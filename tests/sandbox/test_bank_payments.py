"""The model bank's payments: what an order moves, what is refused, and what becomes of it."""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import trio
from joserfc import jwe, jws
from joserfc.jwk import RSAKey

from hub.contract.official import find_documents, read_document
from hub.sandbox.bank.book import Granted
from hub.sandbox.bank.pii import PiiReader, Unreadable, creditors_of
from hub.sandbox.site import SiteResponse
from tests.sandbox.bank_world import CONSENT, NOW, World, bearer, code_of
from tests.waiting import virtual

A, B = "100100000001", "100100000002"
PAGE = "page=1&page-size=100"
ELSEWHERE = "AE460261001234567891234"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.grant("aisha", A, kind="payment")
    return made


def order(
    amount: str = "250.00", *, key: str = "key-1", iban: str = ELSEWHERE, **data: Any
) -> bytes:
    pii = {
        "Initiation": {
            "CreditorAccount": {
                "SchemeName": "IBAN",
                "Identification": iban,
                "Name": {"en": "Shop LLC"},
            }
        }
    }
    body = {
        "paymentType": "cbuae-payment",
        "requestUrl": "https://rs.example/open-finance/payment/v2.1/payments",
        "request": {
            "Data": {
                "ConsentId": CONSENT,
                "Instruction": {"Amount": {"Amount": amount, "Currency": "AED"}},
                "PersonalIdentifiableInformation": pii,
                "PaymentPurposeCode": "ACM",
                "DebtorReference": "Shoes",
                "OpenFinanceBilling": {"Type": "PushP2P"},
                **data,
            }
        },
        "requestHeaders": {"X-Idempotency-Key": key},
        "tpp": {},
    }
    return json.dumps(body).encode()


async def pay(world: World, body: bytes, **options: Any) -> SiteResponse:
    token = bearer(scope="payments", iat=world.clock.now(), exp=world.clock.now() + 30)
    return await world.call("/payments", method="POST", body=body, authorization=token, **options)


async def read(world: World, payment_id: str, end: str = "") -> SiteResponse:
    token = bearer(scope="payments", iat=world.clock.now(), exp=world.clock.now() + 30)
    return await world.call(f"/payments/{payment_id}{end}", authorization=token)


def data_of(answer: SiteResponse) -> dict[str, Any]:
    assert answer.status in {200, 201}, answer.body
    return json.loads(answer.body)["data"]


async def test_payment_changes_the_balance_and_appears_in_transactions(world: World) -> None:
    before = world.book.balance(A)
    paid = data_of(await pay(world, order("250.00")))
    assert paid["status"] == "Pending"
    assert world.book.balance(A) == before - 25_000
    assert world.book.total() == 0
    world.grant("aisha")
    lines = (await world.data(f"/accounts/{A}/transactions?{PAGE}"))["data"]
    assert lines[0]["amount"] == {"amount": "250.00", "currency": "AED"}
    assert lines[0]["creditDebitIndicator"] == "Debit"
    assert lines[0]["flags"] == ["OpenFinance"]
    assert lines[0]["transactionId"] == paid["paymentTransactionId"]
    assert lines[0]["creditorAccount"][0]["identification"] == ELSEWHERE


async def test_payment_inside_the_bank_arrives_at_once(world: World) -> None:
    payee = world.book.account("100200000001")
    assert payee is not None
    before = world.book.balance(payee.id)
    paid = data_of(await pay(world, order("10.50", iban=payee.iban)))
    assert paid["status"] == "AcceptedCreditSettlementCompleted"
    assert world.book.balance(payee.id) == before + 1_050


async def test_payment_survives_a_restart(world: World, tmp_path: Path) -> None:
    paid = data_of(await pay(world, order("250.00")))
    balance = world.book.balance(A)
    again = World(tmp_path)
    assert again.book.balance(A) == balance
    assert data_of(await read(again, paid["id"])) == paid


async def test_same_key_and_order_is_one_payment(world: World) -> None:
    first = await pay(world, order())
    balance = world.book.balance(A)
    second = await pay(world, order())
    assert (second.status, second.body) == (first.status, first.body)
    assert world.book.balance(A) == balance


async def test_same_key_with_another_order_is_refused(world: World) -> None:
    await pay(world, order("250.00"))
    balance = world.book.balance(A)
    assert code_of(await pay(world, order("251.00"))) == (409, "GenericError")
    assert world.book.balance(A) == balance


async def test_same_order_under_another_key_while_pending_is_refused(world: World) -> None:
    await pay(world, order(key="one"))
    refusal = (409, "Payment.DuplicateInFlight")
    assert code_of(await pay(world, order(key="two"))) == refusal


async def test_more_than_there_is_is_refused(world: World) -> None:
    before = world.book.balance(A)
    answer = await pay(world, order("9999999.00"))
    assert code_of(answer) == (400, "GenericError")
    assert world.book.balance(A) == before


@pytest.mark.parametrize("amount", ["0.00", "-1.00", "1.005", "many", "1e3"])
async def test_amount_that_is_none_is_refused(world: World, amount: str) -> None:
    assert code_of(await pay(world, order(amount))) == (400, "Body.InvalidFormat")


async def test_body_that_is_no_order_is_refused(world: World) -> None:
    for body in (b"", b"[]", b"{}", b'{"request":{"Data":1},"requestHeaders":{}}'):
        assert code_of(await pay(world, body)) == (400, "Body.InvalidFormat")


async def test_consent_for_reading_is_not_for_paying(world: World) -> None:
    world.grant("aisha", A)
    assert code_of(await pay(world, order())) == (400, "Consent.Invalid")


async def test_order_under_another_consent_than_the_header_is_refused(world: World) -> None:
    assert code_of(await pay(world, order(ConsentId="other"))) == (400, "Consent.Invalid")


async def test_suspended_account_cannot_pay(world: World) -> None:
    world.book.set_status(A, "Suspended")
    assert code_of(await pay(world, order())) == (403, "Consent.AccountTemporarilyBlocked")


async def test_payee_that_the_consent_does_not_name_is_refused(world: World) -> None:
    user = "u-7c1d5e01"
    named = Granted(
        user_id=user, accounts=(A,), kind="payment", approvals=(user,), creditors=((ELSEWHERE, ""),)
    )
    world.book.grant(CONSENT, named)
    other = "AE070331234567890123456"
    refusal = (400, "Consent.FailsControlParameters")
    assert code_of(await pay(world, order(iban=other))) == refusal
    assert (await pay(world, order())).status == 201


async def test_company_pays_only_when_both_signatories_have_approved(world: World) -> None:
    account, first, second = "300100000001", "u-7c1d5e03", "u-7c1d5e04"
    one = Granted(user_id=first, accounts=(account,), kind="payment", approvals=(first,))
    world.book.grant(CONSENT, one)
    assert code_of(await pay(world, order(), username="noura")) == (400, "Consent.Invalid")
    both = Granted(user_id=first, accounts=(account,), kind="payment", approvals=(first, second))
    world.book.grant(CONSENT, both)
    assert (await pay(world, order(), username="noura")).status == 201


async def test_pending_payment_is_settled_and_the_hub_is_told(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    paid = data_of(await pay(world, order()))
    world.clock.advance(3)
    with trio.move_on_after(2.5):
        await world.bank.settle_payments()
    assert data_of(await read(world, paid["id"]))["status"] == "AcceptedWithoutPosting"
    ((_, path, change),) = world.hub.of("PATCH")
    assert path == f"/payment-log/{paid['id']}"
    assert change["paymentResponse.status"] == "AcceptedWithoutPosting"


async def test_hub_that_was_away_is_told_later(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    await pay(world, order())
    world.clock.advance(3)
    world.hub.down = {"PATCH"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.bank.settle_payments)
        await virtual(2.5)
        world.hub.down = set()
        world.hub.calls.clear()
        await virtual(2.5)
        nursery.cancel_scope.cancel()
    assert len(world.hub.of("PATCH")) == 1


async def test_payment_that_the_payees_bank_turns_down_comes_back(
    world: World, autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    before = world.book.balance(A)
    paid = data_of(await pay(world, order("10.91")))
    world.clock.advance(3)
    with trio.move_on_after(0.5):
        await world.bank.settle_payments()
    found = data_of(await read(world, paid["id"]))
    assert found["status"] == "Rejected"
    assert found["rejectReasonCode"][0]["code"] == "AANI.AC04"
    assert world.book.balance(A) == before
    assert World(tmp_path).book.balance(A) == before


async def test_payment_of_another_consent_cannot_be_read(world: World) -> None:
    paid = data_of(await pay(world, order()))
    token = bearer(scope="payments")
    answer = await world.call(
        f"/payments/{paid['id']}", authorization=token, **{"o3-consent-id": "other"}
    )
    assert code_of(answer) == (400, "Resource.InvalidFormat")


async def test_refund_names_the_account_that_paid(world: World) -> None:
    token = bearer(scope="payments")
    found = await world.data(f"/payment-consents/{CONSENT}/refund", authorization=token)
    account = world.book.account(A)
    assert account is not None
    assert found["data"]["refundAccount"]["identification"] == account.iban
    unknown = await world.call("/payment-consents/other/refund", authorization=token)
    assert code_of(unknown) == (400, "Consent.Invalid")


async def test_file_is_taken_when_it_is_the_announced_one_and_paid_in_sum(world: World) -> None:
    token = bearer(scope="payments")
    content = b"payee,amount\na,100.00\nb,50.00\n"
    announced = {
        "FileType": "csv",
        "FileHash": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        "NumberOfTransactions": 2,
        "ControlSum": "150.00",
    }
    body = json.dumps({"consentId": CONSENT, "request": announced}).encode()
    options = {"method": "POST", "authorization": token}
    assert (await world.call("/payment-consents", body=body, **options)).status == 201
    upload = f"/payment-consents/{CONSENT}/file"
    wrong = await world.call(upload, body=b"other", **options)
    assert code_of(wrong) == (400, "Consent.FailsControlParameters")
    assert (await world.call(upload, body=content, **options)).status == 204
    before = world.book.balance(A)
    sent = json.dumps(
        {
            "paymentType": "cbuae-file-payment",
            "request": {"Data": {"ConsentId": CONSENT, "PaymentPurposeCode": "SAL"}},
            "requestHeaders": {"x-idempotency-key": "file-1"},
            "tpp": {},
        }
    ).encode()
    paid = data_of(await pay(world, sent))
    assert paid["status"] == "Received"
    assert world.book.balance(A) == before - 15_000
    report = await read(world, paid["id"], "/report-file")
    assert dict(report.headers)["content-type"] == "text/csv"
    assert b"150.00" in report.body


def _sealed(key: RSAKey, payload: dict[str, Any]) -> str:
    signer = RSAKey.generate_key(2048)
    inner = jws.serialize_compact(
        {"alg": "PS256"}, json.dumps(payload).encode(), signer, algorithms=["PS256"]
    )
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT"}
    return jwe.encrypt_compact(header, inner, key, algorithms=["RSA-OAEP-256", "A256GCM"])


def test_sealed_part_opens_with_the_banks_key_only(tmp_path: Path) -> None:
    key, other = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
    path = tmp_path / "enc1.pem"
    path.write_bytes(key.as_pem(private=True))
    reader = PiiReader(path)
    inside = {"Initiation": {"Creditor": [{"CreditorAccount": {"Identification": ELSEWHERE}}]}}
    assert creditors_of(reader.read(_sealed(key, inside))) == ((ELSEWHERE, ""),)
    for wrong in (_sealed(other, inside), "a.b.c.d.e", "", 7):
        with pytest.raises(Unreadable):
            reader.read(wrong)
    with pytest.raises(Unreadable):
        PiiReader(None).read(_sealed(key, inside))


async def test_sealed_part_that_is_unreadable_is_refused(world: World) -> None:
    answer = await pay(world, order(PersonalIdentifiableInformation="a.b.c.d.e"))
    assert code_of(answer) == (400, "JWE.DecryptionError")


@pytest.mark.specs
async def test_answers_are_as_the_official_document_says(world: World) -> None:
    root = Path(os.environ.get("HUB_SPECS", "../shared/reference/api-specs")) / "dist"
    name = "uae-ozone-connect-bank-service-initiation-openapi.yaml"
    document = read_document(find_documents(root)[name])

    def check(method: str, path: str, answer: SiteResponse) -> None:
        bodies = document.operations[method, path].bodies
        schema = bodies[str(answer.status)]["application/json"]
        jsonschema_rs.validator_for(schema).validate(json.loads(answer.body))

    request = document.operations["POST", "/payments"].bodies["request"]["application/json"]
    assert request
    paid = await pay(world, order())
    check("POST", "/payments", paid)
    check("POST", "/payments", await pay(world, order("1.00")))
    check("POST", "/payments", await pay(world, order("9999999.00", key="much")))
    rejected = data_of(await pay(world, order("10.91", key="back")))
    world.clock.advance(3)
    for payment in world.bank.desk.due():
        world.bank.desk.settle(payment)
    check("GET", "/payments/{paymentId}", await read(world, rejected["id"]))
    refund = await world.call(
        f"/payment-consents/{CONSENT}/refund",
        authorization=bearer(scope="payments", iat=NOW + 3, exp=NOW + 33),
    )
    check("GET", "/payment-consents/{consentId}/refund", refund)
