"""FAPI 2.0 rules on signed messages: types, audiences and windows of assertions and request objects.

Pure functions over a parsed JWS; each returns None or one sentence that names the claim, what was expected and what
came. Moments may be fractional (the official collections send them so).

Source: FAPI 2.0 Security Profile 5.3.2.1; FAPI 2.0 Message Signing 5.3.1; RFC 7523 section 3; RFC 9101; the UAE
Security Profile's windows as settled in decisions 1.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from hub.protocol.oauth import show

ASSERTION_TYPES: Final = frozenset({"", "jwt", "client-authentication+jwt"})
REQUEST_OBJECT_TYPES: Final = frozenset({"", "jwt", "oauth-authz-req+jwt"})
REQUEST_ONLY: Final = ("response_type", "authorization_details", "redirect_uri", "code_challenge")
"""Claims that only a request object has: an assertion with one of them is a request object in the wrong place."""


def wrong_type(header: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Refuse an explicit ``typ`` that is meant for something else (RFC 8725 section 3.11)."""
    typ = header.get("typ", "")
    named = str(typ).lower().removeprefix("application/")
    if named in allowed:
        return None
    return f"typ: expected {' or '.join(sorted(filter(None, allowed)))}, got {show(typ)}"


def wrong_audience(audience: object, issuer: str, *, array: bool = False) -> str | None:
    """Refuse an ``aud`` that is not exactly the issuer.

    Args:
        audience: The claim.
        issuer: Ours.
        array: Also accept an array that contains it (request objects in the general profile).
    """
    if audience == issuer or (array and isinstance(audience, list) and issuer in audience):
        return None
    return f"aud: expected the issuer '{issuer}' as a string, got {show(audience)}"


def wrong_assertion_window(
    claims: Mapping[str, Any], now: int, *, lifetime: int, ahead: int
) -> str | None:
    """Refuse an assertion that is expired, lives too long, or comes from the future.

    Args:
        claims: Of the assertion.
        now: Seconds since 1970.
        lifetime: Largest ``exp`` - ``iat``, seconds.
        ahead: How far a clock may be ahead of ours, seconds.
    """
    expiry, issued = claims.get("exp"), claims.get("iat")
    if expiry is None:
        return "exp: expected a time at most 5 minutes away, got nothing"
    if expiry <= now:
        return f"exp: expected a time after {now}, got {expiry}"
    for name in ("iat", "nbf"):
        if claims.get(name, 0) > now + ahead:
            return f"{name}: expected at most {now + ahead}, got {claims[name]}"
    start = now + ahead if issued is None else issued
    if expiry > start + lifetime:
        return f"exp: expected at most {lifetime} seconds after iat, got {expiry - start:g}"
    return None


def wrong_request_window(
    claims: Mapping[str, Any], now: int, *, lifetime: int, ahead: int
) -> str | None:
    """Refuse a request object outside its window: ``nbf`` neither old nor ahead, ``exp`` soon after it.

    Args:
        claims: Of the request object.
        now: Seconds since 1970.
        lifetime: Largest age of ``nbf`` and largest ``exp`` - ``nbf``, seconds.
        ahead: How far a clock may be ahead of ours, seconds.
    """
    expiry, start = claims.get("exp"), claims.get("nbf")
    if start is None or expiry is None:
        return f"{'nbf' if start is None else 'exp'}: expected a time, got nothing"
    if not now - lifetime <= start <= now + ahead:
        return f"nbf: expected {now - lifetime} to {now + ahead}, got {start}"
    if expiry <= now:
        return f"exp: expected a time after {now}, got {expiry}"
    if expiry > start + lifetime:
        return f"exp: expected at most {lifetime} seconds after nbf, got {expiry - start:g}"
    return None
