"""DPoP: one proof checked as a pure function, for the authorization server and for resources alike.

Theory. ``check_proof`` makes every check of RFC 9449 section 4.3 that needs no memory: exactly one header, a JWT of the
right type and a closed list of algorithms, signed by the public key it carries, made for this method, this URL, this
moment, this nonce and (at resources) this access token. What remains for the caller is memory: claim ``replay_value`` once
until ``replay_until``, and compare ``jkt`` with what the code or token is bound to.

Source: RFC 9449 sections 4.2, 4.3, 8 and 11.1; FAPI 2.0 Security Profile 5.3.2.1.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from hub.protocol.jose import (
    DPOP_ALGS,
    JoseFault,
    Parsed,
    PublicKey,
    b64url,
    decode_b64url,
    decode_json,
    load_key,
    parse,
    verify,
)
from hub.protocol.oauth import show, token_hash

PROOF_OCTETS: Final = 8192
OLD_S: Final = 60
AHEAD_S: Final = 30
_ID_OCTETS: Final = 256
_SHORT: Final = 512
"""Headers with a P-256 key have some 270 octets; longer ones are not remembered."""
_URL: Final = re.compile(r"[!-~]+")
_PORTS: Final = {"https": 443, "http": 80}


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a proof that passed: the thumbprint of its key, and what to remember until when (seconds)."""

    jkt: str
    replay_value: str
    replay_until: int


class ProofFault(msgspec.Struct, frozen=True):
    """Say why a proof is refused. ``code`` is ``invalid_dpop_proof`` or ``use_dpop_nonce``."""

    check: str
    why: str
    code: str = "invalid_dpop_proof"


def check_proof(
    headers: Sequence[bytes],
    *,
    method: str,
    url: str,
    now: int,
    access_token: str = "",
    nonces: Sequence[str] = (),
    algs: Sequence[str] = DPOP_ALGS,
) -> Proof | ProofFault:
    """Check the DPoP header values of a request.

    Args:
        headers: Every value of the header ``dpop``, without the whitespace around it (the edge takes that away).
        method: Of the request.
        url: Of the request, as the Hub knows itself (never from ``Host``); query and fragment are ignored.
        now: Seconds since 1970.
        access_token: At resources: the presented token, whose hash must be ``ath``.
        nonces: Acceptable nonces; empty: none is asked for.
        algs: Closed list of algorithms.

    Returns:
        The proof, or a ProofFault with one of the checks ``dpop.single``, ``dpop.jose``, ``dpop.typ``, ``dpop.key``,
        ``dpop.signature``, ``dpop.jti``, ``dpop.htm``, ``dpop.htu``, ``dpop.iat``, ``dpop.nonce``, ``dpop.ath``.
    """
    parsed = _one(headers)
    if isinstance(parsed, ProofFault):
        return parsed
    jkt = _key_thumbprint(parsed, algs)
    if isinstance(jkt, ProofFault):
        return jkt
    claims = parsed.claims
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 1 <= len(jti) <= _ID_OCTETS:
        return ProofFault("dpop.jti", f"jti: expected 1 to {_ID_OCTETS} characters")
    fault = (
        _check_target(claims.get("htm"), claims.get("htu"), method, url)
        or _check_moment(claims.get("iat"), now)
        or _check_nonce(claims.get("nonce"), nonces)
        or _check_token(claims.get("ath"), access_token)
    )
    if fault is not None:
        return fault
    seen = hashlib.sha256(f"{jkt}\x00{jti}".encode()).digest()
    until = int(claims["iat"]) + OLD_S + AHEAD_S
    return Proof(jkt=jkt, replay_value=b64url(seen), replay_until=max(until, now + OLD_S))


def _one(headers: Sequence[bytes]) -> Parsed | ProofFault:
    if len(headers) != 1 or b"," in headers[0]:
        return ProofFault("dpop.single", "expected exactly one DPoP header")
    parsed = parse(headers[0], limit=PROOF_OCTETS, dpop=True)
    if isinstance(parsed, JoseFault):
        return ProofFault("dpop.jose", parsed.why)
    if parsed.header.get("typ") != "dpop+jwt":
        came = show(parsed.header.get("typ"))
        return ProofFault("dpop.typ", f"typ: expected 'dpop+jwt', got {came}")
    return parsed


@lru_cache(maxsize=1024)
def _key_before(segment: bytes) -> PublicKey | JoseFault:
    """Load the key of a proof's header; a client's proofs share one, and loading costs more than the rest of the check."""
    header: Any = decode_json(decode_b64url(segment) or b"")
    return load_key(header["jwk"])


def _key_thumbprint(parsed: Parsed, algs: Sequence[str]) -> str | ProofFault:
    segment = parsed.signing_input.partition(b".")[0]
    key = load_key(parsed.header["jwk"]) if len(segment) > _SHORT else _key_before(segment)
    if isinstance(key, JoseFault):
        return ProofFault("dpop.key", f"jwk: {key.why}")
    fault = verify(parsed, key, algs)
    return ProofFault("dpop.signature", fault.why) if fault is not None else key.thumbprint


def _check_target(htm: object, htu: object, method: str, url: str) -> ProofFault | None:
    if htm != method:
        return ProofFault("dpop.htm", f"htm: expected '{method}', got {show(htm)}")
    if htu == url:
        return None
    named = normal_url(htu) if isinstance(htu, str) and len(htu) <= 2048 else ""
    if not named or named != normal_url(url):
        return ProofFault("dpop.htu", f"htu: expected '{url}', got {show(htu)}")
    return None


def normal_url(url: str) -> str:
    """Return scheme, host, port and path in normal form (RFC 3986 section 6.2); empty if it is no URL."""
    if (
        _URL.fullmatch(url) is None
    ):  # urlsplit would take blanks and line ends away, and fold letters that are not ASCII
        return ""
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
    except ValueError:
        return ""
    if not parts.hostname or "@" in parts.netloc:
        return ""
    at = _PORTS.get(scheme) if port is None else port
    return f"{scheme}://{parts.hostname}:{at}{parts.path or '/'}"


def _check_moment(iat: Any, now: int) -> ProofFault | None:
    if iat is None or not now - OLD_S <= iat <= now + AHEAD_S:
        return ProofFault(
            "dpop.iat", f"iat: expected {now - OLD_S} to {now + AHEAD_S}, got {show(iat)}"
        )
    return None


def _check_nonce(nonce: object, nonces: Sequence[str]) -> ProofFault | None:
    if not nonces:
        return None
    given = nonce if isinstance(nonce, str) else ""
    if any(hmac.compare_digest(given.encode(), good.encode()) for good in nonces):
        return None
    return ProofFault("dpop.nonce", "use the nonce of the DPoP-Nonce header", "use_dpop_nonce")


def _check_token(ath: object, access_token: str) -> ProofFault | None:
    if not access_token:
        return None
    if isinstance(ath, str) and hmac.compare_digest(
        ath.encode(), token_hash(access_token).encode()
    ):
        return None
    return ProofFault("dpop.ath", "ath: expected the hash of the access token")
