"""Closed-loop load over HTTP/2 in raw frames, which knows of every request whether it was owed an answer.

A request is owed an answer from the moment it was sent until a GOAWAY says that its stream was not processed, or a
reset with REFUSED_STREAM does. The client goes on over a new connection after a GOAWAY, as RFC 9113 section 6.8 wants.
"""

import ssl
from collections import Counter
from functools import partial

import trio
from hpack import Encoder

from hub.protocol.h2_output import frame
from hub.protocol.hpack import Decoder
from tests.waiting import pause_of_a_peer, until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
REFUSED_STREAM = 7
WIDE = frame(SETTINGS, 0, 0, b"\0\4" + (1 << 24).to_bytes(4)) + frame(
    WINDOW, 0, 0, (1 << 30).to_bytes(4)
)
CREDIT = 1 << 20
"""Octets of bodies after which a connection's window is opened again."""
HEADER_OCTETS = 65_536


class Ask:
    """One request to repeat."""

    def __init__(self, method: str, path: str, port: int, **fields: str) -> None:
        pairs = [(":method", method), (":scheme", "https"), (":authority", f"localhost:{port}")]
        extra = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.pairs = [*pairs, (":path", path), *extra]
        # Never indexed, so the same octets each time and on each connection.
        self._block = Encoder().encode([(name, value, True) for name, value in self.pairs])

    def octets(self, stream: int) -> bytes:
        return frame(HEADERS, 5, stream, self._block)


class Load:
    """``connections`` x ``streams`` requests in flight until stopped."""

    def __init__(self, port: int, context: ssl.SSLContext, asks: list[Ask]) -> None:
        self.port = port
        self.context = context
        self.asks = asks
        self.statuses: Counter[int] = Counter()
        self.unanswered: list[str] = []
        self.broken: list[str] = []
        self.refused = 0
        self.connections = 0
        self.gone_away = 0
        self.stopping = False
        self.times: list[tuple[float, float]] = []
        self.each: list[tuple[int, float]] = []
        self.retry_after = 0

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    async def run(self, connections: int = 4, streams: int = 10) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._again_and_again, streams)

    async def at_least(self, count: int) -> None:
        await until(
            lambda: self.answered >= count,
            30,
            f"{count} answers",
            seen=lambda: f"{self.answered} came",
        )

    async def _again_and_again(self, streams: int) -> None:
        while not self.stopping:
            try:
                await Pipe(self, streams).run()
            except OSError:
                self.refused += 1
                await pause_of_a_peer(0.02)


class Pipe:
    """One connection."""

    def __init__(self, load: Load, streams: int) -> None:
        self.load = load
        self.streams = streams
        self.open: dict[int, float] = {}
        self.said: dict[int, int] = {}
        self.next = 1
        self.leaving = False
        self.buffer = b""
        self.eaten = 0
        self.decoder = Decoder(HEADER_OCTETS)

    async def run(self) -> None:
        raw = await trio.open_tcp_stream("127.0.0.1", self.load.port)
        stream = trio.SSLStream(
            raw, self.load.context, server_hostname="localhost", https_compatible=True
        )
        try:
            with trio.fail_after(10):
                await stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError, ssl.SSLError) as error:
            await trio.aclose_forcefully(stream)
            raise ConnectionResetError("handshake") from error
        self.load.connections += 1
        try:
            await stream.send_all(PREFACE + WIDE + self._more())
            while not (self.leaving and not self.open):
                with trio.fail_after(15):
                    data = await stream.receive_some(65536)
                if not data:
                    break
                out = self._take(data)
                if out:
                    await stream.send_all(out)
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            self.load.broken.append(type(error).__name__)
        except trio.TooSlowError:
            self.load.broken.append("silent")
        finally:
            self.load.unanswered += [f"stream {one}" for one in self.open]
            await trio.aclose_forcefully(stream)

    def _more(self) -> bytes:
        out = b""
        while len(self.open) < self.streams and not self.leaving and not self.load.stopping:
            ask = self.load.asks[(self.next // 2) % len(self.load.asks)]
            out += ask.octets(self.next)
            self.open[self.next] = trio.current_time()
            self.next += 2
        return out

    def _take(self, data: bytes) -> bytes:
        held, at, out = self.buffer + data, 0, b""
        while len(held) >= at + 9:
            end = at + 9 + int.from_bytes(held[at : at + 3])
            if len(held) < end:
                break
            number = int.from_bytes(held[at + 5 : at + 9])
            out += self._frame(held[at + 3], held[at + 4], number, held[at + 9 : end])
            at = end
        self.buffer = held[at:]
        if self.load.stopping:
            self.leaving = True
        return out + self._more()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == HEADERS:
            fields = dict(self.decoder.decode(payload))
            self.said[stream] = int(fields[b":status"])
            self.load.statuses[self.said[stream]] += 1
            self.load.retry_after += b"retry-after" in fields
        if kind in {HEADERS, DATA}:
            self._ended(flags, stream)
            self.eaten += len(payload) if kind == DATA else 0
            if self.eaten > CREDIT:
                credit, self.eaten = self.eaten.to_bytes(4), 0
                return frame(WINDOW, 0, 0, credit)
        elif kind == RST:
            began = self.open.pop(stream, None)
            if began is not None and int.from_bytes(payload) != REFUSED_STREAM:
                self.load.unanswered.append(f"reset {int.from_bytes(payload)}")
        elif kind == GOAWAY:
            self._go(int.from_bytes(payload[:4]), int.from_bytes(payload[4:8]))
        elif kind in {SETTINGS, PING} and not flags & 1:
            return frame(kind, 1, 0, payload if kind == PING else b"")
        return b""

    def _ended(self, flags: int, stream: int) -> None:
        if flags & 1 and (began := self.open.pop(stream, None)) is not None:
            now = trio.current_time()
            self.load.times.append((now, now - began))
            self.load.each.append((self.said.pop(stream, 0), now - began))

    def _go(self, last: int, code: int) -> None:
        self.leaving = True
        self.load.gone_away += 1
        if code:
            self.load.broken.append(f"GOAWAY {code}")
        for stream in [one for one in self.open if one > last]:
            del self.open[stream]


def under(load: Load, connections: int = 4, streams: int = 10) -> partial:
    return partial(load.run, connections, streams)
