"""OAuth 2.0 on the wire: forms, scopes, redirects, PKCE, half hashes and error bodies; pure functions.

Source: RFC 6749 (forms, errors), RFC 7636 (PKCE), RFC 9207 (``iss``), OpenID Connect Core 3.1.3.6 (``at_hash``).
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlencode

import msgspec
import orjson

from hub.model.fault import Fault
from hub.protocol.jose import b64url

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
REQUEST_URI_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"

_MEMBERS: Final = 64
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_REDIRECT: Final = re.compile(
    r"(?:(?i:https)://[A-Za-z0-9\[]|http://(?:127\.0\.0\.1|\[::1\])(?=[:/?]|\Z)|[A-Za-z][A-Za-z0-9+-]*\.[A-Za-z0-9+.-]*:)[!\"$-~]*"
)
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNSPEAKABLE: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


class FormFault(msgspec.Struct, frozen=True):
    """Say why a form cannot be read: ``name`` is the member to blame, where there is one."""

    why: str
    name: str = ""


def parse_pairs(text: str | bytes) -> tuple[tuple[str, str], ...] | FormFault:
    """Take ``application/x-www-form-urlencoded`` apart, in order, at most 64 members.

    Source: RFC 6749 appendix B; WHATWG URL, urlencoded parsing.
    """
    try:
        raw = text.decode("ascii") if isinstance(text, bytes) else text
        members = [member for member in raw.split("&") if member]
        if len(members) > _MEMBERS:
            return FormFault(f"more than {_MEMBERS} members")
        return tuple(_pair(member) for member in members)
    except ValueError:
        return FormFault("not a form in UTF-8 with percent encoding")


def _pair(member: str) -> tuple[str, str]:
    name, _, value = member.partition("=")
    return _text(name), _text(value)


def _text(part: str) -> str:
    if "%" not in part and part.isascii():
        return part.replace("+", " ")
    if _PERCENT.search(part):
        raise ValueError(part)
    return unquote_to_bytes(part.replace("+", " ")).decode("utf-8")


def parse_form(text: str | bytes) -> dict[str, str] | FormFault:
    """Read a form whose members may occur once; members without a value count as absent.

    Source: RFC 6749 section 3.2 (no parameter more than once, empty means omitted).
    """
    pairs = parse_pairs(text)
    if isinstance(pairs, FormFault):
        return pairs
    form: dict[str, str] = {}
    for name, value in pairs:
        if name in form:
            return FormFault(f"{printable(name)} occurs more than once", name)
        form[name] = value
    return {name: value for name, value in form.items() if value}


def parse_scope(text: object) -> tuple[str, ...] | None:
    """Return the values of a ``scope``, in order; None if it is not one (RFC 6749 section 3.3)."""
    if not isinstance(text, str) or not text or len(text) > 1024:
        return None
    values = tuple(text.split(" "))
    if not all(_SCOPE.fullmatch(value) for value in values) or len(set(values)) != len(values):
        return None
    return values


def is_challenge(text: object) -> bool:
    """Tell whether a text can be an S256 ``code_challenge``: 43 characters of base64url."""
    return isinstance(text, str) and _CHALLENGE.fullmatch(text) is not None


def proves(verifier: str, challenge: str) -> bool:
    """Tell whether a ``code_verifier`` is the one of an S256 challenge (RFC 7636 section 4.6)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    return hmac.compare_digest(challenge_of(verifier), challenge)


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 section 4.2)."""
    return b64url(hashlib.sha256(verifier.encode()).digest())


def half_hash(text: str, alg: str = "PS256") -> str:
    """Return the left half of a text's hash, base64url: ``at_hash``, ``c_hash`` (OIDC Core 3.1.3.6).

    Args:
        text: The token or code.
        alg: Of the id_token: its hash is taken, SHA-256, or with EdDSA the SHA-512 of Ed25519 (RFC 8032 section 5.1).
    """
    digest = hashlib.sha512 if alg == "EdDSA" else hashlib.sha256
    octets = digest(text.encode()).digest()
    return b64url(octets[: len(octets) // 2])


def token_hash(token: str) -> str:
    """Return the SHA-256 of an access token, base64url: ``ath`` (RFC 9449 section 4.1)."""
    return b64url(hashlib.sha256(token.encode()).digest())


def is_redirect_uri(uri: str) -> bool:
    """Tell whether a browser may be sent there with a code, whatever a registration says.

    https; http to an address of the browser's own machine; a scheme of an app's own, which has the form of a domain name. No
    fragment, nothing but printable ASCII.

    Source: RFC 6749 section 3.1.2; RFC 8252 sections 7 and 8.4; FAPI 2.0 Security Profile section 5.3.2.2.
    """
    return _REDIRECT.fullmatch(uri) is not None


def redirect_to(uri: str, parameters: Sequence[tuple[str, str]]) -> str:
    """Return a redirect URI with parameters added to its query; what is there stays (RFC 6749 section 4.1.2)."""
    query = urlencode([pair for pair in parameters if pair[1]], quote_via=quote, safe="-._~:/")
    return f"{uri}{'&' if '?' in uri else '?'}{query}"


def printable(text: object, *, limit: int = 80) -> str:
    """Return a text as an ``error_description`` may show it: RFC 6749 section 5.2's characters, cut to ``limit``."""
    shown = _UNSPEAKABLE.sub("?", str(text))
    return shown if len(shown) <= limit else shown[:limit] + "..."


def error_body(fault: Fault, error_uri: str = "") -> bytes:
    """Return the JSON of an OAuth error (RFC 6749 section 5.2)."""
    body: dict[str, str] = {"error": fault.code}
    if fault.public:
        body["error_description"] = printable(fault.public, limit=400)
    if error_uri:
        body["error_uri"] = error_uri
    return orjson.dumps(body)


def show(value: object) -> str:
    """Describe what came, for an ``error_description``: its text, or its kind where it is no short text."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"'{printable(value)}'"
    if isinstance(value, bool | int | float):
        return str(value)
    return "an object" if isinstance(value, Mapping) else "an array"
