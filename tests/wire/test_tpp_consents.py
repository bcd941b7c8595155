"""The consent endpoints of all three families over the wire, plain and signed, each body held against the official document."""

from base64 import urlsafe_b64decode
from functools import cache

import jsonschema_rs
import msgspec
import orjson
import pytest

from hub.contract.official import find_documents, plain_body, read_document
from hub.sandbox.tpp import Ask, Pushed, Tokens
from hub.sandbox.tpp.payment import read_signed
from tests.wire.curl_bank import CurlBank
from tests.wire.test_curl_bank import STATUS, accounts, approval, insurance, patched, payment
from tests.wire.test_official import SPECS
from tests.wire.world import code_of

pytestmark = [pytest.mark.wire, pytest.mark.specs]


class Family(msgspec.Struct, frozen=True):
    """Hold what differs between the families."""

    document: str
    base: str
    path: str
    scope: str
    query: str
    chosen: dict
    media: tuple[str, ...]


JSON, JWT = "application/json", "application/jwt"
FAMILIES = {
    "accounts": Family(
        "uae-account-information-openapi.yaml",
        "account-information",
        "/account-access-consents",
        "openid accounts",
        "baseConsentId",
        {"accountIds": ["a-1"]},
        (JSON, JWT),
    ),
    "payment": Family(
        "uae-bank-initiation-openapi.yaml",
        "payment",
        "/payment-consents",
        "openid payments",
        "baseConsentId",
        {"accountIds": ["a-1"]},
        (JWT,),
    ),
    "insurance": Family(
        "uae-insurance-openapi.yaml",
        "insurance",
        "/insurance-consents",
        "openid insurance",
        "BaseConsentId",
        {"insurancePolicyIds": ["p-1"]},
        (JSON, JWT),
    ),
}
CASES = [(name, media) for name, family in FAMILIES.items() for media in family.media]


@cache
def document_of(name):
    return read_document(find_documents(SPECS)[name])


class Client:
    """One TPP at one family's consents, in one media type."""

    def __init__(self, tpp, family, media, token, keys):
        self.tpp, self.family, self.media, self.token, self.keys = tpp, family, media, token, keys
        self.document = document_of(family.document)
        base = tpp.sandbox.manifest.hub.resource_base
        self.base = f"{base}/open-finance/{family.base}/v2.1"

    @classmethod
    async def of(cls, tpp, name, media):
        family = FAMILIES[name]
        own = await tpp.tpp.client_credentials(tpp.discovery, family.scope)
        assert isinstance(own, Tokens), own
        keys = (await tpp.tpp.wire.carry(Ask(method="GET", url=tpp.discovery.jwks_uri))).json()
        return cls(tpp, family, media, own.access_token, keys)

    def headers(self, **more):
        return {"authorization": f"Bearer {self.token}", "accept": self.media, **more}

    async def read(self, path, template, query=None):
        """Read, see that what came is signed or not as asked, and valid; return it."""
        ask = Ask(method="GET", url=self.base + path, headers=self.headers(), query=query or {})
        answer = await self.tpp.tpp.wire.carry(ask)
        assert answer.status == 200, answer
        assert answer.headers["content-type"].startswith(self.media)
        value = self.opened(answer)
        schema = plain_body(self.document.operations["GET", template], "200")
        jsonschema_rs.Draft7Validator(schema, validate_formats=True).validate(value)
        return value

    def opened(self, answer):
        if self.media == JSON:
            return answer.json()
        claims = read_signed(answer, self.keys, self.tpp.discovery.issuer)
        if isinstance(claims, dict):
            return claims
        payload = answer.body.split(b".")[1]
        return orjson.loads(decoded(payload))["message"]

    async def patch(self, consent_id, body):
        schema = plain_body(
            self.document.operations["PATCH", f"{self.family.path}/{{ConsentId}}"], "request"
        )
        jsonschema_rs.Draft7Validator(schema, validate_formats=True).validate(body)
        content = orjson.dumps(body).decode()
        if self.media == JWT:
            now = self.tpp.identity.clock.now()
            claims = {
                "iss": self.tpp.identity.client_id,
                "aud": [self.tpp.discovery.issuer],
                "nbf": now,
                "exp": now + 60,
                "message": body,
            }
            content = self.tpp.identity.sign(claims)
        ask = Ask(
            method="PATCH",
            url=f"{self.base}{self.family.path}/{consent_id}",
            headers=self.headers(**{"content-type": self.media}),
            content=content,
        )
        return await self.tpp.tpp.wire.carry(ask)


def decoded(part):
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


MAKERS = {"accounts": accounts, "payment": payment, "insurance": insurance}


async def lodged(tpp, name):
    made = MAKERS[name](tpp)
    detail, scope = await made if hasattr(made, "__await__") else made
    webhook = {"Url": tpp.section.webhook_uri, "IsActive": False}
    detail |= {"subscription": {"Webhook": webhook}}
    pushed = await tpp.tpp.push(tpp.discovery, detail, scope)
    assert isinstance(pushed, Pushed), pushed
    return detail["consent"]["ConsentId"]


@pytest.mark.parametrize(("name", "media"), CASES)
async def test_consents_are_listed_read_and_patched_as_the_family_wants(sandbox, tpp, name, media):
    bank, client = CurlBank(sandbox), await Client.of(tpp, name, media)
    family, consent_id = client.family, await lodged(tpp, name)
    one = f"{family.path}/{{ConsentId}}"
    shown = await client.read(f"{family.path}/{consent_id}", one)
    assert shown["Data"]["Status"] == "AwaitingAuthorization"
    assert "PersonalIdentifiableInformation" not in shown["Data"]
    await patched(bank, consent_id, **approval("u", **family.chosen))
    listed = await client.read(family.path, family.path, {family.query: consent_id})
    rows = listed["Data"] if isinstance(listed, dict) else [row["Data"] for row in listed]
    assert [(row["ConsentId"], row["Status"]) for row in rows] == [(consent_id, "Authorized")]
    empty = await client.read(family.path, family.path, {family.query: tpp.identity.dice.uuid()})
    assert (empty["Data"] if isinstance(empty, dict) else empty) == []
    if name != "insurance":  # its patch always has Data
        off = {"Subscription": {"Webhook": {"Url": "https://later.example", "IsActive": False}}}
        assert (await client.patch(consent_id, off)).status == 204
        shown = await client.read(f"{family.path}/{consent_id}", one)
        assert shown["Subscription"] == off["Subscription"]
    revoke = {"Data": {"Status": "Revoked", "RevokedBy": "TPP.InitiatedByUser"}}
    assert [(await client.patch(consent_id, revoke)).status for _ in range(2)] == [204, 204]
    shown = await client.read(f"{family.path}/{consent_id}", one)
    assert shown["Data"]["RevokedBy"] == "TPP.InitiatedByUser"
    told = await patched(bank, consent_id, wanted=400, **{STATUS: "Authorized"})
    assert told.json()["errorCode"] == "Consent.BusinessRuleViolation"


@pytest.mark.parametrize("name", list(FAMILIES))
async def test_a_consent_is_of_its_client_and_its_family_only(tpp, other_tpp, name):
    consent_id = await lodged(tpp, name)
    for actor, family in [
        (other_tpp, name),
        *[(tpp, other) for other in FAMILIES if other != name],
    ]:
        client = await Client.of(actor, family, JSON if family != "payment" else JWT)
        ask = Ask(
            method="GET",
            url=f"{client.base}{client.family.path}/{consent_id}",
            headers=client.headers(),
        )
        answer = await actor.tpp.wire.carry(ask)
        assert answer.status in {400, 404}
        revoke = {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}
        assert (await client.patch(consent_id, revoke)).status in {400, 404}
    own = await Client.of(tpp, name, JWT)
    shown = await own.read(f"{own.family.path}/{consent_id}", f"{own.family.path}/{{ConsentId}}")
    assert shown["Data"]["Status"] == "AwaitingAuthorization"


async def test_a_plain_patch_of_a_payment_consent_is_415_and_a_banks_name_is_refused(tpp):
    consent_id = await lodged(tpp, "payment")
    client = await Client.of(tpp, "payment", JSON)
    revoke = {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}
    assert (await client.patch(consent_id, revoke)).status == 415
    consent_id = await lodged(tpp, "accounts")
    client = await Client.of(tpp, "accounts", JSON)
    revoke["Data"]["RevokedBy"] = "LFI"
    answer = await client.patch(consent_id, revoke)
    assert (answer.status, code_of(answer)) == (400, "Body.InvalidFormat")
