"""A lean HTTP/2 client for load: requests as ready-made header blocks, many streams on one mutual-TLS connection.

It understands just enough of RFC 9113 to drive a server honestly: SETTINGS and PING are acknowledged, windows are
given back, stream ids run up, RST_STREAM and GOAWAY count as failures. Header blocks are literals without indexing, so
each request costs the server what a client's first request costs: nothing is hidden in a dynamic table.
Response headers are not decoded beyond ``:status`` (its first byte or a literal of three digits).
"""

import ssl
import struct
from collections.abc import Callable

import trio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
INDEXED_STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
WINDOW = (1 << 31) - 1


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def integer(value: int, prefix: int, first: int) -> bytes:
    """Encode an HPACK integer (RFC 7541 section 5.1)."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes) -> bytes:
    """Encode a header as a literal never indexed, without Huffman."""
    return b"\x10" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value


def block(method: str, authority: str, path: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Encode a request's header block."""
    out = [
        literal(b":method", method.encode()),
        b"\x87",  # :scheme https
        literal(b":authority", authority.encode()),
        literal(b":path", path.encode()),
    ]
    return b"".join(out + [literal(name, value) for name, value in headers])


def status_of(payload: bytes) -> int:
    """Read ``:status`` from the start of a response's header block; 0 where it is encoded otherwise."""
    at = 0
    while at < len(payload) and payload[at] & 0xE0 == 0x20:  # dynamic table size update
        at += 1
    if payload[at] in INDEXED_STATUS:
        return INDEXED_STATUS[payload[at]]
    digits = payload[at + 2 : at + 5]
    if len(digits) == 3 and digits.isdigit():
        return int(digits)
    if payload[at + 1 : at + 2] and payload[at + 1] & 0x80:  # three Huffman digits
        return _huffman_digits(payload[at + 2 : at + 2 + (payload[at + 1] & 0x7F)])
    return 0


_DIGITS = {f"{code:05b}": digit for digit, code in ((0, 0), (1, 1), (2, 2))} | {
    f"{0x19 + n - 3:06b}": n for n in range(3, 10)
}


def _huffman_digits(octets: bytes) -> int:
    bits, text = "".join(f"{octet:08b}" for octet in octets), ""
    while len(text) < 3 and bits:
        size = 5 if bits[:5] in _DIGITS else 6
        text += str(_DIGITS.get(bits[:size], 0))
        bits = bits[size:]
    return int(text or 0)


class Connection:
    """One connection; ``request`` may be called by many tasks at once."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, alpn: str = "h2") -> None:
        """Prepare; ``open`` connects."""
        self._host, self._port, self._context = host, port, context
        self._next = 1
        self._waiting: dict[int, Callable[[int, int], None]] = {}
        self._status: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._out = bytearray()
        self._wake = trio.Event()
        self._buffer = bytearray()
        self.failed = ""
        self.alpn = alpn

    async def open(self) -> None:
        """Connect, shake hands, send the preface."""
        tcp = await trio.open_tcp_stream(self._host, self._port)
        self._stream = trio.SSLStream(
            tcp, self._context, server_hostname=self._host, https_compatible=True
        )
        await self._stream.do_handshake()
        settings = struct.pack(">HI", 4, WINDOW) + struct.pack(">HI", 2, 0)
        await self._stream.send_all(
            PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, (WINDOW - 65535).to_bytes(4))
        )

    async def run(self) -> None:
        """Read and write until cancelled or the peer closes; whoever still waits is told status 0."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer)
            try:
                while data := await self._stream.receive_some(65536):
                    self._feed(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError) as error:
                self.failed = self.failed or repr(error)
            self.failed = self.failed or "closed"
            for stream in list(self._waiting):
                self._done(stream, 0)
            nursery.cancel_scope.cancel()

    async def close(self) -> None:
        """Close without ceremony."""
        await trio.aclose_forcefully(self._stream)

    def send(self, headers: bytes, body: bytes, done: Callable[[int, int], None]) -> None:
        """Send a request; ``done(status, octets)`` is called with its answer (status 0: none came)."""
        if self.failed or self._next > 2**31 - 3:
            done(0, 0)
            return
        stream = self._next
        self._next += 2
        self._waiting[stream] = done
        self._out += frame(HEADERS, 4 if body else 5, stream, headers)
        for at in range(0, len(body), 16384):
            piece = body[at : at + 16384]
            self._out += frame(DATA, 1 if at + 16384 >= len(body) else 0, stream, piece)
        self._wake.set()

    async def request(self, headers: bytes, body: bytes = b"") -> tuple[int, int]:
        """Send a request and wait for its answer: status and body size."""
        event = trio.Event()
        answer: list[tuple[int, int]] = []

        def done(status: int, octets: int) -> None:
            answer.append((status, octets))
            event.set()

        self.send(headers, body, done)
        await event.wait()
        return answer[0]

    async def _writer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            out, self._out = bytes(self._out), bytearray()
            try:
                await self._stream.send_all(out)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _feed(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 9:
            size = buffer[at] << 16 | buffer[at + 1] << 8 | buffer[at + 2]
            if end - at < 9 + size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9]) & 0x7FFFFFFF
            self._frame(kind, flags, stream, bytes(buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del buffer[:at]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._size[stream] = self._size.get(stream, 0) + len(payload)
        elif kind == HEADERS:
            self._status.setdefault(stream, status_of(payload))
        elif kind == RST_STREAM:
            self._status[stream] = 0
            self._done(stream, 0)
            return
        elif kind == SETTINGS and not flags & 1:
            self._out += frame(SETTINGS, 1, 0, b"")
            self._wake.set()
        elif kind == PING and not flags & 1:
            self._out += frame(PING, 1, 0, payload)
            self._wake.set()
        elif kind == GOAWAY:
            self.failed = "goaway"
        if kind in {DATA, HEADERS} and flags & 1:
            self._done(stream, self._status.get(stream, 0))

    def _done(self, stream: int, status: int) -> None:
        done = self._waiting.pop(stream, None)
        self._status.pop(stream, None)
        size = self._size.pop(stream, 0)
        if done is not None:
            done(status, size)
