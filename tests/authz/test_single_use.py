"""Fifty at once: of what may be used once, exactly one use succeeds."""

import orjson
import trio

from hub.model.consent import Consent
from hub.model.records import Grant
from hub.state.keeper import Query
from tests.authz.desk import CONSENT_ID, REDIRECT, VERIFIER

CROWD = 50
CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


async def all_at_once(*calls):
    """Run the calls together; return their status codes."""
    found = []

    async def one(call):
        found.append(await call())

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    return found


def statuses(responses):
    return sorted(response.status for response in responses)


async def test_one_of_fifty_redeems_a_code_and_the_grant_is_then_revoked(desk):
    code = await desk.code()
    responses = await all_at_once(*[lambda: desk.redeem(code) for _ in range(CROWD)])
    assert statuses(responses) == [200] + [400] * (CROWD - 1)
    (winner,) = [response for response in responses if response.status == 200]
    token = orjson.loads(winner.body)["access_token"]
    assert await desk.introspect(token) == {"active": False}


async def test_one_of_fifty_authenticates_with_an_assertion(desk):
    form = desk.signed(**CREDENTIALS)
    responses = await all_at_once(*[lambda: desk.post("/token", form) for _ in range(CROWD)])
    assert statuses(responses) == [200] + [401] * (CROWD - 1)


async def test_one_of_fifty_uses_a_proof(desk):
    headers = ((b"dpop", desk.proof("/token").encode()),)
    calls = [lambda: desk.token(**CREDENTIALS, headers=headers) for _ in range(CROWD)]
    assert statuses(await all_at_once(*calls)) == [200] + [400] * (CROWD - 1)


async def test_one_of_fifty_has_a_consent_id_however_it_is_spelt(desk):
    names = [CONSENT_ID, CONSENT_ID.upper()] * (CROWD // 2)
    calls = [
        lambda name=name: desk.par(authorization_details=[desk.detail(ConsentId=name)])
        for name in names
    ]
    assert statuses(await all_at_once(*calls)) == [201] + [400] * (CROWD - 1)


async def test_one_of_fifty_finishes_a_request(desk):
    request_uri = await desk.pushed()
    ids = [await desk.interaction(request_uri) for _ in range(CROWD)]
    calls = [lambda name=name: desk.confirm(name) for name in ids]
    assert statuses(await all_at_once(*calls)) == [303] + [400] * (CROWD - 1)


async def test_fifty_open_interactions_at_once_and_the_consent_names_one(desk):
    request_uri = await desk.pushed()
    before = await desk.interaction(request_uri)
    answers = await all_at_once(*[lambda: desk.auth(request_uri)] * CROWD)
    assert statuses(answers) == [200] * CROWD
    names = {orjson.loads(one.body)["interaction"]["interactionId"] for one in answers}
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert len(names) == CROWD
    assert consent.interaction_id in names - {before}
    newest = await desk.interaction(request_uri)
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert consent.interaction_id == newest


async def test_one_of_fifty_opens_a_consent(desk):
    calls = [desk.par for _ in range(CROWD)]
    assert statuses(await all_at_once(*calls)) == [201] + [400] * (CROWD - 1)


async def test_one_of_fifty_pushes_a_request_object(desk):
    details = [[desk.detail(ConsentId=f"{CONSENT_ID[:-2]}{number:02d}")] for number in range(CROWD)]
    calls = [lambda d=detail: desk.par(jti="once", authorization_details=d) for detail in details]
    assert statuses(await all_at_once(*calls)) == [201] + [400] * (CROWD - 1)


async def test_fifty_refreshes_all_succeed(desk):
    token = (await desk.tokens())["refresh_token"]
    calls = [lambda: desk.refresh(token) for _ in range(CROWD)]
    assert statuses(await all_at_once(*calls)) == [200] * CROWD


async def test_a_replay_ends_only_its_own_grant(desk):
    first = await desk.code()
    other = await desk.code(
        authorization_details=[desk.detail(ConsentId=CONSENT_ID[:-1] + "9")], authorize=False
    )
    kept = orjson.loads((await desk.redeem(other)).body)
    form = {"redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    await desk.redeem(first, **form)
    await desk.redeem(first, **form)
    page = [
        found.record.revoked > 0
        for found in (await desk.keeper.search(_grants())).items
        if isinstance(found.record, Grant)
    ]
    assert sorted(page) == [False, True]
    assert (await desk.introspect(kept["access_token"]))["active"]


def _grants():
    return Query(kind="grant")
