"""Request and Response: what every stage passes on, and the App that answers one with the other.

Invariants. Header names are lower case bytes; pseudo-headers never occur in ``headers``. ``path`` is in normal
form: it begins with ``/``, holds no ``//``, no dot segments, no ``%2f``, no backslash and no control characters;
the edge refuses anything else with 400, so route, consent decision and forwarded path are always computed from the
same string. ``query`` is the raw text after ``?`` without it. A body is complete in memory (``body``) unless the
App asked for a stream in ``admit``; then ``body`` is empty and ``stream`` yields it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from hub.model.caller import NOBODY, Peer
from hub.model.event import Event
from hub.model.terms import Face

Headers = tuple[tuple[bytes, bytes], ...]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one request as the edge received it.

    Attributes:
        face: The listener it came in by.
        method: Upper case token.
        authority: ``host[:port]`` in lower case, from ``:authority`` or ``Host``.
        path: In normal form, still percent-encoded.
        query: Raw, without ``?``.
        headers: Lower case names, in order of arrival.
        body: The complete body, or empty when streamed.
        stream: The body in pieces, when ``admit`` asked for it.
        peer: Who is at the other end of the TLS connection; ``NOBODY`` without a client certificate.
        received_ns: trio's clock at the arrival of the headers, in nanoseconds (for durations only).
    """

    face: Face
    method: str
    authority: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    peer: Peer = NOBODY
    received_ns: int = 0

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header given in lower case, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_values(self, name: bytes) -> list[bytes]:
        """Return all values of a header given in lower case."""
        return [value for key, value in self.headers if key == name]


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one answer.

    Attributes:
        status: 200 to 599.
        headers: Lower case names; ``content-length``, ``date`` and hop-by-hop fields are the edge's business.
        body: Complete in memory, or empty when streamed.
        stream: The body in pieces, for answers over 64 KiB; the edge sends the end of the stream only after the
            iterator has ended, so a generator may first make its ``closed`` event durable.
        event: The audit event that was made durable for this answer; the edge writes the log line from it.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    event: Event | None = None


class UnavailableError(Exception):
    """Say that nothing can be answered now and that nothing was done: the edge answers 503."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Say how a body is to be received: at most ``limit`` octets, complete or as a stream."""

    limit: int = 1_048_576
    stream: bool = False
    cancel_with_caller: bool = True
    """False: once dispatched, the handler finishes under its own deadline though the caller is gone."""


Handler = Callable[[Request], Awaitable[Response]]


class App(Protocol):
    """Answer requests of one face. ``edge`` calls it; ``node`` composes it."""

    def admit(self, request: Request) -> Admission | Response:
        """Decide from method, path and headers alone (no body yet) how to go on; called before the body is read."""
        ...

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer a request whose body is complete or streamed, as admitted.

        Cancellation: may arrive when the caller is gone, if the admission said so; must leave nothing half done.
        """
        ...


def json_response(
    status: int, body: bytes, *extra: tuple[bytes, bytes], event: Event | None = None
) -> Response:
    """Make a JSON answer that no cache keeps."""
    return Response(
        status=status,
        headers=((b"content-type", b"application/json"), (b"cache-control", b"no-store"), *extra),
        body=body,
        event=event,
    )
