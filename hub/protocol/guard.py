"""Frame guard: budgets for what a peer may make us do, and frames refused from their nine-octet header.

It stands in front of every HTTP/2 engine. ``Budgets`` are token buckets (full at the start, refilled by time): the
lean engine, which reads frame headers itself, charges them directly; in front of the package engine ``FrameGuard``
reads the headers, refuses and charges, and passes on whole frames. Chunking never changes the verdict, for frames
are charged when their header is complete. Source: RFC 9113 sections 4.2, 10.5; limits.toml for the figures.
"""

from typing import Final, final

from hub.protocol.message import Bounds

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

_SMALL: Final = 64
"""A DATA frame below this that does not end its stream costs a tenth of a control frame."""
_TENTH: Final = 0.1
_MANY_SETTINGS: Final = 32 * 6


@final
class Violation(Exception):  # noqa: N818 - the word of the standard's error codes is a field
    """End the connection with an error code and a stable reason."""

    def __init__(self, code: int, reason: str) -> None:
        """Hold the RFC 9113 section 7 code and the reason for the log."""
        super().__init__(reason)
        self.code = code
        self.reason = reason


@final
class Budgets:
    """Count what a peer makes us do on one connection."""

    __slots__ = ("_bounds", "_control", "_credit", "_now", "_provoked", "_received", "_when")

    def __init__(self, bounds: Bounds, now: float = 0.0) -> None:
        """Start with full buckets."""
        self._bounds = bounds
        self._control = float(bounds.control_frames)
        self._received = float(bounds.resets)
        self._provoked = float(bounds.resets)
        self._credit = 0
        self._now = self._when = now

    def at(self, now: float) -> None:
        """Move to ``now`` (seconds of any monotonic clock), before frames are charged."""
        self._now = now
        if now - self._when > 1.0:
            self._refill()

    def _refill(self) -> None:
        bounds = self._bounds
        span = max(0.0, self._now - self._when)
        self._when = self._now
        per_second = bounds.control_frames / bounds.control_frames_s
        self._control = min(float(bounds.control_frames), self._control + span * per_second)
        most, back = float(bounds.resets), span * bounds.resets_per_s
        self._received = min(most, self._received + back)
        self._provoked = min(most, self._provoked + back)

    def sent_data(self) -> None:
        """Allow the two WINDOW_UPDATE frames that a DATA frame of ours may bring back."""
        self._credit = min(self._credit + 2, 10_000)

    def control(self, kind: int, cost: float = 1.0) -> None:
        """Charge a frame that carries nothing of a request.

        Raises:
            Violation: ENHANCE_YOUR_CALM when the budget is spent.
        """
        if kind == WINDOW_UPDATE and self._credit:
            self._credit -= 1
            return
        self._control -= cost
        if self._control < 0:
            self._refill()
            if self._control < 0:
                raise Violation(ENHANCE_YOUR_CALM, f"flood_{kind}")

    def settings(self, length: int) -> None:
        """Charge a SETTINGS frame, by its values too: each may move the windows of all streams.

        Nobody sends more than a dozen; nghttp2 ends the connection at more than 32 (CVE-2020-11080).
        """
        self.control(SETTINGS, 1 + length // _MANY_SETTINGS)

    def data(self, length: int, *, ends: bool) -> None:
        """Charge a DATA frame when it is empty (one) or tiny (a tenth) and does not end its stream."""
        if length < _SMALL and not ends:
            self.control(DATA, _TENTH if length else 1.0)

    def renew(self) -> None:
        """Fill all buckets: the peer has done something that was asked of it."""
        bounds = self._bounds
        self._control = float(bounds.control_frames)
        self._received = self._provoked = float(bounds.resets)

    def reset_received(self) -> None:
        """Charge a RST_STREAM of the peer (rapid reset). Raises Violation when the budget is spent."""
        self._received -= 1
        if self._received < 0:
            self._refill()
            if self._received < 0:
                raise Violation(ENHANCE_YOUR_CALM, "rapid_reset")

    def reset_provoked(self) -> None:
        """Charge a RST_STREAM that the peer provoked (MadeYouReset). Raises Violation when the budget is spent."""
        self._provoked -= 1
        if self._provoked < 0:
            self._refill()
            if self._provoked < 0:
                raise Violation(ENHANCE_YOUR_CALM, "provoked_reset")


@final
class FrameGuard:
    """Cut a byte stream into whole frames, each judged by its header before its body is waited for."""

    __slots__ = (
        "_block", "_bounds", "_budgets", "_buffer", "_charged", "_continued", "_greeted", "_heading", "_started",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, budgets: Budgets) -> None:
        """Wait for the preface."""
        self._bounds = bounds
        self._budgets = budgets
        self._buffer = b""
        self._charged = self._started = self._greeted = self._heading = False
        self._continued = 0
        self._block = 0

    @property
    def partial(self) -> bool:
        """Tell whether the preface, the first frame or a header block is incomplete."""
        return not self._greeted or self._block > 0 or self._heading

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are now whole (the first one after the preface).

        Raises:
            Violation: FRAME_SIZE_ERROR, PROTOCOL_ERROR or ENHANCE_YOUR_CALM.
        """
        data = self._buffer + data
        at = 0
        if not self._started:
            if data[:24] != PREFACE[: len(data)]:
                raise Violation(PROTOCOL_ERROR, "preface")
            if len(data) < len(PREFACE):
                self._buffer = data
                return []
            self._started, at = True, 24
        frames = []
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if not self._charged:
                self._judge(length, data[at + 3], data[at + 4])
                self._charged = True
            self._heading = data[at + 3] == HEADERS and len(data) - at < 9 + length
            if len(data) - at < 9 + length:
                break
            self._greeted = True
            frames.append(data[at : at + 9 + length])
            self._charged = False
            at += 9 + length
        self._buffer = data[at:]
        return frames

    def _judge(self, length: int, kind: int, flags: int) -> None:
        if length > self._bounds.frame_octets:
            raise Violation(FRAME_SIZE_ERROR, "frame_size")
        if kind == DATA:
            self._budgets.data(length, ends=bool(flags & 1))
        elif kind == RST_STREAM:
            self._budgets.reset_received()
        elif kind in {HEADERS, CONTINUATION}:
            self._judge_block(length, kind, flags)
        elif kind == SETTINGS:
            self._budgets.settings(length)
        else:
            self._budgets.control(kind)

    def _judge_block(self, length: int, kind: int, flags: int) -> None:
        if kind == CONTINUATION:
            self._continued += 1
            if self._continued > self._bounds.continuations:
                raise Violation(ENHANCE_YOUR_CALM, "continuations")
        self._block += length + 1
        if self._block > self._bounds.header_octets + self._bounds.continuations + 1:
            raise Violation(ENHANCE_YOUR_CALM, "header_block")
        if flags & 4:
            self._continued = self._block = 0
