"""The userinfo endpoint refuses as a resource does: who may not act learns why, and what the Hub cannot tell is no verdict on a token."""

import orjson
import pytest

from hub.model.consent import Status
from hub.protocol.oauth import token_hash
from hub.state.entry import unavailable
from hub.trust import decide
from tests.authz.desk import refused


async def ask(desk, token, *, scheme="Bearer", more=()):
    given = (b"authorization", f"{scheme} {token}".encode("latin-1"))
    request = desk.request("GET", "/userinfo", headers=(given, *more))
    return await desk.tpp["GET", "/userinfo"](request)


def told(desk, monkeypatch, check):
    """Make the framework say one thing of every certificate."""
    monkeypatch.setattr(desk.trust, "judge", lambda *_, **__: decide.refuse(check))


async def test_a_framework_that_is_silent_for_too_long_is_no_verdict_on_a_token(desk, monkeypatch):
    token = (await desk.tokens())["access_token"]
    told(desk, monkeypatch, "trust.stale")
    response = await ask(desk, token)
    refused(response, "temporarily_unavailable", 503, "trust.stale")
    headers = dict(response.headers)
    assert headers[b"retry-after"] == b"30"
    assert b"www-authenticate" not in headers
    assert response.event.verdict == "failed"


@pytest.mark.parametrize("check", ["trust.blocked", "trust.certificate_revoked"])
async def test_a_client_that_may_not_act_learns_which_check_refused_it(desk, monkeypatch, check):
    token = (await desk.tokens())["access_token"]
    told(desk, monkeypatch, check)
    response = await ask(desk, token)
    refused(response, "invalid_token", 401, check)
    assert dict(response.headers)[b"www-authenticate"] == b'Bearer error="invalid_token"'


async def test_a_store_that_takes_nothing_is_no_verdict_on_a_proof(desk, monkeypatch):
    proof = ((b"dpop", desk.proof("/token").encode()),)
    body = orjson.loads((await desk.redeem(await desk.code(), headers=proof)).body)

    async def nothing(_batch):
        return unavailable("keeper.replay", "full")

    monkeypatch.setattr(desk.keeper, "claim", nothing)
    token = body["access_token"]
    good = desk.proof("/userinfo", htm="GET", ath=token_hash(token)).encode()
    response = await ask(desk, token, scheme="DPoP", more=((b"dpop", good),))
    refused(response, "temporarily_unavailable", 503, "keeper.replay")
    assert b"www-authenticate" not in dict(response.headers)


@pytest.mark.parametrize("spelling", ["{}\xa0", "{}\x85", "\xa0{}", "{} {}"])
async def test_a_token_has_one_spelling(desk, spelling):
    token = (await desk.tokens())["access_token"]
    assert (await ask(desk, token)).status == 200
    assert (await ask(desk, spelling.format(token, token))).status == 401


async def test_a_token_without_openid_or_of_a_suspended_consent_opens_nothing(desk):
    body = await desk.tokens()
    narrow = orjson.loads((await desk.refresh(body["refresh_token"], scope="accounts")).body)
    response = await ask(desk, narrow["access_token"])
    refused(response, "insufficient_scope", 403, "userinfo.scope")
    challenge = dict(response.headers)[b"www-authenticate"]
    assert challenge == b'Bearer error="insufficient_scope"'
    await desk.patch(status=Status.SUSPENDED)
    refused(await ask(desk, body["access_token"]), "invalid_token", 401, "userinfo.token")
