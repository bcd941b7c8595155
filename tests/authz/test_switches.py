"""What a tenant may switch on: nonces, encrypted id_tokens, signed introspection, certificates as credentials, other algorithms."""

import hashlib

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hub.protocol import jose
from tests.authz.desk import ALICE, DPOP_KEY, HUB_KEY, ISSUER, KEYS, refused

CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


async def test_a_nonce_is_given_and_then_demanded(desk_with):
    desk = desk_with(switches={"dpop_nonce": True})
    form = desk.signed(**CREDENTIALS)
    response = await desk.post("/token", form, headers=((b"dpop", desk.proof("/token").encode()),))
    refused(response, "use_dpop_nonce", 400, "dpop.proof")
    nonce = dict(response.headers)[b"dpop-nonce"].decode()
    proof = ((b"dpop", desk.proof("/token", nonce=nonce).encode()),)
    response = await desk.post("/token", form, headers=proof)
    assert response.status == 200
    assert dict(response.headers)[b"dpop-nonce"].decode() == nonce
    desk.clock.advance(300)
    proof = ((b"dpop", desk.proof("/token", nonce=nonce).encode()),)
    response = await desk.token(**CREDENTIALS, headers=proof)
    assert response.status == 200
    assert dict(response.headers)[b"dpop-nonce"].decode() != nonce
    desk.clock.advance(300)
    proof = ((b"dpop", desk.proof("/token", nonce=nonce).encode()),)
    refused(await desk.token(**CREDENTIALS, headers=proof), "use_dpop_nonce", 400)


async def test_without_a_proof_no_nonce_is_given(desk_with):
    desk = desk_with(switches={"dpop_nonce": True})
    response = await desk.token(**CREDENTIALS)
    assert b"dpop-nonce" not in dict(response.headers)


async def test_dpop_may_be_required_of_everybody(desk_with):
    desk = desk_with(switches={"dpop_required": True})
    refused(await desk.token(**CREDENTIALS), "invalid_dpop_proof", 400, "dpop.required")


async def test_an_id_token_is_encrypted_to_the_client(desk_with):
    desk = desk_with(switches={"encrypted_id_tokens": True})
    desk.trust.encryption = jose.load_key(jose.public_jwk(KEYS[ALICE], use="enc", alg=""))
    token = (await desk.tokens())["id_token"]
    inner = jose.decrypt(token, KEYS[ALICE])
    parsed = jose.parse(inner)
    assert jose.verify(parsed, jose.load_key(jose.public_jwk(HUB_KEY)), ("PS256",)) is None
    assert parsed.claims["aud"] == ALICE


@pytest.mark.parametrize(
    ("alg", "key", "digest"),
    [
        ("ES256", ec.generate_private_key(ec.SECP256R1()), hashlib.sha256),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate(), hashlib.sha512),
    ],
)
async def test_an_id_token_binds_its_access_token_by_the_hash_of_its_algorithm(
    desk_with, alg, key, digest
):
    ours = jose.PrivateKey(kid="other", key=key)
    desk = desk_with(signing_keys=(ours,), tenant={"profile": "general"})
    body = await desk.tokens()
    parsed = jose.parse(body["id_token"])
    assert jose.verify(parsed, jose.load_key(jose.public_jwk(ours, alg=alg)), (alg,)) is None
    whole = digest(body["access_token"].encode()).digest()
    assert parsed.claims["at_hash"] == jose.b64url(whole[: len(whole) // 2])


async def test_introspection_is_signed_when_asked_for(desk_with):
    desk = desk_with(switches={"signed_introspection": True})
    body = await desk.tokens()
    accept = ((b"accept", b"application/token-introspection+jwt"),)
    for token, active in ((body["access_token"], True), ("unknown", False)):
        form = desk.signed(token=token)
        response = await desk.post("/introspection", form, headers=accept)
        assert dict(response.headers)[b"content-type"] == accept[0][1]
        parsed = jose.parse(response.body)
        assert parsed.header["typ"] == "token-introspection+jwt"
        assert jose.verify(parsed, jose.load_key(jose.public_jwk(HUB_KEY)), ("PS256",)) is None
        assert (parsed.claims["iss"], parsed.claims["aud"]) == (ISSUER, ALICE)
        assert not {"sub", "exp"} & set(parsed.claims)
        assert parsed.claims["token_introspection"]["active"] is active
    response = await desk.post("/introspection", desk.signed(token="x"))
    assert response.body == b'{"active":false}'


async def test_introspection_is_plain_while_the_switch_is_off(desk):
    accept = ((b"accept", b"application/token-introspection+jwt"),)
    response = await desk.post("/introspection", desk.signed(token="x"), headers=accept)
    assert response.body == b'{"active":false}'


async def test_a_certificate_alone_may_authenticate(desk_with):
    desk = desk_with(switches={"tls_client_auth": True})
    form = {"client_id": ALICE, **CREDENTIALS}
    assert (await desk.post("/token", form)).status == 200
    assert (await desk.post("/token", form)).status == 200
    response = await desk.post("/token", {"client_id": "other", **CREDENTIALS})
    refused(response, "invalid_client", 401, "client_id.matches")
    refused(await desk.post("/token", CREDENTIALS), "invalid_client", 401)
    half = {**form, "client_assertion": "x"}
    refused(await desk.post("/token", half), "invalid_client", 401, "client_assertion.present")


async def test_a_certificate_alone_is_not_enough_while_the_switch_is_off(desk):
    response = await desk.post("/token", {"client_id": ALICE, **CREDENTIALS})
    refused(response, "invalid_client", 401, "client_assertion.present")


async def test_the_general_profile_knows_more_algorithms(desk_with):
    for profile, status in (("general", 200), ("uae", 401)):
        desk = desk_with(tenant={"profile": profile})
        desk.trust.published[ALICE]["dpop"] = DPOP_KEY
        form = {"client_assertion": desk.assertion(key=DPOP_KEY, alg="ES256")}
        assert (await desk.token(**CREDENTIALS, **form)).status == status


async def test_metadata_tells_what_is_switched_on(desk_with):
    every = dict.fromkeys(
        ("jarm", "signed_introspection", "encrypted_id_tokens", "tls_client_auth"), True
    )
    desk = desk_with(switches=every, tenant={"profile": "general"})
    path = "/.well-known/oauth-authorization-server"
    document = orjson.loads((await desk.tpp["GET", path](desk.request("GET", path))).body)
    assert document["response_modes_supported"] == ["query", "jwt", "query.jwt"]
    assert document["authorization_signing_alg_values_supported"] == ["PS256"]
    assert document["introspection_signing_alg_values_supported"] == ["PS256"]
    assert document["id_token_encryption_alg_values_supported"] == ["RSA-OAEP-256"]
    assert "tls_client_auth" in document["token_endpoint_auth_methods_supported"]
    assert document["request_object_signing_alg_values_supported"] == ["PS256", "ES256", "EdDSA"]


async def test_every_refusal_can_be_looked_up(desk):
    response = await desk.par(aud="https://other.example")
    uri = orjson.loads(response.body)["error_uri"].removeprefix(ISSUER)
    page = await desk.tpp["GET", "/errors/{check}"](desk.request("GET", uri))
    assert page.status == 200
    assert b"aud" in page.body
    unknown = await desk.tpp["GET", "/errors/{check}"](desk.request("GET", "/errors/unknown"))
    assert unknown.status == 404


async def test_access_tokens_may_be_jwts_that_still_die_at_once(desk_with):
    desk = desk_with(switches={"jwt_access_tokens": True})
    proof = ((b"dpop", desk.proof("/token").encode()),)
    body = orjson.loads((await desk.redeem(await desk.code(), headers=proof)).body)
    parsed = jose.parse(body["access_token"])
    assert jose.verify(parsed, jose.load_key(jose.public_jwk(HUB_KEY)), ("PS256",)) is None
    assert parsed.header["typ"] == "at+jwt"
    described = await desk.introspect(body["access_token"])
    assert described["active"] is True
    shared = ("iss", "aud", "sub", "client_id", "iat", "exp", "scope", "cnf")
    assert {name: parsed.claims[name] for name in shared} == {n: described[n] for n in shared}
    assert parsed.claims["sub"] != ALICE
    assert set(parsed.claims) == {*shared, "jti", "consent_id"}
    assert (await desk.post("/token/revoke", desk.signed(token=body["access_token"]))).status == 200
    assert await desk.introspect(body["access_token"]) == {"active": False}


async def test_a_jwt_access_token_of_a_client_alone_names_the_client(desk_with):
    desk = desk_with(switches={"jwt_access_tokens": True})
    token = orjson.loads((await desk.token(**CREDENTIALS)).body)["access_token"]
    claims = jose.parse(token).claims
    assert (claims["sub"], claims["client_id"]) == (ALICE, ALICE)
    assert "consent_id" not in claims


async def test_a_changed_or_forged_jwt_access_token_is_unknown(desk_with):
    desk = desk_with(switches={"jwt_access_tokens": True})
    token = (await desk.tokens())["access_token"]
    again = jose.sign(dict(jose.parse(token).claims), HUB_KEY, typ="at+jwt")
    assert again != token
    for forged in (again, token + "A", token.upper()):
        assert await desk.introspect(forged) == {"active": False}
