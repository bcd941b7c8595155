"""Who may call the bank: the Hub's own certificate, with the bearer agreed for this bank (JWT Auth).

Both are needed. The certificate's subject must name the Hub's organisation (OU), whatever application of it (CN). The
bearer is a PS256 JWT whose ``iss`` and ``sub`` are that certificate's subject O and OU, whose ``aud`` is this bank's
provider id, whose ``scope`` holds that of the operation, and which is in force now, give or take ten seconds. Keys come from the Trust Framework's key store: looked up
by ``kid``, kept for ten minutes, asked for again at once (but at most every ten seconds) when an unknown ``kid`` comes.
"""

import hmac
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final, final

import httpx
import msgspec
import trio
from cryptography import x509
from cryptography.x509.oid import NameOID
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hub.model.clock import Clock

_SKEW: Final = 10
_LONGEST: Final = 300
_KEYS_S: Final = 600
_AGAIN_S: Final = 10
_SCHEMES: Final = frozenset({"bearer", "ozone-connect-jwt-auth", "basic"})
_KEYS_OCTETS: Final = 262_144

FetchKeys = Callable[[], Awaitable[dict[str, Any]]]
"""Get the Hub's key set; raises ``httpx.HTTPError`` or ``ValueError`` where that fails."""


class Subject(msgspec.Struct, frozen=True):
    """Hold a certificate's subject: organisation (O), its id (OU), application id (CN); and the issuer."""

    organisation_name: str
    organisation_id: str
    client_id: str
    subject: str
    issuer: str


class Refusal(msgspec.Struct, frozen=True):
    """Say why a caller is refused: status, code, sentence."""

    status: int
    code: str
    message: str


@lru_cache(maxsize=64)
def subject_of(certificate: bytes) -> Subject:
    """Return the subject of a certificate in DER.

    Raises:
        ValueError: It is no certificate.
    """
    leaf = x509.load_der_x509_certificate(certificate)

    def first(oid: x509.ObjectIdentifier) -> str:
        found = leaf.subject.get_attributes_for_oid(oid)
        return str(found[0].value) if found else ""

    return Subject(
        first(NameOID.ORGANIZATION_NAME),
        first(NameOID.ORGANIZATIONAL_UNIT_NAME),
        first(NameOID.COMMON_NAME),
        leaf.subject.rfc4514_string(),
        leaf.issuer.rfc4514_string(),
    )


def keys_from(http: httpx.AsyncClient, url: str) -> FetchKeys:
    """Return what gets a key set from a URL, at most 256 KiB of it."""

    async def fetch() -> dict[str, Any]:
        answer = await http.get(url, headers={"accept": "application/json"})
        answer.raise_for_status()
        if len(answer.content) > _KEYS_OCTETS:
            raise ValueError("key set is too large")
        return msgspec.json.decode(answer.content, type=dict[str, Any])

    return fetch


def same(left: str, right: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(left.encode(), right.encode())


@final
class Gate:
    """Decide whether a caller is the Hub."""

    __slots__ = ("_audience", "_clock", "_fetch", "_fetched", "_hub", "_keys", "_lock")

    def __init__(
        self, *, hub_organisation_id: str, audience: str, fetch: FetchKeys, clock: Clock
    ) -> None:
        """Take the Hub's organisation id, this bank's provider id, and the way to the Hub's keys."""
        self._hub = hub_organisation_id
        self._audience = audience
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._fetched = 0
        self._lock = trio.Lock()

    def certificate(self, certificate: bytes) -> Subject | Refusal:
        """Return the subject where it is the Hub's, else why not."""
        if not certificate:
            return Refusal(401, "Certificate.Missing", "a client certificate is needed")
        try:
            subject = subject_of(certificate)
        except ValueError:
            return Refusal(401, "Certificate.Malformed", "the client certificate is unreadable")
        if not same(subject.organisation_id, self._hub):
            return Refusal(401, "Certificate.NotAccepted", "this certificate is not the Hub's")
        return subject

    async def bearer(
        self, authorization: str, subject: Subject, scopes: frozenset[str]
    ) -> Refusal | None:
        """Return why a bearer is refused, or None.

        Args:
            authorization: The header's value.
            subject: Of the certificate in use.
            scopes: One of these must be among the bearer's; empty for no such demand.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() not in _SCHEMES or token.count(".") != 2:
            return Refusal(401, "Bearer.Missing", "a bearer as agreed (JWT Auth) is needed")
        try:
            claims = await self._verified(token.strip())
        except (JoseError, ValueError, httpx.HTTPError):
            return Refusal(401, "JWS.InvalidSignature", "the bearer's signature is not the Hub's")
        return self._judged(claims, subject, scopes)

    async def _verified(self, token: str) -> dict[str, Any]:
        header = jws.extract_compact(token.encode()).headers()
        if header.get("alg") != "PS256" or not isinstance(header.get("kid"), str):
            raise ValueError("header")
        key = await self._key(str(header["kid"]))
        signed = jws.deserialize_compact(token, key, algorithms=["PS256"])
        return msgspec.json.decode(signed.payload, type=dict[str, Any])

    async def _key(self, kid: str) -> Any:
        async with self._lock:
            now = self._clock.now()
            age = abs(now - self._fetched)
            if age > _KEYS_S or (kid not in self._keys and age > _AGAIN_S):
                document = await self._fetch()
                usable = [k for k in document.get("keys", []) if k.get("use", "sig") == "sig"]
                self._keys = {k.kid or "": k for k in KeySet.import_key_set({"keys": usable}).keys}
                self._fetched = now
        if kid not in self._keys:
            raise ValueError("unknown kid")
        return self._keys[kid]

    def _judged(
        self, claims: dict[str, Any], subject: Subject, scopes: frozenset[str]
    ) -> Refusal | None:
        now = self._clock.now()
        expected = (
            ("iss", subject.organisation_name),
            ("sub", subject.organisation_id),
            ("aud", self._audience),
        )
        for name, value in expected:
            if not same(str(claims.get(name, "")), value):
                return Refusal(401, "JWS.InvalidClaim", f"the bearer's {name} is not as agreed")
        expires, issued = claims.get("exp"), claims.get("iat")
        if not isinstance(expires, int | float) or not isinstance(issued, int | float):
            return Refusal(401, "JWS.InvalidClaim", "the bearer needs exp and iat")
        if expires <= now - _SKEW or issued > now + _SKEW or expires - issued > _LONGEST:
            return Refusal(401, "JWS.InvalidClaim", "the bearer is not in force")
        if claims.get("nbf", 0) > now + _SKEW:
            return Refusal(401, "JWS.InvalidClaim", "the bearer is not in force yet")
        granted = str(claims.get("scope", "")).split()
        if scopes and not scopes.intersection(granted):
            return Refusal(403, "AccessToken.InvalidScope", "the bearer's scope does not fit")
        return None
