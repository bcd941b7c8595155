"""The sandbox's helpers for people who test by hand, as collections of the public sandbox call them; impossible elsewhere."""

import msgspec
import pytest
from joserfc import jwe, jws
from joserfc.jwk import KeySet, RSAKey

from hub.config import load
from hub.gateway.by_hand import ByHand
from hub.node.build import Given, by_hand_of
from hub.sandbox.tpp import Ask

pytestmark = pytest.mark.wire


def wanted(tpp, **changes):
    key = (tpp.sandbox.folder / tpp.section.signing_key).read_text()
    kid = tpp.section.signing_kid
    return {
        "header": {"alg": "PS256", "kid": kid},
        "body": {"sub": "by hand", "n": 1},
        "signingKeyPEM": key,
        **changes,
    }


async def ask(tpp, method, path, body=None):
    url = tpp.sandbox.manifest.hub.resource_base + path
    content = msgspec.json.encode(body).decode() if body is not None else ""
    headers = {"content-type": "application/json"}
    return await tpp.tpp.wire.carry(Ask(method=method, url=url, headers=headers, content=content))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_claims_are_signed_with_the_given_key(tpp, method):
    answer = await ask(tpp, method, "/o3/v1.0/message-signature", wanted(tpp))
    assert answer.status == 200, answer.body
    key = RSAKey.import_key((tpp.sandbox.folder / tpp.section.signing_key).read_bytes())
    token = jws.deserialize_compact(answer.body, key, algorithms=["PS256"])
    assert msgspec.json.decode(token.payload) == {"sub": "by hand", "n": 1}
    assert token.headers()["kid"] == tpp.section.signing_kid


async def test_claims_are_signed_and_sealed_for_a_key_set_of_the_sandbox(tpp):
    base = tpp.sandbox.manifest.directory.keystore_base
    keys = f"{base}/{tpp.section.organisation_id}/{tpp.section.client_id}/application.jwks"
    answer = await ask(tpp, "POST", "/o3/v1.0/message-encryption", wanted(tpp, jwksUrl=keys))
    assert answer.status == 200, answer.body
    key = RSAKey.import_key(
        (tpp.sandbox.folder / tpp.section.encryption_key).read_bytes(),
        {"kid": tpp.section.encryption_kid, "use": "enc"},
    )
    opened = jwe.decrypt_compact(answer.body, KeySet([key]), algorithms=["RSA-OAEP-256", "A256GCM"])
    assert opened.plaintext.count(b".") == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/keys", "https://attacker.example/keys", "", "{base}.attacker.example/keys",
        "{base}/../secret", "{base}/a%2e%2e/b", "{base}/a?b=c", "{base}/nobody/application.jwks",
    ],
)  # fmt: skip
async def test_nothing_but_the_sandboxs_own_key_store_is_fetched(tpp, url):
    keys = url.replace("{base}", tpp.sandbox.manifest.directory.keystore_base)
    answer = await ask(tpp, "POST", "/o3/v1.0/message-encryption", wanted(tpp, jwksUrl=keys))
    assert answer.status == 400
    assert answer.body.startswith(b"jwksUrl: ")


@pytest.mark.parametrize(
    "changes",
    [{"signingKeyPEM": "no key"}, {"header": {"alg": "none"}}, {"header": 7}, {"body": []}],
)
async def test_what_cannot_be_signed_is_told_and_no_key_is_said_again(tpp, changes):
    answer = await ask(tpp, "POST", "/o3/v1.0/message-signature", wanted(tpp, **changes))
    assert answer.status == 400
    assert b"PRIVATE KEY" not in answer.body


async def test_an_environment_and_collections_are_made_of_the_contract(tpp):
    environment = (await ask(tpp, "GET", "/o3/v1.0/postman/environment?client_id=me")).json()
    values = {row["key"]: row["value"] for row in environment["values"]}
    assert values["clientId"] == "me"
    assert values["issuer"] == tpp.discovery.issuer
    whole = (await ask(tpp, "GET", "/o3/v1.0/postman/collection/CBUAE")).json()
    assert {"account-information", "payment", "atm"} <= {f["name"] for f in whole["item"]}
    one = (await ask(tpp, "GET", "/o3/v1.0/postman/collection/atm")).json()
    assert one["item"][0]["item"][0]["request"]["url"].endswith("/open-finance/atm/v2.1/atms")
    assert (await ask(tpp, "GET", "/o3/v1.0/postman/collection/nothing")).status == 404


async def test_what_was_emitted_is_shown(tpp):
    await tpp.consented()
    shown = (await ask(tpp, "GET", "/review-emitted-events")).json()["data"]
    assert any(row["target"] == "bank" for row in shown)
    mine = f"/review-emitted-events?client_id={tpp.section.client_id}"
    assert all(
        row["clientId"] == tpp.section.client_id
        for row in (await ask(tpp, "GET", mine)).json()["data"]
    )


@pytest.mark.parametrize("environment", ["production", "pre-production"])
def test_outside_of_a_sandbox_they_cannot_even_be_made(sandbox, environment):
    settings = load(sandbox.folder / "hub.toml", {}).settings
    tenant = msgspec.structs.replace(settings.tenant, environment=environment)
    settings = msgspec.structs.replace(settings, tenant=tenant)
    with pytest.raises(ValueError, match="sandboxes only"):
        ByHand(settings=settings, keeper=None, routes=(), clock=None, dice=None, fetch=None)
    assert (
        by_hand_of(
            Given(settings=settings, keeper=None, clock=None, dice=None, observer=None), None
        )
        == {}
    )
