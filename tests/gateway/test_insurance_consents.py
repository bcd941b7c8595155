"""Insurance consents as a TPP reads and revokes them; their data are another family's, to come."""

import orjson
import pytest

from hub.model.consent import Consent, ConsentType, Status
from hub.protocol.jose import PublicKey, parse, sign
from tests.gateway.test_reads import code_of
from tests.gateway.world import (
    BASE,
    CLIENT,
    CONSENT,
    KEY,
    NOW,
    World,
    client_token,
    consent_of,
    contract,
)

CONSENTS = "/open-finance/insurance/v2.1/insurance-consents"
PATH = f"{CONSENTS}/{CONSENT}"
DATA = {
    "Permissions": [{"InsuranceType": "Motor", "Permissions": ["ReadInsurancePolicies"]}],
    "OpenFinanceBilling": {"Purpose": "QuoteComparison"},
}
REVOKE = {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}
PLAIN = {b"content-type": b"application/json"}
SIGNED = {b"content-type": b"application/jwt"}


async def started(role="IDSP", **changes) -> World:
    """Start a world with an insurance consent and a client's own token."""
    kind = {"consent_type": ConsentType.INSURANCE, "data": DATA, **changes}
    world = await World().start(consent_of(**kind), scope="openid insurance", **client_token())
    world.trust.roles = (role,)
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    return world


@pytest.mark.parametrize("role", ["ISP", "IDSP"])
async def test_an_insurance_consent_is_read_plain_or_signed(role):
    world = await started(role)
    plain = orjson.loads((await world.send("GET", PATH)).body)
    assert contract().check_answer("insurance.insurance-consent", plain) is None
    assert plain["Data"]["Status"] == "Authorized"
    answer = await world.send("GET", PATH, headers={b"accept": b"application/jwt"})
    assert parse(answer.body).claims["message"] == plain


async def test_insurance_consents_are_listed_as_one_object():
    world = await started()
    response = await world.send("GET", CONSENTS, f"BaseConsentId={CONSENT}")
    value = orjson.loads(response.body)
    assert contract().check_answer("insurance.insurance-consents", value) is None
    assert [one["ConsentId"] for one in value["Data"]] == [CONSENT]
    spelt = await world.send("GET", CONSENTS, f"baseConsentId={CONSENT}")
    assert orjson.loads(spelt.body)["Data"] == value["Data"]
    assert (await world.send("GET", CONSENTS, "baseConsentId=x")).status == 400
    none = "BaseConsentId=99999999-9999-4999-8999-999999999999"
    assert orjson.loads((await world.send("GET", CONSENTS, none)).body)["Data"] == []
    assert (await world.send("GET", CONSENTS)).status == 400


@pytest.mark.parametrize("signs", [False, True])
async def test_an_insurance_consent_is_revoked_plain_or_signed(signs):
    world = await started()
    body, headers = orjson.dumps(REVOKE), PLAIN
    if signs:
        claims = {"iss": CLIENT, "aud": [BASE], "nbf": NOW, "exp": NOW + 60, "message": REVOKE}
        body, headers = sign(orjson.dumps(claims), KEY).encode(), SIGNED
    response = await world.send("PATCH", PATH, headers=headers, body=body)
    assert (response.status, response.body) == (204, b"")
    assert (await world.keeper.lookup(Consent, CONSENT))[0].status is Status.REVOKED


async def test_an_insurance_subscription_is_not_patched_alone():
    world = await started()
    body = orjson.dumps({"Subscription": {"Webhook": {"IsActive": False}}})
    response = await world.send("PATCH", PATH, headers=PLAIN, body=body)
    assert (response.status, code_of(response.body)) == (400, "Body.InvalidFormat")


@pytest.mark.parametrize(("role", "scope"), [("BDSP", "openid insurance"), ("ISP", "openid")])
async def test_role_and_scope_of_insurance_are_needed(role, scope):
    kind = {"consent_type": ConsentType.INSURANCE, "data": DATA}
    world = await World().start(consent_of(**kind), scope=scope, **client_token())
    world.trust.roles = (role,)
    response = await world.send("GET", PATH)
    assert (response.status, code_of(response.body)) == (403, "AccessToken.InvalidScope")


async def test_consents_of_other_kinds_and_clients_are_not_shown():
    for changes in ({"consent_type": ConsentType.ACCOUNT_ACCESS}, {"client_id": "other"}):
        world = await started(**changes)
        assert (await world.send("GET", PATH)).status == 404
