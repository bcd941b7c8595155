"""One TLS connection to the bank: a non-blocking socket, an SSLObject between two memory buffers, one task at a time.

Theory. The task that wants an answer drives the connection itself: encrypt, send at once, wait until readable, receive,
decrypt. No second task and no lock is needed because a connection is lent to one exchange at a time. ``poll`` looks,
without waiting, whether anything came while nobody asked: a closed or chattering peer is never reused.

Faults leave here as ``OSError`` and ``ssl.SSLError``; ``exchange`` makes them values.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from hub.config import BankSettings

_CHUNK: Final = 65536
_RECORD: Final = 16384
"""The most octets of one TLS record."""
_TLS12_CIPHERS: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256"
)


def client_context(settings: BankSettings, *, http2: bool = False) -> ssl.SSLContext:
    """Make the context: the bank's CA only, our certificate, host names checked, TLS 1.2 (FAPI ciphers) or 1.3.

    With ``http2`` the bank may choose HTTP/2.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    context.load_verify_locations(cafile=settings.ca)
    context.load_cert_chain(settings.certificate, settings.key, password="")
    return context


class TlsConnection:
    """Carry octets to one peer that TLS has proved."""

    __slots__ = ("_in", "_out", "_over", "_rest", "_socket", "_tls", "clean_end", "opened", "used")

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, host: str) -> None:
        """Wrap a connected non-blocking socket; ``open_connection`` does it."""
        self._socket = raw
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        self._rest = b""
        self._over = False
        self.clean_end = False
        self.opened = self.used = trio.current_time()

    async def handshake(self) -> None:
        """Prove the peer and ourselves.

        Raises:
            OSError: The connection broke.
            ssl.SSLError: The peer is not who it should be, or refused us.

        Cancellation: the connection is of no more use.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise ConnectionResetError("closed during the handshake") from None
            else:
                await self._flush()
                return

    @property
    def protocol(self) -> str:
        """Return what ALPN has chosen; empty for nothing."""
        return self._tls.selected_alpn_protocol() or ""

    @property
    def unsent(self) -> bool:
        """Tell whether a send was cancelled and left a rest."""
        return bool(self._rest)

    def push(self, data: bytes) -> None:
        """Send as much as goes without waiting; the rest goes with the next ``send``.

        Raises:
            OSError: The connection broke.
        """
        if data:
            self._tls.write(data)
        self._rest += self._out.read()
        with suppress(BlockingIOError):
            while self._rest:
                self._rest = self._rest[self._socket.send(self._rest) :]

    async def send(self, data: bytes) -> None:
        """Send all of ``data``, after what a cancelled ``send`` has left.

        Cancellation: a part may have been sent; only another ``send`` keeps the connection useful.
        """
        if data:
            self._tls.write(data)
        await self._flush()

    async def send_hearing(self, data: bytes) -> bytes | None:
        """Send ``data`` unless the peer speaks first; return what it said, nothing at its end, None once all is sent.

        Raises:
            OSError: The connection broke and nothing had been said.

        Cancellation: a part may have been sent; the connection is of no more use, nor is it after an answer.
        """
        self._tls.write(data)
        self._rest += self._out.read()
        try:
            while self._rest:
                self.push(b"")
                if self._rest:
                    await self._writable_or_readable()
                    if (said := self.poll()) is not None:
                        return said
        except OSError:
            if said := self.poll():  # it was said before the connection broke
                return said
            raise
        return self.poll()

    async def _writable_or_readable(self) -> None:
        async with trio.open_nursery() as nursery:

            async def wait(ready: Callable[[socket.socket], Awaitable[None]]) -> None:
                await ready(self._socket)
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, trio.lowlevel.wait_writable)
            nursery.start_soon(wait, trio.lowlevel.wait_readable)

    async def receive(self) -> bytes:
        """Return octets as they come; nothing at the end of the connection (``clean_end`` tells how it ended).

        Cancellation: nothing is lost.
        """
        while (data := self._decrypted()) is None:
            if self._out.pending:
                self.push(b"")
            await self._fill()
        return data

    def _decrypted(self) -> bytes | None:
        """Return what can be decrypted now, nothing at the end, None where more must come first."""
        if self._over:
            return b""
        parts: list[bytes] = []
        try:
            while self._in.pending or self._in.eof:
                data = self._tls.read(_RECORD)
                if not data:
                    self._over = self.clean_end = True
                    break
                parts.append(data)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
            self._over = True
            self.clean_end = isinstance(error, ssl.SSLZeroReturnError)
            return b"".join(parts)
        if not parts:
            return b"" if self._over else None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def poll(self) -> bytes | None:
        """Return what already came without waiting: octets, nothing at the end, None if nothing came.

        TLS's own messages (session tickets) count as nothing.
        """
        try:
            early = self._decrypted() if self._in.pending else None
            if early is not None:
                return early
            data = self._socket.recv(_CHUNK)
            if not data:
                return b""
            self._in.write(data)
            return self._decrypted()
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """End the connection at once; a farewell is sent if it goes without waiting."""
        with suppress(OSError, ssl.SSLError, ValueError):
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._socket.send(self._out.read())
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    async def _flush(self) -> None:
        data = self._out.read()
        if self._rest:
            data, self._rest = self._rest + data, b""
        while data:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                self._rest = data
                await trio.lowlevel.wait_writable(self._socket)
                data, self._rest = self._rest, b""
            else:
                data = data[sent:]

    async def _fill(self) -> bool:
        await trio.lowlevel.wait_readable(self._socket)
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return True
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)


async def open_connection(
    host: str, port: int, context: ssl.SSLContext, *, address: str = ""
) -> TlsConnection:
    """Connect and shake hands.

    Args:
        host: Name to resolve, to send as server name and to find in the certificate.
        port: TCP port.
        context: From ``client_context``.
        address: Connect there instead of resolving ``host``, which was done before.

    Raises:
        OSError: Not reachable, or broke.
        ssl.SSLError: Not who it should be.

    Cancellation: nothing stays open.
    """
    stream = await trio.open_tcp_stream(address or host, port)
    raw = socket.socket(fileno=stream.socket.detach())
    raw.settimeout(0)
    connection = TlsConnection(raw, context, host)
    try:
        await connection.handshake()
    except BaseException:
        connection.close()
        raise
    return connection
