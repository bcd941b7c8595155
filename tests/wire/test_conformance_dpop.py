"""The certification suite's modules on DPoP, and those of the general profile only, by their names, over the wire."""

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.wire.suite import opened, raw_jws, refused

pytestmark = pytest.mark.wire


@pytest.fixture
async def suite(general_sandbox):
    async with opened(general_sandbox, dpop=True) as made:
        yield made


@pytest.fixture
async def no_proofs(general_sandbox):
    """Open a suite that sends no proof unless a test makes one."""
    async with opened(general_sandbox) as made:
        yield made


def proof_of(suite, url, **changes):
    return {"dpop": suite.proof(suite.first, "POST", url, **changes)}


async def test_fapi2_security_profile_final_ensure_request_object_with_multiple_aud_succeeds(suite):
    await suite.pushed(aud=["https://other.example", suite.issuer])


async def test_fapi2_security_profile_final_check_dpop_proof_nbf_exp(suite):
    now = suite.clock.now()
    window = {"nbf": now - 10, "exp": now + 60}
    asked = await suite.pushed(headers=proof_of(suite, suite.par, **window))
    code = await suite.code(asked)
    answer = await suite.redeem(
        asked, code, headers=proof_of(suite, suite.token_endpoint, **window)
    )
    token = answer.json()["access_token"]
    made = suite.proof(suite.first, "GET", suite.accounts, token=token, **window)
    answer = await suite.get(suite.accounts, suite.first, token, headers={"dpop": made})
    assert answer.status_code == 200


async def with_iat(suite, offset):
    iat = suite.clock.now() + offset
    asked = await suite.pushed(headers=proof_of(suite, suite.par, iat=iat))
    code = await suite.code(asked)
    answer = await suite.redeem(asked, code, headers=proof_of(suite, suite.token_endpoint, iat=iat))
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    made = suite.proof(suite.first, "GET", suite.accounts, token=token, iat=iat)
    answer = await suite.get(suite.accounts, suite.first, token, headers={"dpop": made})
    assert answer.status_code == 200


async def test_fapi2_security_profile_final_ensure_dpopproof_with_iat_10seconds_before_succeeds(
    suite,
):
    await with_iat(suite, -10)


async def test_fapi2_security_profile_final_ensure_dpopproof_with_iat_10seconds_after_succeeds(
    suite,
):
    await with_iat(suite, 10)


async def test_fapi2_security_profile_final_ensure_mismatched_dpop_jkt_fails(suite):
    other = ECKey.generate_key("P-256")
    answer = await suite.push(suite.asked(dpop_jkt=suite.jkt(other)))
    refused(answer, "invalid_request", "invalid_dpop_proof")


TOKEN_ERRORS = ("invalid_request", "invalid_grant", "invalid_dpop_proof")


async def test_fapi2_security_profile_final_ensure_token_endpoint_fails_with_mismatched_dpop_proof_jkt(
    suite,
):
    asked = await suite.pushed()
    other = proof_of(suite, suite.token_endpoint, key=ECKey.generate_key("P-256"))
    refused(await suite.redeem(asked, await suite.code(asked), headers=other), *TOKEN_ERRORS)


async def test_fapi2_security_profile_final_ensure_token_endpoint_fails_with_mismatched_dpop_jkt(
    no_proofs,
):
    asked = await no_proofs.pushed(dpop_jkt=no_proofs.jkt(no_proofs.first.dpop_key))
    code = await no_proofs.code(asked)
    other = proof_of(no_proofs, no_proofs.token_endpoint, key=ECKey.generate_key("P-256"))
    refused(await no_proofs.redeem(asked, code, headers=other), *TOKEN_ERRORS)
    refused(await no_proofs.redeem(asked, code, headers={}), *TOKEN_ERRORS)


async def test_fapi2_security_profile_final_ensure_dpopproof_at_par_endpoint_binding_success(suite):
    await suite.tokens(await suite.pushed())


async def test_fapi2_security_profile_final_ensure_dpop_auth_code_binding_success(suite):
    jkt = suite.jkt(suite.first.dpop_key)
    await suite.tokens(await suite.pushed(headers={}, dpop_jkt=jkt))


RS_KEY = RSAKey.generate_key(2048)
MISSING = ("header_typ", "header_jwk", "jti", "htm", "htu", "iat", "ath")


def bad_proofs(suite, token):
    """Make each bad proof of module 56, by name."""
    url, now = suite.accounts, suite.clock.now()

    def made(**changes):
        return suite.proof(suite.first, "GET", url, token=token, **changes)

    good = made()
    head, body, _ = good.split(".")
    private = suite.first.dpop_key.as_dict(private=True)
    public_rsa = RS_KEY.as_dict(private=False)
    yield "malformed", "x.y"
    yield "not a JWT", "proof"
    for name in MISSING:
        yield f"without {name}", made(**{name: None})
    yield "without alg", raw_jws({"typ": "dpop+jwt"}, {"jti": "j"}, suite.first.dpop_key)
    yield "wrong typ", made(header_typ="JWT")
    yield "RS256", made(alg="RS256", key=RS_KEY, header_jwk=public_rsa)
    yield "none", f"{raw_jws({'alg': 'none', 'typ': 'dpop+jwt'}, {}, None, '')}"
    yield "bad signature", f"{head}.{body}.{made().split('.')[2]}"
    yield "signed by another key", made(header_jwk=ECKey.generate_key("P-256").as_dict())
    yield "private key in jwk", made(header_jwk=private)
    yield "wrong htm", made(htm="POST")
    yield "wrong htu", made(htu=url + "/1")
    yield "foreign htu", made(htu=url.replace("localhost", "other.example"))
    yield "an hour old", made(iat=now - 3600)
    yield "an hour ahead", made(iat=now + 3600)
    yield "wrong ath", made(ath="AAAA")
    yield "another key", made(key=ECKey.generate_key("P-256"))


async def test_fapi2_security_profile_final_dpop_negative_tests(suite):
    token = (await suite.tokens(await suite.pushed()))["access_token"]

    async def call(*proofs, scheme="DPoP"):
        headers = [("authorization", f"{scheme} {token}"), *(("dpop", one) for one in proofs)]
        return (await suite.first.http.get(suite.accounts, headers=headers)).status_code

    def good(**changes):
        return suite.proof(suite.first, "GET", suite.accounts, token=token, **changes)

    for name, proof in bad_proofs(suite, token):
        assert await call(proof) in {400, 401}, name
    assert await call(good(), good()) in {400, 401}
    assert await call() in {400, 401}
    assert await call(good(), scheme="Bearer") in {400, 401}
    assert await call(scheme="Bearer") in {400, 401}
    once = good()
    assert await call(once) == 200
    assert await call(once) == 401
    upper = suite.accounts.replace("https://localhost", "HTTPS://LOCALHOST")
    for changes in ({"htu": suite.accounts + "?a=b#c"}, {"extra": {"a": 1}}, {"htu": upper}):
        assert await call(good(**changes)) == 200, changes
    assert await call(good(alg="PS256", key=RS_KEY)) == 401


@pytest.mark.parametrize("kind", ["PS256", "ES256", "EdDSA"])
async def test_a_proof_of_each_advertised_algorithm_is_taken_everywhere(suite, kind):
    assert kind in suite.metadata["dpop_signing_alg_values_supported"]
    make = {
        "PS256": lambda: RS_KEY,
        "ES256": lambda: ECKey.generate_key("P-256"),
        "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    }[kind]
    key = make()
    asked = await suite.pushed(headers=proof_of(suite, suite.par, alg=kind, key=key))
    made = proof_of(suite, suite.token_endpoint, alg=kind, key=key)
    answer = await suite.redeem(asked, await suite.code(asked), headers=made)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    for url in (suite.metadata["userinfo_endpoint"], suite.accounts):
        made = suite.proof(suite.first, "GET", url, token=token, alg=kind, key=key)
        answer = await suite.get(url, suite.first, token, headers={"dpop": made})
        assert answer.status_code == 200, url
