"""The consent journey at the authorization server, from PAR to introspection, and what each step leaves behind."""

from datetime import date

import msgspec
import orjson
import pytest
from cryptography.exceptions import InvalidTag

from hub.authz.consents import timestamp
from hub.authz.sealed_claims import unseal
from hub.model.consent import Consent, Status
from hub.model.event import Event, Kind
from hub.model.limits import Allowance, reserve, terms_of
from hub.model.payment_effect import with_shown_consumption
from hub.model.records import AccessToken, Code, Grant, Pushed, RefreshToken, digest_of
from hub.protocol import jose
from hub.protocol.oauth import half_hash
from hub.state.keeper import Put
from tests.authz.desk import ALICE, CONSENT_ID, HUB_KEY, ISSUER, NOW, PIS, callback
from tests.authz.test_matrix import PAYMENT


async def test_par_answers_201_and_stages_the_consent(desk):
    response = await desk.par()
    body = orjson.loads(response.body)
    assert response.status == 201
    assert body == {"request_uri": body["request_uri"], "expires_in": 90}
    assert body["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    consent, version = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert (consent.status, version, consent.client_id) == (Status.AWAITING, 1, ALICE)
    assert consent.body["Data"]["Status"] == "AwaitingAuthorization"
    assert consent.par_id == body["request_uri"]
    assert consent.group_id == CONSENT_ID
    assert "authorization" not in consent.request_headers
    pushed, _ = await desk.keeper.lookup(Pushed, digest_of(body["request_uri"]))
    assert pushed.expires == NOW + 90
    assert "authorization_details" not in pushed.parameters
    assert response.event.consent_id == CONSENT_ID


async def test_the_whole_journey_ends_with_a_token_for_the_consent(desk):
    interaction_id = await desk.interaction(await desk.pushed())
    await desk.patch(status=Status.AUTHORIZED, psu_identifiers={"userId": "customer-7"})
    response = await desk.confirm(interaction_id, {"extra": "1", "heimdall.x": "2", "sub": "z"})
    back = callback(response)
    assert set(back) == {"code", "state", "iss"}
    assert (back["state"], back["iss"]) == ("the state", ISSUER)
    response = await desk.redeem(back["code"])
    body = orjson.loads(response.body)
    assert response.status == 200
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    assert body["scope"] == "openid accounts"
    detail = body["authorization_details"][0]
    assert detail["consent"]["Data"]["ConsentId"] == CONSENT_ID
    assert detail["consent"]["Data"]["Status"] == "Authorized"
    record, _ = await desk.keeper.lookup(AccessToken, digest_of(body["access_token"]))
    assert record.x5t_s256 == f"cert-{ALICE}"
    assert record.consent_id == CONSENT_ID
    parsed = jose.parse(body["id_token"])
    key = jose.load_key(jose.public_jwk(HUB_KEY))
    assert jose.verify(parsed, key, ("PS256",)) is None
    claims = parsed.claims
    assert claims["nonce"] == "the-nonce"
    assert claims["at_hash"] == half_hash(body["access_token"])
    assert (claims["iss"], claims["aud"], claims["extra"]) == (ISSUER, ALICE, "1")
    assert "heimdall.x" not in claims
    assert claims["sub"] not in {"z", "customer-7", ALICE}
    description = await desk.introspect(body["access_token"])
    assert description["active"] is True
    assert description["sub"] == claims["sub"]
    assert description["cnf"] == {"x5t#S256": f"cert-{ALICE}"}
    assert description["authorization_details"] == body["authorization_details"]


async def test_every_request_leaves_exactly_one_event(desk):
    body = await desk.tokens()
    events = await desk.events()
    routes = [event["route"] for event in events if "route" in event]
    assert routes == ["par", "heimdall.auth", "heimdall.doConfirm", "token"]
    assert all(
        secret not in str(events)
        for secret in body.values()
        if isinstance(secret, str) and len(secret) > 20
    )


async def test_the_bank_gets_what_was_pushed_and_by_whom(desk):
    response = await desk.auth(await desk.pushed(login_hint="a.b.c.d.e"), scope="ignored")
    body = orjson.loads(response.body)
    interaction = body["interaction"]
    assert interaction["params"]["login_hint"] == "a.b.c.d.e"
    assert interaction["params"]["scopes"] == ["openid", "accounts"]
    assert interaction["consentIdsList"] == [CONSENT_ID]
    assert interaction["status"] == "AwaitingAuthorization"
    assert body["tpp"]["clientId"] == ALICE
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert consent.interaction_id == interaction["interactionId"]


async def test_refresh_gives_a_new_access_token_and_no_new_refresh_token(desk):
    first = await desk.tokens()
    for _ in range(2):
        response = await desk.refresh(first["refresh_token"])
        body = orjson.loads(response.body)
        assert response.status == 200
        assert "refresh_token" not in body
        assert body["access_token"] != first["access_token"]
        assert body["authorization_details"][0]["type"].endswith("account-access-consent:v2.1")


async def test_client_credentials_give_a_token_without_a_consent(desk):
    response = await desk.token(grant_type="client_credentials", scope="openid accounts")
    body = orjson.loads(response.body)
    assert set(body) == {"access_token", "token_type", "expires_in", "scope"}
    record, _ = await desk.keeper.lookup(AccessToken, digest_of(body["access_token"]))
    assert (record.consent_id, record.expires) == ("", NOW + 600)


async def test_the_refresh_token_lives_as_long_as_the_consent(desk):
    body = await desk.tokens()
    refresh, _ = await desk.keeper.lookup(RefreshToken, digest_of(body["refresh_token"]))
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert refresh.expires == consent.expires
    grant, _ = await desk.keeper.lookup(Grant, refresh.grant_id)
    assert grant.expires == consent.expires
    assert grant.purge_at() > refresh.purge_at()


async def test_revoking_the_refresh_token_ends_the_grant(desk):
    body = await desk.tokens()
    form = desk.signed(token=body["refresh_token"])
    assert (await desk.post("/token/revoke", form)).status == 200
    assert await desk.introspect(body["access_token"]) == {"active": False}
    record, _ = await desk.keeper.lookup(AccessToken, digest_of(body["access_token"]))
    grant, _ = await desk.keeper.lookup(Grant, record.grant_id)
    assert record.revoked == grant.revoked == NOW


async def test_revoking_an_access_token_leaves_the_refresh_token_alone(desk):
    body = await desk.tokens()
    form = desk.signed(token=body["access_token"], token_type_hint="refresh_token")
    assert (await desk.post("/revoke", form)).status == 200
    assert await desk.introspect(body["access_token"]) == {"active": False}
    assert (await desk.refresh(body["refresh_token"])).status == 200


async def test_an_access_token_lives_for_ten_minutes_to_the_second_and_never_longer_than_its_consent(
    desk,
):
    body = await desk.tokens()
    desk.clock.advance(599)
    assert (await desk.introspect(body["access_token"]))["active"] is True
    desk.clock.advance(1)
    assert await desk.introspect(body["access_token"]) == {"active": False}
    end = timestamp(desk.clock.now() + 300)
    last = desk.detail(ConsentId=CONSENT_ID.replace("0b7f", "0b70"), ExpirationDateTime=end)
    code = await desk.code(authorize=False, authorization_details=[last])
    assert orjson.loads((await desk.redeem(code)).body)["expires_in"] == 300


async def test_what_a_bank_says_of_its_customer_can_be_read_with_the_code_only(desk):
    interaction = await desk.interaction(await desk.pushed())
    code = callback(await desk.confirm(interaction, {"name": "A. Customer", "sub": "z"}))["code"]
    held, _ = await desk.keeper.lookup(Code, digest_of(code))
    assert b"Customer" not in msgspec.msgpack.encode(held)
    with pytest.raises(InvalidTag):
        unseal(held.sealed, code + "x")
    body = orjson.loads((await desk.redeem(code)).body)
    claims = jose.parse(body["id_token"]).claims
    assert claims["name"] == "A. Customer"
    assert claims["sub"] != "z"


async def test_a_revoked_grant_alone_ends_every_token_of_it(desk):
    """However many they are: tokens beyond the first thousand are not marked one by one."""
    body = await desk.tokens()
    token, _ = await desk.keeper.lookup(AccessToken, digest_of(body["access_token"]))
    grant, version = await desk.keeper.lookup(Grant, token.grant_id)
    ended = msgspec.structs.replace(grant, revoked=desk.clock.now())
    event = Event(kind=Kind.TOKEN, time_ms=desk.clock.now_ms())
    await desk.keeper.commit([Put(ended, expect=version)], [event])
    assert await desk.introspect(body["access_token"]) == {"active": False}
    assert await desk.introspect(body["refresh_token"]) == {"active": False}


async def test_revoking_an_unknown_token_is_no_error(desk):
    assert (await desk.post("/token/revoke", desk.signed(token="unknown"))).status == 200


@pytest.mark.parametrize("status", [Status.REVOKED, Status.EXPIRED, Status.SUSPENDED])
async def test_a_consent_that_cannot_be_used_makes_its_tokens_inactive(desk, status):
    body = await desk.tokens()
    await desk.patch(status=status)
    assert await desk.introspect(body["access_token"]) == {"active": False}
    assert await desk.introspect(body["refresh_token"]) == {"active": False}


async def test_userinfo_says_who_the_customer_is(desk):
    body = await desk.tokens()
    bearer = (b"authorization", f"bEARER {body['access_token']}".encode())
    request = desk.request("GET", "/userinfo", headers=(bearer,))
    response = await desk.tpp["GET", "/userinfo"](request)
    assert response.status == 200
    claims = jose.parse(body["id_token"]).claims
    assert orjson.loads(response.body) == {"sub": claims["sub"]}


async def test_metadata_agrees_with_the_routes(desk):
    request = desk.request("GET", "/.well-known/openid-configuration")
    response = await desk.tpp["GET", request.path](request)
    document = orjson.loads(response.body)
    assert dict(response.headers)[b"cache-control"] == b"public, max-age=900"
    assert document["issuer"] == ISSUER
    posts = {path for method, path in desk.tpp if method == "POST"}
    for name in ("pushed_authorization_request", "token", "introspection", "revocation"):
        assert document[f"{name}_endpoint"].removeprefix(ISSUER) in posts
    assert document["mtls_endpoint_aliases"]["token_endpoint"] == document["token_endpoint"]
    assert document["authorization_endpoint"] == "https://app.bank.example/open-finance"
    assert document["request_object_signing_alg_values_supported"] == ["PS256"]


async def test_the_key_set_holds_public_members_only(desk):
    response = await desk.tpp["GET", "/jwks"](desk.request("GET", "/jwks"))
    (key,) = orjson.loads(response.body)["keys"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}


async def test_the_signed_request_is_kept_and_verifies_again(desk):
    request_uri = await desk.pushed()
    pushed, _ = await desk.keeper.lookup(Pushed, digest_of(request_uri))
    parsed = jose.parse(pushed.request_object)
    key = desk.trust.key(ALICE, "alice-1", "sig")
    assert jose.verify(parsed, key, ("PS256",)) is None
    assert parsed.claims["authorization_details"][0]["consent"]["ConsentId"] == CONSENT_ID


DAILY = {
    "ConsentSchedule": {
        "MultiPayment": {
            "PeriodicSchedule": {
                "Type": "VariableOnDemand",
                "PeriodType": "Day",
                "PeriodStartDate": "2026-11-18",
                "Controls": {"MaximumCumulativeNumberOfPaymentsPerPeriod": 3},
            }
        }
    }
}


async def test_a_token_tells_of_payments_as_of_today(desk):
    detail = desk.detail(PIS, **(PAYMENT | {"ControlParameters": DAILY}))
    tokens = await desk.tokens(scope="openid payments", authorization_details=[detail])
    today = date(2026, 11, 18)
    taken = reserve(terms_of(DAILY), Allowance(consent_id=CONSENT_ID), "share", 250, "AED", today)
    event = Event(kind=Kind.NODE, time_ms=1)
    await desk.keeper.commit([Put(taken)], [event])
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    await desk.patch(body=with_shown_consumption(consent, taken, today).body)
    for in_period in (True, False):
        body = orjson.loads((await desk.refresh(tokens["refresh_token"])).body)
        described = await desk.introspect(body["access_token"])
        for told in (body, described):
            shown = told["authorization_details"][0]["consent"]["Data"]["PaymentConsumption"]
            assert shown["CumulativeNumberOfPayments"] == 1
            assert ("CumulativeNumberOfPaymentsInCurrentPeriod" in shown) is in_period
        desk.clock.advance(86_400)
