"""Where the participants' banks are reached: their discovery documents and resource servers, from the public list.

The list is fetched when somebody asks and what is known is older than the mirror's refresh; one fetch however many wait. While
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
