"""DPoP at resources: the proof of a bound token, its nonce where the tenant asks for one, and the challenges."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hub.protocol import jose
from hub.protocol.oauth import token_hash
from hub.state.keeper import Conflict
from tests.gateway.world import AIS, BASE, CONSENT, NOW, World

KEY = jose.PrivateKey(kid="dpop", key=ec.generate_private_key(ec.SECP256R1()))
PUBLIC = {k: v for k, v in jose.public_jwk(KEY).items() if k in {"kty", "crv", "x", "y"}}
BOUND = {"jkt": jose.thumbprint(PUBLIC)}


def proof(key=KEY, **changes):
    public = {k: v for k, v in jose.public_jwk(key).items() if k in {"kty", "crv", "x", "y"}}
    claims = {
        "jti": "j",
        "htm": "GET",
        "htu": f"{BASE}{AIS}/accounts",
        "iat": NOW,
        "ath": token_hash("secret"),
    } | changes
    return jose.sign(claims, key, alg="ES256", typ="dpop+jwt", header={"jwk": public})


async def get(world, *proofs):
    sent = [(b"authorization", b"DPoP secret"), *((b"dpop", one.encode()) for one in proofs)]
    response = await world.get("/accounts", headers=dict(sent))
    return response, dict(response.headers)


async def test_a_bound_token_with_its_proof_is_served_once():
    world = await World().start(**BOUND)
    made = proof()
    response, _ = await get(world, made)
    assert response.status == 200
    response, headers = await get(world, made)
    assert response.status == 401
    assert headers[b"www-authenticate"].startswith(
        b'DPoP error="invalid_dpop_proof", algs="PS256 ES256"' + b", error_uri="
    )


@pytest.mark.parametrize(
    "changes",
    [{"htm": "POST"}, {"htu": BASE}, {"iat": NOW - 3600}, {"ath": "x"}, {"jti": 5}],
    ids=str,
)
async def test_a_proof_for_something_else_is_refused(changes):
    world = await World().start(**BOUND)
    response, headers = await get(world, proof(**changes))
    assert response.status == 401
    assert headers[b"www-authenticate"].startswith(
        b'DPoP error="invalid_dpop_proof", algs="PS256 ES256"' + b", error_uri="
    )


async def test_a_proof_of_another_key_is_refused():
    other = jose.PrivateKey(kid="o", key=ec.generate_private_key(ec.SECP256R1()))
    world = await World().start(**BOUND)
    response, _ = await get(world, proof(other))
    assert response.status == 401


async def test_a_proof_serves_its_request_also_where_that_meets_another_change():
    world = await World({"calls_client_per_s": 0.5}).start(**BOUND)
    commit, met = world.keeper.commit, []

    async def meeting(changes, events):
        if changes and not met:
            met.append(changes)
            return Conflict(0)
        return await commit(changes, events)

    world.keeper.commit = meeting
    path = f"{AIS}/account-access-consents/{CONSENT}"
    made = proof(htm="PATCH", htu=BASE + path).encode()
    headers = {
        b"authorization": b"DPoP secret",
        b"dpop": made,
        b"content-type": b"application/json",
    }
    answer = await world.send("PATCH", path, headers=headers, body=b'{"Data":{"Status":"Revoked"}}')
    assert (answer.status, len(met)) == (204, 1)
    again = await world.send("PATCH", path, headers=headers, body=b'{"Data":{"Status":"Revoked"}}')
    assert (again.status, again.event.check) == (401, "token.revoked")


async def test_a_missing_proof_is_refused():
    world = await World().start(**BOUND)
    assert (await get(world))[0].status == 401


async def test_a_nonce_is_asked_for_at_resources_too():
    world = await World(dpop_nonce=True).start(**BOUND)
    response, headers = await get(world, proof())
    assert response.status == 401
    assert headers[b"www-authenticate"].startswith(
        b'DPoP error="use_dpop_nonce", algs="PS256 ES256"' + b", error_uri="
    )
    nonce = headers[b"dpop-nonce"].decode()
    assert (await get(world, proof(nonce=nonce)))[0].status == 200
    response, headers = await get(world, proof(nonce=nonce + "x", jti="j2"))
    assert response.status == 401
    assert headers[b"dpop-nonce"].decode() == nonce
