"""The pushed authorization request: the request object as a message, then its parameters.

Anything wrong with the message (type, issuer, audience, window, key, signature) is ``invalid_request_object``; a
parameter inside a good message has the code that RFC 6749 gives it.

Source: RFC 9126; RFC 9101; FAPI 2.0 Message Signing 5.3.1; RFC 7636; OpenID Connect Core 3.1.2.1; decisions 1.
"""

from typing import Final

from hub.authz.facts import Facts, refuse
from hub.authz.tables import CONSENT_SCOPES, scopes_of
from hub.model.fault import Fault
from hub.protocol import fapi
from hub.protocol.jose import JoseFault, Parsed, verify
from hub.protocol.oauth import is_challenge, is_redirect_uri, parse_scope, show

_PROMPTS: Final = frozenset({"none", "login", "consent", "select_account"})
_JARM_MODES: Final = ("jwt", "query.jwt")
_TEXT_OCTETS: Final = 4096


def _bad_object(check: str, public: str) -> Fault:
    return refuse("invalid_request_object", check, f"request object {public}")


def _bad_request(check: str, public: str) -> Fault:
    return refuse("invalid_request", check, public)


def request_present(facts: Facts) -> Fault | None:
    """Expect the parameter request, and no request_uri: pushed requests are signed objects."""
    if "request_uri" in facts.form:
        return _bad_request("request.present", "request_uri: is not allowed at this endpoint")
    if "request" in facts.form:
        return None
    return _bad_request("request.present", "request: expected a signed request object, got nothing")


def request_well_formed(facts: Facts) -> Fault | None:
    """Expect a compact JWS that a strict parser accepts."""
    if isinstance(facts.request, Parsed):
        return None
    return _bad_object("request.well_formed", f"request: {facts.request.why}")


def request_typ(facts: Facts) -> Fault | None:
    """Expect typ to be absent, JWT or oauth-authz-req+jwt."""
    header = facts.request.header if isinstance(facts.request, Parsed) else {}
    why = fapi.wrong_type(header, fapi.REQUEST_OBJECT_TYPES)
    return _bad_object("request.typ", why) if why else None


def request_client(facts: Facts) -> Fault | None:
    """Expect iss and client_id to be the authenticated client."""
    for name in ("iss", "client_id"):
        came = facts.claims.get(name)
        if came != facts.caller.client_id:
            return _bad_object(
                "request.client", f"{name}: expected '{facts.caller.client_id}', got {show(came)}"
            )
    return None


def request_audience(facts: Facts) -> Fault | None:
    """Expect aud to be the issuer, as a string (in the general profile also in an array)."""
    array = facts.rules.general
    why = fapi.wrong_audience(facts.claims.get("aud"), facts.rules.issuer, array=array)
    return _bad_object("request.audience", why) if why else None


def request_window(facts: Facts) -> Fault | None:
    """Expect nbf at most 10 minutes old and 30 seconds ahead, and exp at most 10 minutes after nbf."""
    why = fapi.wrong_request_window(
        facts.claims,
        facts.now,
        lifetime=facts.rules.request_object_s,
        ahead=facts.rules.ahead_s,
    )
    return _bad_object("request.window", why) if why else None


def request_not_nested(facts: Facts) -> Fault | None:
    """Expect no request or request_uri inside the request object."""
    for name in ("request", "request_uri"):
        if name in facts.claims:
            return _bad_object("request.not_nested", f"{name}: is not allowed inside it")
    return None


def request_algorithm(facts: Facts) -> Fault | None:
    """Expect an algorithm of the closed list (PS256 in the UAE profile)."""
    alg = facts.request.header["alg"] if isinstance(facts.request, Parsed) else None
    if alg in facts.rules.algs:
        return None
    expected = " or ".join(facts.rules.algs)
    return _bad_object("request.algorithm", f"alg: expected {expected}, got {show(alg)}")


def request_key(facts: Facts) -> Fault | None:
    """Expect kid to name a signing key that the Trust Framework publishes for the client."""
    if facts.request_key is not None:
        return None
    kid = facts.request.header.get("kid") if isinstance(facts.request, Parsed) else None
    return _bad_object("request.key", f"kid: expected a key of the client's set, got {show(kid)}")


def request_signature(facts: Facts) -> Fault | None:
    """Expect a valid signature."""
    if isinstance(facts.request, JoseFault) or facts.request_key is None:
        return _bad_object("request.signature", "was not verified")
    fault = verify(facts.request, facts.request_key, facts.rules.algs)
    return _bad_object("request.signature", f": {fault.why}") if fault is not None else None


def request_jti(facts: Facts) -> Fault | None:
    """Expect a jti, if there is one, not to have been used by a push that succeeded."""
    jti = facts.claims.get("jti", "")
    if len(jti) > 256:
        return _bad_object("request.jti", f"jti: expected at most 256 characters, got {len(jti)}")
    if facts.request_seen:
        return _bad_object("request.jti", "jti: expected a new value, got one already used")
    return None


def response_type(facts: Facts) -> Fault | None:
    """Expect response_type to be exactly code."""
    came = facts.claims.get("response_type")
    if came == "code":
        return None
    public = f"response_type: expected 'code', got {show(came)}"
    return refuse("unsupported_response_type", "request.response_type", public)


def response_mode(facts: Facts) -> Fault | None:
    """Expect response_mode to be absent or query; jwt only where JARM is switched on."""
    came = facts.claims.get("response_mode", "query")
    if came == "query" or (facts.rules.jarm and came in _JARM_MODES):
        return None
    return _bad_request(
        "request.response_mode", f"response_mode: expected 'query', got {show(came)}"
    )


def redirect_uri(facts: Facts) -> Fault | None:
    """Expect redirect_uri to be exactly one of the registered ones, and one that does not leave the code in the open."""
    came = facts.claims.get("redirect_uri")
    if isinstance(came, str) and came in facts.caller.redirect_uris:
        if is_redirect_uri(came):
            return None
        public = f"redirect_uri: expected https, loopback or an app's own scheme, without fragment, got {show(came)}"
        return _bad_request("request.redirect_uri", public)
    public = f"redirect_uri: expected a registered URI, character by character, got {show(came)}"
    return _bad_request("request.redirect_uri", public)


def pkce(facts: Facts) -> Fault | None:
    """Expect a code_challenge of 43 characters with the method S256."""
    method = facts.claims.get("code_challenge_method")
    if method != "S256":
        return _bad_request(
            "request.pkce", f"code_challenge_method: expected 'S256', got {show(method)}"
        )
    if is_challenge(facts.claims.get("code_challenge")):
        return None
    return _bad_request("request.pkce", "code_challenge: expected 43 characters of base64url")


def request_scope(facts: Facts) -> Fault | None:
    """Expect openid and the scopes of a consent, all within the client's roles."""
    came = facts.claims.get("scope")
    scopes = parse_scope(came)
    if scopes is None or "openid" not in scopes:
        public = f"scope: expected values without repetition, openid among them, got {show(came)}"
        return refuse("invalid_scope", "request.scope", public)
    for scope in scopes:
        if scope not in CONSENT_SCOPES or scope not in scopes_of(facts.caller.roles):
            public = f"scope: expected what the roles {', '.join(facts.caller.roles)} allow, got {show(scope)}"
            return refuse("invalid_scope", "request.scope", public)
    return None


def state_and_nonce(facts: Facts) -> Fault | None:
    """Expect state and nonce, if there, to be texts of at most 4096 characters."""
    for name in ("state", "nonce", "acr_values", "ui_locales", "dpop_jkt"):
        came = facts.claims.get(name, "")
        if not isinstance(came, str) or len(came) > _TEXT_OCTETS:
            public = f"{name}: expected a string of at most {_TEXT_OCTETS} characters"
            return _bad_request("request.state_and_nonce", public)
    return None


def max_age(facts: Facts) -> Fault | None:
    """Expect max_age, if there, to be a whole number of 0 to 3600 seconds."""
    came = facts.claims.get("max_age", 0)
    if isinstance(came, int) and not isinstance(came, bool) and 0 <= came <= 3600:
        return None
    return _bad_request("request.max_age", f"max_age: expected 0 to 3600, got {show(came)}")


def prompt(facts: Facts) -> Fault | None:
    """Expect prompt, if there, to hold known values, and none only alone."""
    if "prompt" not in facts.claims:
        return None
    values = parse_scope(facts.claims["prompt"])
    if values and set(values) <= _PROMPTS and (len(values) == 1 or "none" not in values):
        return None
    public = f"prompt: expected {', '.join(sorted(_PROMPTS))}, got {show(facts.claims['prompt'])}"
    return _bad_request("request.prompt", public)


def request_shapes(facts: Facts) -> Fault | None:
    """Expect claims, if there, to be an object, and login_hint a text or an object."""
    if not isinstance(facts.claims.get("claims", {}), dict):
        return _bad_request("request.shapes", "claims: expected an object")
    if not isinstance(facts.claims.get("login_hint", ""), str | dict):
        return _bad_request("request.shapes", "login_hint: expected a string or an object")
    return None


def dpop_jkt(facts: Facts) -> Fault | None:
    """Expect dpop_jkt, if there, to be the key of the DPoP proof of the same request."""
    jkt = facts.claims.get("dpop_jkt")
    if jkt is None or (is_challenge(jkt) and facts.jkt in {"", jkt}):
        return None
    public = f"dpop_jkt: expected the thumbprint of the DPoP key in use, got {show(jkt)}"
    return refuse("invalid_dpop_proof", "request.dpop_jkt", public)
