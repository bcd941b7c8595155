"""What must be refused, over the wire: each with the standard's error."""

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Callback, Pushed, Refused, Tokens, read_callback
from tests.wire.world import browser, code_of, decide, log_in, moved

pytestmark = pytest.mark.wire


async def test_a_wrong_password_never_reaches_the_consent_page(sandbox, tpp):
    pushed = await tpp.push()
    person = sandbox.manifest.customers[1]
    async with browser(sandbox) as at:
        url = tpp.authorization_url(pushed.request_uri)
        page = await log_in(at, url, person, "wrong-password")
    assert page.form_with("account", "decision") is None
    assert page.form_with("username", "password") is not None
    assert person.accounts[0] not in page.text


async def test_a_declined_consent_comes_back_as_access_denied_and_is_rejected(tpp):
    pushed = await tpp.push()
    came = await tpp.callback(pushed, decision="decline")
    assert isinstance(came, Refused)
    assert came.code == "access_denied"


async def test_an_expired_request_uri_is_refused(sandbox, tpp):
    pushed = await tpp.push()
    async with tpp.page() as callbacks, browser(sandbox) as at:
        async with moved(sandbox, pushed.expires_in + 5):
            await at.visit(tpp.authorization_url(pushed.request_uri))
        query = callbacks.receive_nowait()
    assert "error=invalid_request_uri" in query


async def test_a_request_uri_of_another_client_is_refused_without_a_redirect(
    sandbox, tpp, other_tpp
):
    pushed = await tpp.push()
    async with browser(sandbox) as at:
        page = await at.visit(other_tpp.authorization_url(pushed.request_uri))
    assert page.form_with("username") is None
    assert page.url.startswith(sandbox.manifest.bank.authorization_endpoint)


async def test_a_token_is_worth_nothing_with_another_tpps_certificate(tpp, other_tpp):
    tokens = await tpp.consented()
    assert (await tpp.get("/accounts", tokens.access_token)).status == 200
    stolen = await other_tpp.get("/accounts", tokens.access_token)
    assert stolen.status == 401
    assert stolen.body == b""
    assert stolen.headers["x-fapi-interaction-id"]


async def test_an_account_outside_the_consent_is_refused(sandbox, tpp):
    person = max(sandbox.manifest.customers, key=lambda c: len(c.accounts))
    inside, outside = person.accounts[0], person.accounts[1]
    tokens = await tpp.consented(customer=person, accounts=(inside,))
    listed = (await tpp.get("/accounts", tokens.access_token)).json()
    assert [a["AccountId"] for a in listed["Data"]["Account"]] == [inside]
    refused = await tpp.get(f"/accounts/{outside}/balances", tokens.access_token)
    assert refused.status == 403
    assert code_of(refused) == "Consent.PermanentAccountAccessFailure"
    unknown = await tpp.get("/accounts/no-such-account/balances", tokens.access_token)
    assert (unknown.status, code_of(unknown)) == (403, code_of(refused))


async def test_an_access_token_dies_after_ten_minutes(sandbox, tpp):
    tokens = await tpp.consented()
    async with moved(sandbox, tokens.expires_in + 1):
        assert (await tpp.get("/accounts", tokens.access_token)).status == 401
    assert (await tpp.get("/accounts", tokens.access_token)).status == 200


async def test_a_code_cannot_be_redeemed_twice(tpp):
    pushed = await tpp.push()
    came = await tpp.callback(pushed)
    assert isinstance(came, Callback)
    first = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(first, Tokens)
    again = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(again, Refused)
    assert again.code == "invalid_grant"
    assert (await tpp.get("/accounts", first.access_token)).status == 401


async def test_a_code_needs_its_verifier(tpp):
    pushed = await tpp.push()
    came = await tpp.callback(pushed)
    assert isinstance(came, Callback)
    other = await tpp.push()
    refused = await tpp.tpp.redeem(tpp.discovery, came.code, other)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_grant"


async def test_a_permission_that_was_not_given_is_refused(tpp):
    pushed = await tpp.push(permissions=("ReadAccountsBasic",))
    came = await tpp.callback(pushed)
    assert isinstance(came, Callback)
    tokens = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(tokens, Tokens)
    accounts = (await tpp.get("/accounts", tokens.access_token)).json()["Data"]["Account"]
    refused = await tpp.get(f"/accounts/{accounts[0]['AccountId']}/balances", tokens.access_token)
    assert (refused.status, code_of(refused)) == (403, "AccessToken.InvalidScope")


async def test_a_tpp_without_a_certificate_gets_nothing(sandbox):
    manifest = sandbox.manifest
    context = client_context(sandbox.folder / manifest.ca_bundle)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        assert (await client.get(manifest.hub.discovery)).status_code == 200
        for url in (manifest.hub.par, manifest.hub.token):
            with pytest.raises(httpx.HTTPError):
                (await client.post(url)).raise_for_status()
        url = f"{manifest.hub.resource_base}/open-finance/account-information/v2.1/accounts"
        with pytest.raises(httpx.HTTPError):
            (await client.get(url, headers={"authorization": "Bearer x"})).raise_for_status()


async def test_a_tpps_certificate_is_refused_by_the_bank(sandbox, tpp):
    base = sandbox.manifest.bank.ozone_connect_base
    async with httpx.AsyncClient(verify=tpp.identity.tls(), trust_env=False) as client:
        for path in ("/accounts", "/hello-mtls", "/echo-cert"):
            answer = await client.get(base + path, headers={"authorization": "Bearer a.b.c"})
            assert answer.status_code == 401


async def test_the_hubs_certificate_without_the_agreed_bearer_is_refused_by_the_bank(sandbox):
    folder, manifest = sandbox.folder, sandbox.manifest
    context = client_context(
        folder / manifest.ca_bundle, folder / "keys/hub/c4.pem", folder / "keys/hub/c4.key"
    )
    url = f"{manifest.bank.ozone_connect_base}/accounts"
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        assert (await client.get(url)).status_code == 401
        forged = await client.get(url, headers={"authorization": f"Bearer {_forged(sandbox)}"})
        assert forged.status_code == 401
        echoed = await client.get(f"{manifest.bank.ozone_connect_base}/echo-cert")
        assert echoed.status_code == 200


def _forged(sandbox) -> str:
    """Sign a bearer as a TPP might: right claims, a key that is not the Hub's."""
    section = sandbox.manifest.tpps[0]
    key = RSAKey.import_key((sandbox.folder / section.signing_key).read_bytes())
    header = {"alg": "PS256", "kid": section.signing_kid}
    claims = {"iss": "API Hub Operator LLC", "aud": "modelbank", "iat": 0, "exp": 4_000_000_000}
    return jwt.encode(header, claims, key, algorithms=["PS256"])


async def test_the_bank_face_of_the_hub_refuses_a_tpp(sandbox, tpp):
    base = sandbox.manifest.hub.consent_manager_base
    async with httpx.AsyncClient(verify=tpp.identity.tls(), trust_env=False) as client:
        answer = await client.get(f"{base}/consents")
        assert answer.status_code in {401, 403}


async def test_a_pushed_request_with_another_tpps_signature_is_refused(tpp, other_tpp):
    """The first TPP's connection carries the second one's request: neither may gain by it."""
    detail = {"type": "urn:openfinanceuae:account-access-consent:v2.1", "consent": {}}
    mixed = type(tpp.tpp)(other_tpp.identity, tpp.tpp.wire)
    refused = await mixed.push(tpp.discovery, detail, "accounts openid")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (401, "invalid_client")


async def test_a_consent_longer_than_a_year_is_refused_at_the_push(tpp):
    detail = {
        "type": "urn:openfinanceuae:account-access-consent:v2.1",
        "consent": {
            "ConsentId": tpp.identity.dice.uuid(),
            "ExpirationDateTime": "2099-01-01T00:00:00Z",
            "Permissions": ["ReadAccountsBasic"],
            "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        },
    }
    refused = await tpp.tpp.push(tpp.discovery, detail, "accounts openid")
    assert not isinstance(refused, Pushed)
    assert (refused.status, refused.code) == (400, "invalid_authorization_details")


async def test_the_sandbox_still_answers_after_all_that(sandbox, tpp):
    async with httpx.AsyncClient(trust_env=False) as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(sandbox.manifest.hub.ops_base + path)).status_code == 200
    async with browser(sandbox) as at:
        pushed = await tpp.push()
        person = sandbox.manifest.customers[0]
        page = await log_in(at, tpp.authorization_url(pushed.request_uri), person)
        assert page.form_with("account", "decision") is not None
        async with tpp.page():
            await decide(at, page, "decline", None)


async def test_three_wrong_passwords_end_the_request_with_access_denied(sandbox, tpp):
    pushed = await tpp.push()
    person = sandbox.manifest.customers[2]
    async with tpp.page() as callbacks, browser(sandbox) as at:
        page = await log_in(at, tpp.authorization_url(pushed.request_uri), person, "wrong-1")
        for wrong in ("wrong-2", "wrong-3"):
            form = page.form_with("username", "password")
            assert form is not None
            page = await at.submit(form, {"username": person.username, "password": wrong})
        query = callbacks.receive_nowait()
    came = read_callback(query, pushed, tpp.discovery)
    assert isinstance(came, Refused)
    assert came.code == "access_denied"


async def test_a_finished_request_uri_cannot_be_used_again(sandbox, tpp):
    pushed = await tpp.push()
    assert isinstance(await tpp.callback(pushed), Callback)
    async with tpp.page() as callbacks, browser(sandbox) as at:
        await at.visit(tpp.authorization_url(pushed.request_uri))
        query = callbacks.receive_nowait()
    assert "error=invalid_request_uri" in query


async def test_an_expired_consent_opens_nothing_and_kills_its_tokens(sandbox, tpp):
    pushed = await tpp.push(lifetime=300)
    came = await tpp.callback(pushed)
    assert isinstance(came, Callback)
    tokens = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(tokens, Tokens)
    async with moved(sandbox, 301):
        refused = await tpp.get("/accounts", tokens.access_token)
        assert refused.status in {400, 401}
        again = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
    assert isinstance(again, Refused)
    assert again.code == "invalid_grant"


async def test_a_day_later_the_consent_still_works_without_the_customer(sandbox, tpp):
    tokens = await tpp.consented()
    async with moved(sandbox, 80_000):
        again = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
        assert isinstance(again, Tokens), again
        assert (await tpp.get("/accounts", again.access_token)).status == 200
