"""The callback: the TPP's own page behind its redirect URI, over https, and what it reads from the query.

The listener runs for the time of one journey. It keeps nothing: each callback goes to whoever waits for it, a
callback that nobody waits for gets the same page and is dropped.
"""

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio

from hub.sandbox.server import SiteHandler, SiteRequest, SiteResponse, serve_site
from hub.sandbox.tls import server_context
from hub.sandbox.tpp.exchange import Refused
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import Discovery, Pushed

PAGE: Final = (
    b'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Done</title></head>'
    b"<body><main><h1>You are back</h1><p>Your bank has answered. You may close this page.</p>"
    b"</main></body></html>"
)
PAGE_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
)


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a successful callback."""

    code: str


def read_callback(query: str, pushed: Pushed, discovery: Discovery) -> Callback | Refused:
    """Read the callback's query: ``iss`` and ``state`` first, then ``code`` or ``error``.

    Source: RFC 9207 section 2.4 (mix-up defence); RFC 6749 sections 4.1.2 and 10.12.
    """
    fields = {name: values[0] for name, values in parse_qs(query).items() if len(values) == 1}
    if fields.get("iss") != discovery.issuer:
        return Refused(status=0, code="iss", text="the callback names another issuer or none")
    if not hmac.compare_digest(fields.get("state", "").encode(), pushed.state.encode()):
        return Refused(status=0, code="state", text="the callback is not for this request")
    if "error" in fields:
        text = fields.get("error_description", "")
        return Refused(status=0, code=fields["error"], text=text)
    if not fields.get("code"):
        return Refused(status=0, code="code", text="the callback carries neither code nor error")
    return Callback(code=fields["code"])


@asynccontextmanager
async def serve_callbacks(
    redirect_uri: str, server: Files
) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """Serve the page behind a redirect URI; yields a channel of the callbacks' raw queries.

    Args:
        redirect_uri: https, with a port.
        server: The page's certificate, its key, and the CA.

    Raises:
        OSError: The port is in use.
    """
    send, receive = trio.open_memory_channel[str](4)
    parts = urlsplit(redirect_uri)

    async def answer(request: SiteRequest) -> SiteResponse:
        await trio.lowlevel.checkpoint()
        if request.path != (parts.path or "/") or request.method != "GET":
            return SiteResponse(status=404, headers=PAGE_HEADERS)
        try:
            send.send_nowait(request.query)
        except (trio.WouldBlock, trio.BrokenResourceError):
            return SiteResponse(status=503, headers=PAGE_HEADERS)
        return SiteResponse(headers=PAGE_HEADERS, body=PAGE)

    async with serving(redirect_uri, answer, server), receive:
        yield receive


@asynccontextmanager
async def serving(url: str, answer: SiteHandler, server: Files) -> AsyncIterator[None]:
    """Serve one https address of the TPP's own while the block runs.

    Args:
        url: https, with a port.
        answer: Answers its requests.
        server: The page's certificate, its key, and the CA.

    Raises:
        OSError: The port is in use.
    """
    parts = urlsplit(url)
    tls = server_context(server.certificate, server.key, server.ca, "none")
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[int]) -> None:
            await serve_site(
                answer,
                host=parts.hostname or "localhost",
                port=parts.port or 443,
                tls=tls,
                task_status=task_status,
            )

        await nursery.start(serve)
        yield
        nursery.cancel_scope.cancel()
