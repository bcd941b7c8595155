"""Raw HTTP/2 frames, and an engine without a socket."""

from hpack import Encoder

from hub.protocol.h2 import H2Engine
from hub.protocol.h2_output import frame
from hub.protocol.h2_package import H2PackageEngine
from hub.protocol.message import Bounds, EngineEvent

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
ENGINES = {"lean": H2Engine, "package": H2PackageEngine}
GREETING = PREFACE + frame(SETTINGS, 0, 0, b"")
GET = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/"),
)
POST = ((b":method", b"POST"), *GET[1:])


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block that touches no dynamic table."""
    return Encoder().encode([(name, value, True) for name, value in fields])


def headers(
    stream: int,
    *fields: tuple[bytes, bytes],
    base: tuple[tuple[bytes, bytes], ...] = GET,
    end: bool = True,
) -> bytes:
    return frame(HEADERS, 4 | end, stream, block(*base, *fields))


class Wire:
    """One engine and what it says."""

    def __init__(self, engine: str, **bounds: object) -> None:
        self.engine = ENGINES[engine](Bounds(**bounds))
        self.now = 0.0
        self.sent: list[tuple[int, int, int, bytes]] = []
        self.events: list[EngineEvent] = []
        self.feed(GREETING)
        self.greeting, self.sent = self.sent, []

    def feed(self, *octets: bytes) -> list[EngineEvent]:
        events = self.engine.receive(b"".join(octets), self.now)
        self.events += events
        self.collect()
        return events

    def collect(self) -> None:
        data = self.engine.take()
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 3])
            stream = int.from_bytes(data[at + 5 : at + 9])
            self.sent.append((data[at + 3], data[at + 4], stream, data[at + 9 : at + 9 + length]))
            at += 9 + length

    @property
    def goaway(self) -> int | None:
        """Return the error code of the last GOAWAY."""
        codes = [int.from_bytes(p[4:8]) for kind, _, _, p in self.sent if kind == GOAWAY]
        return codes[-1] if codes else None

    def resets(self) -> dict[int, int]:
        """Return the error code of each stream that was reset."""
        return {s: int.from_bytes(p) for kind, _, s, p in self.sent if kind == RST}

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]
