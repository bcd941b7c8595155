"""Rules of the authorization server that no certification module looks at, over the wire."""

import contextlib
import uuid
from datetime import UTC, datetime

import httpx
import pytest
import trio

from hub.sandbox.control import ask
from tests.wire.suite import opened, refused, unauthenticated
from tests.wire.world import moved

pytestmark = pytest.mark.wire
CREDENTIALS = {"grant_type": "client_credentials", "scope": "openid accounts"}
CONSENTS = "/open-finance/account-information/v2.1/account-access-consents/"


@pytest.fixture
async def suite(sandbox):
    async with opened(sandbox) as made:
        yield made


@pytest.fixture
async def general(general_sandbox):
    async with opened(general_sandbox) as made:
        yield made


async def introspect(suite, token, via=None):
    url = suite.metadata["introspection_endpoint"]
    data = {**suite.authentication(suite.first), "token": token}
    answer = await (via or suite.first.http).post(url, data=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_client_secrets_are_refused(suite):
    none = {"client_assertion": None, "client_assertion_type": None}
    given = {"client_id": suite.first.client_id, "client_secret": "secret"}
    unauthenticated(await suite.post_token(suite.first, **CREDENTIALS, **none, client_id="x"))
    refused(await suite.post_token(suite.first, **CREDENTIALS, **none, **given), "invalid_request")
    refused(await suite.post_token(suite.first, **CREDENTIALS, **given), "invalid_request")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_form_over_its_bound_is_not_read(suite, chunked):
    form = b"request=" + b"A" * 81_920

    async def pieces():
        for at in range(0, len(form), 8192):
            yield form[at : at + 8192]

    url = suite.metadata["pushed_authorization_request_endpoint"]
    headers = {"content-type": "application/x-www-form-urlencoded"}
    sent = pieces() if chunked else form
    answer = await suite.first.http.post(url, content=sent, headers=headers)
    assert answer.status_code == 413
    assert (await suite.push(suite.asked())).status_code == 201


async def test_jarm_is_refused_where_it_is_off(suite):
    for mode in ("jwt", "query.jwt", "form_post", "fragment.jwt"):
        refused(await suite.push(suite.asked(response_mode=mode)), "invalid_request")


async def test_every_refusal_names_its_check_and_the_page_explains_it(suite):
    answer = await suite.push(suite.asked(), assertion={"aud": "https://other.example"})
    body = unauthenticated(answer)
    assert body["error_uri"] == f"{suite.issuer}/errors/client_assertion.audience"
    assert suite.issuer in body["error_description"]
    page = await suite.anonymous.get(body["error_uri"])
    assert page.status_code == 200
    assert page.text.startswith("Expect aud to be exactly the issuer")


async def test_introspection_shows_a_token_to_its_owner_only(suite):
    token = (await suite.tokens(await suite.pushed()))["access_token"]
    shown = await introspect(suite, token)
    assert shown["active"] is True
    assert shown["client_id"] == suite.first.client_id
    assert set(shown["cnf"]) == {"x5t#S256"}
    url = suite.metadata["introspection_endpoint"]
    data = {**suite.authentication(suite.second), "token": token}
    assert (await suite.second.http.post(url, data=data)).json() == {"active": False}
    unauthenticated(await suite.first.http.post(url, data={"token": token}))
    unauthenticated(await suite.anonymous.post(url, data={**suite.authentication(suite.first)}))


async def test_revoking_an_access_token_leaves_the_refresh_token_and_the_other_way_round(suite):
    tokens = await suite.tokens(await suite.pushed())
    url = suite.metadata["revocation_endpoint"]

    async def revoke(token, client, **hint):
        data = {**suite.authentication(client), "token": token, **hint}
        return await client.http.post(url, data=data)

    refused(await revoke(tokens["access_token"], suite.second), "invalid_grant")
    assert (await revoke("unknown", suite.first)).status_code == 200
    wrong_hint = {"token_type_hint": "refresh_token"}
    assert (await revoke(tokens["access_token"], suite.first, **wrong_hint)).status_code == 200
    assert await introspect(suite, tokens["access_token"]) == {"active": False}
    fresh = (await suite.refresh(suite.first, tokens["refresh_token"])).json()["access_token"]
    assert (await revoke(tokens["refresh_token"], suite.first)).status_code == 200
    assert await introspect(suite, fresh) == {"active": False}
    refused(await suite.refresh(suite.first, tokens["refresh_token"]), "invalid_grant")


@contextlib.asynccontextmanager
async def crowd_of(suite, count):
    """Open connections, so many that every worker has some."""
    context = suite.tls(suite.manifest.tpps[0])
    async with contextlib.AsyncExitStack() as stack:
        made = [
            httpx.AsyncClient(verify=context, trust_env=False, timeout=20) for _ in range(count)
        ]
        for client in made:
            await stack.enter_async_context(client)
        yield made


async def test_a_revoked_consents_tokens_are_inactive_at_every_worker_at_once(general):
    suite = general
    tokens = await suite.tokens(await suite.pushed())
    consent = tokens["authorization_details"][0]["consent"]["Data"]["ConsentId"]
    own = (await suite.post_token(suite.first, **CREDENTIALS)).json()["access_token"]
    async with crowd_of(suite, 12) as connections:
        found = []

        async def look(via):
            read = await via.get(
                suite.accounts, headers={"authorization": f"Bearer {tokens['access_token']}"}
            )
            shown = await introspect(suite, tokens["access_token"], via)
            found.append((read.status_code, shown["active"]))

        async def look_everywhere():
            found.clear()
            async with trio.open_nursery() as nursery:
                for via in connections:
                    nursery.start_soon(look, via)
            return set(found)

        assert await look_everywhere() == {(200, True)}
        url = suite.manifest.hub.resource_base + CONSENTS + consent
        body = {"Data": {"Status": "Revoked", "RevokedBy": "TPP"}}
        headers = {"authorization": f"Bearer {own}"}
        answer = await suite.first.http.patch(url, json=body, headers=headers)
        assert answer.status_code == 204, answer.text
        assert await look_everywhere() == {(401, False)}
    refused(await suite.refresh(suite.first, tokens["refresh_token"]), "invalid_grant")


async def test_the_bank_is_asked_before_a_consent_is_stored(suite):
    asked = suite.asked()
    [detail] = asked.claims["authorization_details"]
    detail["consent"]["AccountSubType"] = ["Mortgage"]
    body = refused(await suite.push(asked), "invalid_authorization_details")
    assert body["error_uri"].endswith("/errors/bank.validate")
    detail["consent"]["AccountSubType"] = ["CurrentAccount"]
    assert (await suite.push(asked)).status_code == 201


async def test_a_bank_that_cannot_be_asked_stores_nothing(suite):
    asked = suite.asked(jti=str(uuid.uuid4()))
    plan = {"do": "fault", "at": "bank", "plan": {"status": 500}}
    folder = suite.world.folder
    assert (await ask(folder, plan))["ok"]
    try:
        answer = await suite.push(asked)
    finally:
        assert (await ask(folder, {**plan, "plan": None}))["ok"]
    refused(answer, "temporarily_unavailable", status=(503,))
    assert int(answer.headers["retry-after"]) >= 1
    again = await suite.push(asked)
    assert again.status_code == 201, again.text


async def test_a_token_is_never_longer_than_its_consent(suite):
    asked = suite.asked()
    [detail] = asked.claims["authorization_details"]
    until = suite.clock.now() + 300
    detail["consent"]["ExpirationDateTime"] = datetime.fromtimestamp(until, UTC).isoformat()
    answer = await suite.push(asked)
    assert answer.status_code == 201, answer.text
    asked.request_uri = answer.json()["request_uri"]
    tokens = await suite.tokens(asked)
    assert tokens["expires_in"] <= 300
    async with moved(suite.world, 301):
        refused(await suite.refresh(suite.first, tokens["refresh_token"]), "invalid_grant")
        assert await introspect(suite, tokens["access_token"]) == {"active": False}
