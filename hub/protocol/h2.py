"""HTTP/2, the lean engine: frames by hand, our own HPACK, answers written as one piece.

Theory of operation. ``receive`` handles each frame that ``Input`` has cut and judged, by its kind. A stream lives in ``_streams`` from its HEADERS until ``release``. It counts against the limit until it is answered whole or reset; what was reset counts apart until it is
released (``Places``). What breaks a rule for the connection raises ``Violation`` inside and becomes GOAWAY; what
breaks one for a stream becomes RST_STREAM, is charged as provoked, and ends the stream for the application (``Gone``).

Invariants. A header block is decoded always, even for a refused stream, or the compression state would be lost.
Octets of DATA nobody wants are credited to the connection's window at once. Windows are checked both ways; those
of a stream open only by ``consume``. Streams that we closed before the peer did are remembered for a while
(``_late``), so that what was under way is ignored instead of punished: as much as the stream's window had room for,
and beyond it the connection ends. Source: RFC 9113.
"""

from collections import deque
from typing import Final, final

from hub.model.http import Headers
from hub.protocol import guard, heads
from hub.protocol.guard import Budgets, Violation
from hub.protocol.h2_input import ACK, Input, judge_fields, settings_of, unpadded
from hub.protocol.h2_output import (
    ENABLE_PUSH,
    END_STREAM,
    FRAME,
    MOST,
    TABLE,
    WINDOW,
    Output,
    Places,
    Stream,
    greeting,
)
from hub.protocol.h2_response import answer_block
from hub.protocol.hpack import Decoder, HpackError, ListTooLarge
from hub.protocol.message import Body, Bounds, Ended, EngineEvent, Gone, Opened, Refusal, Refused

_PADDED: Final = 0x08
_LATE_MOST: Final = 256
_DRAIN_PING: Final = b"drained?"
_SETTINGS_ACK: Final = bytes((0, 0, 0, guard.SETTINGS, ACK, 0, 0, 0, 0))


@final
class H2Engine:
    """Serve one HTTP/2 connection."""

    __slots__ = (
        "_bounds", "_budgets", "_closed", "_credit", "_decoder", "_draining", "_final", "_handlers", "_input", "_last",
        "_late", "_late_order", "_out", "_places", "_receive_window", "_scheme", "_streams", "fault",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, *, scheme: bytes = b"https", now: float = 0.0) -> None:
        """Queue our SETTINGS; ``scheme`` is what ``:scheme`` must be."""
        self._bounds = bounds
        self._scheme = scheme
        self._budgets = Budgets(bounds, now)
        self._decoder = Decoder(bounds.header_octets)
        self._streams: dict[int, Stream] = {}
        self._late: dict[int, int] = {}
        self._late_order: deque[int] = deque()
        self._input = Input(bounds, self._budgets)
        self._draining = self._final = self._closed = False
        self._last = self._credit = 0
        self._places = Places(bounds.streams)
        self._receive_window = max(65535, bounds.connection_window)
        self._out = Output(self._budgets)
        self._out.parts.append(greeting(bounds))
        self._handlers = {
            guard.PRIORITY: self._on_priority,
            guard.RST_STREAM: self._on_reset,
            guard.SETTINGS: self._on_settings,
            guard.PING: self._on_ping,
            guard.GOAWAY: self._on_goaway,
            guard.WINDOW_UPDATE: self._on_window,
        }
        self.fault = ""

    @property
    def closing(self) -> bool:
        """Tell whether to close once everything is sent."""
        return self._closed or (self._final and not self._streams)

    @property
    def has_output(self) -> bool:
        """Tell whether ``take`` would give something."""
        return bool(self._out.parts)

    @property
    def partial(self) -> bool:
        """Tell whether the preface, the first SETTINGS or a header block is incomplete."""
        return self._input.partial

    @property
    def open_streams(self) -> int:
        """Count streams that are not answered whole, and those that were reset and not yet released."""
        return self._places.held

    @property
    def wants_data(self) -> bool:
        """Always True: flow control bounds what may come."""
        return True

    def receive(self, data: bytes, now: float) -> list[EngineEvent]:
        """Take octets; what breaks the protocol ends the connection with GOAWAY."""
        events: list[EngineEvent] = []
        if self._closed:
            return events
        self._budgets.at(now)
        try:
            for kind, flags, stream, payload in self._input.feed(data):
                if kind == guard.HEADERS:
                    self._on_headers(flags, stream, payload, events)
                elif kind == guard.DATA:
                    self._on_data(flags, stream, payload, events)
                elif (handler := self._handlers.get(kind)) is not None:
                    handler(flags, stream, payload, events)
        except Violation as violation:
            self._fail(violation.code, violation.reason, events)
        except ListTooLarge:
            self._fail(guard.ENHANCE_YOUR_CALM, "header_list", events)
        except HpackError:
            self._fail(guard.COMPRESSION_ERROR, "hpack", events)
        return events

    def _on_headers(self, flags: int, stream: int, block: bytes, events: list[EngineEvent]) -> None:
        fields = self._decoder.decode(block)
        ends = bool(flags & END_STREAM)
        record = self._streams.get(stream)
        if record is not None:
            self._trailers(record, fields, ends, events)
        elif stream > self._last:
            self._last = stream if not self._final else self._last
            self._request(stream, fields, ends, events)
        elif stream in self._late or self._final:
            self._late_headers(stream, ends=ends)
        else:
            raise Violation(guard.STREAM_CLOSED, "headers_on_closed")

    def _request(
        self, stream: int, fields: list[tuple[bytes, bytes]], ends: bool, events: list[EngineEvent],  # noqa: FBT001 - a flag of the frame
    ) -> None:  # fmt: skip
        if self._final or self._places.full:
            self._provoked(stream, guard.REFUSED_STREAM)
            return
        head = judge_fields(fields, self._scheme, ends=ends)
        if isinstance(head, Refusal) and head.malformed:
            self._provoked(stream, guard.PROTOCOL_ERROR)
            return
        record = Stream(stream, self._out.initial, self._bounds.stream_window)
        record.ended = ends
        self._streams[stream] = record
        if isinstance(head, Refusal):
            record.refused = True
            events.append(Refused(stream, head.status, head.reason))
            return
        record.place = self._places.enter()
        record.left, record.expects = head.content_length, head.expects_continue
        events.append(Opened(stream, head, ends))

    def _trailers(
        self, record: Stream, fields: list[tuple[bytes, bytes]], ends: bool, events: list[EngineEvent],  # noqa: FBT001 - a flag of the frame
    ) -> None:  # fmt: skip
        """End a body by trailers, whose fields are checked and forgotten (RFC 9113 section 8.1)."""
        if record.number in self._late:
            self._late_headers(record.number, ends=ends)
        elif record.ended:
            self._stream_error(record, guard.STREAM_CLOSED, events)
        elif (
            not ends
            or any(name[:1] == b":" for name, _ in fields)
            or heads.check_fields(fields)
            or record.left
        ):
            self._stream_error(record, guard.PROTOCOL_ERROR, events)
        else:
            self._end_of_body(record, events)

    def _late_headers(self, stream: int, *, ends: bool) -> None:
        """Ignore the trailers of a stream that we closed; the peer has closed it too then, and nothing more may come."""
        if ends and self._late.pop(stream, None) is not None:
            return
        self._budgets.control(guard.HEADERS)

    def _on_data(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:
        octets = len(payload)
        if flags & _PADDED:
            payload = unpadded(payload)
        record = self._streams.get(stream)
        if record is None and (stream > self._last or not stream & 1):
            if self._final and stream & 1:
                self._budgets.data(octets, ends=False)
                self._give_credit(octets)
                return
            raise Violation(guard.PROTOCOL_ERROR, "data_on_idle")
        self._receive_window -= octets
        if self._receive_window < 0:
            raise Violation(guard.FLOW_CONTROL_ERROR, "connection_window")
        if record is None or record.finished or record.refused:
            self._unwanted(stream, record, flags, octets)
        else:
            self._body(record, payload, octets, bool(flags & END_STREAM), events)

    def _unwanted(self, stream: int, record: Stream | None, flags: int, octets: int) -> None:
        """Ignore what was under way when we closed the stream, within its window (sections 5.1 and 6.9.1)."""
        self._give_credit(octets)
        if stream in self._late:
            room = self._late[stream] = self._late[stream] - octets
        elif record is None or record.ended:
            self._provoked(stream, guard.STREAM_CLOSED)
            return
        else:
            record.receive_window -= octets
            room = record.receive_window
        if room < 0:
            raise Violation(guard.FLOW_CONTROL_ERROR, "late_data")
        if flags & END_STREAM:
            self._late.pop(stream, None)  # the peer has closed it too: nothing more may come
            if record is not None:
                record.ended = True

    def _body(
        self, record: Stream, payload: bytes, octets: int, ends: bool, events: list[EngineEvent],  # noqa: FBT001 - a flag of the frame
    ) -> None:  # fmt: skip
        record.receive_window -= octets
        code = guard.NO_ERROR
        if record.ended:
            code = guard.STREAM_CLOSED
        elif record.receive_window < 0:
            code = guard.FLOW_CONTROL_ERROR
        elif record.left is not None:
            record.left -= len(payload)
            if record.left < 0 or (ends and record.left):
                code = guard.PROTOCOL_ERROR
        if code:
            self._give_credit(octets)
            self._stream_error(record, code, events)
            return
        if octets:
            events.append(Body(record.number, payload, octets))
        if ends:
            self._end_of_body(record, events)

    def _end_of_body(self, record: Stream, events: list[EngineEvent]) -> None:
        record.ended = True
        if not record.refused:
            events.append(Ended(record.number))

    def _on_priority(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:  # fmt: skip
        """Ignore it: RFC 9113 section 5.3.2 deprecates priorities."""
        del flags, events
        if not stream:
            raise Violation(guard.PROTOCOL_ERROR, "priority")
        if len(payload) != 5:
            raise Violation(guard.FRAME_SIZE_ERROR, "priority")

    def _on_reset(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:  # fmt: skip
        del flags
        if len(payload) != 4:
            raise Violation(guard.FRAME_SIZE_ERROR, "rst_stream")
        if not stream or (stream > self._last and not self._final):
            raise Violation(guard.PROTOCOL_ERROR, "reset_of_idle")
        record = self._streams.get(stream)
        if record is not None:
            self._over(record, events, "reset")

    def _on_settings(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:  # fmt: skip
        settings = settings_of(flags, stream, payload)
        if settings is None:
            return
        for name, value in settings:
            self._setting(name, value)
        self._out.parts.append(_SETTINGS_ACK)
        self._unblock()
        del events

    def _setting(self, name: int, value: int) -> None:
        """Apply one setting (RFC 9113 section 6.5.2)."""
        if name == ENABLE_PUSH and value > 1:
            raise Violation(guard.PROTOCOL_ERROR, "enable_push")
        if name == TABLE:
            self._out.allow_table(value)
        elif name == FRAME:
            if not 16384 <= value < 2**24:
                raise Violation(guard.PROTOCOL_ERROR, "max_frame_size")
            self._out.most_frame = value
        elif name == WINDOW:
            if value > MOST:
                raise Violation(guard.FLOW_CONTROL_ERROR, "initial_window")
            change, self._out.initial = value - self._out.initial, value
            for record in self._streams.values():
                record.send_window += change
                if record.send_window > MOST:
                    raise Violation(guard.FLOW_CONTROL_ERROR, "initial_window")

    def _on_ping(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:
        del events
        if stream:
            raise Violation(guard.PROTOCOL_ERROR, "ping")
        if len(payload) != 8:
            raise Violation(guard.FRAME_SIZE_ERROR, "ping")
        if not flags & ACK:
            self._out.frame(guard.PING, ACK, 0, payload)
        elif payload == _DRAIN_PING and self._draining:
            self.drain_now()

    def _on_goaway(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:  # fmt: skip
        del flags, events
        if stream:
            raise Violation(guard.PROTOCOL_ERROR, "goaway")
        if len(payload) < 8:
            raise Violation(guard.FRAME_SIZE_ERROR, "goaway")
        self.drain_now()

    def _on_window(self, flags: int, stream: int, payload: bytes, events: list[EngineEvent]) -> None:  # fmt: skip
        del flags
        if len(payload) != 4:
            raise Violation(guard.FRAME_SIZE_ERROR, "window_update")
        step = int.from_bytes(payload) & MOST
        if not stream:
            self._out.widen(step)
        elif (record := self._streams.get(stream)) is not None:
            self._widen(record, step, events)
        elif stream > self._last and not self._final:
            raise Violation(guard.PROTOCOL_ERROR, "window_of_idle")
        self._unblock()

    def _widen(self, record: Stream, step: int, events: list[EngineEvent]) -> None:
        record.send_window += step
        if record.finished:
            return
        if not step:
            self._stream_error(record, guard.PROTOCOL_ERROR, events)
        elif record.send_window > MOST:
            self._stream_error(record, guard.FLOW_CONTROL_ERROR, events)

    def _unblock(self) -> None:
        for record in self._out.unblock():
            self._sent(record)

    def _fail(self, code: int, reason: str, events: list[EngineEvent]) -> None:
        """End the connection; what was opened is gone, what was read of this batch before it stays."""
        self._goaway(self._last, code)
        self.fault = reason
        self._closed = True
        for record in self._streams.values():
            if not record.finished and not record.refused:
                record.finished = True
                events.append(Gone(record.number, reason))

    def _stream_error(self, record: Stream, code: int, events: list[EngineEvent]) -> None:
        self._provoked(record.number, code, max(0, record.receive_window))
        self._over(record, events, f"stream_error_{code}")

    def _over(self, record: Stream, events: list[EngineEvent], reason: str) -> None:
        """End a stream by the peer's doing; it keeps its place until it is released."""
        was, record.finished, record.ended = record.finished, True, True
        record.place = self._places.abandon(record.place)
        self._out.drop(record)
        if record.refused:
            self._streams.pop(record.number, None)
        elif not was:
            events.append(Gone(record.number, reason))

    def _provoked(self, stream: int, code: int, room: int | None = None) -> None:
        self._out.frame(guard.RST_STREAM, 0, stream, code.to_bytes(4))
        self._remember(stream, self._bounds.stream_window if room is None else room)
        self._budgets.reset_provoked()

    def _remember(self, stream: int, room: int) -> None:
        """Ignore what is under way for a stream that we closed first: ``room`` octets at most."""
        self._late[stream] = room
        self._late_order.append(stream)
        if len(self._late_order) > _LATE_MOST:
            self._late.pop(self._late_order.popleft(), None)

    def _goaway(self, last: int, code: int) -> None:
        self._out.frame(guard.GOAWAY, 0, 0, last.to_bytes(4) + code.to_bytes(4))

    def take(self) -> bytes:
        """Return what is to be sent."""
        return self._out.take()

    def answer(self, stream: int, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer."""
        record = self._known(stream)
        if record is None or record.started:
            return
        block = answer_block(status, headers)
        record.started = True
        if not body:
            self._out.head(record, block, ends=True)
        elif not self._out.complete(record, block, body):
            return
        self._sent(record)

    def start(self, stream: int, status: int, headers: Headers) -> None:
        """Send the head of an answer."""
        record = self._known(stream)
        if record is not None and not record.started:
            record.started = True
            self._out.head(record, answer_block(status, headers), ends=False)

    def write(self, stream: int, data: bytes) -> None:
        """Queue a piece of a body and send what the windows allow."""
        record = self._known(stream)
        if record is not None and data:
            record.pending = bytes(record.pending) + data
            self._out.push(record)

    def end(self, stream: int) -> None:
        """End a body."""
        record = self._known(stream)
        if record is not None:
            record.wants_end = True
            if self._out.push(record):
                self._sent(record)

    def go_on(self, stream: int) -> None:
        """Send 100 (Continue)."""
        record = self._known(stream)
        if record is not None and not record.started:
            self._out.head(record, _CONTINUE, ends=False)

    def backlog(self, stream: int) -> int:
        """Return how many octets wait for the peer's window."""
        record = self._known(stream)
        return len(record.pending) if record is not None else 0

    def consume(self, stream: int, octets: int) -> None:
        """Open the windows by so many octets; updates are sent by half windows."""
        self._give_credit(octets)
        record = self._streams.get(stream)
        if record is None or record.ended or record.finished:
            return
        record.credit += octets
        if record.credit * 2 >= self._bounds.stream_window:
            self._out.frame(guard.WINDOW_UPDATE, 0, stream, record.credit.to_bytes(4))
            record.receive_window += record.credit
            record.credit = 0

    def reset(self, stream: int) -> None:
        """Abandon a stream: RST_STREAM with CANCEL."""
        record = self._known(stream)
        if record is not None:
            record.finished = True
            record.place = self._places.abandon(record.place)
            self._out.drop(record)
            self._out.frame(guard.RST_STREAM, 0, stream, guard.CANCEL.to_bytes(4))
            self._remember(stream, record.receive_window)

    def release(self, stream: int) -> list[EngineEvent]:
        """Free the stream's place."""
        record = self._streams.pop(stream, None)
        if record is not None:
            record.place = self._places.leave(record.place)
        return []

    def drain(self) -> None:
        """Announce the end for streams yet to come, and ask for a round trip (section 6.8)."""
        if not (self._draining or self._closed):
            self._draining = True
            self._goaway(MOST, guard.NO_ERROR)
            self._out.frame(guard.PING, 0, 0, _DRAIN_PING)

    def drain_now(self) -> None:
        """Announce the last stream that will be served."""
        if not (self._final or self._closed):
            self._draining = self._final = True
            self._goaway(self._last, guard.NO_ERROR)

    def _known(self, stream: int) -> Stream | None:
        record = self._streams.get(stream)
        return None if record is None or record.finished or self._closed else record

    def _sent(self, record: Stream) -> None:
        """Close our half; if the peer's is open, stop it without an error (section 8.1). The peer may open another now."""
        record.finished = True
        record.place = self._places.leave(record.place)
        if not record.ended:
            record.ended, more = True, record.unread()
            if more:
                self._out.frame(guard.WINDOW_UPDATE, 0, record.number, more.to_bytes(4))
            self._out.frame(guard.RST_STREAM, 0, record.number, guard.NO_ERROR.to_bytes(4))
            self._remember(record.number, record.receive_window + more)
        if record.refused:
            self._streams.pop(record.number, None)

    def _give_credit(self, octets: int) -> None:
        self._credit += octets
        if self._credit * 2 >= self._bounds.connection_window:
            self._out.frame(guard.WINDOW_UPDATE, 0, 0, self._credit.to_bytes(4))
            self._receive_window += self._credit
            self._credit = 0


_CONTINUE: Final = answer_block(100, ())
