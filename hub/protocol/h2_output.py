"""HTTP/2, the sending half of the lean engine: frames, the peer's windows, whose turn it is.

A complete answer that fits both windows is written as one piece (HEADERS and DATA, one concatenation). What does not
fit waits in its stream; streams that wait take turns, one frame each. Source: RFC 9113 sections 4, 5.2, 6.9.
"""

from collections import deque
from contextlib import suppress
from typing import Final, final

from hub.protocol import guard
from hub.protocol.guard import Budgets, Violation
from hub.protocol.hpack import EMPTY_TABLE, TABLE_OCTETS
from hub.protocol.message import Bounds

MOST: Final = 2**31 - 1
END_STREAM: Final = 0x01
END_HEADERS: Final = 0x04
TABLE, ENABLE_PUSH, STREAMS, WINDOW, FRAME, LIST = range(1, 7)
"""Settings (RFC 9113 section 6.5.2)."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame (RFC 9113 section 4.1)."""
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3), kind, flags, stream.to_bytes(4), payload)


def greeting(bounds: Bounds) -> bytes:
    """Return our SETTINGS and the window that makes up for the protocol's default."""
    values = (
        (STREAMS, bounds.streams),
        (WINDOW, bounds.stream_window),
        (LIST, bounds.header_octets),
    )
    settings = b"".join([name.to_bytes(2) + value.to_bytes(4) for name, value in values])
    more = bounds.connection_window - 65535
    opened = frame(guard.WINDOW_UPDATE, 0, 0, more.to_bytes(4)) if more > 0 else b""
    return frame(guard.SETTINGS, 0, 0, settings) + opened


_UNREAD_MOST: Final = 16_777_216
"""Octets, as the largest body that anybody is allowed twice: beyond it nothing is done for those who do not stop when they are told to."""
NO_PLACE: Final = 0
_OPEN: Final = 1
_ABANDONED: Final = 2


@final
class Places:
    """Count the peer's streams by its own count, and apart from it the work that it gave up and that has not ended.

    A stream that was reset is closed, so the peer may open another at once (RFC 9113 section 5.1.2), also one that gave up
    all it had; but what it gave up counts until it has ended, or resets would buy work without a bound.
    """

    __slots__ = ("_most", "_open", "held")

    def __init__(self, most: int) -> None:
        """Let ``most`` streams be open, and as many again be at work that were abandoned."""
        self._most = most
        self._open = 0
        self.held = 0

    @property
    def full(self) -> bool:
        """Tell whether the next stream is to be refused."""
        return self._open >= self._most or self.held >= 2 * self._most

    def enter(self) -> int:
        """Open a stream; like the others it returns the stream's new place."""
        self._open += 1
        self.held += 1
        return _OPEN

    def abandon(self, place: int) -> int:
        """Note that the stream is closed for the peer while its work goes on."""
        if place != _OPEN:
            return place
        self._open -= 1
        return _ABANDONED

    def leave(self, place: int) -> int:
        """Note that the stream was answered whole, or its work has ended."""
        if place == _OPEN:
            self._open -= 1
        if place != NO_PLACE:
            self.held -= 1
        return NO_PLACE


@final
class Stream:
    """Hold one stream: what the peer still sends, and what we still owe."""

    __slots__ = (
        "credit", "ended", "expects", "finished", "left", "number", "pending", "place", "receive_window", "refused", "send_window",
        "started", "wants_end",
    )  # fmt: skip

    def __init__(self, number: int, send_window: int, receive_window: int) -> None:
        """Open it with both windows full."""
        self.number = number
        self.send_window = send_window
        self.receive_window = receive_window
        self.place = NO_PLACE
        self.credit = 0
        self.left: int | None = None
        self.expects = False
        self.ended = False
        self.started = False
        self.finished = False
        self.refused = False
        self.wants_end = False
        self.pending: bytes | memoryview = b""

    def unread(self) -> int:
        """Return how much wider its window must be for the rest of a body that nobody will read.

        Some clients look at an answer only when their request is out, and do not hear RST_STREAM before: they would wait for
        a window for ever. So a rest of announced length may come, unless its sender waits for a word of ours (RFC 9110
        section 10.1.1).
        """
        if self.left is None or self.left > _UNREAD_MOST or self.expects:
            return 0
        return max(0, self.left - max(0, self.receive_window))


@final
class Output:
    """Hold what is to be sent, and the windows it must fit."""

    __slots__ = (
        "_blocked",
        "_budgets",
        "_table",
        "_update",
        "initial",
        "most_frame",
        "parts",
        "window",
    )

    def __init__(self, budgets: Budgets) -> None:
        """Start with the protocol's default windows."""
        self.parts: list[bytes] = []
        self.window = 65535
        self.initial = 65535
        self.most_frame = 16384
        self._blocked: deque[Stream] = deque()
        self._budgets = budgets
        self._table = TABLE_OCTETS
        self._update = False

    def take(self) -> bytes:
        """Return and forget all."""
        parts = self.parts
        if not parts:
            return b""
        self.parts = []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Queue a frame."""
        self.parts.append(frame(kind, flags, stream, payload))

    def complete(self, record: Stream, block: bytes, body: bytes) -> bool:
        """Queue a whole answer; tell whether its last frame is queued."""
        if self._update:
            block = self._updated(block)
        size = len(body)
        if (
            size <= self.window
            and size <= record.send_window
            and size <= self.most_frame
            and len(block) <= self.most_frame
        ):
            self.window -= size
            record.send_window -= size
            self._budgets.sent_data()
            number = record.number.to_bytes(4)
            self.parts.append(
                b"%b\x01\x04%b%b%b\x00\x01%b%b"
                % (len(block).to_bytes(3), number, block, size.to_bytes(3), number, body)
            )
            return True
        self._fields(record, block, ends=False)
        # A view: with wide windows, copying what is left for each frame would take a second for 16 MiB.
        record.pending, record.wants_end = memoryview(body), True
        return self.push(record)

    def head(self, record: Stream, block: bytes, *, ends: bool) -> None:
        """Queue a header block, in CONTINUATION frames if the peer's frame size demands it."""
        self._fields(record, self._updated(block) if self._update else block, ends=ends)

    def allow_table(self, octets: int) -> None:
        """Take the peer's bound for a compression table that we never use.

        Below the default the next block must say that the table has become smaller, or the peer may not read it; said once
        to be empty, it obeys every bound. Source: RFC 9113 section 4.3.1; RFC 7541 section 4.2.
        """
        if octets < self._table:
            self._table, self._update = 0, True

    @property
    def owes_update(self) -> bool:
        """Tell whether the next block must begin with a table's new size; ``head`` and ``complete`` see to it."""
        return self._update

    def _updated(self, block: bytes) -> bytes:
        self._update = False
        return EMPTY_TABLE + block

    def _fields(self, record: Stream, block: bytes, *, ends: bool) -> None:
        flags, most = (END_STREAM if ends else 0), self.most_frame
        if len(block) <= most:
            self.frame(guard.HEADERS, flags | END_HEADERS, record.number, block)
            return
        self.frame(guard.HEADERS, flags, record.number, block[:most])
        for at in range(most, len(block), most):
            last = END_HEADERS if at + most >= len(block) else 0
            self.frame(guard.CONTINUATION, last, record.number, block[at : at + most])

    def push(self, record: Stream) -> bool:
        """Queue what the windows allow of a stream's body; tell whether its last frame is queued."""
        while record.pending:
            if not self._piece(record):
                if record not in self._blocked:
                    self._blocked.append(record)
                return False
        return self._ended(record)

    def drop(self, record: Stream) -> None:
        """Forget what a stream still had to send; it takes no turn any more."""
        if record.pending:
            record.pending = b""
            with suppress(ValueError):
                self._blocked.remove(record)

    def unblock(self) -> list[Stream]:
        """Let waiting streams go on, one frame each in turn; return those whose last frame is queued."""
        finished: list[Stream] = []
        waiting, self._blocked = self._blocked, deque()
        while waiting:
            record = waiting.popleft()
            if record.finished:
                continue
            if record.pending and not self._piece(record):
                self._blocked.append(record)
            elif record.pending:
                waiting.append(record)
            elif self._ended(record):
                finished.append(record)
        return finished

    def _piece(self, record: Stream) -> bool:
        room = min(self.window, record.send_window, self.most_frame)
        if room <= 0:
            return False
        pending = record.pending
        piece, record.pending = bytes(pending[:room]), pending[room:]
        size = len(piece)
        self.window -= size
        record.send_window -= size
        self._budgets.sent_data()
        last = record.wants_end and not record.pending
        self.frame(guard.DATA, END_STREAM if last else 0, record.number, piece)
        record.started = True
        if last:
            record.wants_end = False
            record.finished = True
        return True

    def _ended(self, record: Stream) -> bool:
        if record.wants_end and not record.finished:
            record.wants_end = False
            record.finished = True
            self.frame(guard.DATA, END_STREAM, record.number, b"")
        return record.finished

    def widen(self, step: int) -> None:
        """Open the connection's window.

        Raises:
            Violation: by nothing, or beyond 2^31-1 (RFC 9113 section 6.9.1).
        """
        if not step:
            raise Violation(guard.PROTOCOL_ERROR, "window_update")
        self.window += step
        if self.window > MOST:
            raise Violation(guard.FLOW_CONTROL_ERROR, "window_update")
