"""Octets to and from one peer: a non-blocking socket, with TLS by memory buffers or without.

Invariants. One task receives, one sends; they may overlap. After the handshake the TLS object is read once before
the first wait, since the peer's first request may have come in the same segment. What the socket does not take at
once stays in ``_unsent``, so that memory is bounded by what the engine hands over. Deadlines are the callers', but for
``flushed``.
"""

import socket
import ssl
from contextlib import suppress
from typing import Final, Protocol, final

import trio

from hub.config import Limits
from hub.edge.presented import forget, presented
from hub.edge.tls import nonsense_names

_CHUNK: Final = 65536
_BARREN_MOST: Final = 65536
"""So many octets of TLS records must hold some data; an honest record has at most 16 KiB (KeyUpdate floods)."""


@final
class PlainTransport:
    """Carry octets without TLS (loopback only: the ops face)."""

    __slots__ = ("_socket", "_unsent")

    def __init__(self, connected: socket.socket) -> None:
        """Take a connected, non-blocking socket."""
        self._socket = connected
        self._unsent: bytes | memoryview = b""

    @property
    def stuck(self) -> bool:
        """Tell whether the peer has not taken everything yet."""
        return bool(self._unsent)

    @property
    def waiting(self) -> int:
        """Return how many octets the peer has not taken yet."""
        return len(self._unsent)

    async def receive(self) -> bytes:
        """Return what has come, at least one octet, or nothing at the end.

        Cancellation: nothing is lost. Raises OSError when the connection broke.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                continue

    def send_now(self, data: bytes) -> bool:
        """Send what the socket takes at once; tell whether that was everything."""
        if data:
            self._unsent = b"".join((self._unsent, data)) if self._unsent else data
        rest = self._unsent
        if rest:
            try:
                sent = self._socket.send(rest)
            except (BlockingIOError, InterruptedError):
                return False
            # A view: what is left of 16 MiB is not copied each time the peer takes a little.
            self._unsent = memoryview(rest)[sent:] if sent < len(rest) else b""
        return not self._unsent

    async def flush(self) -> None:
        """Wait until everything is sent. Cancellation: the rest stays queued."""
        while self._unsent:
            await trio.lowlevel.wait_writable(self._socket)
            self.send_now(b"")

    async def bye(self) -> None:
        """Say that we send no more, and read away what still comes, so that our last octets arrive.

        Cancellation: at once; give it a deadline. Closing with unread input would make the kernel reset the
        connection and throw away what the peer has not read yet.
        """
        try:
            await self.flush()
            self._socket.shutdown(socket.SHUT_WR)
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                if not self._socket.recv(_CHUNK):
                    return
        except OSError:
            return


@final
class TlsTransport:
    """Carry octets over TLS; call ``handshake`` first."""

    __slots__ = ("_fresh", "_incoming", "_outgoing", "_plain", "_socket", "_tls")

    def __init__(self, connected: socket.socket, context: ssl.SSLContext) -> None:
        """Take a connected, non-blocking socket and the server's context."""
        self._socket = connected
        self._plain = PlainTransport(connected)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._fresh = True

    @property
    def stuck(self) -> bool:
        """Tell whether the peer has not taken everything yet."""
        return self._plain.stuck

    @property
    def waiting(self) -> int:
        """Return how many octets the peer has not taken yet."""
        return self._plain.waiting

    @property
    def certificate(self) -> bytes:
        """Return the client's leaf certificate in DER, or nothing; it is there on resumed connections too."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def presented(self) -> dict[str, str]:
        """Return what is known of the certificate that the peer presented, accepted or not; for the log."""
        return presented(self._tls)

    @property
    def version(self) -> str:
        """Return ``TLSv1.3`` or ``TLSv1.2``."""
        return self._tls.version() or ""

    @property
    def protocol(self) -> str:
        """Return what ALPN chose, or nothing."""
        return self._tls.selected_alpn_protocol() or ""

    async def hello(self) -> None:
        """Wait for the first octets, so that silent peers hold no handshake slot. Cancellation: nothing is lost."""
        await trio.lowlevel.wait_readable(self._socket)

    async def handshake(self, turns: trio.Semaphore) -> None:
        """Do the handshake; each step of it takes a turn, which nobody holds while the peer is waited for.

        Raises:
            ssl.SSLError: it was refused; the alert has been offered to the socket.
            OSError: the connection broke.

        Cancellation: leaves the connection useless; close it.
        """
        while True:
            try:
                async with turns:
                    with nonsense_names():
                        self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_pending()
                data = await self._plain.receive()
                if not data:
                    raise EOFError("the peer left during the handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                with suppress(
                    OSError
                ):  # who has left already is refused for its certificate all the same
                    self._plain.send_now(self._outgoing.read())
                raise
            else:
                forget(self._tls)
                await self._send_pending()
                return

    async def _send_pending(self) -> None:
        if self._outgoing.pending:
            self._plain.send_now(self._outgoing.read())
        await self._plain.flush()

    async def receive(self) -> bytes:
        """Return decrypted octets, at least one, or nothing at the end.

        Cancellation: nothing is lost. Raises OSError (``ssl.SSLError`` is one) when the connection broke.
        """
        if self._fresh:
            self._fresh = False
            if (data := self._read_all()) is None or data:
                return data or b""
        barren = 0
        while True:
            received = await self._plain.receive()
            if not received:
                return b""
            self._incoming.write(received)
            data = self._read_all()
            if data is None:
                return b""
            if data:
                return data
            barren += len(received)
            if barren > _BARREN_MOST:
                raise ConnectionAbortedError("records without data")

    def _read_all(self) -> bytes | None:
        """Decrypt what is here: None at the peer's close_notify, nothing if a record is incomplete."""
        parts: list[bytes] = []
        try:
            while piece := self._tls.read(_CHUNK):
                parts.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(parts)
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(parts) or None

    def send_now(self, data: bytes) -> bool:
        """Encrypt, and send what the socket takes at once; tell whether that was everything."""
        if data:
            self._tls.write(data)
        return self._plain.send_now(self._outgoing.read())

    async def flush(self) -> None:
        """Wait until everything is sent. Cancellation: the rest stays queued."""
        await self._plain.flush()

    async def bye(self) -> None:
        """Send close_notify and read away what still comes. Cancellation: at once; give it a deadline."""
        with suppress(ssl.SSLError, OSError):
            self._tls.unwrap()  # "want read" is the rule: close_notify is written, its answer not waited for
        try:
            self._plain.send_now(self._outgoing.read())
        except OSError:
            return
        await self._plain.bye()


class Line(Protocol):
    """What a connection needs of whatever carries its octets."""

    @property
    def stuck(self) -> bool:
        """Tell whether the peer has not taken everything yet."""
        ...

    @property
    def waiting(self) -> int:
        """Return how many octets the peer has not taken yet."""
        ...

    async def receive(self) -> bytes:
        """Return at least one octet, or nothing at the end."""
        ...

    def send_now(self, data: bytes) -> bool:
        """Send what goes at once; tell whether that was everything."""
        ...

    async def flush(self) -> None:
        """Wait until everything is sent."""
        ...

    async def bye(self) -> None:
        """Say that we send no more."""
        ...


Transport = PlainTransport | TlsTransport | Line
"""The classes are named so that calls of them are direct where both are compiled."""


async def flushed(transport: Transport, limits: Limits) -> bool:
    """Wait until the peer has taken everything, as long as it goes on taking; tell whether it has.

    Cancellation: the rest stays queued. Raises OSError when the connection broke.
    """
    slow = False
    while transport.stuck and not slow:
        before = transport.waiting
        with trio.move_on_after(limits.send_s):
            await transport.flush()
        slow = too_slow(before - transport.waiting, limits)
    return not transport.stuck


def too_slow(octets: int, limits: Limits) -> bool:
    """Tell whether who took only so many octets in ``send_s``, and left some, is waited for no longer."""
    return octets < limits.send_s * limits.send_rate_octets_s
