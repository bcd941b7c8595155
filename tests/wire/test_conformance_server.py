"""The certification suite's modules for the UAE's profile, by their names, over the wire.

Each does what the module of that name does and accepts what it accepts. All run twice: as certified for CBUAE (mTLS, plain
answers), and against the general tenant with DPoP and JARM on top.
"""

import json
import ssl
import warnings

import httpx
import pytest

from tests.wire.suite import Asked, b64url, opened, refused, unauthenticated
from tests.wire.world import moved

pytestmark = pytest.mark.wire
OTHER_SERVER = "https://other.example"


@pytest.fixture(params=["cbuae", "general-dpop-jarm"])
async def suite(request):
    if request.param == "cbuae":
        async with opened(request.getfixturevalue("sandbox")) as made:
            yield made
    else:
        world = request.getfixturevalue("general_sandbox")
        async with opened(world, dpop=True, jarm=True) as made:
            yield made


def is_error(outcome, *errors):
    """Expect an error page, or a redirect with one of the errors."""
    if outcome.callback is None:
        assert outcome.status >= 400, outcome.text
        assert 'name="username"' not in outcome.text
        return
    assert "code" not in outcome.callback
    assert outcome.callback["error"] in errors, outcome.callback


async def test_fapi2_security_profile_final_discovery_end_point_verification(suite):
    found = suite.metadata
    assert suite.manifest.hub.discovery == found["issuer"] + "/.well-known/openid-configuration"
    assert "code" in found["response_types_supported"]
    assert found["pushed_authorization_request_endpoint"].startswith("https://")
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["tls_client_certificate_bound_access_tokens"] is True
    assert "authorization_code" in found["grant_types_supported"]
    assert "PS256" in found["request_object_signing_alg_values_supported"]
    assert found["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert len(found["authorization_details_types_supported"]) == 3
    for name, value in found.items():
        if name.endswith("signing_alg_values_supported"):
            assert set(value) <= {"PS256", "ES256", "EdDSA"}, name
    assert ("jwt" in found["response_modes_supported"]) is suite.jarm
    assert set(found["dpop_signing_alg_values_supported"]) >= {"PS256", "ES256"}
    rfc8414 = found["issuer"] + "/.well-known/oauth-authorization-server"
    assert (await suite.anonymous.get(rfc8414)).json() == found
    ours = (await suite.anonymous.get(suite.issuer + "/jwks")).json()["keys"]
    assert all({"kid", "use", "alg"} <= set(key) for key in ours)
    keys = (await suite.anonymous.get(found["jwks_uri"])).json()["keys"]
    assert all({"kid", "use"} <= set(key) and not {"d", "k"} & set(key) for key in keys)
    assert {key["kid"] for key in ours} <= {key["kid"] for key in keys if key["use"] == "sig"}


async def test_fapi2_security_profile_final_happy_flow(suite):
    asked = await suite.pushed()
    body = await suite.tokens(asked)
    claims = suite.id_token(asked, body)
    token = body["access_token"]
    assert (await suite.get(suite.accounts, suite.first, token)).status_code == 200
    for accept in ("application/json", "application/json, text/plain", "*/*"):
        headers = dict(suite._headers(suite.first, "GET", suite.accounts, token), accept=accept)
        answer = await suite.get(suite.accounts, suite.first, token, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["date"]
    in_query = await suite.first.http.get(suite.accounts, params={"access_token": token})
    assert in_query.status_code in {400, 401}
    userinfo = await suite.get(suite.metadata["userinfo_endpoint"], suite.first, token)
    assert userinfo.json()["sub"] == claims["sub"]
    second = suite.asked(suite.second, state="s" * 128, iat=suite.clock.now())
    reverse = Asked(second.client, dict(reversed(second.claims.items())), second.verifier)
    answer = await suite.push(reverse, typ="oauth-authz-req+jwt")
    assert answer.status_code == 201
    reverse.request_uri = answer.json()["request_uri"]
    other = await suite.tokens(reverse)
    assert suite.id_token(reverse, other)["sub"] != claims["sub"]


async def test_fapi2_security_profile_final_user_rejects_authentication(suite):
    asked = await suite.pushed()
    outcome = await suite.visit(suite.front(asked), "decline")
    came = dict(outcome.callback)
    came.pop("error_description", None)
    state = asked.claims["state"]
    assert came == {"error": "access_denied", "state": state, "iss": suite.issuer}


async def test_fapi2_security_profile_final_ensure_authorization_request_without_state_success(
    suite,
):
    asked = await suite.pushed(state=None)
    assert "s_hash" not in suite.id_token(asked, await suite.tokens(asked))


async def test_fapi2_security_profile_final_ensure_authorization_request_without_nonce_success(
    suite,
):
    asked = await suite.pushed(nonce=None)
    assert "nonce" not in suite.id_token(asked, await suite.tokens(asked))


async def test_fapi2_security_profile_final_ensure_authorization_request_with_64_char_nonce_success(
    suite,
):
    asked = await suite.pushed(nonce="n" * 64)
    assert suite.id_token(asked, await suite.tokens(asked))["nonce"] == "n" * 64


async def test_fapi2_security_profile_final_ensure_other_scope_order_succeeds(suite):
    asked = await suite.pushed(scope="accounts openid")
    suite.id_token(asked, await suite.tokens(asked))


async def test_fapi2_security_profile_final_test_claims_parameter_identity_claims(suite):
    claims = {"userinfo": {"unknown": None}, "id_token": {"unknown": {"essential": False}}}
    asked = await suite.pushed(claims=claims)
    body = await suite.tokens(asked)
    found = suite.id_token(asked, body)
    userinfo = await suite.get(
        suite.metadata["userinfo_endpoint"], suite.first, body["access_token"]
    )
    assert userinfo.headers["content-type"].startswith("application/json")
    assert userinfo.json() == {"sub": found["sub"]}


async def test_fapi2_security_profile_final_access_token_type_header_case_sensitivity(suite):
    token = (await suite.tokens(await suite.pushed()))["access_token"]
    scheme = "dPOP" if suite.dpop else "bEARER"
    answer = await suite.get(suite.accounts, suite.first, token, scheme=scheme)
    assert answer.status_code == 200


async def test_fapi2_security_profile_final_ensure_request_object_with_nbf_8_seconds_in_the_future_is_accepted(
    suite,
):
    await suite.pushed(nbf=suite.clock.now() + 8)


async def test_fapi2_security_profile_final_ensure_different_nonce_inside_and_outside_request_object(
    suite,
):
    asked = await suite.pushed()
    suite.id_token(asked, await suite.tokens(asked, nonce="another"))


async def test_fapi2_security_profile_final_ensure_different_state_inside_and_outside_request_object(
    suite,
):
    asked = await suite.pushed()
    assert await suite.code(asked, state="another")


async def test_fapi2_security_profile_final_ensure_authorization_request_with_long_nonce(suite):
    asked = await suite.pushed(nonce="n" * 384)
    assert suite.id_token(asked, await suite.tokens(asked))["nonce"] == "n" * 384


async def test_fapi2_security_profile_final_ensure_authorization_request_with_long_state(suite):
    assert await suite.code(await suite.pushed(state="s" * 1200))


@pytest.fixture
def object_refused(suite):
    async def check(*errors, signing=None, form=None, **changes):
        answer = await suite.push(suite.asked(**changes), form=form, **(signing or {}))
        return refused(answer, *(errors or ("invalid_request_object",)))

    return check


async def test_fapi2_security_profile_final_ensure_request_object_without_exp_fails(object_refused):
    await object_refused(exp=None)


async def test_fapi2_security_profile_final_ensure_request_object_without_nbf_fails(object_refused):
    await object_refused(nbf=None)


async def test_fapi2_security_profile_final_state_only_outside_request_object_not_used(suite):
    assert await suite.code(await suite.pushed(state=None), state="outer")


async def test_fapi2_security_profile_final_ensure_request_object_without_redirect_uri_fails(
    object_refused,
):
    await object_refused("invalid_request", "invalid_request_object", redirect_uri=None)


async def test_fapi2_security_profile_final_ensure_expired_request_object_fails(
    suite, object_refused
):
    now = suite.clock.now()
    await object_refused(nbf=now - 300, exp=now - 10)


async def test_fapi2_security_profile_final_ensure_request_object_with_bad_aud_fails(
    object_refused,
):
    await object_refused(aud=OTHER_SERVER)


async def test_fapi2_security_profile_final_ensure_request_object_with_exp_over_60_fails(
    suite, object_refused
):
    await object_refused(exp=suite.clock.now() + 70 * 60)


async def test_fapi2_security_profile_final_australia_connectid_ensure_request_object_with_exp_over_10_fails(
    suite, object_refused
):
    await object_refused(exp=suite.clock.now() + 15 * 60)


async def test_fapi2_security_profile_final_ensure_request_object_with_nbf_over_60_fails(
    suite, object_refused
):
    await object_refused(nbf=suite.clock.now() - 70 * 60)


async def test_fapi2_security_profile_final_australia_connectid_ensure_request_object_with_nbf_over_15_fails(
    suite, object_refused
):
    await object_refused(nbf=suite.clock.now() - 15 * 60)


async def test_fapi2_security_profile_final_ensure_signed_request_object_with_rs256_fails(
    object_refused,
):
    await object_refused(signing={"alg": "RS256"})


async def test_fapi2_security_profile_final_ensure_request_object_signature_algorithm_is_not_none(
    object_refused,
):
    await object_refused(signing={"alg": "none"})


async def test_fapi2_security_profile_final_ensure_request_object_with_invalid_signature_fails(
    suite, object_refused
):
    made = suite.request_object(suite.asked())
    flipped = made[:-20] + ("A" if made[-20] != "A" else "B") + made[-19:]
    await object_refused(form={"request": flipped})


async def test_fapi2_security_profile_final_ensure_matching_key_in_authorization_request(
    suite, object_refused
):
    await object_refused(signing={"key": suite.second.key, "kid": suite.second.kid})
    await object_refused(signing={"key": suite.second.key})


async def test_fapi2_security_profile_final_ensure_unsigned_request_at_par_endpoint_fails(suite):
    asked = suite.asked()
    plain = {k: json.dumps(v) if isinstance(v, list) else v for k, v in asked.claims.items()}
    form = {name: plain[name] for name in plain if name not in {"iss", "aud", "nbf", "exp"}}
    refused(await suite.push(asked, form={"request": None, **form}), "invalid_request")


async def test_fapi2_security_profile_final_ensure_registered_redirect_uri(object_refused):
    uri = "https://localhost:9/unregistered"
    await object_refused("invalid_request", "invalid_request_object", redirect_uri=uri)


async def test_fapi2_security_profile_final_ensure_unsigned_authorization_request_without_using_par_fails(
    suite,
):
    asked = suite.asked()
    plain = {k: json.dumps(v) if isinstance(v, list) else v for k, v in asked.claims.items()}
    outcome = await suite.visit(suite.front(asked, **(plain | {"request_uri": None})))
    is_error(outcome, "invalid_request")


async def test_fapi2_security_profile_final_ensure_redirect_uri_in_authorization_request(
    object_refused,
):
    await object_refused("invalid_request", redirect_uri=None)


TYPE_ERRORS = ("unsupported_response_type", "invalid_request", "unauthorized_client")


async def test_fapi2_security_profile_final_ensure_response_type_code_idtoken_fails(object_refused):
    await object_refused(*TYPE_ERRORS, response_type="code id_token")


async def test_fapi2_security_profile_final_ensure_response_type_token_fails(object_refused):
    await object_refused(*TYPE_ERRORS, response_type="token")


async def test_fapi2_security_profile_final_ensure_client_id_in_token_endpoint(suite):
    asked = await suite.pushed()
    answer = await suite.redeem(asked, await suite.code(asked), client_id=suite.second.client_id)
    refused(answer, "invalid_client", "invalid_grant", status=(400, 401))


OLD_CIPHERS = ("ECDHE-RSA-AES128-SHA256", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256")


async def handshake(suite, url, **limits):
    """Shake hands within limits; return the version, or None where the server refuses."""
    context = suite.tls(suite.manifest.tpps[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers(limits.get("ciphers", "DEFAULT") + ":@SECLEVEL=0")
        context.minimum_version = limits.get("lowest", ssl.TLSVersion.TLSv1_2)
        context.maximum_version = limits.get("highest", ssl.TLSVersion.TLSv1_2)
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            answer = await client.get(url)
            return answer.extensions["network_stream"].get_extra_info("ssl_object").version()
    except httpx.ConnectError as error:
        # The server must have refused; a client that cannot even offer this proves nothing.
        if any(text in str(error) for text in ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE")):
            raise
        return None


async def test_fapi2_security_profile_final_ensure_holder_of_key_required(suite):
    url = suite.token_endpoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.TLSVersion.TLSv1_1
        assert await handshake(suite, url, lowest=ssl.TLSVersion.TLSv1, highest=old) is None
    for ciphers in OLD_CIPHERS:
        assert await handshake(suite, url, ciphers=ciphers) is None
    good = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"
    assert await handshake(suite, url, ciphers=good) == "TLSv1.2"
    assert await handshake(suite, url, highest=ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    asked = await suite.pushed()
    code = await suite.code(asked)
    errors = ("invalid_client", "invalid_request", "invalid_grant")
    answer = await suite.redeem(asked, code, via=suite.anonymous)
    refused(answer, *errors, status=(400, 401))
    if suite.dpop:
        answer = await suite.redeem(asked, code, headers={})
        refused(answer, "invalid_request", "invalid_grant", "invalid_dpop_proof")
    assert (await suite.redeem(asked, code)).status_code == 200


async def test_fapi2_security_profile_final_ensure_authorization_code_is_bound_to_client(suite):
    asked = await suite.pushed()
    code = await suite.code(asked)
    refused(await suite.redeem(asked, code, client=suite.second), "invalid_grant")


async def test_fapi2_security_profile_final_attempt_reuse_authorization_code_after_one_second(
    suite,
):
    asked = await suite.pushed()
    code = await suite.code(asked)
    token = (await suite.redeem(asked, code)).json()["access_token"]
    assert (await suite.get(suite.accounts, suite.first, token)).status_code == 200
    async with moved(suite.world, 1):
        refused(await suite.redeem(asked, code), "invalid_grant")
        assert (await suite.get(suite.accounts, suite.first, token)).status_code == 401


async def test_fapi2_security_profile_final_ensure_token_endpoint_fails_with_expired_auth_code(
    suite,
):
    asked = await suite.pushed()
    code = await suite.code(asked)
    async with moved(suite.world, 62):
        refused(await suite.redeem(asked, code), "invalid_grant")


@pytest.fixture
def assertion_refused(suite):
    async def check(*, at_par=False, form=None, **changes):
        if at_par:
            answer = await suite.push(suite.asked(), assertion=changes, form=form)
        else:
            given = {"grant_type": "client_credentials", "scope": "accounts"} | (form or {})
            answer = await suite.post_token(suite.first, assertion=changes, **given)
        return unauthenticated(answer)

    return check


async def test_fapi2_security_profile_final_ensure_signed_client_assertion_with_rs256_fails(
    assertion_refused,
):
    await assertion_refused(alg="RS256")
    await assertion_refused(alg="RS256", at_par=True)


async def test_fapi2_security_profile_final_ensure_client_assertion_in_token_endpoint(
    suite, assertion_refused
):
    none = {"client_assertion": None, "client_assertion_type": None}
    await assertion_refused(form=none | {"client_id": suite.first.client_id})


async def test_fapi2_security_profile_final_ensure_client_assertion_with_exp_is_5_minutes_in_past_fails(
    suite, assertion_refused
):
    now = suite.clock.now()
    await assertion_refused(iat=now - 360, exp=now - 300)


async def test_fapi2_security_profile_final_ensure_client_assertion_with_wrong_aud_fails(
    assertion_refused,
):
    await assertion_refused(aud=OTHER_SERVER)


async def test_fapi2_security_profile_final_ensure_client_assertion_with_no_sub_fails(
    assertion_refused,
):
    await assertion_refused(sub=None)


async def test_fapi2_security_profile_final_refresh_token(suite):
    token = (await suite.tokens(await suite.pushed()))["refresh_token"]
    answer = await suite.refresh(suite.first, token)
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    fresh = answer.json()["access_token"]
    assert (await suite.get(suite.accounts, suite.first, fresh)).status_code == 200
    async with moved(suite.world, 30):
        assert (await suite.refresh(suite.first, token)).status_code == 200
    none = {"client_assertion": None, "client_assertion_type": None}
    unauthenticated(await suite.refresh(suite.first, token, **none))
    unauthenticated(await suite.refresh(suite.first, token, via=suite.anonymous))
    refused(await suite.refresh(suite.second, token), "invalid_grant")
    if suite.dpop:
        refused(await suite.refresh(suite.first, token, headers={}), "invalid_dpop_proof")


async def test_fapi2_security_profile_final_par_ensure_reused_request_uri_prior_to_auth_completion_succeeds(
    suite,
):
    asked = await suite.pushed()
    first = await suite.visit(suite.front(asked), None)
    assert 'name="username"' in first.text
    assert await suite.code(asked)


async def test_fapi2_security_profile_final_par_attempt_reuse_request_uri(suite):
    asked = await suite.pushed()
    await suite.code(asked)
    is_error(await suite.visit(suite.front(asked)), "invalid_request_uri")


async def test_fapi2_security_profile_final_par_attempt_to_use_expired_request_uri(suite):
    asked = await suite.pushed()
    async with moved(suite.world, asked.expires_in + 1):
        is_error(await suite.visit(suite.front(asked)), "invalid_request_uri")


async def test_fapi2_security_profile_final_par_ensure_jwt_client_assertions_nbf_8_seconds_in_the_future_is_accepted(
    suite,
):
    ahead = suite.clock.now() + 8
    answer = await suite.push(suite.asked(), assertion={"iat": ahead, "nbf": ahead})
    assert answer.status_code == 201


async def test_fapi2_security_profile_final_par_ensure_jwt_client_assertions_nbf_over_60_seconds_in_the_future_fails(
    suite, assertion_refused
):
    ahead = suite.clock.now() + 62
    await assertion_refused(at_par=True, iat=ahead, nbf=ahead, exp=ahead + 60)


async def test_fapi2_security_profile_final_par_attempt_to_use_request_uri_for_different_client(
    suite,
):
    asked = await suite.pushed()
    url = suite.front(asked, client_id=suite.second.client_id)
    is_error(
        await suite.visit(url), "invalid_request", "invalid_request_object", "invalid_request_uri"
    )


REQUEST_ERRORS = ("invalid_request", "invalid_request_object", "request_uri_not_supported")


async def test_fapi2_security_profile_final_par_authorization_request_containing_request_uri_form_param(
    object_refused,
):
    await object_refused(
        *REQUEST_ERRORS, form={"request_uri": "urn:ietf:params:oauth:request_uri:x"}
    )


async def test_fapi2_security_profile_final_par_attempt_invalid_http_method(suite):
    asked = suite.asked()
    data = {"request": suite.request_object(asked), **suite.authentication(suite.first)}
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        answer = await suite.first.http.request(method, suite.par, params=data)
        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"]


async def test_fapi2_security_profile_final_par_ensure_pkce_required(object_refused):
    await object_refused("invalid_request", code_challenge=None, code_challenge_method=None)


async def test_fapi2_security_profile_final_ensure_pkce_code_verifier_required(suite):
    asked = await suite.pushed()
    refused(await suite.redeem(asked, await suite.code(asked), code_verifier=None), "invalid_grant")


async def test_fapi2_security_profile_final_incorrect_pkce_code_verifier_rejected(suite):
    asked = await suite.pushed()
    code = await suite.code(asked)
    refused(await suite.redeem(asked, code, code_verifier="wrong" * 10), "invalid_grant")


async def test_fapi2_security_profile_final_par_plain_pkce_rejected(object_refused):
    challenge = b64url(b"v" * 33)
    await object_refused("invalid_request", code_challenge=challenge, code_challenge_method="plain")


async def test_fapi2_security_profile_final_par_authorization_request_containing_request_uri(
    object_refused,
):
    await object_refused(request_uri="urn:ietf:params:oauth:request_uri:x")


async def test_fapi2_security_profile_final_par_without_duplicate_parameters(suite):
    asked = await suite.pushed()
    assert await suite.code(asked, response_type=None, scope=None, redirect_uri=None)


async def test_fapi2_security_profile_final_par_test_array_as_audience_fails(
    suite, assertion_refused
):
    await assertion_refused(at_par=True, aud=[suite.issuer, OTHER_SERVER])


async def test_fapi2_security_profile_final_par_test_par_endpoint_url_as_audience_fails(
    suite, assertion_refused
):
    await assertion_refused(at_par=True, aud=suite.par)


async def test_fapi2_security_profile_final_par_test_token_endpoint_url_as_audience_fails(
    suite, assertion_refused
):
    await assertion_refused(at_par=True, aud=suite.token_endpoint)
