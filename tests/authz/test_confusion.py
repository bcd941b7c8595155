"""Every kind of JWT is refused in the place of every other kind, even signed with the very key that the place expects."""

import pytest

from hub.protocol import jose
from hub.protocol.oauth import token_hash
from tests.authz.desk import ALICE, HUB_KEY, ISSUER, KEYS, refused

OURS = {"iss": ISSUER, "aud": ALICE}
KINDS = {
    "assertion": ("", lambda desk: {}),
    "request object": ("oauth-authz-req+jwt", lambda desk: desk.claims()),
    "DPoP proof": ("dpop+jwt", lambda desk: {"htm": "POST", "htu": ISSUER + "/token"}),
    "access token": ("at+jwt", lambda desk: {**OURS, "client_id": ALICE, "scope": "accounts"}),
    "id_token": ("JWT", lambda desk: {**OURS, "nonce": "n", "at_hash": token_hash("t")}),
    "JARM answer": ("JWT", lambda desk: {**OURS, "code": "c", "state": "s"}),
    "introspection": ("token-introspection+jwt", lambda desk: {**OURS, "token_introspection": {}}),
    "software statement": ("JWT", lambda desk: {"iss": "directory", "software_id": ALICE}),
    "payment": ("JWT", lambda desk: {"iss": ALICE, "aud": ISSUER, "message": {"Data": {}}}),
}


def made(desk, kind, key):
    """Make a JWT of a kind, with every time claim that any place asks for."""
    typ, claims_of = KINDS[kind]
    now = desk.clock.now()
    base = {"iat": now, "nbf": now, "exp": now + 60, "jti": desk.unique()}
    own = claims_of(desk)
    if kind == "assertion":
        own = {"iss": ALICE, "sub": ALICE, "aud": ISSUER}
    return jose.sign(base | own, key, typ=typ)


def wrong(place):
    return [kind for kind in KINDS if kind != place]


@pytest.mark.parametrize("key", [KEYS[ALICE], HUB_KEY], ids=["client's key", "our key"])
@pytest.mark.parametrize("kind", wrong("assertion"))
async def test_nothing_else_is_a_client_assertion(desk, kind, key):
    form = {"grant_type": "client_credentials", "scope": "accounts"}
    response = await desk.token(**form, client_assertion=made(desk, kind, key))
    refused(response, "invalid_client", 401)


@pytest.mark.parametrize("key", [KEYS[ALICE], HUB_KEY], ids=["client's key", "our key"])
@pytest.mark.parametrize("kind", wrong("request object"))
async def test_nothing_else_is_a_request_object(desk, kind, key):
    response = await desk.par(form={"request": made(desk, kind, key)})
    refused(response, "invalid_request_object")


@pytest.mark.parametrize("kind", wrong("DPoP proof"))
async def test_nothing_else_is_a_proof(desk, kind):
    public = {k: v for k, v in jose.public_jwk(KEYS[ALICE]).items() if k in {"kty", "n", "e"}}
    typ, claims_of = KINDS[kind]
    claims = {"htm": "POST", "htu": ISSUER + "/token", "iat": desk.clock.now(), "jti": "j"}
    token = jose.sign(claims | claims_of(desk), KEYS[ALICE], typ=typ, header={"jwk": public})
    form = {"grant_type": "client_credentials", "scope": "accounts"}
    response = await desk.token(**form, headers=((b"dpop", token.encode()),))
    refused(response, "invalid_dpop_proof", 400, "dpop.proof")


@pytest.mark.parametrize("kind", KINDS)
async def test_no_jwt_is_a_code_a_refresh_token_or_an_access_token(desk, kind):
    token = made(desk, kind, HUB_KEY)
    refused(await desk.redeem(token), "invalid_grant", 400, "code.known")
    refused(await desk.refresh(token), "invalid_grant", 400, "refresh.known")
    headers = ((b"authorization", f"Bearer {token}".encode()),)
    response = await desk.tpp["GET", "/userinfo"](desk.request("GET", "/userinfo", headers=headers))
    assert response.status == 401
    assert await desk.introspect(token) == {"active": False}
