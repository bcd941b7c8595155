"""The bank's side: what ``GET /auth``, ``doConfirm`` and ``doFail`` answer, and what each of them ends."""

import msgspec
import orjson
import pytest

from hub.authz.consents import timestamp
from hub.model.caller import Peer
from hub.model.consent import Consent, Status
from hub.model.records import Interaction
from hub.protocol import jose
from hub.trust import decide
from tests.authz.desk import (
    ALICE,
    BANK_APP,
    BANK_ORG,
    BOB,
    CONSENT_ID,
    HUB_KEY,
    ISSUER,
    callback,
    refused,
)


def told(response, error):
    """Check a redirect that carries an error to the TPP."""
    back = callback(response)
    assert (response.status, back["error"]) == (303, error)
    assert (back["state"], back["iss"]) == ("the state", ISSUER)
    assert "code" not in back
    return back.get("error_description", "")


async def test_unknown_and_inactive_clients_get_the_error_page(desk):
    request_uri = await desk.pushed()
    refused(await desk.auth(request_uri, "nobody"), "invalid_client", 400, "authorize.client")
    del desk.trust.callers[ALICE]
    refused(await desk.auth(request_uri), "invalid_client", 400, "authorize.client")
    response = await desk.bank("GET", "/auth", {"request_uri": request_uri})
    refused(response, "invalid_client", 400, "authorize.client")


async def test_a_request_without_par_gets_the_error_page(desk):
    form = {"client_id": ALICE, "response_type": "code", "redirect_uri": "https://evil.example"}
    response = await desk.bank("GET", "/auth", form)
    refused(response, "invalid_request", 400, "authorize.pushed")
    refused(
        await desk.auth("https://evil.example/ro"), "invalid_request_uri", 400, "authorize.pushed"
    )


async def test_another_clients_request_gets_the_error_page(desk):
    response = await desk.auth(await desk.pushed(), BOB)
    refused(response, "invalid_client", 400, "authorize.pushed_client")


async def test_a_repeated_client_id_gets_the_error_page(desk):
    form = [("client_id", ALICE), ("client_id", BOB), ("request_uri", "x")]
    refused(await desk.bank("GET", "/auth", form), "invalid_request", 400, "authorize.readable")


async def test_repeated_unknown_parameters_are_ignored(desk):
    form = [("client_id", ALICE), ("request_uri", await desk.pushed()), ("x", "1"), ("x", "2")]
    assert (await desk.bank("GET", "/auth", form)).status == 200


async def test_outer_parameters_are_never_used(desk):
    request_uri = await desk.pushed()
    await desk.auth(request_uri, state="outer", nonce="outer", redirect_uri="https://evil.example")
    interaction_id = await desk.interaction(request_uri)
    assert callback(await desk.confirm(interaction_id))["state"] == "the state"


async def test_an_expired_request_is_told_to_the_tpp(desk):
    request_uri = await desk.pushed()
    desk.clock.advance(89)
    assert (await desk.auth(request_uri)).status == 200
    desk.clock.advance(1)
    response = await desk.auth(request_uri)
    told(response, "invalid_request_uri")
    assert response.event.check == "authorize.usable"


async def test_a_finished_request_is_told_to_the_tpp(desk):
    request_uri = await desk.pushed()
    await desk.confirm(await desk.interaction(request_uri))
    told(await desk.auth(request_uri), "invalid_request_uri")


async def test_a_consent_that_no_longer_awaits_is_told_to_the_tpp(desk):
    request_uri = await desk.pushed()
    await desk.patch(status=Status.REVOKED)
    response = await desk.auth(request_uri)
    told(response, "access_denied")
    assert response.event.check == "authorize.consent"


async def test_prompt_none_is_told_to_the_tpp(desk):
    response = await desk.auth(await desk.pushed(prompt="none"))
    told(response, "login_required")
    assert response.event.check == "authorize.prompt"


async def test_the_first_decision_of_any_interaction_ends_all(desk):
    request_uri = await desk.pushed()
    first, second = await desk.interaction(request_uri), await desk.interaction(request_uri)
    assert (await desk.confirm(second)).status == 303
    for interaction_id in (first, second):
        refused(await desk.confirm(interaction_id), "invalid_request", 400, "finish.interaction")
        response = await desk.bank("POST", f"/auth/{interaction_id}/doFail")
        refused(response, "invalid_request", 400, "finish.interaction")


async def test_an_unknown_interaction_is_refused(desk):
    refused(await desk.confirm("unknown"), "invalid_request", 400, "finish.interaction")


async def test_an_interaction_lives_for_half_an_hour(desk):
    interaction_id = await desk.interaction(await desk.pushed())
    desk.clock.advance(1800)
    refused(await desk.confirm(interaction_id), "invalid_request", 400, "finish.interaction")


async def test_an_interaction_never_outlives_its_consent(desk):
    end = desk.clock.now() + 600
    detail = desk.detail(ExpirationDateTime=timestamp(end))
    interaction_id = await desk.interaction(await desk.pushed(authorization_details=[detail]))
    found, _ = await desk.keeper.lookup(Interaction, interaction_id)
    assert found.expires == end


async def test_an_interaction_never_outlives_the_time_for_its_authorization(desk):
    end = desk.clock.now() + 300
    detail = desk.detail(AuthorizationExpirationDateTime=timestamp(end))
    interaction_id = await desk.interaction(await desk.pushed(authorization_details=[detail]))
    found, _ = await desk.keeper.lookup(Interaction, interaction_id)
    assert found.expires == end


@pytest.mark.parametrize(
    ("form", "error", "description"),
    [
        ({}, "access_denied", ""),
        (
            {"error": "access_denied", "error_description": "user_rejected_consent"},
            "access_denied",
            "user_rejected_consent",
        ),
        (
            {"error": "server_error", "error_description": "lfi_internal_error"},
            "server_error",
            "lfi_internal_error",
        ),
        ({"error": "temporarily_unavailable"}, "temporarily_unavailable", ""),
        ({"error": "nonsense"}, "invalid_request", ""),
        ({"error": "access_denied", "error_description": 'a"b\nc'}, "access_denied", "a?b?c"),
    ],
)
async def test_do_fail_carries_the_banks_words(desk, form, error, description):
    interaction_id = await desk.interaction(await desk.pushed())
    response = await desk.bank("POST", f"/auth/{interaction_id}/doFail", form)
    assert told(response, error) == description
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    assert consent.status is Status.AWAITING


async def test_without_a_state_none_is_returned(desk):
    response = await desk.confirm(await desk.interaction(await desk.pushed(state=None)))
    assert set(callback(response)) == {"code", "iss"}


async def test_confirming_an_awaiting_consent_gives_a_code_that_opens_nothing_yet(desk):
    body = await desk.tokens(authorize=False)
    assert body["authorization_details"][0]["consent"]["Data"]["Status"] == "AwaitingAuthorization"


async def test_confirming_what_needs_one_approver_and_lacks_it_is_the_banks_mistake(desk):
    interaction_id = await desk.interaction(await desk.pushed())
    consent, _ = await desk.keeper.lookup(Consent, CONSENT_ID)
    data = {**consent.body["Data"], "IsSingleAuthorization": True}
    await desk.patch(body={"Data": data})
    response = await desk.confirm(interaction_id)
    told(response, "server_error")
    assert response.event.check == "finish.consent_unauthorized"
    refused(await desk.confirm(interaction_id), "invalid_request", 400, "finish.interaction")


@pytest.mark.parametrize("status", [Status.REJECTED, Status.REVOKED, Status.EXPIRED])
async def test_confirming_a_consent_that_is_over_is_the_banks_mistake(desk, status):
    interaction_id = await desk.interaction(await desk.pushed())
    await desk.patch(status=status)
    response = await desk.confirm(interaction_id)
    told(response, "access_denied")
    assert response.event.check == "finish.consent_over"


async def test_trouble_of_ours_before_the_client_is_known_is_not_called_the_clients(
    desk, monkeypatch
):
    request_uri = await desk.pushed()
    known = desk.trust.callers.pop(ALICE)
    refused(await desk.auth(request_uri), "invalid_client", 400, "authorize.client")
    monkeypatch.setattr(desk.trust, "explain", lambda _: decide.loading())
    response = await desk.auth(request_uri)
    refused(response, "server_error", 400, "trust.stale")
    assert response.event.verdict == "failed"
    desk.trust.callers[ALICE] = known
    assert (await desk.auth(request_uri)).status == 200


async def test_only_the_bank_is_served(desk):
    request_uri = await desk.pushed()
    form = {"client_id": ALICE, "request_uri": request_uri}
    for app, organisation in (("other-app", BANK_ORG), (BANK_APP, "other-org")):
        stranger = Peer(x5t_s256="s", client_id=app, organisation_id=organisation)
        response = await desk.bank("GET", "/auth", form, who=stranger)
        refused(response, "invalid_client", 401, "heimdall.certificate")


async def test_jarm_carries_the_answer_in_a_signed_response(desk_with):
    desk = desk_with(switches={"jarm": True})
    request_uri = await desk.pushed(response_mode="jwt")
    response = await desk.confirm(await desk.interaction(request_uri))
    back = callback(response)
    assert set(back) == {"response"}
    parsed = jose.parse(back["response"])
    key = jose.load_key(jose.public_jwk(HUB_KEY))
    assert jose.verify(parsed, key, ("PS256",)) is None
    claims = parsed.claims
    assert (claims["iss"], claims["aud"], claims["state"]) == (ISSUER, ALICE, "the state")
    assert claims["exp"] == desk.clock.now() + 600
    assert (await desk.redeem(claims["code"])).status == 200


async def test_a_tenant_may_send_browsers_on_itself(desk_with):
    desk = desk_with(switches={"own_authorization_endpoint": True})
    request = desk.request("GET", "/authorize")
    request = msgspec.structs.replace(request, query="client_id=x&request_uri=urn%3Ay&z")
    response = await desk.tpp["GET", "/authorize"](request)
    location = dict(response.headers)[b"location"]
    assert response.status == 302
    assert location == b"https://app.bank.example/open-finance?client_id=x&request_uri=urn%3Ay&z"
    document = await desk.tpp["GET", "/.well-known/openid-configuration"](request)
    assert orjson.loads(document.body)["authorization_endpoint"] == f"{ISSUER}/authorize"
