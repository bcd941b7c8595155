"""DPoP at PAR and token: bound when used, demanded where registered, refused when anything about it is wrong."""

import orjson
import pytest

from hub.model.records import AccessToken, digest_of
from hub.protocol import jose
from hub.protocol.oauth import token_hash
from tests.authz.desk import ALICE, DPOP_KEY, OTHER_DPOP_KEY, caller, refused


def header(proof):
    return ((b"dpop", proof.encode()),)


async def test_a_proof_at_the_token_endpoint_binds_the_token(desk):
    response = await desk.redeem(await desk.code(), headers=header(desk.proof("/token")))
    body = orjson.loads(response.body)
    assert body["token_type"] == "DPoP"
    record, _ = await desk.keeper.lookup(AccessToken, digest_of(body["access_token"]))
    assert record.jkt
    assert record.x5t_s256
    description = await desk.introspect(body["access_token"])
    assert description["cnf"] == {"x5t#S256": record.x5t_s256, "jkt": record.jkt}
    assert description["token_type"] == "DPoP"


async def test_a_proof_at_par_binds_the_code(desk):
    code = await desk.code(headers=header(desk.proof("/par")))
    refused(await desk.redeem(code), "invalid_dpop_proof", 400, "code.key")
    other = desk.proof("/token", key=OTHER_DPOP_KEY)
    response = await desk.redeem(code, headers=header(other))
    refused(response, "invalid_dpop_proof", 400, "code.key")
    assert (await desk.redeem(code, headers=header(desk.proof("/token")))).status == 200


async def test_dpop_jkt_binds_the_code(desk):
    jkt = jose.thumbprint(jose.public_jwk(DPOP_KEY))
    code = await desk.code(dpop_jkt=jkt)
    other = desk.proof("/token", key=OTHER_DPOP_KEY)
    response = await desk.redeem(code, headers=header(other))
    refused(response, "invalid_dpop_proof", 400, "code.key")
    assert (await desk.redeem(code, headers=header(desk.proof("/token")))).status == 200


async def test_dpop_jkt_and_the_proof_at_par_must_agree(desk):
    jkt = jose.thumbprint(jose.public_jwk(OTHER_DPOP_KEY))
    response = await desk.par(dpop_jkt=jkt, headers=header(desk.proof("/par")))
    refused(response, "invalid_dpop_proof", 400, "request.dpop_jkt")


async def test_a_bound_refresh_token_needs_its_key(desk):
    response = await desk.redeem(await desk.code(), headers=header(desk.proof("/token")))
    token = orjson.loads(response.body)["refresh_token"]
    refused(await desk.refresh(token), "invalid_dpop_proof", 400, "refresh.key")
    other = header(desk.proof("/token", key=OTHER_DPOP_KEY))
    refused(await desk.refresh(token, headers=other), "invalid_dpop_proof", 400, "refresh.key")
    response = await desk.refresh(token, headers=header(desk.proof("/token")))
    assert orjson.loads(response.body)["token_type"] == "DPoP"


async def test_a_proof_is_single_use(desk):
    proof = header(desk.proof("/token"))
    form = {"grant_type": "client_credentials", "scope": "accounts"}
    assert (await desk.token(**form, headers=proof)).status == 200
    refused(await desk.token(**form, headers=proof), "invalid_dpop_proof", 400, "dpop.replay")


async def test_a_client_registered_for_dpop_needs_a_proof_at_the_token_endpoint_only(desk):
    desk.trust.callers[ALICE] = caller(ALICE, "o", dpop_bound=True)
    code = await desk.code()
    refused(await desk.redeem(code), "invalid_dpop_proof", 400, "dpop.required")
    assert (await desk.redeem(code, headers=header(desk.proof("/token")))).status == 200


async def test_a_bad_proof_does_not_burn_the_assertion(desk):
    form = desk.signed(grant_type="client_credentials", scope="accounts")
    response = await desk.post("/token", form, headers=((b"dpop", b"x"),))
    refused(response, "invalid_dpop_proof", 400, "dpop.proof")
    assert (await desk.post("/token", form)).status == 200


@pytest.mark.parametrize("offset", [-10, 10])
async def test_ten_seconds_of_skew_are_tolerated(desk, offset):
    now = desk.clock.now()
    for path in ("/par", "/token"):
        proof = desk.proof(path, iat=now + offset, nbf=now - 5, exp=now + 60)
        headers = header(proof)
        if path == "/par":
            assert (await desk.par(headers=headers)).status == 201
        else:
            form = {"grant_type": "client_credentials", "scope": "accounts"}
            assert (await desk.token(**form, headers=headers)).status == 200


async def test_userinfo_demands_the_proof_of_a_bound_token(desk):
    response = await desk.redeem(await desk.code(), headers=header(desk.proof("/token")))
    token = orjson.loads(response.body)["access_token"]

    async def ask(scheme, *more):
        headers = ((b"authorization", f"{scheme} {token}".encode()), *more)
        request = desk.request("GET", "/userinfo", headers=headers)
        return await desk.tpp["GET", "/userinfo"](request)

    assert (await ask("Bearer")).status == 401
    assert (await ask("DPoP")).status == 401
    good = desk.proof("/userinfo", htm="GET", ath=token_hash(token))
    assert (await ask("DPoP", *header(good))).status == 200
    replayed = await ask("DPoP", *header(good))
    assert replayed.status == 401
    challenge = dict(replayed.headers)[b"www-authenticate"]
    assert challenge == b'DPoP error="invalid_dpop_proof", algs="PS256 ES256"'
    other = desk.proof("/userinfo", htm="GET", ath=token_hash(token), key=OTHER_DPOP_KEY)
    assert (await ask("DPoP", *header(other))).status == 401
    wrong = desk.proof("/userinfo", htm="GET", ath=token_hash("x"))
    assert (await ask("DPoP", *header(wrong))).status == 401
