"""How the Hub authenticates to the bank above TLS: JWT Auth, an API key, an OAuth token, or nothing more.

JWT Auth signs ``iss`` (subject O of our client certificate), ``sub`` (its OU), ``aud`` (the bank), ``scope`` and a short
life with PS256. A signature costs as much as the rest of an exchange, so a bearer is used again until a third of its
life is left; one is kept per scope.

Source: hub-behaviour 9; decisions.md section 2 (JWT Auth). RFC 6749 section 4.4 for OAuth.
"""

import math
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote_plus, urlencode

import msgspec
import orjson
import trio
from cryptography import x509
from cryptography.x509.oid import NameOID

from hub.model.clock import Clock, Dice
from hub.model.fault import Fault
from hub.protocol import jose
from hub.upstream.faults import bank_failure

_SCOPES_MOST: Final = 64
_AGAIN_S: Final = 10.0
"""A token that is refused sooner after it was fetched is not the trouble."""


class Bearer(Protocol):
    """Give the value of the ``authorization`` header."""

    def at_once(self, scope: str) -> bytes | None:
        """Return the value for a call of that scope, empty for no header; None where it must be waited for."""
        ...

    async def value(self, scope: str) -> bytes | Fault:
        """Return the value for a call of that scope; empty for no header.

        Faults: ``bank.unreachable`` if a token could not be had.

        Cancellation: harmless.
        """
        ...

    def refused(self, scope: str) -> None:
        """Hear that the bank did not accept what was given for that scope (401)."""
        ...


class NoBearer:
    """Send nothing: mutual TLS is enough."""

    def at_once(self, scope: str) -> bytes | None:
        """Return nothing."""
        del scope
        return b""

    async def value(self, scope: str) -> bytes | Fault:
        """Return nothing."""
        del scope
        return b""

    def refused(self, scope: str) -> None:
        """Do nothing."""


class ApiKey:
    """Send a key that the bank gave, as it stands in a file; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Read the file now, so that a missing one is found at the start.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds no key.
        """
        self._path = path
        self._stamp = (0, 0)
        self._key = b""
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it changed."""
        stat = self._path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp:
            return
        key = self._path.read_bytes().strip()
        if not key or b"\n" in key:
            raise ValueError(f"{self._path}: expected one line with the API key")
        self._stamp, self._key = stamp, key

    def at_once(self, scope: str) -> bytes | None:
        """Return the key."""
        del scope
        return self._key

    async def value(self, scope: str) -> bytes | Fault:
        """Return the key."""
        del scope
        return self._key

    def refused(self, scope: str) -> None:
        """Do nothing: the key is read again when its file changes."""


class Subject(msgspec.Struct, frozen=True):
    """Hold whose certificate it is: subject O and OU."""

    organisation_name: str
    organisation_id: str


def subject_of(certificate: bytes) -> Subject:
    """Return the subject of the first certificate of a PEM file.

    Raises:
        ValueError: It is no certificate.
    """
    name = x509.load_pem_x509_certificate(certificate).subject

    def first(oid: x509.ObjectIdentifier) -> str:
        found = name.get_attributes_for_oid(oid)
        return str(found[0].value) if found else ""

    return Subject(
        first(NameOID.ORGANIZATION_NAME),
        first(NameOID.ORGANIZATIONAL_UNIT_NAME),
    )


def jwt_auth_claims(
    subject: Subject, audience: str, scope: str, now: int, life: int, jti: str
) -> dict[str, Any]:
    """Return the claims of one JWT Auth token; times in seconds."""
    claims: dict[str, Any] = {
        "iss": subject.organisation_name,
        "sub": subject.organisation_id,
        "aud": audience,
        "iat": now,
        "exp": now + life,
        "jti": jti,
    }
    if scope:
        claims["scope"] = scope
    return claims


class JwtAuth:
    """Sign short-lived tokens, one per scope at a time."""

    def __init__(
        self,
        *,
        subject: Subject,
        audience: str,
        key: jose.PrivateKey,
        clock: Clock,
        dice: Dice,
        life: int,
    ) -> None:
        """Take what goes into each token.

        Args:
            subject: Of our client certificate.
            audience: As agreed with the bank.
            key: PS256.
            clock: For ``iat`` and ``exp``.
            dice: For ``jti``.
            life: Seconds, at most 30 by the standard's advice.
        """
        self.subject = subject
        self._audience = audience
        self._key = key
        self._clock = clock
        self._dice = dice
        self._life = life
        self._kept: dict[str, tuple[int, bytes]] = {}

    async def value(self, scope: str) -> bytes | Fault:
        """Return a bearer with at least a third of its life before it."""
        return self.at_once(scope)

    def at_once(self, scope: str) -> bytes:
        """Return a bearer with at least a third of its life before it."""
        now = self._clock.now()
        kept = self._kept.get(scope)
        if kept is not None and now < kept[0] <= now + self._life:
            return kept[1]
        claims = jwt_auth_claims(
            self.subject, self._audience, scope, now, self._life, self._dice.uuid()
        )
        token = jose.sign(claims, self._key, typ="JOSE", header={"cty": "json"})
        if len(self._kept) >= _SCOPES_MOST:
            self._kept.clear()
        value = b"Bearer " + token.encode()
        self._kept[scope] = (now + self._life - self._life // 3, value)
        return value

    def refused(self, scope: str) -> None:
        """Do nothing: the next token is near."""


class TokenAnswer(msgspec.Struct, frozen=True):
    """Hold what a token endpoint answered: the status and the body."""

    status: int
    body: bytes


AskToken = Callable[[bytes, Mapping[str, str]], Awaitable[TokenAnswer | Fault]]
"""Post a form to the token endpoint with extra headers."""


class ClientCredentials:
    """Get tokens of the bank's own authorization server by client credentials; one fetch however many wait."""

    def __init__(self, *, client_id: str, secret: Path, ask: AskToken, clock: Clock) -> None:
        """Take the credentials; the secret is read for each fetch, so that it can be replaced."""
        self._client_id = client_id
        self._secret = secret
        self._ask = ask
        self._clock = clock
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._fetched: dict[str, float] = {}
        self._fetching = trio.Lock()

    def at_once(self, scope: str) -> bytes | None:
        """Return a token that is still valid for ten seconds, if there is one."""
        return self._fresh(scope)

    async def value(self, scope: str) -> bytes | Fault:
        """Return a token that is still valid for ten seconds, fetching one if need be."""
        if (kept := self._fresh(scope)) is not None:
            return kept
        async with self._fetching:
            if (kept := self._fresh(scope)) is not None:
                return kept
            return await self._fetch(scope)

    def _fresh(self, scope: str) -> bytes | None:
        kept = self._kept.get(scope)
        return kept[1] if kept is not None and self._clock.now() + 10 < kept[0] else None

    def refused(self, scope: str) -> None:
        """Forget a token that the bank has withdrawn before its time; one just fetched is kept, or each call would fetch one."""
        if trio.current_time() - self._fetched.get(scope, -math.inf) >= _AGAIN_S:
            self._kept.pop(scope, None)

    async def _fetch(self, scope: str) -> bytes | Fault:
        try:
            secret = self._secret.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = f"the client secret cannot be read: {type(error).__name__}"
            return bank_failure("bank.unreachable", why, sent=False)
        pair = f"{quote_plus(self._client_id)}:{quote_plus(secret)}".encode()
        form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        answer = await self._ask(
            urlencode(form).encode(), {"authorization": f"Basic {b64encode(pair).decode()}"}
        )
        if isinstance(answer, Fault):
            return answer
        try:
            token = orjson.loads(answer.body)
            value, life = token["access_token"], int(token.get("expires_in", 60))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return self._no_token(answer.status)
        text = value if isinstance(value, str) else ""
        if answer.status != 200 or not text.isascii() or not text.isprintable() or not text:
            return self._no_token(answer.status)
        if len(self._kept) >= _SCOPES_MOST:
            self._kept.clear()
            self._fetched.clear()
        self._fetched[scope] = trio.current_time()
        self._kept[scope] = (self._clock.now() + life, b"Bearer " + text.encode())
        return self._kept[scope][1]

    def _no_token(self, status: int) -> Fault:
        return bank_failure(
            "bank.unreachable", f"the bank's token endpoint answered {status}", sent=False
        )
