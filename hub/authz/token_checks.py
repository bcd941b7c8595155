"""What is exchanged for tokens: codes, refresh tokens and client credentials.

A failed exchange burns nothing: neither another client's attempt nor a wrong verifier uses a code up.

Source: RFC 6749 sections 4.1.3, 4.4.2, 5.2 and 6; RFC 7636 section 4.6; RFC 9449 section 10; decisions 1.
"""

from hub.authz.facts import Facts, refuse
from hub.authz.tables import scopes_of
from hub.model.consent import TERMINAL, Status, status_at
from hub.model.fault import Fault
from hub.protocol.oauth import parse_scope, proves, show


def _bad_grant(check: str, public: str) -> Fault:
    return refuse("invalid_grant", check, public)


def grant_type(facts: Facts) -> Fault | None:
    """Expect grant_type to be authorization_code, refresh_token or client_credentials."""
    came = facts.form.get("grant_type")
    expected = "authorization_code, refresh_token or client_credentials"
    code = "unsupported_grant_type" if came else "invalid_request"
    return refuse(code, "grant.type", f"grant_type: expected {expected}, got {show(came)}")


def no_details(facts: Facts) -> Fault | None:
    """Expect no authorization_details: a token is for the whole consent, never for more."""
    if "authorization_details" not in facts.form:
        return None
    public = "authorization_details: expected nothing here, the consent says what is granted"
    return refuse("invalid_authorization_details", "grant.no_details", public)


def code_present(facts: Facts) -> Fault | None:
    """Expect the parameter code."""
    if "code" in facts.form:
        return None
    return refuse("invalid_request", "code.present", "code: expected a code, got nothing")


def code_known(facts: Facts) -> Fault | None:
    """Expect a code that was issued to this client."""
    if facts.code is not None and facts.code.client_id == facts.caller.client_id:
        return None
    return _bad_grant("code.known", "code: expected one that was issued to this client")


def code_unused(facts: Facts) -> Fault | None:
    """Expect a code that was not redeemed before; a replay ends what the code gave."""
    if facts.code is not None and not facts.code.used:
        return None
    return _bad_grant("code.unused", "code: was redeemed before; what it gave is revoked")


def code_fresh(facts: Facts) -> Fault | None:
    """Expect a code that is not older than 60 seconds."""
    if facts.code is not None and facts.now < facts.code.expires:
        return None
    return _bad_grant("code.fresh", "code: expected one of the last 60 seconds")


def code_redirect_uri(facts: Facts) -> Fault | None:
    """Expect redirect_uri to be the one of the authorization request."""
    came = facts.form.get("redirect_uri")
    if facts.code is not None and came == facts.code.redirect_uri:
        return None
    public = f"redirect_uri: expected the one of the authorization request, got {show(came)}"
    return _bad_grant("code.redirect_uri", public)


def code_verifier(facts: Facts) -> Fault | None:
    """Expect code_verifier to be the one of the code_challenge."""
    verifier = facts.form.get("code_verifier", "")
    if facts.code is not None and proves(verifier, facts.code.code_challenge):
        return None
    got = "another" if verifier else "nothing"
    return _bad_grant("code.verifier", f"code_verifier: expected that of the challenge, got {got}")


def code_key(facts: Facts) -> Fault | None:
    """Expect the DPoP key that the authorization request was bound to, if it was."""
    bound = facts.code.dpop_jkt if facts.code is not None else ""
    if not bound or bound == facts.jkt:
        return None
    return refuse("invalid_dpop_proof", "code.key", "DPoP: expected the key the code is bound to")


def refresh_present(facts: Facts) -> Fault | None:
    """Expect the parameter refresh_token."""
    if "refresh_token" in facts.form:
        return None
    return refuse("invalid_request", "refresh.present", "refresh_token: expected one, got nothing")


def refresh_known(facts: Facts) -> Fault | None:
    """Expect a refresh token that was issued to this client."""
    if facts.refresh is not None and facts.refresh.client_id == facts.caller.client_id:
        return None
    return _bad_grant("refresh.known", "refresh_token: expected one issued to this client")


def refresh_alive(facts: Facts) -> Fault | None:
    """Expect a refresh token that is neither revoked nor expired."""
    token = facts.refresh
    if token is not None and not token.revoked and facts.now < token.expires:
        return None
    return _bad_grant("refresh.alive", "refresh_token: is revoked or expired")


def refresh_key(facts: Facts) -> Fault | None:
    """Expect the DPoP key that the refresh token was issued for, if it was."""
    bound = facts.refresh.jkt if facts.refresh is not None else ""
    if not bound or bound == facts.jkt:
        return None
    return refuse("invalid_dpop_proof", "refresh.key", "DPoP: expected the key of the first token")


def refresh_scope(facts: Facts) -> Fault | None:
    """Expect scope, if sent, to ask for no more than was granted."""
    if "scope" not in facts.form or facts.refresh is None:
        return None
    asked = parse_scope(facts.form["scope"])
    if asked is not None and set(asked) <= set(facts.refresh.scope.split()):
        return None
    public = f"scope: expected at most '{facts.refresh.scope}', got {show(facts.form['scope'])}"
    return refuse("invalid_scope", "refresh.scope", public)


def grant_alive(facts: Facts) -> Fault | None:
    """Expect a grant that was not revoked."""
    if facts.grant is not None and not facts.grant.revoked:
        return None
    return _bad_grant("grant.alive", "grant: was revoked")


def grant_consent(facts: Facts) -> Fault | None:
    """Expect a consent that is neither over nor suspended."""
    if facts.consent is None:
        return _bad_grant("grant.consent", "consent: is not known")
    status = status_at(facts.consent, facts.now)
    if status not in TERMINAL and status is not Status.SUSPENDED:
        return None
    return _bad_grant("grant.consent", f"consent: expected one that can be used, it is {status}")


def credentials_scope(facts: Facts) -> Fault | None:
    """Expect scope to hold what the client's roles allow."""
    came = facts.form.get("scope")
    scopes = parse_scope(came)
    allowed = scopes_of(facts.caller.roles)
    if scopes is not None and set(scopes) <= allowed and set(scopes) != {"openid"}:
        return None
    public = f"scope: expected some of {' '.join(sorted(allowed))}, got {show(came)}"
    return refuse("invalid_scope", "credentials.scope", public)


def role_allows(facts: Facts) -> Fault | None:
    """Expect the client to have a role that may use this Hub at all."""
    if scopes_of(facts.caller.roles):
        return None
    public = "client: expected a role among BDSP, BSIP, ISP"
    return refuse("unauthorized_client", "client.role", public)


def token_present(facts: Facts) -> Fault | None:
    """Expect the parameter token."""
    if "token" in facts.form:
        return None
    return refuse("invalid_request", "token.present", "token: expected a token, got nothing")


def token_owner(facts: Facts) -> Fault | None:
    """Expect a token, if it is known, to be the caller's own."""
    record = facts.access or facts.refresh
    if record is None or record.client_id == facts.caller.client_id:
        return None
    return _bad_grant("token.owner", "token: expected one that was issued to this client")
