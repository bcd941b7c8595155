"""Who is calling: ``private_key_jwt`` over mutual TLS, and the DPoP proof where one is used.

Source: FAPI 2.0 Security Profile 5.3.2.1; RFC 7523 sections 2.2 and 3; RFC 8705; RFC 9449; decisions 1.
"""

from hub.authz.facts import Facts, refuse
from hub.model.fault import Fault
from hub.protocol import fapi
from hub.protocol.dpop import ProofFault
from hub.protocol.jose import JoseFault, Parsed, verify
from hub.protocol.oauth import ASSERTION_TYPE, show

_SECRETS = ("client_secret",)


def form_readable(facts: Facts) -> Fault | None:
    """Expect a form in UTF-8 in which no parameter occurs twice."""
    if facts.form_fault is None:
        return None
    return refuse("invalid_request", "form.readable", f"body: {facts.form_fault.why}")


def trust(facts: Facts) -> Fault | None:
    """Expect a certificate of an active, registered and activated client."""
    return facts.judged if isinstance(facts.judged, Fault) else None


def client_single_method(facts: Facts) -> Fault | None:
    """Expect one method of client authentication: no client_secret beside an assertion."""
    if not any(name in facts.form for name in _SECRETS):
        return None
    public = "client_secret: expected private_key_jwt as the only method, got a secret too"
    return refuse("invalid_request", "client.single_method", public)


def client_assertion_present(facts: Facts) -> Fault | None:
    """Expect client_assertion together with the exact client_assertion_type of RFC 7523."""
    kind = facts.form.get("client_assertion_type")
    if kind != ASSERTION_TYPE:
        public = f"client_assertion_type: expected '{ASSERTION_TYPE}', got {show(kind)}"
    elif "client_assertion" not in facts.form:
        public = "client_assertion: expected a signed JWT, got nothing"
    else:
        return None
    return _invalid_client("client_assertion.present", public)


def _invalid_client(check: str, public: str) -> Fault:
    return refuse("invalid_client", check, public, status=401)


def client_assertion_well_formed(facts: Facts) -> Fault | None:
    """Expect a compact JWS that a strict parser accepts."""
    if isinstance(facts.assertion, Parsed):
        return None
    return _invalid_client(
        "client_assertion.well_formed", f"client_assertion: {facts.assertion.why}"
    )


def client_assertion_typ(facts: Facts) -> Fault | None:
    """Expect typ to be absent, JWT or client-authentication+jwt."""
    header = facts.assertion.header if isinstance(facts.assertion, Parsed) else {}
    why = fapi.wrong_type(header, fapi.ASSERTION_TYPES)
    return _invalid_client("client_assertion.typ", f"client_assertion {why}") if why else None


def client_assertion_purpose(facts: Facts) -> Fault | None:
    """Expect no claim of a request object: an assertion is not an authorization request."""
    for name in fapi.REQUEST_ONLY:
        if name in facts.assertion_claims:
            public = f"client_assertion {name}: expected a client assertion, got a request object"
            return _invalid_client("client_assertion.purpose", public)
    return None


def client_assertion_client(facts: Facts) -> Fault | None:
    """Expect iss and sub to be the client that the certificate belongs to."""
    for name in ("iss", "sub"):
        came = facts.assertion_claims.get(name)
        if came != facts.caller.client_id:
            public = (
                f"client_assertion {name}: expected the certificate's client "
                f"'{facts.caller.client_id}', got {show(came)}"
            )
            return _invalid_client("client_assertion.client", public)
    return None


def client_id_matches(facts: Facts) -> Fault | None:
    """Expect client_id, if sent, to be the authenticated client."""
    came = facts.form.get("client_id", facts.caller.client_id)
    if came == facts.caller.client_id:
        return None
    public = f"client_id: expected '{facts.caller.client_id}', got {show(came)}"
    return _invalid_client("client_id.matches", public)


def client_assertion_audience(facts: Facts) -> Fault | None:
    """Expect aud to be exactly the issuer, as a string."""
    why = fapi.wrong_audience(facts.assertion_claims.get("aud"), facts.rules.issuer)
    return _invalid_client("client_assertion.audience", f"client_assertion {why}") if why else None


def client_assertion_jti(facts: Facts) -> Fault | None:
    """Expect a jti of 1 to 256 characters."""
    jti = facts.assertion_claims.get("jti")
    if isinstance(jti, str) and 1 <= len(jti) <= 256:
        return None
    came = f"{len(jti)} characters" if isinstance(jti, str) else show(jti)
    public = f"client_assertion jti: expected 1 to 256 characters, got {came}"
    return _invalid_client("client_assertion.jti", public)


def client_assertion_lifetime(facts: Facts) -> Fault | None:
    """Expect exp in the future and at most 5 minutes after iat, and nothing from the future."""
    why = fapi.wrong_assertion_window(
        facts.assertion_claims,
        facts.now,
        lifetime=facts.rules.assertion_s,
        ahead=facts.rules.ahead_s,
    )
    return _invalid_client("client_assertion.lifetime", f"client_assertion {why}") if why else None


def client_assertion_algorithm(facts: Facts) -> Fault | None:
    """Expect an algorithm of the closed list (PS256 in the UAE profile)."""
    alg = facts.assertion.header["alg"] if isinstance(facts.assertion, Parsed) else None
    if alg in facts.rules.algs:
        return None
    public = f"client_assertion alg: expected {' or '.join(facts.rules.algs)}, got {show(alg)}"
    return _invalid_client("client_assertion.algorithm", public)


def client_assertion_key(facts: Facts) -> Fault | None:
    """Expect kid to name a signing key that the Trust Framework publishes for the client."""
    if facts.assertion_key is not None:
        return None
    kid = facts.assertion.header.get("kid") if isinstance(facts.assertion, Parsed) else None
    public = f"client_assertion kid: expected a key of the client's key set, got {show(kid)}"
    return _invalid_client("client_assertion.key", public)


def client_assertion_signature(facts: Facts) -> Fault | None:
    """Expect a valid signature."""
    if isinstance(facts.assertion, JoseFault) or facts.assertion_key is None:
        return _invalid_client("client_assertion.signature", "client_assertion: not verified")
    fault = verify(facts.assertion, facts.assertion_key, facts.rules.algs)
    if fault is None:
        return None
    return _invalid_client("client_assertion.signature", f"client_assertion: {fault.why}")


def dpop_proof(facts: Facts) -> Fault | None:
    """Expect a DPoP proof, if one is sent, to be made for this request by the key it carries."""
    if not isinstance(facts.proof, ProofFault):
        return None
    return refuse(facts.proof.code, "dpop.proof", f"DPoP {facts.proof.why}")


def dpop_required(facts: Facts) -> Fault | None:
    """Expect a DPoP proof of clients registered for DPoP, or of everybody where the tenant says so."""
    if facts.proof is not None or not (facts.rules.dpop_required or facts.caller.dpop_bound):
        return None
    return refuse("invalid_dpop_proof", "dpop.required", "DPoP: expected a proof, got nothing")
