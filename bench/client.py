"""Lean HTTP clients for load: HTTP/2 with ready-made header blocks and many streams, HTTP/1.1 one request at a time.

They understand just enough of RFC 9113 and RFC 9112 to drive a server honestly: SETTINGS and PING are acknowledged,
windows are given back, interim answers skipped; a reset, GOAWAY or a closed connection counts as a failure. Header
fields go as HPACK literals without indexing and without Huffman, so each request costs the server what a client's first
request costs: nothing hides in a dynamic table. Of a response's header block only ``:status`` is read.
"""

import ssl
import struct
from collections.abc import Callable, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import trio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
INDEXED_STATUS = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
WINDOW = (1 << 31) - 1

Done = Callable[[int, int], None]
"""Told status (0: no answer) and octets of the body."""
Pairs = Sequence[tuple[str, str]]


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


def literals(pairs: Pairs) -> bytes:
    """Encode several."""
    return b"".join([literal(name.encode(), value.encode()) for name, value in pairs])


class Request:
    """One request; what many share (method, path, ``fixed`` fields) is encoded once and remembered."""

    __slots__ = ("_fixed", "_own", "base", "body", "method", "path")
    _blocks: ClassVar[dict[tuple[str, str, str, tuple[tuple[str, str], ...]], bytes]] = {}

    def __init__(
        self, method: str, base: str, path: str, fixed: Pairs, own: Pairs, body: bytes = b""
    ) -> None:
        """Take its parts; ``own`` are the fields that only this request has."""
        self.method, self.base, self.path, self.body = method, base, path, body
        self._fixed, self._own = tuple(fixed), tuple(own)

    def block(self) -> bytes:
        """Return the HPACK header block."""
        key = (self.method, self.base, self.path, self._fixed)
        shared = self._blocks.get(key)
        if shared is None:
            pseudo = ((":authority", urlsplit(self.base).netloc), (":path", self.path))
            start = literal(b":method", self.method.encode()) + b"\x87"
            shared = self._blocks[key] = start + literals(pseudo) + literals(self._fixed)
        own = literals(self._own)
        size = literal(b"content-length", b"%d" % len(self.body)) if self.body else b""
        return shared + own + size

    def octets(self) -> bytes:
        """Return the request as HTTP/1.1."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {urlsplit(self.base).netloc}"]
        lines += [f"{name}: {value}" for name, value in (*self._fixed, *self._own)]
        if self.body or self.method != "GET":
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def status_of(payload: bytes) -> int:
    """Read ``:status`` from the start of a response's header block; 0 where it is encoded otherwise."""
    at = 0
    while at < len(payload) and payload[at] & 0xE0 == 0x20:  # dynamic table size update
        at += 1
    if payload[at] in INDEXED_STATUS:
        return INDEXED_STATUS[payload[at]]
    if payload[at + 1 : at + 9] == b"\x07:status":
        at += 8
    digits = payload[at + 2 : at + 5]
    if len(digits) == 3 and digits.isdigit():
        return int(digits)
    if payload[at + 1 : at + 2] and payload[at + 1] & 0x80:  # three Huffman digits
        return _huffman_digits(payload[at + 2 : at + 2 + (payload[at + 1] & 0x7F)])
    return 0


_DIGITS = {f"{code:05b}": code for code in range(3)} | {
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
    """One connection to a server; ``send`` may be called by anybody at any time."""

    most = 100
    """Requests that may be under way at once."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, source: str = "127.0.0.1"
    ) -> None:
        """Prepare; ``open`` connects, from the loopback address ``source``."""
        self._host, self._port, self._context = host, port, context
        self._source = source
        self._out = bytearray()
        self._wake = trio.Event()
        self._buffer = bytearray()
        self.failed = ""

    async def open(self) -> None:
        """Connect and shake hands."""
        tcp = await trio.open_tcp_stream("127.0.0.1", self._port, local_address=self._source)
        self._stream = trio.SSLStream(
            tcp, self._context, server_hostname=self._host, https_compatible=True
        )
        await self._stream.do_handshake()
        self._begin()

    def _begin(self) -> None:
        """Queue what comes before the first request."""

    async def run(self) -> None:
        """Read and write until cancelled or the peer closes; whoever still waits is told status 0."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer)
            try:
                while data := await self._stream.receive_some(262_144):
                    self._feed(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.failed = self.failed or type(error).__name__
            self.failed = self.failed or "closed"
            self._lose()
            nursery.cancel_scope.cancel()

    async def close(self) -> None:
        """Close without ceremony."""
        await trio.aclose_forcefully(self._stream)

    def send(self, request: Request, done: Done) -> None:
        """Send a request; ``done(status, octets)`` is called with its answer."""
        raise NotImplementedError

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def _lose(self) -> None:
        raise NotImplementedError

    async def request(self, request: Request) -> tuple[int, int]:
        """Send a request and wait for its answer: status and body size."""
        event = trio.Event()
        answer: list[tuple[int, int]] = []

        def done(status: int, octets: int) -> None:
            answer.append((status, octets))
            event.set()

        self.send(request, done)
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


class H2Connection(Connection):
    """HTTP/2."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, source: str = "127.0.0.1"
    ) -> None:
        """Prepare."""
        super().__init__(host, port, context, source)
        self._next = 1
        self._waiting: dict[int, Done] = {}
        self._status: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._unread = 0

    def _begin(self) -> None:
        # No dynamic table: each response then shows its status, whoever encodes it.
        settings = b"".join(struct.pack(">HI", *pair) for pair in ((1, 0), (2, 0), (4, WINDOW)))
        self._out += PREFACE + frame(SETTINGS, 0, 0, settings)
        self._out += frame(WINDOW_UPDATE, 0, 0, (WINDOW - 65535).to_bytes(4))
        self._wake.set()

    def send(self, request: Request, done: Done) -> None:
        """Send a request."""
        if self.failed or self._next > 2**31 - 3:
            done(0, 0)
            return
        stream = self._next
        self._next += 2
        self._waiting[stream] = done
        body = request.body
        self._out += frame(HEADERS, 4 if body else 5, stream, request.block())
        for at in range(0, len(body), 16384):
            piece = body[at : at + 16384]
            self._out += frame(DATA, 1 if at + 16384 >= len(body) else 0, stream, piece)
        self._wake.set()

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
            if kind == DATA:
                self._data(flags, stream, size)
            else:
                self._frame(kind, flags, stream, bytes(buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del buffer[:at]

    def _data(self, flags: int, stream: int, size: int) -> None:
        self._size[stream] = self._size.get(stream, 0) + size
        self._unread += size
        if self._unread > 1 << 28:
            self._out += frame(WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4))
            self._unread = 0
            self._wake.set()
        if flags & 1:
            self._done(stream, self._status.get(stream, 0))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            # An interim answer (1xx) is followed by the final one; trailers come after it.
            if self._status.get(stream, 100) < 200:
                self._status[stream] = status_of(payload)
            if flags & 1:
                self._done(stream, self._status[stream])
        elif kind == RST_STREAM:
            self._done(stream, 0)
        elif kind == SETTINGS and not flags & 1:
            self._out += frame(SETTINGS, 1, 0, b"")
            self._wake.set()
        elif kind == PING and not flags & 1:
            self._out += frame(PING, 1, 0, payload)
            self._wake.set()
        elif kind == GOAWAY:
            self.failed = "goaway"

    def _done(self, stream: int, status: int) -> None:
        done = self._waiting.pop(stream, None)
        self._status.pop(stream, None)
        size = self._size.pop(stream, 0)
        if done is not None:
            done(status, size)

    def _lose(self) -> None:
        for stream in list(self._waiting):
            self._done(stream, 0)


class H1Connection(Connection):
    """HTTP/1.1: one request at a time, bodies with a content-length or in chunks."""

    most = 1

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, source: str = "127.0.0.1"
    ) -> None:
        """Prepare."""
        super().__init__(host, port, context, source)
        self._waiting: Done | None = None

    def send(self, request: Request, done: Done) -> None:
        """Send a request; nothing else may be under way."""
        if self.failed or self._waiting is not None:
            done(0, 0)
            return
        self._waiting = done
        self._out += request.octets()
        self._wake.set()

    def _feed(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            status = int(head[9:12])
            if status < 200:
                del self._buffer[: end + 4]
                continue
            octets = self._body(head, end + 4)
            if octets is None:
                return
            body, after = octets
            del self._buffer[:after]
            done, self._waiting = self._waiting, None
            if b"\r\nconnection: close" in head:
                self.failed = "closed"
            if done is not None:
                done(status, body)

    def _body(self, head: bytes, at: int) -> tuple[int, int] | None:
        """Return the body's size and where it ends, or None while it is incomplete."""
        _, _, after = head.partition(b"\r\ncontent-length:")
        if after:
            size = int(after.split(b"\r\n", 1)[0])
            return (size, at + size) if len(self._buffer) >= at + size else None
        if b"\r\ntransfer-encoding: chunked" not in head:
            return 0, at
        body = 0
        while (line := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(self._buffer[at:line].split(b";")[0], 16)
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if not size:
                return body, at
            body += size
        return None

    def _lose(self) -> None:
        done, self._waiting = self._waiting, None
        if done is not None:
            done(0, 0)
