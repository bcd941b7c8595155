"""A small trio server for the sandbox's counterparties: TLS with client certificates, HTTP/1.1, HTTP/2, fault knobs.

Each connection is one task: a handshake with a deadline, then HTTP/2 or HTTP/1.1 as ALPN says (plain listeners speak
HTTP/1.1). A connection that fails, whatever the reason, ends alone. Cancelling ``serve_site`` closes the listeners and
every connection at once.
"""

import ssl

import trio

from hub.sandbox.server_http1 import Http1Connection
from hub.sandbox.server_http2 import Http2Connection
from hub.sandbox.site import (
    LOG,
    NO_FAULT,
    Bounds,
    FaultPlan,
    Faults,
    Site,
    SiteHandler,
    SiteRequest,
    SiteResponse,
)

__all__ = [
    "NO_FAULT",
    "Bounds",
    "FaultPlan",
    "Faults",
    "SiteHandler",
    "SiteRequest",
    "SiteResponse",
    "serve_site",
]

_QUIET = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError)


async def serve_site(
    handler: SiteHandler,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    bounds: Bounds | None = None,
    faults: Faults | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one site until cancelled; ``task_status`` is told the bound port once connections are accepted.

    Args:
        handler: Answers each complete request; may raise, which is answered with 500.
        host: Name or address to listen at; every address of the name is used.
        port: 0 to 65535; with 0 the system chooses one, at the first address only.
        tls: From ``sandbox.tls.server_context``; None for plain HTTP/1.1.
        bounds: Defaults to ``Bounds()``.
        faults: The knobs of this site, when somebody wants to turn them.
        task_status: For ``nursery.start``.

    Raises:
        OSError: The address cannot be bound.

    Cancellation: closes the listeners and all connections; handlers under way are cancelled.
    """
    site = Site(handler, bounds or Bounds(), faults or Faults())
    listeners = await trio.open_tcp_listeners(port, host=host)
    if port == 0:
        for extra in listeners[1:]:
            await extra.aclose()
        del listeners[1:]
    bound = int(listeners[0].socket.getsockname()[1])
    room = trio.Semaphore(site.bounds.connections)

    async def connected(stream: trio.SocketStream) -> None:
        try:
            room.acquire_nowait()
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            await _contained(stream, site, tls)
        finally:
            room.release()

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, connected, listeners)
        task_status.started(bound)


async def _contained(stream: trio.SocketStream, site: Site, tls: ssl.SSLContext | None) -> None:
    """Run one connection; nothing but cancellation leaves here."""
    try:
        await _connection(stream, site, tls)
    except* _QUIET as group:
        LOG.debug("connection ended: %r", group.exceptions)
    except* Exception:  # noqa: BLE001 - containment: one connection's bug is one connection's end
        LOG.exception("connection failed")
    finally:
        await trio.aclose_forcefully(stream)


async def _connection(stream: trio.SocketStream, site: Site, tls: ssl.SSLContext | None) -> None:
    if tls is None:
        await Http1Connection(stream, site, b"").run()
        return
    secure = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    with trio.fail_after(site.bounds.handshake_s):
        await secure.do_handshake()
    certificate = secure.getpeercert(binary_form=True) or b""
    if secure.selected_alpn_protocol() == "h2":
        await Http2Connection(secure, site, certificate).run()
    else:
        await Http1Connection(secure, site, certificate).run()
    with trio.move_on_after(1):
        await secure.aclose()
