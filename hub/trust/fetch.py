"""Fetch documents of the Trust Framework: configured hosts only, bounded in time and size, no redirects.

Theory. One ``Fetcher`` lives for one round of refreshing, so that rotated certificates and CA bundles are picked up by
the next. What outlives it is ``Memory``: the last document of each address with its validator, so that an unchanged one
costs a 304, and the token of the directory. Only addresses below the configured bases are ever asked, whatever a
document says (no SSRF through a ``jwks_uri``); redirects are errors; content coding is switched off, so that the bound
on size is a bound on memory.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, final

import msgspec
import orjson
import trio

from hub.config import Limits, TrustSettings
from hub.model.clock import Clock
from hub.trust.mirror import DocumentFault
from hub.trust.web import Answer, Failure, Web

KEY_SET_OCTETS: Final = 262_144
"""Largest key set, statement or OCSP answer."""
MAX_AGE: Final = 900
"""Longest time that a document's own ``max-age`` is obeyed: what bounds how late a de-listing is noticed."""
_PARALLEL: Final = 8


class Unreachable(msgspec.Struct, frozen=True):
    """Say that a document could not be had: no connection, no answer in time, too large, or an unexpected status."""

    url: str
    why: str


class Absent(msgspec.Struct, frozen=True):
    """Say that the framework answered that there is no such document (404 or 410)."""

    url: str


class Document(msgspec.Struct, frozen=True):
    """Hold a document: ``changed`` is False when it is the one that was known, ``confirmed`` when it was last asked for."""

    body: bytes
    changed: bool = True
    confirmed: int = 0


class Known(msgspec.Struct, frozen=True):
    """Remember a document with its validator; ``fresh`` is the moment (seconds) until which its sender vouches for it."""

    etag: str
    body: bytes
    confirmed: int
    fresh: int


Fetched = Document | Absent | Unreachable
Into = Callable[[bytes], Awaitable[None]]
"""Takes the pieces of a document as they arrive."""


@final
class Memory:
    """Remember validators, documents and the token between rounds."""

    __slots__ = ("known", "token", "token_until")

    def __init__(self) -> None:
        """Begin knowing nothing."""
        self.known: dict[str, Known] = {}
        self.token = ""
        self.token_until = 0

    def keep(self, url: str, known: Known, most: int) -> None:
        """Remember a document, the oldest forgotten beyond ``most``."""
        self.known.pop(url, None)
        if known.etag or known.fresh:
            self.known[url] = known
        while len(self.known) > most:
            self.known.pop(next(iter(self.known)))


@final
class Fetcher:
    """Fetch for one round. Made by ``fetching``."""

    def __init__(
        self,
        settings: TrustSettings,
        limits: Limits,
        clock: Clock,
        memory: Memory,
        plain: Web,
        mutual: Web,
        *,
        anew: bool,
    ) -> None:
        """Use ``fetching``."""
        self._anew = anew
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._memory = memory
        self._plain = plain
        self._mutual = mutual
        self._room = trio.CapacityLimiter(_PARALLEL)
        self._token_lock = trio.Lock()

    async def participants(self) -> Fetched:
        """Fetch the public list of participants."""
        return await self._get(
            self._plain, self._settings.participants, self._limits.trust_document_octets
        )

    async def organisations(self, into: Into) -> Fetched:
        """Fetch the list of all organisations from the directory's API, ``into`` given each piece of one that changed.

        The list may be tens of megabytes: it is never held whole, and the Document's body is empty.
        """
        most = self._limits.trust_document_octets
        return await self._from_api("/organisations", most, into)

    def forget_organisations(self) -> None:
        """Forget the last list: it could not be read, and is to be sent again."""
        self._memory.known.pop(self._settings.api + "/organisations", None)

    def forget_revocation_list(self) -> None:
        """Forget the last revocation list: it was refused, and the same again is not the one before it."""
        self._memory.known.pop(self._settings.crl, None)

    async def statement(self, organisation_id: str, statement_id: str) -> Fetched:
        """Fetch one software statement."""
        return await self._from_api(_statement_path(organisation_id, statement_id), KEY_SET_OCTETS)

    async def statements(self, organisation_id: str) -> Fetched:
        """Fetch the list of an organisation's software statements."""
        path = f"/organisations/{organisation_id}/softwarestatements"
        return await self._from_api(path, self._limits.trust_document_octets)

    async def assertion(self, organisation_id: str, statement_id: str) -> Fetched:
        """Fetch the signed assertion of a software statement."""
        path = _statement_path(organisation_id, statement_id) + "/assertion"
        return await self._from_api(path, KEY_SET_OCTETS)

    async def key_store(self, path: str) -> Fetched:
        """Fetch from the key store; ``path`` begins with ``/``."""
        return await self._get(self._plain, self._settings.keystore + path, KEY_SET_OCTETS)

    async def statement_keys(self) -> Fetched:
        """Fetch the keys that software statement assertions are signed with."""
        url = self._settings.statement_keys or self._settings.keystore + "/directory.jwks"
        return await self._get(self._plain, url, KEY_SET_OCTETS)

    async def revocation_list(self) -> Fetched:
        """Fetch the certificate revocation list."""
        return await self._get(self._plain, self._settings.crl, self._limits.trust_document_octets)

    async def ask_ocsp(self, request: bytes) -> Fetched:
        """Ask the OCSP responder."""
        headers = {"content-type": "application/ocsp-request"}
        return await self._exchange(
            self._plain, "POST", self._settings.ocsp, KEY_SET_OCTETS, headers, request
        )

    async def _from_api(self, path: str, most: int, into: Into | None = None) -> Fetched:
        token = await self._token()
        if isinstance(token, Unreachable):
            return token
        headers = {"authorization": f"Bearer {token}"}
        url = self._settings.api + path
        answer = await self._exchange(self._mutual, "GET", url, most, headers, None, into)
        if isinstance(answer, Unreachable) and answer.why == "status 401":
            self._memory.token_until = 0
        return answer

    async def _token(self) -> str | Unreachable:
        """Return a token of the directory, a new one shortly before the old one ends."""
        async with self._token_lock:
            if self._clock.now() < self._memory.token_until:
                return self._memory.token
            url = self._settings.token_endpoint
            form = (
                "grant_type=client_credentials&scope=directory%3Asoftware"
                f"&client_id={self._settings.client_id}"
            )
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = await self._exchange(
                self._mutual, "POST", url, KEY_SET_OCTETS, headers, form.encode()
            )
            return self._learnt(url, answer)

    def _learnt(self, url: str, answer: Fetched) -> str | Unreachable:
        if not isinstance(answer, Document):
            return Unreachable(url, "no token" if isinstance(answer, Absent) else answer.why)
        try:
            granted = orjson.loads(answer.body)
            token, lifetime = granted["access_token"], int(granted.get("expires_in", 60))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return Unreachable(url, "the token response is not one")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            return Unreachable(url, "the token response is not one")
        self._memory.token = token
        self._memory.token_until = self._clock.now() + max(0, lifetime - 30)
        return token

    async def _get(self, client: Web, url: str, most: int) -> Fetched:
        return await self._exchange(client, "GET", url, most, {}, None)

    async def _exchange(
        self,
        client: Web,
        method: str,
        url: str,
        most: int,
        headers: dict[str, str],
        body: bytes | None,
        into: Into | None = None,
    ) -> Fetched:
        """Send one request under the deadline of one document; every failure is a value."""
        known = self._memory.known.get(url) if method == "GET" else None
        if known is not None and not self._anew and self._stays_fresh(known):
            return Document(known.body, changed=False, confirmed=known.confirmed)
        if known is not None and known.etag:
            headers = headers | {"if-none-match": known.etag}
        sent = tuple((k.encode(), v.encode()) for k, v in headers.items())
        async with self._room:
            with trio.move_on_after(self._limits.trust_fetch_s):
                answer = await client.exchange(method, url, sent, body or b"", most, into)
                return self._received(method, url, answer, known, streamed=into is not None)
        return Unreachable(url, f"no answer within {self._limits.trust_fetch_s} s")

    def _stays_fresh(self, known: Known) -> bool:
        """Tell whether a document need not be asked for before the next round (RFC 9111 section 4.2)."""
        now = self._clock.now()
        return known.confirmed <= now and now + self._settings.refresh <= known.fresh

    def _received(
        self,
        method: str,
        url: str,
        answer: Answer | Failure,
        known: Known | None,
        *,
        streamed: bool,
    ) -> Fetched:
        if isinstance(answer, Failure):
            return Unreachable(url, answer.why)
        now = self._clock.now()
        if answer.status == 304 and known is not None:
            again = Known(known.etag, known.body, now, now + _max_age(answer))
            self._memory.keep(url, again, 4 * self._limits.trust_clients)
            return Document(known.body, changed=False, confirmed=now)
        if answer.status in {404, 410}:
            return Absent(url)
        if answer.status != 200:
            return Unreachable(url, f"status {answer.status}")
        changed = streamed or known is None or known.body != answer.body
        if method == "GET":
            fresh = now + age if (age := _max_age(answer)) else 0
            held = Known(answer.header(b"etag"), answer.body, now, fresh)
            self._memory.keep(url, held, 4 * self._limits.trust_clients)
        return Document(answer.body, changed=changed, confirmed=now)


def _max_age(answer: Answer) -> int:
    """Return for how many seconds the sender vouches for a document, at most ``MAX_AGE``; 0 where it does not."""
    found = 0
    for part in answer.header(b"cache-control").lower().split(","):
        name, _, value = part.strip().partition("=")
        if name in {"no-store", "no-cache"}:
            return 0
        if name == "max-age" and value.isdecimal() and len(value) < 10:
            found = int(value)
    return min(found, MAX_AGE)


def _statement_path(organisation_id: str, statement_id: str) -> str:
    return f"/organisations/{organisation_id}/softwarestatements/{statement_id}"


@asynccontextmanager
async def fetching(
    settings: TrustSettings, limits: Limits, clock: Clock, memory: Memory, *, anew: bool = True
) -> AsyncIterator[Fetcher]:
    """Open the connections of one round, with the certificates as they are on disk now.

    Args:
        settings: Where the framework is.
        limits: Bounds.
        clock: Wall time.
        memory: What is known from earlier rounds.
        anew: Ask for every document, also those that their senders still vouch for.

    Raises:
        OSError, ssl.SSLError: A certificate, key or CA file cannot be read or used.
    """
    plain, mutual = _context(settings, mutual=False), _context(settings, mutual=True)
    async with Web(plain) as public, Web(mutual) as private:
        yield Fetcher(settings, limits, clock, memory, public, private, anew=anew)


def _context(settings: TrustSettings, *, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(settings.ca)
    if mutual:
        context.load_cert_chain(settings.certificate, settings.key, password="")
    return context


__all__ = [
    "KEY_SET_OCTETS",
    "Absent",
    "Document",
    "DocumentFault",
    "Fetched",
    "Fetcher",
    "Memory",
    "Unreachable",
    "fetching",
]
