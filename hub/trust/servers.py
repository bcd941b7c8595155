"""What a TPP would look up of a bank in the framework: where it is reached, and the keys to seal for it.

Each document is fetched when somebody asks and what is known is older than the mirror's refresh; one fetch however many wait. While
the framework is away the last list goes on being used: an address that moved is found out by calling it.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson
import trio

from hub.config import Limits, TrustSettings
from hub.model.clock import Clock
from hub.trust.fetch import Document, Memory, fetching
from hub.trust.mirror import ACTIVE, text

_URL_MOST: Final = 500
_AGAIN_S: Final = 10


class Server(msgspec.Struct, frozen=True):
    """Hold where one bank is reached."""

    discovery: str
    resources: str


class Servers:
    """Know the servers of all participants."""

    def __init__(self, *, settings: TrustSettings, limits: Limits, clock: Clock) -> None:
        """Begin knowing nothing."""
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._memory = Memory()
        self._found: dict[str, Server] = {}
        self._due = 0
        self._fetching = trio.Lock()

    async def of(self, organisation_id: str) -> Server | None:
        """Return the server of an organisation, or None.

        Cancellation: harmless.
        """
        if self._clock.now() >= self._due:
            async with self._fetching:
                if self._clock.now() >= self._due:
                    await self._refresh()
        return self._found.get(organisation_id.lower())

    async def _refresh(self) -> None:
        now = self._clock.now()
        self._due = now + _AGAIN_S
        with trio.move_on_after(self._limits.trust_fetch_s):
            async with fetching(self._settings, self._limits, self._clock, self._memory) as fetcher:
                fetched = await fetcher.participants()
            if isinstance(fetched, Document):
                self._found = read_servers(fetched.body)
                self._due = now + self._settings.refresh


class SealingKeys:
    """Know the encryption keys that an organisation publishes for whoever seals something for it."""

    def __init__(
        self, *, settings: TrustSettings, limits: Limits, clock: Clock, organisation_id: str
    ) -> None:
        """Begin knowing nothing."""
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._path = f"/{organisation_id}/application.jwks"
        self._memory = Memory()
        self._kids: frozenset[str] | None = None
        self._due = 0
        self._asked = 0
        self._fetching = trio.Lock()

    async def current(self, kid: str) -> bool:
        """Tell whether a key is current; an unknown ``kid`` is worth one look at the key store, not too often.

        True where the key store was never there: the owner of the key finds out.

        Cancellation: harmless.
        """
        if self._wanted(kid):
            async with self._fetching:
                if self._wanted(kid):
                    await self._refresh()
        return self._kids is None or kid in self._kids

    def _wanted(self, kid: str) -> bool:
        now = self._clock.now()
        unknown = self._kids is None or kid not in self._kids
        return now >= self._due or (unknown and now >= self._asked + _AGAIN_S)

    async def _refresh(self) -> None:
        now = self._asked = self._clock.now()
        self._due = now + _AGAIN_S
        with trio.move_on_after(self._limits.trust_fetch_s):
            async with fetching(self._settings, self._limits, self._clock, self._memory) as fetcher:
                fetched = await fetcher.key_store(self._path)
            if isinstance(fetched, Document):
                self._kids = read_sealing_kids(fetched.body)
                self._due = now + self._settings.keys_refresh


def read_sealing_kids(document: bytes) -> frozenset[str]:
    """Return the ids of a key set's encryption keys; none of what cannot be read."""
    try:
        keys = orjson.loads(document)
    except orjson.JSONDecodeError:
        return frozenset()
    rows = _objects(keys.get("keys") if isinstance(keys, dict) else None)
    return frozenset(text(row, "kid") for row in rows if row.get("use") == "enc") - {""}


def read_servers(document: bytes) -> dict[str, Server]:
    """Return the first usable server of each organisation of a participants document; nothing of what cannot be read."""
    try:
        rows = orjson.loads(document)
    except orjson.JSONDecodeError:
        return {}
    found: dict[str, Server] = {}
    for row in _objects(rows):
        servers = (_server(raw) for raw in _objects(row.get("AuthorisationServers")))
        server = next((s for s in servers if s is not None), None)
        if server is not None and text(row, "OrganisationId"):
            found[text(row, "OrganisationId").lower()] = server
    return found


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list; nothing where there is none."""
    yield from (v for v in value if isinstance(v, dict)) if isinstance(value, list) else ()


def _server(row: dict[str, Any]) -> Server | None:
    discovery = text(row, "OpenIDDiscoveryDocument")
    endpoints = (
        text(endpoint, "ApiEndpoint")
        for resource in _objects(row.get("ApiResources"))
        if resource.get("Status", ACTIVE) == ACTIVE
        for endpoint in _objects(resource.get("ApiDiscoveryEndpoints"))
    )
    origin = next((o for o in map(_origin, endpoints) if o), "")
    if row.get("Status", ACTIVE) != ACTIVE or not origin or not _origin(discovery):
        return None
    return Server(discovery, origin)


def _origin(url: str) -> str:
    """Return the origin of an https URL of lawful length; empty for anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    lawful = parts.scheme == "https" and bool(parts.netloc) and len(url) <= _URL_MOST
    return f"https://{parts.netloc}" if lawful else ""
