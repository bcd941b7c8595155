"""What every HTTP engine says and obeys: events, bounds and the engine's interface.

An engine is sans-IO. Bytes go in by ``receive`` and come out as events; answers go in by ``answer``, ``start``,
``write`` and ``end`` and come out as bytes by ``take``. It knows no socket and no clock (``now`` is an argument).

Invariants. A stream that was ``Opened`` counts against the concurrency limit until ``release`` is called for it,
even when the peer has reset it: work that a peer started and abandoned is still work. Nothing after ``Gone`` or
the end of a body is ever said about a stream. ``closing`` means: send what ``take`` gives, then close.
"""

from typing import Protocol

import msgspec

from hub.model.http import Headers


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold a request's head after every check of this module."""

    method: str
    authority: str
    path: str
    query: str
    headers: Headers
    content_length: int | None = None
    expects_continue: bool = False


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Say why a head is refused: the status for it, a stable reason, and whether it is malformed by the RFCs."""

    status: int
    reason: str
    malformed: bool = False


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A request begins; ``ended`` if it has no body."""

    stream: int
    head: Head
    ended: bool


class Body(msgspec.Struct, frozen=True, gc=False):
    """A piece of a body; ``octets`` is what ``consume`` must be told once the piece was read."""

    stream: int
    data: bytes
    octets: int


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A body is complete."""

    stream: int


class Gone(msgspec.Struct, frozen=True, gc=False):
    """The stream was reset, by the peer or because of what the peer did."""

    stream: int
    reason: str


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A request that must be answered with ``status`` and never reaches the application; needs no ``release``."""

    stream: int
    status: int
    reason: str


EngineEvent = Opened | Body | Ended | Gone | Refused


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the limits of one connection's engine (``config/limits.toml`` says why each is what it is)."""

    header_octets: int = 32768
    streams: int = 100
    stream_window: int = 65535
    connection_window: int = 1048576
    frame_octets: int = 16384
    control_frames: int = 1000
    control_frames_s: float = 10.0
    resets: int = 1000
    resets_per_s: float = 33.0
    continuations: int = 32


class Engine(Protocol):
    """Speak one version of HTTP on one connection."""

    fault: str
    """Why the connection is closing by the peer's doing; empty otherwise."""

    @property
    def closing(self) -> bool:
        """Tell whether the connection is to be closed once ``take`` has been sent."""
        ...

    @property
    def has_output(self) -> bool:
        """Tell whether ``take`` would give something (True if that is not known)."""
        ...

    @property
    def partial(self) -> bool:
        """Tell whether the peer owes the rest of a head (or of the connection's beginning)."""
        ...

    @property
    def open_streams(self) -> int:
        """Count the streams that hold a place of the peer's: being answered, or reset and not yet released."""
        ...

    @property
    def wants_data(self) -> bool:
        """Tell whether ``receive`` may be called now; False asks for back-pressure."""
        ...

    def receive(self, data: bytes, now: float) -> list[EngineEvent]:
        """Take octets from the peer; never raises on what a peer can send."""
        ...

    def take(self) -> bytes:
        """Return and forget everything that is to be sent."""
        ...

    def answer(self, stream: int, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer; a no-op for a stream that is gone."""
        ...

    def start(self, stream: int, status: int, headers: Headers) -> None:
        """Send the head of an answer whose body follows by ``write`` and ``end``."""
        ...

    def write(self, stream: int, data: bytes) -> None:
        """Queue a piece of a body; look at ``backlog`` before the next."""
        ...

    def end(self, stream: int) -> None:
        """End a body."""
        ...

    def go_on(self, stream: int) -> None:
        """Send 100 (Continue) if the client waits for it."""
        ...

    def backlog(self, stream: int) -> int:
        """Return how many octets of a stream's body wait for the peer's window."""
        ...

    def consume(self, stream: int, octets: int) -> None:
        """Tell that so many octets of a body were read, so that the peer may send more."""
        ...

    def reset(self, stream: int) -> None:
        """Abandon a stream (and with HTTP/1.1 the connection)."""
        ...

    def release(self, stream: int) -> list[EngineEvent]:
        """Free a stream's place after its handler has ended; a waiting pipelined request may begin."""
        ...

    def drain(self) -> None:
        """Begin the end: what was started is finished, nothing new is begun (first stage)."""
        ...

    def drain_now(self) -> None:
        """Finish announcing the end (second stage); ``closing`` once no stream is left."""
        ...
