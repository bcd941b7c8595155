"""What a refusal means: one table behind the address in ``error_uri`` and behind ``hub explain``.

A code is the name of a check (``client_assertion.audience``), as ``error_uri`` ends in it and the audit event holds it, or an
``error`` of the standards (``invalid_client``). The checks' texts are their own docstrings.
"""

from typing import Final

from hub.authz.steps import MATRIX
from hub.model.resource_checks import RESOURCE_CHECKS, RESOURCE_FAMILIES

_OUTSIDE: Final[dict[str, str]] = {
    "client_assertion.replay": "Expect a jti that was not used before: each assertion authenticates once.",
    "dpop.replay": "Expect a jti that was not used before: each DPoP proof is good for one request.",
    "finish.readable": "Expect a form in UTF-8 in which no parameter occurs twice.",
    "finish.consent_over": "Expect the bank to confirm a consent that is not over.",
    "finish.consent_unauthorized": "Expect the bank to authorize a single-approver consent before it confirms.",
    "heimdall.certificate": "Expect the bank's own certificate at the bank's face.",
    "client.header_ignored": "Expect no Authorization header beside a client assertion: it is ignored, and noted in the event.",
    "client.rate": "Expect fewer requests per second of one client; Retry-After says when to come back.",
    "userinfo.token": "Expect an active access token of a customer, bound to this certificate.",
    "userinfo.scope": "Expect a token with the scope openid.",
    "par.contended": "Too many did the same at the same moment; try again.",
    "token.contended": "Too many did the same at the same moment; try again.",
    "heimdall.contended": "Too many did the same at the same moment; try again.",
    "bank.validate": "Expect a consent that the bank would accept.",
    "trust.certificate_missing": "Expect a client certificate of the Trust Framework on the connection.",
    "trust.certificate_expired": "Expect a certificate that is in its dates, also on a connection opened before its end.",
    "trust.certificate_revoked": "Expect a certificate that neither the revocation list, OCSP nor the key store calls revoked.",
    "trust.certificate_unknown_organisation": "Expect a certificate whose OU is an organisation that the framework lists, and the client's own.",
    "trust.organisation_inactive": "Expect an organisation that is active in the Trust Framework.",
    "trust.software_statement_inactive": "Expect a client whose software statement the Trust Framework knows.",
    "trust.client_inactive": "Expect an application that is active in the Trust Framework.",
    "trust.not_registered": "Expect a client that has called the registration endpoint of this bank.",
    "trust.not_activated": "Expect a client that this bank has activated: TPP, software statement and client (hub admin activate).",
    "trust.blocked": "Expect a client that this bank has not blocked at any level (hub admin unblock).",
    "trust.stale": "The Trust Framework has not answered for too long; service returns by itself when it does.",
    "trust.push_key": "Expect a notification of the Trust Framework with the key of trust.push_key.",
    "trust.push_rate": "Expect fewer notifications per second of one sender; each is a look at everything.",
}
"""Refusals that need memory, the bank, or a token, and therefore stand outside the matrix."""

_FAMILIES: Final[dict[str, str]] = {
    "trust": "Expect a certificate of an active, registered and activated client of the Trust Framework.",
    "dpop": "Expect a DPoP proof as RFC 9449 section 4.3 says.",
    "keeper": "The Hub cannot write its log at the moment and therefore answers nothing; try again.",
}

_ERRORS: Final[dict[str, tuple[str, str]]] = {
    "invalid_request": ("A parameter is missing, malformed, there twice, or not allowed.", "RFC 6749 5.2"),
    "invalid_client": ("Who calls could not be authenticated, or may not act at the moment.", "RFC 6749 5.2"),
    "invalid_grant": ("The code or refresh token is unknown, used, over, or somebody else's.", "RFC 6749 5.2"),
    "unauthorized_client": ("The client has no role that allows this.", "RFC 6749 5.2"),
    "unsupported_grant_type": ("The token endpoint knows no such grant.", "RFC 6749 5.2"),
    "invalid_scope": ("The scope is unknown, not the client's, or does not fit the consent.", "RFC 6749 5.2"),
    "unsupported_response_type": ("Only the response type code exists here.", "RFC 6749 4.1.2.1"),
    "access_denied": ("The customer or the bank declined, or the consent is over.", "RFC 6749 4.1.2.1"),
    "server_error": ("Something failed that is not the caller's doing.", "RFC 6749 4.1.2.1"),
    "temporarily_unavailable": ("Too much at once, or the Hub cannot record at the moment; try again.", "RFC 6749 4.1.2.1"),
    "login_required": ("The customer must log in, and the request forbids it.", "OIDC Core 3.1.2.6"),
    "invalid_request_object": ("The signed request is malformed, badly signed, or outside its window.", "RFC 9101 7"),
    "invalid_request_uri": ("The request_uri is unknown, expired, or was used.", "RFC 9101 7"),
    "invalid_authorization_details": ("The consent that is asked for breaks its schema or a rule.", "RFC 9396 5"),
    "invalid_dpop_proof": ("The DPoP proof is missing, wrong, or was used.", "RFC 9449 5"),
    "use_dpop_nonce": ("The DPoP proof must carry the nonce of the header DPoP-Nonce.", "RFC 9449 8"),
    "invalid_token": ("The access token is unknown, over, or bound to somebody else.", "RFC 6750 3.1"),
    "insufficient_scope": ("The access token's scope does not reach here.", "RFC 6750 3.1"),
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Return every code that has an explanation of its own: the checks in their order, then the errors."""
    return (*(row.name for row in MATRIX), *_OUTSIDE, *RESOURCE_CHECKS, *_ERRORS)


def explain(code: str) -> str | None:
    """Return what a code means, where it applies and where that is written; None for an unknown code."""
    for row in MATRIX:
        if row.name == code:
            where = ", ".join(sorted(row.columns))
            return f"{row.check.__doc__}\nApplies to: {where}.\nSource: {row.source}.\n"
    if code in _ERRORS:
        meaning, source = _ERRORS[code]
        more = "The check that refused is named at the end of error_uri; it can be explained too."
        return f"{meaning}\n{more}\nSource: {source}.\n"
    family = code.partition(".")[0] if "." in code else ""
    own = _OUTSIDE.get(code) or RESOURCE_CHECKS.get(code)
    text = own or _FAMILIES.get(family) or RESOURCE_FAMILIES.get(family)
    return f"{text}\n" if text else None
