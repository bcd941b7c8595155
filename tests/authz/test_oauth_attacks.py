"""The catalogue's attacks on OAuth and FAPI (reliability, group F), each with the event that it leaves."""

import time

import orjson
import pytest
import trio

from bench.evidence import append
from hub.model.caller import Peer
from hub.model.consent import Status
from tests.authz.desk import (
    ALICE,
    BOB,
    CONSENT_ID,
    ISSUER,
    REDIRECT,
    callback,
    peer,
    refused,
)

REDIRECTS = [
    "https://tpp.example/cb",
    "https://tpp.example/cb/../cb?dummy1=lorem",
    "https://tpp.example/cb?dummy1=lorem&more=1",
    "https://tpp.example/cb?dummy1=lorem#fragment",
    "https://tpp.example/cb?dummy1=lorem/",
    "https://tpp.example//cb?dummy1=lorem",
    "https://tpp.example/CB?dummy1=lorem",
    "https://TPP.example/cb?dummy1=lorem",
    "https://tpp.example:443/cb?dummy1=lorem",
    "https://tpp.example:8443/cb?dummy1=lorem",
    "https://user@tpp.example/cb?dummy1=lorem",
    "https://tpp.example.evil.example/cb?dummy1=lorem",
    "https://tpp.example%2ecb?dummy1=lorem",
    "https://tpp.example/%63b?dummy1=lorem",
    "https://tpp.example/cb?dummy1=lor%65m",
    "https://xn--tpp-9na.example/cb?dummy1=lorem",
    "https://tpp\u3002example/cb?dummy1=lorem",
    "http://tpp.example/cb?dummy1=lorem",
    "//tpp.example/cb?dummy1=lorem",
    "tpp.example/cb?dummy1=lorem",
    " https://tpp.example/cb?dummy1=lorem",
    "https://tpp.example/cb?dummy1=lorem\n",
    "javascript:alert(1)",
    "",
]


async def left(desk, check):
    """Expect that the last event names the check that decided."""
    event = (await desk.events())[-1]
    assert (event["check"], event["verdict"]) == (check, "refused")
    return event


@pytest.mark.parametrize("uri", REDIRECTS)
async def test_f4_a_redirect_uri_must_be_the_registered_string(desk, uri):
    refused(await desk.par(redirect_uri=uri), "invalid_request", 400, "request.redirect_uri")
    await left(desk, "request.redirect_uri")


async def test_f1_every_answer_of_the_authorization_names_its_issuer(desk):
    request_uri = await desk.pushed()
    name = await desk.interaction(request_uri)
    assert callback(await desk.confirm(name))["iss"] == ISSUER
    assert callback(await desk.auth(request_uri))["iss"] == ISSUER
    await left(desk, "authorize.usable")


async def test_f2_an_injected_code_is_worth_nothing(desk):
    code = await desk.code()
    for changes in ({"code_verifier": "w" * 50}, {"redirect_uri": REDIRECT + "x"}):
        refused(await desk.redeem(code, **changes), "invalid_grant")
    refused(await desk.redeem(code, BOB), "invalid_grant", 400, "code.known")
    event = await left(desk, "code.known")
    assert event["client_id"] == BOB
    assert "consent_id" not in event, "a stranger's try says nothing of whose code it was"
    assert (await desk.redeem(code)).status == 200


async def test_f3_a_reference_that_is_none_of_ours_is_never_fetched(desk):
    for uri in (
        "https://evil.example/request",
        "urn:ietf:params:oauth:request_uri:guessed",
        "x" * 5000,
    ):
        response = await desk.auth(uri)
        assert response.status == 400
        await left(desk, "authorize.pushed")


@pytest.mark.parametrize("name", [b"x-client-cert", b"x-forwarded-client-cert", b"ssl-client-cert"])
async def test_f6_a_certificate_in_a_header_is_no_certificate(desk, name):
    code = await desk.code()
    headers = ((name, b"-----BEGIN CERTIFICATE-----"),)
    refused(await desk.redeem(code, headers=headers, who=BOB), "invalid_client", 401)
    assert (await desk.redeem(code, headers=headers)).status == 200


async def test_f6_a_token_is_bound_to_the_very_certificate(desk):
    token = (await desk.tokens())["access_token"]

    async def userinfo(who):
        headers = ((b"authorization", f"Bearer {token}".encode()),)
        request = desk.request("GET", "/userinfo", headers=headers, who=who)
        return (await desk.tpp["GET", "/userinfo"](request)).status

    assert await userinfo(ALICE) == 200
    assert await userinfo(peer(ALICE, "renewed")) == 401
    await left(desk, "userinfo.token")
    assert await userinfo(BOB) == 401


async def test_f7_a_stolen_refresh_token_is_worth_nothing(desk):
    token = (await desk.tokens())["refresh_token"]
    refused(await desk.refresh(token, BOB), "invalid_grant", 400, "refresh.known")
    await left(desk, "refresh.known")
    refused(await desk.refresh(token, who=BOB), "invalid_client", 401)
    assert (await desk.refresh(token)).status == 200


@pytest.mark.parametrize("status", [Status.REVOKED, Status.EXPIRED, Status.REJECTED])
async def test_f8_a_consent_that_ended_between_two_requests_ends_both_kinds_of_token(desk, status):
    tokens = await desk.tokens()
    await desk.patch(status=status)
    assert await desk.introspect(tokens["access_token"]) == {"active": False}
    refused(await desk.refresh(tokens["refresh_token"]), "invalid_grant")


async def test_f9_of_confirm_and_fail_at_once_one_wins(desk):
    request_uri = await desk.pushed()
    names = [await desk.interaction(request_uri) for _ in range(50)]
    locations, refusals = [], 0

    async def one(at, name):
        nonlocal refusals
        ending = "doConfirm" if at % 2 else "doFail"
        response = await desk.bank("POST", f"/auth/{name}/{ending}")
        if response.status == 303:
            locations.append(callback(response))
        else:
            refusals += 1

    async with trio.open_nursery() as nursery:
        for at, name in enumerate(names):
            nursery.start_soon(one, at, name)
    assert (len(locations), refusals) == (1, 49)
    assert ("code" in locations[0]) != ("error" in locations[0])


async def test_f9_another_bank_decides_nothing(desk):
    name = await desk.interaction(await desk.pushed())
    stranger = Peer(x5t_s256="s", client_id="other-app", organisation_id="other-bank")
    for ending in ("doConfirm", "doFail"):
        response = await desk.bank("POST", f"/auth/{name}/{ending}", who=stranger)
        assert response.status in {400, 401, 403}
        await left(desk, "heimdall.certificate")
    assert (await desk.confirm(name)).status == 303


async def spent(desk, token, times):
    """Return the mean CPU microseconds of introspecting a token by another client."""
    forms = [desk.signed(BOB, token=token) for _ in range(times)]
    began = time.process_time()
    for form in forms:
        response = await desk.post("/introspection", form, who=BOB)
        assert response.body == b'{"active":false}'
    return (time.process_time() - began) / times * 1e6


@pytest.mark.nightly
async def test_f10_foreign_and_unknown_tokens_take_the_same_time(desk_with):
    """In turns of a hundred, so that a machine that grows slower does so for both."""
    desk = desk_with(limits={"client_requests_per_s": 1e6, "client_requests": 1_000_000})
    foreign = (await desk.tokens())["access_token"]
    sums = [0.0, 0.0]
    for _ in range(100):
        for at, token in enumerate((foreign, "unknown-token-of-the-same-length-as-the-other"[:43])):
            sums[at] += await spent(desk, token, 100)
    difference = abs(sums[0] - sums[1]) / max(sums)
    append("introspection_timing", {"requests": 20_000}, [], {"difference": round(difference, 4)})
    assert difference <= 0.05


async def test_f10_the_answers_about_foreign_and_unknown_tokens_are_the_same(desk):
    foreign = (await desk.tokens())["access_token"]
    answers = [
        await desk.post("/introspection", desk.signed(BOB, token=t), who=BOB)
        for t in (foreign, "x")
    ]
    bodies = {answer.body for answer in answers}
    names = {tuple(name for name, _ in answer.headers) for answer in answers}
    assert (bodies, len(names)) == ({b'{"active":false}'}, 1)
    assert orjson.loads(answers[0].body) == {"active": False}
    assert CONSENT_ID not in str(answers[0].event)
