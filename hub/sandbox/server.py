"""A small trio server for the sandbox's counterparties: TLS with client certificates, HTTP/1.1, HTTP/2, fault knobs."""

from collections.abc import Awaitable, Callable

import msgspec


class SiteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request to a counterparty: header names in lower case, the peer's certificate in DER or empty."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    certificate: bytes

    def header(self, name: str) -> str:
        """Return the first value of a header given in lower case, or an empty string."""
        return next((value for key, value in self.headers if key == name), "")


class SiteResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one answer of a counterparty."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


SiteHandler = Callable[[SiteRequest], Awaitable[SiteResponse]]
