"""The sample TPP's exchanges, the customer's browser, and what the narration shows of them."""

from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec
import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from hub.model.clock import FixedClock, SeededDice
from hub.sandbox.browser import forms_of
from hub.sandbox.manifest import TppSection
from hub.sandbox.narration import Narrator, shortened
from hub.sandbox.tpp import (
    Answer,
    Ask,
    Callback,
    Discovery,
    Exchange,
    Identity,
    Pushed,
    Refused,
    Tokens,
    data_sharing_consent,
    read_callback,
)
from hub.sandbox.tpp.exchange import refused
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import (
    Secrets,
    authorization_url,
    new_secrets,
    read_discovery,
    read_par,
    read_tokens,
    request_client_credentials,
    request_par,
    request_refresh,
    request_token,
)

NOW = 1_790_000_000
ISSUER = "https://hub.example"
DISCOVERY = Discovery(
    issuer=ISSUER,
    authorization_endpoint="https://bank.example/authorize",
    pushed_authorization_request_endpoint=f"{ISSUER}/par",
    token_endpoint=f"{ISSUER}/token",
    jwks_uri="https://keys.example/application.jwks",
    mtls_endpoint_aliases={"token_endpoint": "https://mtls.hub.example/token"},
)
PUSHED = Pushed(request_uri="urn:x", expires_in=90, code_verifier="v" * 43, state="s-1", nonce="n")


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048)


@pytest.fixture
def identity(key) -> Identity:
    section = TppSection(
        name="Sample",
        client_id="3f1f2b8e-8c1e-4d55-9c7f-0a6f0d0c1b2a",
        organisation_id="8c5e4f55-6e7a-4c1f-9f0d-2c4d6a0b9e11",
        roles=["BDSP"],
        redirect_uris=["https://tpp.example/cb"],
        transport_cert="",
        transport_key="",
        signing_key="",
        signing_kid="kid-1",
        encryption_key="",
        encryption_kid="",
    )
    files = Files(ca=Path("ca"), certificate=Path("c"), key=Path("k"))
    return Identity(
        section=section, files=files, signing_key=key, clock=FixedClock(NOW), dice=SeededDice()
    )


def claims_of(token: str, key: RSAKey) -> dict:
    signed = jws.deserialize_compact(token, key, algorithms=["PS256"])
    return msgspec.json.decode(signed.payload)


def answer(status: int, value: object) -> Answer:
    return Answer(status=status, headers={}, body=msgspec.json.encode(value))


def test_a_pushed_request_holds_every_claim_that_the_profile_demands(identity, key):
    detail = data_sharing_consent(consent_id="id", expires=NOW + 60)
    secrets = new_secrets(identity)
    ask = request_par(identity, DISCOVERY, detail=detail, scope="accounts openid", secrets=secrets)
    assert ask.url == f"{ISSUER}/par"
    claims = claims_of(ask.form["request"], key)
    assert claims["iss"] == claims["client_id"] == identity.client_id
    assert claims["aud"] == ISSUER
    assert claims["nbf"] == NOW
    assert claims["exp"] <= NOW + 600
    assert claims["response_type"] == "code"
    assert claims["redirect_uri"] == "https://tpp.example/cb"
    assert claims["code_challenge_method"] == "S256"
    assert claims["authorization_details"] == [detail]
    assertion = claims_of(ask.form["client_assertion"], key)
    assert assertion["iss"] == assertion["sub"] == identity.client_id
    assert assertion["aud"] == ISSUER
    assert assertion["exp"] <= NOW + 300
    assert assertion["jti"] != claims["jti"]


def test_pkce_challenge_is_that_of_rfc_7636_appendix_b():
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    secrets = Secrets(code_verifier=verifier, state="s", nonce="n")
    assert secrets.code_challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    ("make", "grant", "member"),
    [
        (lambda i: request_token(i, DISCOVERY, code="c", pushed=PUSHED), "authorization_code", "code_verifier"),
        (lambda i: request_refresh(i, DISCOVERY, "r"), "refresh_token", "refresh_token"),
        (lambda i: request_client_credentials(i, DISCOVERY, "openid accounts"), "client_credentials", "scope"),
    ],
)  # fmt: skip
def test_token_requests_go_to_the_mtls_alias_and_are_authenticated(identity, make, grant, member):
    ask = make(identity)
    assert ask.url == "https://mtls.hub.example/token"
    assert ask.form["grant_type"] == grant
    assert ask.form[member]
    assert ask.form["client_assertion"].count(".") == 2


def test_the_browser_carries_nothing_but_the_reference(identity):
    query = parse_qs(urlsplit(authorization_url(identity, DISCOVERY, "urn:x", "openid")).query)
    assert set(query) == {"client_id", "response_type", "scope", "request_uri"}


def test_metadata_of_another_issuer_is_refused():
    body = msgspec.structs.asdict(DISCOVERY)
    assert read_discovery(answer(200, body), ISSUER) == DISCOVERY
    found = read_discovery(answer(200, body), "https://evil.example")
    assert isinstance(found, Refused)
    assert found.code == "issuer"


def test_only_201_is_a_pushed_request():
    secrets = Secrets(code_verifier="v", state="s", nonce="n")
    good = {"request_uri": "urn:x", "expires_in": 90}
    assert isinstance(read_par(answer(201, good), secrets), Pushed)
    assert isinstance(read_par(answer(200, good), secrets), Refused)
    bad = read_par(answer(400, {"error": "invalid_request_object"}), secrets)
    assert isinstance(bad, Refused)
    assert bad.code == "invalid_request_object"


def test_a_token_answer_without_a_token_is_refused():
    assert isinstance(read_tokens(answer(200, {"token_type": "Bearer"})), Refused)
    good = {"access_token": "a", "token_type": "Bearer", "expires_in": 600}
    assert isinstance(read_tokens(answer(200, good)), Tokens)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"code": "c", "state": "s-1"}, "iss"),
        ({"code": "c", "state": "s-1", "iss": "https://evil.example"}, "iss"),
        ({"code": "c", "state": "s-2", "iss": ISSUER}, "state"),
        ({"code": "c", "iss": ISSUER}, "state"),
        ({"state": "s-1", "iss": ISSUER}, "code"),
        ({"error": "access_denied", "state": "s-1", "iss": ISSUER}, "access_denied"),
        ({"error": "access_denied", "code": "c", "state": "s-1", "iss": ISSUER}, "access_denied"),
    ],
)
def test_a_callback_is_believed_only_from_the_right_issuer_for_this_request(fields, code):
    found = read_callback(urlencode(fields), PUSHED, DISCOVERY)
    assert isinstance(found, Refused)
    assert found.code == code


def test_a_good_callback_gives_the_code_and_a_doubled_one_does_not():
    good = urlencode({"code": "c", "state": "s-1", "iss": ISSUER})
    assert read_callback(good, PUSHED, DISCOVERY) == Callback(code="c")
    assert isinstance(read_callback(good + "&code=d", PUSHED, DISCOVERY), Refused)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"error": "invalid_grant", "error_description": "used"}, "invalid_grant", "used"),
        ({"Errors": [{"Code": "Consent.Invalid", "Message": "no"}]}, "Consent.Invalid", "no"),
        ({"errorCode": "GenericError", "errorMessage": "no"}, "GenericError", "no"),
        ([], "", "[]"),
    ],
)
def test_every_kind_of_refusal_is_read(body, code, text):
    assert refused(answer(400, body)) == Refused(status=400, code=code, text=text)


def test_forms_are_read_by_their_field_names():
    page = """
      <form action="/search"><input name="q"></form>
      <form method="post" action="consent?x=1">
        <input type="hidden" name="csrf" value="t1">
        <input type="checkbox" name="account" value="A1" checked>
        <input type="checkbox" name="account" value="A2">
        <button name="decision" value="approve">Yes</button>
        <button name="decision" value="decline">No</button>
        <input type="submit" value="unnamed">
      </form>"""
    forms = forms_of(page, "https://bank.example/open/login")
    assert len(forms) == 2
    consent = forms[1]
    assert consent.method == "POST"
    assert consent.action == "https://bank.example/open/consent?x=1"
    assert consent.offers["account"] == ("A1", "A2")
    assert consent.offers["decision"] == ("approve", "decline")
    assert consent.preset == (("csrf", "t1"), ("account", "A1"))


def test_narration_numbers_steps_and_has_no_colours_off_a_terminal():
    lines: list[str] = []
    narrator = Narrator(lines.append, colour=False)
    narrator.step("first", "because")
    narrator.step("second", "so")
    assert lines == ["  1  first", "     because", "  2  second", "     so"]


def test_shown_exchanges_hold_no_secret():
    lines: list[str] = []
    secret = "s3cr3t-" * 10
    ask = Ask(
        method="POST",
        url=f"https://hub.example/token?code={secret}",
        headers={"authorization": f"Bearer {secret}"},
        form={"client_assertion": secret, "refresh_token": secret, "scope": "openid"},
    )
    body = {"access_token": secret, "deep": [{"id_token": secret}], "expires_in": 600}
    got = Answer(
        status=200,
        headers={"location": f"https://tpp.example/cb?code={secret}&state=1"},
        body=msgspec.json.encode(body),
    )
    Narrator(lines.append, show_http=True, colour=False).exchange(Exchange(ask=ask, answer=got))
    told = "\n".join(lines)
    assert secret not in told
    assert "scope = openid" in told
    assert '"expires_in": 600' in told


def test_a_browsers_password_is_never_shown():
    lines: list[str] = []
    request = httpx.Request(
        "POST", "https://bank.example/login", data={"username": "aisha", "password": "open-sesame"}
    )
    Narrator(lines.append, show_http=True, colour=False).visit(httpx.Response(200, request=request))
    assert "open-sesame" not in "\n".join(lines)
    assert "username = aisha" in "\n".join(lines)


def test_a_short_secret_is_shortened_too():
    assert "abcdef" not in shortened("code", "abcdef")
    assert shortened("scope", "openid accounts") == "openid accounts"
