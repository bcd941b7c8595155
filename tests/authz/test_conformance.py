"""The certification suite's modules for an authorization server, by their names, at the handlers.

Each does what the module of that name does and accepts what it accepts. Modules that look at TLS or at resources are
the wire tests' business. The prefix ``fapi2-security-profile-final-`` is left out of the names.
"""

import orjson
import pytest

from hub.protocol import jose
from hub.protocol.oauth import ASSERTION_TYPE
from tests.authz.desk import (
    ALICE,
    BOB,
    HUB_KEY,
    ISSUER,
    KEYS,
    callback,
    refused,
)

pytestmark = pytest.mark.usefixtures("desk")
RS256 = jose.b64url(b'{"alg":"RS256","kid":"alice-1"}')


def with_rs256(token):
    """Sign a token anew with RS256 and the registered key."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    signed = f"{RS256}.{token.split('.')[1]}"
    return f"{signed}.{jose.b64url(KEYS[ALICE].key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


async def id_token(desk, **claims):
    body = await desk.tokens(**claims)
    parsed = jose.parse(body["id_token"])
    assert jose.verify(parsed, jose.load_key(jose.public_jwk(HUB_KEY)), ("PS256",)) is None
    return parsed.claims


async def test_discovery_end_point_verification(desk):
    path = "/.well-known/openid-configuration"
    document = orjson.loads((await desk.tpp["GET", path](desk.request("GET", path))).body)
    assert document["issuer"] == ISSUER
    assert "code" in document["response_types_supported"]
    assert document["pushed_authorization_request_endpoint"].startswith(ISSUER)
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["tls_client_certificate_bound_access_tokens"] is True
    assert "authorization_code" in document["grant_types_supported"]
    assert "PS256" in document["request_object_signing_alg_values_supported"]
    assert "private_key_jwt" in document["token_endpoint_auth_methods_supported"]
    for name, value in document.items():
        if name.endswith("signing_alg_values_supported"):
            assert set(value) <= {"PS256", "ES256", "EdDSA"}, name
    assert len(document["authorization_details_types_supported"]) == 3


async def test_happy_flow(desk):
    claims = await id_token(desk, state="s" * 128)
    assert claims["aud"] == ALICE
    detail = [desk.detail(ConsentId="0b7f6d0e-6d0b-4a50-9a53-0c8a3c1f7a02")]
    token = jose.sign(
        dict(reversed(desk.claims(BOB, authorization_details=detail, iat=1).items())),
        KEYS[BOB],
        typ="oauth-authz-req+jwt",
    )
    assert (await desk.par(BOB, form={"request": token})).status == 201


async def test_user_rejects_authentication(desk):
    name = await desk.interaction(await desk.pushed())
    back = callback(await desk.bank("POST", f"/auth/{name}/doFail"))
    assert back == {"error": "access_denied", "state": "the state", "iss": ISSUER}


async def test_ensure_request_object_with_multiple_aud_succeeds(desk_with):
    desk = desk_with(tenant={"profile": "general"})
    assert (await desk.par(aud=["https://other.example", ISSUER])).status == 201


async def test_ensure_authorization_request_without_state_success(desk):
    response = await desk.confirm(await desk.interaction(await desk.pushed(state=None)))
    assert "state" not in callback(response)


async def test_ensure_authorization_request_without_nonce_success(desk):
    assert "nonce" not in await id_token(desk, nonce=None)


@pytest.mark.parametrize("length", [64, 384])
async def test_ensure_authorization_request_with_64_char_nonce_and_long_nonce(desk, length):
    nonce = "n" * length
    assert (await id_token(desk, nonce=nonce))["nonce"] == nonce


async def test_ensure_other_scope_order_succeeds(desk):
    assert (await desk.par(scope="accounts openid")).status == 201


async def test_test_claims_parameter_identity_claims(desk):
    claims = {"userinfo": {"unknown": None}, "id_token": {"name": {"essential": True}}}
    assert "name" not in await id_token(desk, claims=claims)


async def test_ensure_request_object_with_nbf_8_seconds_in_the_future_is_accepted(desk):
    assert (await desk.par(nbf=desk.clock.now() + 8)).status == 201


async def test_ensure_authorization_request_with_long_state(desk):
    state = "s" * 1200
    response = await desk.confirm(await desk.interaction(await desk.pushed(state=state)))
    assert callback(response)["state"] == state


@pytest.mark.parametrize("missing", ["exp", "nbf", "aud"])
async def test_ensure_request_object_without_exp_or_nbf_fails(desk, missing):
    refused(await desk.par(**{missing: None}), "invalid_request_object")


async def test_state_only_outside_request_object_not_used(desk):
    request_uri = await desk.pushed(state=None)
    await desk.auth(request_uri, state="outer")
    back = callback(await desk.confirm(await desk.interaction(request_uri)))
    assert "state" not in back


async def test_ensure_request_object_without_redirect_uri_fails(desk):
    refused(await desk.par(redirect_uri=None), "invalid_request")


@pytest.mark.parametrize(
    "window", [(-10, -300), (0, 70 * 60), (-70 * 60, 60), (0, 15 * 60), (-15 * 60, 60)]
)
async def test_ensure_expired_and_overlong_request_objects_fail(desk, window):
    start, end = (desk.clock.now() + offset for offset in window)
    refused(await desk.par(nbf=start, exp=end), "invalid_request_object")


async def test_ensure_request_object_with_bad_aud_fails(desk):
    refused(await desk.par(aud="https://other.example"), "invalid_request_object")


async def test_ensure_signed_request_object_with_rs256_fails(desk):
    token = with_rs256(jose.sign(desk.claims(), KEYS[ALICE]))
    refused(await desk.par(form={"request": token}), "invalid_request_object")


@pytest.mark.parametrize("alg", ["none", "None", "nOnE"])
@pytest.mark.parametrize("signature", ["", "AA"])
async def test_ensure_request_object_signature_algorithm_is_not_none(desk, alg, signature):
    payload = jose.b64url(orjson.dumps(desk.claims()))
    token = f"{jose.b64url(orjson.dumps({'alg': alg}))}.{payload}.{signature}"
    refused(await desk.par(form={"request": token}), "invalid_request_object")


async def test_ensure_request_object_with_invalid_signature_fails(desk):
    token = jose.sign(desk.claims(), KEYS[ALICE])
    flipped = token[:-20] + ("A" if token[-20] != "A" else "B") + token[-19:]
    refused(await desk.par(form={"request": flipped}), "invalid_request_object")


async def test_ensure_matching_key_in_authorization_request(desk):
    token = jose.sign(desk.claims(), KEYS[BOB])
    refused(await desk.par(form={"request": token}), "invalid_request_object")


async def test_ensure_unsigned_request_at_par_endpoint_fails(desk):
    form = desk.signed(response_type="code", scope="openid accounts", client_id=ALICE)
    refused(await desk.post("/par", form), "invalid_request")


async def test_ensure_registered_redirect_uri(desk):
    refused(await desk.par(redirect_uri="https://tpp.example/other"), "invalid_request")


@pytest.mark.parametrize("kind", ["code id_token", "token", "id_token"])
async def test_ensure_response_type_code_idtoken_and_token_fail(desk, kind):
    refused(await desk.par(response_type=kind), "unsupported_response_type")


async def test_ensure_client_id_in_token_endpoint(desk):
    response = await desk.redeem(await desk.code(), client_id=BOB)
    refused(response, "invalid_client", 401)


async def test_ensure_holder_of_key_required(desk):
    from hub.model.caller import NOBODY

    code = await desk.code()
    refused(await desk.redeem(code, who=NOBODY), "invalid_client", 401)
    refused(await desk.redeem(code, who=BOB), "invalid_client", 401)


async def test_ensure_authorization_code_is_bound_to_client(desk):
    refused(await desk.redeem(await desk.code(), BOB), "invalid_grant")


async def test_attempt_reuse_authorization_code_after_one_second(desk):
    code = await desk.code()
    token = orjson.loads((await desk.redeem(code)).body)["access_token"]
    desk.clock.advance(1)
    refused(await desk.redeem(code), "invalid_grant", check="code.unused")
    assert await desk.introspect(token) == {"active": False}


async def test_ensure_token_endpoint_fails_with_expired_auth_code(desk):
    code = await desk.code()
    desk.clock.advance(60)
    refused(await desk.redeem(code), "invalid_grant", check="code.fresh")


async def test_a_code_of_59_seconds_is_still_good(desk):
    code = await desk.code()
    desk.clock.advance(59)
    assert (await desk.redeem(code)).status == 200


async def test_ensure_signed_client_assertion_with_rs256_fails(desk):
    form = {"client_assertion": with_rs256(desk.assertion())}
    refused(await desk.par(form=form), "invalid_client", 401)


async def test_ensure_client_assertion_in_token_endpoint(desk):
    form = {"client_id": ALICE, "grant_type": "client_credentials", "scope": "accounts"}
    refused(await desk.post("/token", form), "invalid_client", 401)


CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}


async def authenticate(desk, **claims):
    return await desk.token(**CREDENTIALS, client_assertion=desk.assertion(**claims))


async def test_ensure_client_assertion_with_exp_is_5_minutes_in_past_fails(desk):
    now = desk.clock.now()
    response = await authenticate(desk, iat=now - 360, exp=now - 300)
    refused(response, "invalid_client", 401)


async def test_ensure_client_assertion_with_wrong_aud_fails(desk):
    refused(await authenticate(desk, aud="https://other.example"), "invalid_client", 401)


async def test_ensure_client_assertion_with_no_sub_fails(desk):
    refused(await authenticate(desk, sub=None), "invalid_client", 401)


async def test_refresh_token(desk):
    token = (await desk.tokens())["refresh_token"]
    assert (await desk.refresh(token)).status == 200
    desk.clock.advance(30)
    assert (await desk.refresh(token)).status == 200
    refused(await desk.refresh(token, client_assertion=None), "invalid_client", 401)
    refused(await desk.refresh(token, who=BOB), "invalid_client", 401)
    refused(await desk.refresh(token, BOB), "invalid_grant")


async def test_par_ensure_reused_request_uri_prior_to_auth_completion_succeeds(desk):
    request_uri = await desk.pushed()
    assert (await desk.auth(request_uri)).status == 200
    assert (await desk.auth(request_uri)).status == 200


async def test_par_attempt_reuse_request_uri(desk):
    request_uri = await desk.pushed()
    await desk.confirm(await desk.interaction(request_uri))
    assert callback(await desk.auth(request_uri))["error"] == "invalid_request_uri"


async def test_par_attempt_to_use_expired_request_uri(desk):
    request_uri = await desk.pushed()
    desk.clock.advance(91)
    assert callback(await desk.auth(request_uri))["error"] == "invalid_request_uri"


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_par_ensure_jwt_client_assertions_nbf_8_seconds_in_the_future_is_accepted(desk, name):
    moment = desk.clock.now() + 8
    form = {"client_assertion": desk.assertion(**{name: moment})}
    assert (await desk.par(form=form)).status == 201


async def test_par_ensure_jwt_client_assertions_nbf_over_60_seconds_in_the_future_fails(desk):
    now = desk.clock.now() + 62
    form = {"client_assertion": desk.assertion(iat=now, nbf=now, exp=now + 60)}
    refused(await desk.par(form=form), "invalid_client", 401)


async def test_par_attempt_to_use_request_uri_for_different_client(desk):
    refused(await desk.auth(await desk.pushed(), BOB), "invalid_client")


async def test_par_authorization_request_containing_request_uri_form_param(desk):
    refused(await desk.par(form={"request_uri": "urn:x"}), "invalid_request")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_par_attempt_invalid_http_method(desk, method):
    assert (method, "/par") not in desk.tpp


async def test_par_ensure_pkce_required_and_plain_rejected(desk):
    refused(await desk.par(code_challenge=None, code_challenge_method=None), "invalid_request")
    refused(await desk.par(code_challenge_method="plain"), "invalid_request")


async def test_ensure_pkce_code_verifier_required_and_right(desk):
    code = await desk.code()
    refused(await desk.redeem(code, code_verifier=None), "invalid_grant")
    refused(await desk.redeem(code, code_verifier="wrong" * 10), "invalid_grant")


async def test_par_authorization_request_containing_request_uri(desk):
    refused(await desk.par(request_uri="urn:x"), "invalid_request_object")


async def test_par_without_duplicate_parameters(desk):
    assert (await desk.auth(await desk.pushed())).status == 200


@pytest.mark.parametrize(
    "audience",
    [[ISSUER], [ISSUER, "https://other.example"], ISSUER + "/par", ISSUER + "/token", ISSUER + "/"],
)
async def test_par_test_array_or_endpoint_url_as_audience_fails(desk, audience):
    form = {"client_assertion": desk.assertion(aud=audience)}
    refused(await desk.par(form=form), "invalid_client", 401)


# Not covered by any module, and tested all the same


async def test_the_same_assertion_at_par_and_token_works_once(desk):
    form = {"client_assertion": desk.assertion()}
    assert (await desk.par(form=form)).status == 201
    response = await desk.token(**CREDENTIALS, **form)
    refused(response, "invalid_client", 401, "client_assertion.replay")


async def test_a_jti_is_remembered_for_as_long_as_its_assertion_could_live(desk):
    form = {"client_assertion": desk.assertion(exp=desk.clock.now() + 60)}
    assert (await desk.token(**CREDENTIALS, **form)).status == 200
    desk.clock.advance(59)
    refused(await desk.token(**CREDENTIALS, **form), "invalid_client", 401)


async def test_two_clients_may_choose_the_same_jti(desk):
    assert (await authenticate(desk, jti="same")).status == 200
    form = {"client_assertion": desk.assertion(BOB, jti="same")}
    assert (await desk.token(BOB, **CREDENTIALS, **form)).status == 200


async def test_an_assertion_over_five_minutes_is_refused(desk):
    now = desk.clock.now()
    assert (await authenticate(desk, exp=now + 300.5)).status == 401
    assert (await authenticate(desk, exp=now + 300)).status == 200
    assert (await authenticate(desk, iat=None, exp=now + 3600)).status == 401


async def test_another_clients_certificate_is_refused(desk):
    refused(await desk.token(**CREDENTIALS, who=BOB), "invalid_client", 401)


async def test_a_request_object_is_no_client_assertion(desk):
    now = desk.clock.now()
    claims = desk.claims(sub=ALICE, iat=now, jti="x")
    form = {"client_assertion": jose.sign(claims, KEYS[ALICE])}
    response = await desk.token(**CREDENTIALS, **form)
    refused(response, "invalid_client", 401, "client_assertion.purpose")


async def test_a_client_assertion_is_no_request_object(desk):
    refused(await desk.par(form={"request": desk.assertion()}), "invalid_request_object")


async def test_sub_inside_a_request_object_is_ignored(desk):
    assert (await desk.par(sub=ALICE)).status == 201


async def test_fractional_moments_are_accepted(desk):
    now = desk.clock.now()
    assert (await desk.par(nbf=now + 0.25, exp=now + 299.75)).status == 201


async def test_a_basic_header_beside_a_good_assertion_is_ignored(desk):
    basic = ((b"authorization", b"Basic eDp5"),)
    accepted = await desk.par(headers=basic)
    assert (accepted.status, accepted.event.check) == (201, "client.header_ignored")
    unmarked = await desk.token(grant_type="client_credentials", scope="accounts")
    assert (unmarked.status, unmarked.event.check) == (200, "")
    response = await desk.par(headers=basic, form={"client_assertion": "x"})
    refused(response, "invalid_client", 401)
    assert b"www-authenticate" in dict(response.headers)


async def test_a_wrong_assertion_type_is_refused_and_the_right_one_may_be_percent_encoded(desk):
    form = {"client_assertion_type": ASSERTION_TYPE + "x"}
    refused(await desk.par(form=form), "invalid_client", 401)
    body = (
        b"&".join(f"{name}={value}".encode() for name, value in desk.signed(**CREDENTIALS).items())
        .replace(b":", b"%3A")
        .replace(b"scope=accounts", b"scope=accounts&")
    )
    headers = ((b"content-type", b"application/x-www-form-urlencoded; charset=utf-8"),)
    assert (await desk.post("/token", {}, body=body, headers=headers)).status == 200


@pytest.mark.parametrize("kind", [b"application/json", b"multipart/form-data; boundary=x", b""])
async def test_only_forms_are_read(desk, kind):
    headers = ((b"content-type", kind),)
    refused(await desk.post("/par", {}, body=b"{}", headers=headers), "invalid_request")


async def test_an_unknown_key_is_worth_one_refresh(desk):
    desk.trust.unpublished = {"new": KEYS[BOB]}
    key = jose.PrivateKey(kid="new", key=KEYS[BOB].key)
    form = {"client_assertion": desk.assertion(key=key)}
    assert (await desk.token(**CREDENTIALS, **form)).status == 200
    assert desk.trust.refreshed == 1
    form = {"client_assertion": desk.assertion(header={"kid": "never"})}
    refused(await desk.token(**CREDENTIALS, **form), "invalid_client", 401)
    assert desk.trust.refreshed == 2


async def test_a_foreign_algorithm_causes_no_refresh(desk):
    form = {"client_assertion": with_rs256(desk.assertion())}
    await desk.par(form=form)
    assert desk.trust.refreshed == 0


async def test_the_interaction_id_is_echoed_if_it_is_a_uuid(desk):
    given = b"0b7f6d0e-6d0b-4a50-9a53-0c8a3c1f7a01"
    response = await desk.par(headers=((b"x-fapi-interaction-id", given),))
    assert dict(response.headers)[b"x-fapi-interaction-id"] == given
    for bad in (b"x\r\ny", b"a" * 10_000, b"${jndi:x}"):
        response = await desk.par(headers=((b"x-fapi-interaction-id", bad),))
        made = dict(response.headers)[b"x-fapi-interaction-id"]
        assert made != bad
        assert len(made) == 36


async def test_a_store_that_cannot_write_is_told_as_503(desk):
    from hub.model.fault import hub_fault

    desk.keeper.refusal = hub_fault(503, "", "full", check="keeper.full")
    response = await desk.token(**CREDENTIALS)
    assert response.status == 503
    assert orjson.loads(response.body)["error"] == "temporarily_unavailable"
    assert b"retry-after" in dict(response.headers)


async def test_a_bank_that_refuses_the_consent_is_heard_before_anything_is_stored(desk_with):
    from hub.model.consent import Consent
    from hub.model.fault import bank_fault

    async def validate(_consent):
        return bank_fault(400, "invalid_authorization_details", "not here", check="bank.validate")

    desk = desk_with(validate=validate)
    refused(await desk.par(), "invalid_authorization_details", 400, "bank.validate")
    assert await desk.keeper.lookup(Consent, desk.consent()["ConsentId"]) is None


async def test_a_consent_has_changed_when_the_bank_had_answered(desk_with):
    from hub.model.consent import Consent

    async def slowly(_consent):
        desk.clock.advance(3)

    desk = desk_with(validate=slowly)
    began = desk.clock.now_ms()
    assert (await desk.par()).status == 201
    stored, _ = await desk.keeper.lookup(Consent, desk.consent()["ConsentId"])
    assert (stored.created_ms, stored.updated_ms) == (began, began + 3000)


async def test_what_the_bank_adds_to_a_consent_is_stored_with_it(desk_with):
    from hub.model.consent import Consent
    from hub.model.consent_change import with_data

    async def augment(consent):
        return with_data(consent, ExchangeRate={"UnitCurrency": "USD"})

    desk = desk_with(validate=augment)
    assert (await desk.par()).status == 201
    stored, _ = await desk.keeper.lookup(Consent, desk.consent()["ConsentId"])
    assert stored.body["Data"]["ExchangeRate"] == {"UnitCurrency": "USD"}
