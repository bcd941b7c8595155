"""Payment consents as a TPP reads and revokes them, and the refund account."""

import orjson
import pytest

from hub.model.consent import Consent, ConsentType, Status
from hub.model.records import Payment
from hub.protocol.jose import PublicKey, parse, sign
from tests.gateway.test_reads import code_of
from tests.gateway.world import (
    BASE,
    CLIENT,
    CONSENT,
    KEY,
    NOW,
    ORGANISATION,
    World,
    answer_of,
    client_token,
    consent_of,
    contract,
)

PAYMENT = "/open-finance/payment/v2.1"
PATH = f"{PAYMENT}/payment-consents/{CONSENT}"
DATA = {
    "ControlParameters": {
        "ConsentSchedule": {
            "SinglePayment": {
                "Type": "SingleInstantPayment",
                "Amount": {"Amount": "10.00", "Currency": "AED"},
            }
        }
    },
    "PaymentPurposeCode": "ACM",
    "Permissions": ["ReadRefundAccount"],
    "OpenFinanceBilling": {"IsLargeCorporate": False},
    "PersonalIdentifiableInformation": "canary.e.j.w.e",
}


async def started(**changes) -> World:
    """Start a world with a payment consent."""
    data = {**DATA, **changes.pop("data", {})}
    kind = changes.pop("consent_type", ConsentType.SERVICE_INITIATION)
    consent = consent_of(consent_type=kind, data=data, **changes)
    world = await World().start(consent, scope="openid payments", **client_token())
    world.trust.roles = ("BSIP",)
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    return world


def message_of(response):
    """Return what a signed answer says."""
    assert dict(response.headers)[b"content-type"] == b"application/jwt"
    return parse(response.body, limit=1_000_000).claims["message"]


async def test_a_payment_consent_is_read_signed_and_without_its_secrets():
    world = await started()
    response = await world.send("GET", PATH)
    message = message_of(response)
    assert response.status == 200
    assert contract().check_answer("payment.payment-consent", message) is None
    assert "canary" not in str(message)


async def test_payment_consents_are_listed_with_and_without_a_base():
    world = await started()
    for query in ("", f"baseConsentId={CONSENT}"):
        assert len(message_of(await world.send("GET", f"{PAYMENT}/payment-consents", query))) == 1
    other = await world.send("GET", f"{PAYMENT}/payment-consents", "baseConsentId=x")
    assert message_of(other) == []


async def test_the_newest_payments_of_a_consent_are_always_among_its_links():
    world = await started()
    fields = {"consent_id": CONSENT, "client_id": CLIENT, "organisation_id": ORGANISATION}
    fields |= {"payment_type": "cbuae-payment", "idempotency_key": "k", "updated_ms": 0}
    many = [Payment(id=f"p-{at:04d}", created_ms=at, **fields) for at in range(1100)]
    await world.keep(*many[:600])
    await world.keep(*many[600:])
    related = message_of(await world.send("GET", PATH))["Links"]["Related"]
    assert [url.rpartition("/")[2] for url in related] == [one.id for one in many[100:]]


async def test_an_unknown_payment_consent_is_404():
    world = await started(client_id="other")
    response = await world.send("GET", PATH)
    assert (response.status, response.body) == (404, b"")


async def test_an_account_access_consent_is_not_shown_as_a_payment_consent():
    world = await started(consent_type=ConsentType.ACCOUNT_ACCESS)
    assert (await world.send("GET", PATH)).status == 404


def signed(message) -> bytes:
    """Sign a body."""
    claims = {"iss": CLIENT, "aud": [BASE], "nbf": NOW, "exp": NOW + 60, "message": message}
    return sign(orjson.dumps(claims), KEY).encode()


async def test_a_payment_consent_is_revoked_by_a_signed_patch():
    world = await started()
    body = signed({"Data": {"Status": "Revoked", "RevokedBy": "TPP"}})
    headers = {b"content-type": b"application/jwt"}
    response = await world.send("PATCH", PATH, headers=headers, body=body)
    assert (response.status, response.body) == (204, b"")
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert consent.status is Status.REVOKED


async def test_a_payment_consent_is_not_patched_in_plain_json():
    world = await started()
    headers = {b"content-type": b"application/json"}
    body = b'{"Data": {"Status": "Revoked"}}'
    assert (await world.send("PATCH", PATH, headers=headers, body=body)).status == 415


async def test_the_refund_account_is_asked_of_the_bank():
    world = await started()
    account = {"schemeName": "IBAN", "identification": "AE07", "name": {"en": "A"}}
    world.bank.answer = answer_of({"data": {"refundAccount": account}})
    response = await world.send("GET", f"{PATH}/refund")
    message = message_of(response)
    assert message["Data"] == {
        "ConsentId": CONSENT,
        "RefundAccount": {"SchemeName": "IBAN", "Identification": "AE07", "Name": {"en": "A"}},
    }
    assert contract().check_answer("payment.refund", message) is None
    [call] = world.bank.calls
    assert (call.family, call.path) == ("service-initiation", f"/payment-consents/{CONSENT}/refund")
    assert dict(call.headers)[b"o3-consent-id"].decode() == CONSENT
    [event] = await world.events()
    assert event["consent_id"] == CONSENT


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"data": {"Permissions": []}}, 403), ({"client_id": "other"}, 404)],
)
async def test_a_refund_needs_the_permission_and_the_own_consent(changes, status):
    world = await started(**changes)
    response = await world.send("GET", f"{PATH}/refund")
    assert response.status == status
    assert world.bank.calls == []


async def test_refusals_of_payments_are_signed():
    world = await started(data={"Permissions": []})
    response = await world.send("GET", f"{PATH}/refund")
    [error] = message_of(response)["Errors"]
    assert error["Code"] == "AccessToken.InvalidScope"
    assert code_of(b"") == ""
