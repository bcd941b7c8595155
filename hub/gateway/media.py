"""Which media type an answer has, and JWS in both directions (message signing).

A signed body is a JWS whose claims are ``{iss, exp, nbf, aud?, iat?, message}``; the business body is ``message``. Answers are
signed with the tenant's newest signing key where the operation always is, or ``Accept`` asks for ``application/jwt``.

Source: routes.md section 1 and T0; errors.md section 1.1; hub-behaviour 4.9; decisions.md section 1 (windows).
"""

from functools import lru_cache
from typing import Any, Final

import orjson

from hub.model.fault import Fault, caller_fault
from hub.model.route import Route, Signing
from hub.protocol.fapi import wrong_type
from hub.protocol.jose import (
    UAE_ALGS,
    JoseFault,
    Parsed,
    PrivateKey,
    PublicKey,
    parse,
    sign,
    verify,
)

JSON: Final = b"application/json"
JWT: Final = b"application/jwt"
_SHORT: Final = 128
_LIFE_S: Final = 300
_OLD_S: Final = 600
_BODY_TYPES: Final = frozenset({"", "jwt", "jose"})
_CLAIMS: Final = ("iss", "exp", "nbf", "message")


def weights(accept: bytes | None) -> dict[bytes, float]:
    """Return the media ranges of an ``Accept`` header with their weights (RFC 9110 section 12.5.1)."""
    if not accept:
        return {b"*/*": 1.0}
    found: dict[bytes, float] = {}
    for part in accept.lower().split(b",")[:32]:
        name, *parameters = [p.strip() for p in part.split(b";")]
        quality = next((p[2:] for p in parameters if p.startswith(b"q=")), b"1")
        try:
            found[name] = min(max(0.0, float(quality)), 1.0)
        except ValueError:
            found[name] = 0.0
    return found


def weight_of(media: bytes, ranges: dict[bytes, float]) -> float:
    """Return the weight of one media type: its own, its kind's, or everything's."""
    for name in (media, media.split(b"/")[0] + b"/*", b"*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def answer_media(route: Route | None, accept: bytes | None) -> bytes | None:
    """Return the media type of an answer, or None where the caller accepts none that is offered (406)."""
    signing = route.response_signing if route is not None else Signing.NEVER
    if accept is not None and len(accept) > _SHORT:
        return _chosen(signing, accept)
    return _chosen_before(signing, accept)


def _chosen(signing: Signing, accept: bytes | None) -> bytes | None:
    ranges = weights(accept)
    json, jwt = weight_of(JSON, ranges), weight_of(JWT, ranges)
    match signing:
        case Signing.ALWAYS:
            return JWT if jwt or json else None
        case Signing.ACCEPT:
            if not (json or jwt):
                return None
            return (
                JWT
                if jwt > json or (jwt == json and JWT in ranges and JSON not in ranges)
                else JSON
            )
        case Signing.NEVER:
            return JSON if json else None


_chosen_before: Final = lru_cache(maxsize=256)(_chosen)


def signed(
    value: Any, *, issuer: str, audience: str, now: int, key: PrivateKey, alone: bool = False
) -> bytes:
    """Return an answer as a compact JWS.

    Args:
        value: The JSON value that would stand in the plain answer.
        issuer: Ours.
        audience: The client; empty where it is not known yet.
        now: Seconds since 1970.
        key: Of the tenant, for answers.
        alone: The audience is one string; otherwise it stands in a list.
    """
    claims = {
        "iss": issuer,
        **({"aud": audience if alone else [audience]} if audience else {}),
        "iat": now,
        "nbf": now,
        "exp": now + _LIFE_S,
        "message": value,
    }
    return sign(orjson.dumps(claims), key, typ="JWT").encode()


def parse_body(body: bytes, limit: int) -> Parsed | Fault:
    """Take a signed body apart.

    Faults: 400 ``JWS.Malformed``, ``JWS.InvalidHeader``.
    """
    parsed = parse(body, limit=limit)
    if isinstance(parsed, JoseFault):
        header = any(word in parsed.check for word in ("alg", "header", "crit", "embedded"))
        code = "JWS.InvalidHeader" if header else "JWS.Malformed"
        return caller_fault(400, code, parsed.why, check=parsed.check)
    if parsed.header.get("alg") not in UAE_ALGS or not isinstance(parsed.header.get("kid"), str):
        text = f"expected alg {' or '.join(UAE_ALGS)} and a kid in the header"
        return caller_fault(400, "JWS.InvalidHeader", text, check="jws.header")
    wrong = wrong_type(parsed.header, _BODY_TYPES)
    if wrong is not None:
        return caller_fault(400, "JWS.InvalidHeader", wrong, check="jws.typ")
    return parsed


def open_body(
    parsed: Parsed, key: PublicKey | None, *, issuer: str, audience: str, now: int
) -> Any:
    """Verify a signed body and return its ``message``, or a Fault.

    Args:
        parsed: Of ``parse_body``.
        key: The client's signing key of that ``kid``; None if there is none.
        issuer: The client: what ``iss`` must be.
        audience: Ours: what ``aud`` must name, where it is there.
        now: Seconds since 1970.

    Faults: 400 ``JWS.InvalidSignature``, ``JWS.InvalidClaim``.
    """
    if key is None or verify(parsed, key, UAE_ALGS) is not None:
        text = "The signature is not one of the client's current keys."
        return caller_fault(400, "JWS.InvalidSignature", text, check="jws.signature")
    claims = parsed.claims
    wrong = _wrong_claim(claims, issuer, audience, now)
    if wrong:
        text = f"{wrong}: not as expected"
        return caller_fault(400, "JWS.InvalidClaim", text, check=f"jws.{wrong}")
    return claims["message"]


def _wrong_claim(claims: Any, issuer: str, audience: str, now: int) -> str:
    missing = next((name for name in _CLAIMS if name not in claims), "")
    if missing:
        return missing
    if claims["iss"] != issuer:
        return "iss"
    named = claims.get("aud", audience)
    if audience not in (named if isinstance(named, list) else [named]):
        return "aud"
    nbf, exp = claims["nbf"], claims["exp"]
    if not _is_time(nbf) or not now - _OLD_S <= nbf <= now + 30:
        return "nbf"
    return "exp" if not _is_time(exp) or not now < exp <= nbf + _OLD_S else ""


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
