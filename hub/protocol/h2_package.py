"""HTTP/2 on the ``h2`` package: the reference engine, and the oracle of the lean one.

What the package leaves to us is done around it: the frame guard in front; PRIORITY ignored; GOAWAY, ours and the
peer's, kept away from its state machine, which would close (its issue 1181); too many streams refused one by one
instead of failing the connection; resets that it sends by itself counted as provoked; the six things that it lets
through judged by ``heads.read_head``. Source: RFC 9113.
"""

from typing import Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from hub.model.http import Headers
from hub.protocol import guard, heads, message
from hub.protocol.guard import Budgets, FrameGuard, Violation
from hub.protocol.h2_output import NO_PLACE, Places
from hub.protocol.message import Body, Bounds, Ended, EngineEvent, Gone, Opened, Refusal, Refused

_DRAIN_PING: Final = b"drained?"
_ALL_STREAMS: Final = 2**31 - 1


@final
class _Stream:
    __slots__ = ("ended", "finished", "pending", "place", "started", "wants_end")

    def __init__(self) -> None:
        self.place = NO_PLACE
        self.ended = False
        self.started = False
        self.finished = False
        self.pending = bytearray()
        self.wants_end = False


@final
class H2PackageEngine:
    """Serve one HTTP/2 connection with the ``h2`` package as state machine."""

    __slots__ = (
        "_bounds", "_budgets", "_closed", "_draining", "_final", "_guard", "_h2", "_in_block", "_last",
        "_live", "_out", "_places", "_refused", "_scheme", "fault",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, *, scheme: bytes = b"https", now: float = 0.0) -> None:
        """Queue our SETTINGS; ``scheme`` is what ``:scheme`` must be."""
        self._bounds = bounds
        self._scheme = scheme
        self._budgets = Budgets(bounds, now)
        self._guard = FrameGuard(bounds, self._budgets)
        self._h2 = _connection(bounds)
        self._live: dict[int, _Stream] = {}
        self._refused: dict[int, _Stream] = {}
        self._out: list[bytes] = []
        self._in_block = False
        self._draining = self._final = self._closed = False
        self._last = 0
        self._places = Places(bounds.streams)
        self.fault = ""

    @property
    def closing(self) -> bool:
        """Tell whether to close once everything is sent."""
        return self._closed or (self._final and not self._live)

    @property
    def has_output(self) -> bool:
        """Return True: the package does not say."""
        return True

    @property
    def partial(self) -> bool:
        """Tell whether the preface or a header block is incomplete."""
        return self._guard.partial

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
        if self._closed:
            return []
        self._budgets.at(now)
        events: list[EngineEvent] = []
        try:
            for frame in self._guard.feed(data):
                self._frame(frame, events)
                self._count_resets()
        except Violation as violation:
            self._fail(violation.code, violation.reason, events)
        except ProtocolError as error:
            self._fail(int(error.error_code), type(error).__name__, events, said=True)
        return events

    def take(self) -> bytes:
        """Return what is to be sent."""
        self._collect()
        out = b"".join(self._out)
        self._out.clear()
        return out

    def answer(self, stream: int, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer."""
        if not body:
            self._head(stream, status, headers, ends=True)
            return
        self.start(stream, status, headers)
        record = self._known(stream)
        if record is not None:
            record.pending += body
            record.wants_end = True
            self._pump(stream, record)

    def start(self, stream: int, status: int, headers: Headers) -> None:
        """Send the head of an answer."""
        self._head(stream, status, headers, ends=False)

    def write(self, stream: int, data: bytes) -> None:
        """Queue a piece of a body and send what the windows allow."""
        record = self._known(stream)
        if record is not None:
            record.pending += data
            self._pump(stream, record)

    def end(self, stream: int) -> None:
        """End a body."""
        record = self._known(stream)
        if record is not None:
            record.wants_end = True
            self._pump(stream, record)

    def go_on(self, stream: int) -> None:
        """Send 100 (Continue)."""
        record = self._known(stream)
        if record is not None and not record.started:
            self._h2.send_headers(stream, [(b":status", b"100")])

    def backlog(self, stream: int) -> int:
        """Return how many octets wait for the peer's window."""
        record = self._known(stream)
        return len(record.pending) if record is not None else 0

    def consume(self, stream: int, octets: int) -> None:
        """Open the windows by so many octets."""
        if octets and not self._closed:
            self._h2.acknowledge_received_data(octets, stream)

    def reset(self, stream: int) -> None:
        """Abandon a stream: RST_STREAM with CANCEL."""
        record = self._live.get(stream)
        if record is not None and not record.finished:
            record.finished = True
            record.place = self._places.abandon(record.place)
            record.pending.clear()
            self._reset(stream, guard.CANCEL)

    def release(self, stream: int) -> list[EngineEvent]:
        """Free the stream's place."""
        record = self._live.pop(stream, None)
        if record is not None:
            record.place = self._places.leave(record.place)
        return []

    def drain(self) -> None:
        """Announce the end for streams yet to come, and ask for a round trip (RFC 9113 section 6.8)."""
        if not (self._draining or self._closed):
            self._draining = True
            self._goaway(_ALL_STREAMS, guard.NO_ERROR)
            self._h2.ping(_DRAIN_PING)

    def drain_now(self) -> None:
        """Announce the last stream that will be served."""
        if not (self._final or self._closed):
            self._draining = self._final = True
            self._goaway(self._last, guard.NO_ERROR)

    def _frame(self, frame: bytes, events: list[EngineEvent]) -> None:
        kind, flags = frame[3], frame[4]
        if not self._in_block:
            if kind == guard.PRIORITY:
                self._priority(frame)
                return
            if kind == guard.GOAWAY:
                if frame[5:9] != bytes(4) or len(frame) < 17:
                    raise Violation(guard.PROTOCOL_ERROR, "goaway")
                self.drain_now()
                return
        for event in self._h2.receive_data(frame):
            self._event(event, events)
        if kind in {guard.HEADERS, guard.CONTINUATION}:
            self._in_block = not flags & 4

    def _priority(self, frame: bytes) -> None:
        if frame[5:9] == bytes(4):
            raise Violation(guard.PROTOCOL_ERROR, "priority")
        if len(frame) != 14:
            raise Violation(guard.FRAME_SIZE_ERROR, "priority")

    def _event(self, event: Event, events: list[EngineEvent]) -> None:
        if isinstance(event, RequestReceived):
            self._request(event, events)
        elif isinstance(event, DataReceived):
            self._data(event, events)
        elif isinstance(event, StreamEnded):
            record = self._live.get(event.stream_id)
            if record is not None and not record.ended:
                record.ended = True
                events.append(Ended(event.stream_id))
        elif isinstance(event, StreamReset):
            record = self._live.get(event.stream_id)
            if record is not None and not record.finished:
                record.finished = record.ended = True
                record.place = self._places.abandon(record.place)
                record.pending.clear()
                events.append(Gone(event.stream_id, "reset"))
            self._refused.pop(event.stream_id, None)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._pump_all()
        elif isinstance(event, PingAckReceived) and event.ping_data == _DRAIN_PING:
            self.drain_now()

    def _request(self, event: RequestReceived, events: list[EngineEvent]) -> None:
        stream = event.stream_id
        self._last = max(self._last, stream) if not self._final else self._last
        if self._places.full or self._final:
            self._reset(stream, guard.REFUSED_STREAM)
            return
        head = _judge(event, self._scheme)
        if isinstance(head, Refusal):
            self._refuse(stream, head, events, ended=event.stream_ended is not None)
            return
        record = self._live[stream] = _Stream()
        record.place = self._places.enter()
        record.ended = event.stream_ended is not None
        events.append(Opened(stream, head, record.ended))

    def _refuse(
        self, stream: int, refusal: Refusal, events: list[EngineEvent], *, ended: bool
    ) -> None:
        if refusal.malformed:
            self._reset(stream, guard.PROTOCOL_ERROR)
            return
        record = self._refused[stream] = _Stream()
        record.ended = ended
        events.append(Refused(stream, refusal.status, refusal.reason))

    def _data(self, event: DataReceived, events: list[EngineEvent]) -> None:
        record = self._live.get(event.stream_id)
        octets = event.flow_controlled_length
        if record is None or record.finished:
            self._h2.acknowledge_received_data(octets, event.stream_id) if octets else None
        elif octets or event.data:
            events.append(Body(event.stream_id, event.data, octets))

    def _known(self, stream: int) -> _Stream | None:
        record = self._live.get(stream) or self._refused.get(stream)
        return None if record is None or record.finished or self._closed else record

    def _head(self, stream: int, status: int, headers: Headers, *, ends: bool) -> None:
        record = self._known(stream)
        if record is None or record.started:
            return
        heads.check_answer(headers)
        fields = [(b":status", b"%d" % status), *headers]
        record.started = True
        self._h2.send_headers(stream, fields, end_stream=ends)
        if ends:
            self._finish(stream, record)

    def _pump_all(self) -> None:
        for stream, record in (*self._live.items(), *self._refused.items()):
            if record.pending:
                self._pump(stream, record)

    def _pump(self, stream: int, record: _Stream) -> None:
        pending = record.pending
        while pending:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            piece = bytes(pending[:room])
            del pending[:room]
            ends = record.wants_end and not pending
            self._h2.send_data(stream, piece, end_stream=ends)
            self._budgets.sent_data()
            if ends:
                self._finish(stream, record)
        if record.wants_end and not record.finished:
            self._h2.send_data(stream, b"", end_stream=True)
            self._finish(stream, record)

    def _finish(self, stream: int, record: _Stream) -> None:
        record.finished = True
        self._refused.pop(stream, None)
        record.place = self._places.leave(record.place)
        if not record.ended:
            # The answer is complete before the request: stop it without an error (RFC 9113 section 8.1).
            record.ended = True
            self._h2.reset_stream(stream, guard.NO_ERROR)
            self._collect()

    def _reset(self, stream: int, code: int) -> None:
        try:
            self._h2.reset_stream(stream, code)
        except StreamClosedError:
            return
        if code != guard.CANCEL:
            self._budgets.reset_provoked()
        self._collect()

    def _collect(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._out.append(data)

    def _count_resets(self) -> None:
        """Charge the resets that the package sent by itself while it read a frame."""
        data = self._h2.data_to_send()
        if not data:
            return
        self._out.append(data)
        at = 0
        while at + 9 <= len(data):
            if data[at + 3] == guard.RST_STREAM:
                self._budgets.reset_provoked()
            at += 9 + int.from_bytes(data[at : at + 3])

    def _goaway(self, last: int, code: int) -> None:
        self._collect()
        self._out.append(
            bytes((0, 0, 8, guard.GOAWAY, 0, 0, 0, 0, 0)) + last.to_bytes(4) + code.to_bytes(4)
        )

    def _fail(
        self, code: int, reason: str, events: list[EngineEvent], *, said: bool = False
    ) -> None:
        if said:
            self._collect()
        else:
            self._goaway(self._last, code)
        self.fault = reason
        self._closed = True
        for stream, record in self._live.items():
            if not record.finished:
                record.finished = True
                events.append(Gone(stream, reason))


def _connection(bounds: Bounds) -> H2Connection:
    connection = H2Connection(
        H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False)
    )
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: bounds.streams,
            SettingCodes.INITIAL_WINDOW_SIZE: bounds.stream_window,
            SettingCodes.MAX_HEADER_LIST_SIZE: bounds.header_octets,
            SettingCodes.MAX_FRAME_SIZE: bounds.frame_octets,
        },
    )
    connection.decoder.max_header_list_size = bounds.header_octets
    connection.initiate_connection()
    # Announced is our bound; the package's own is lifted, since it would fail the connection instead of the stream.
    connection.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 2**31 - 1
    connection.local_settings.acknowledge()
    if bounds.connection_window > 65535:
        connection.increment_flow_control_window(bounds.connection_window - 65535)
    connection.receive_data(guard.PREFACE)  # the frame guard takes the peer's own away
    return connection


def _judge(event: RequestReceived, scheme: bytes) -> message.Head | Refusal:
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    for name, value in event.headers:
        if name[:1] == b":":
            pseudo[bytes(name)] = bytes(value)
        else:
            fields.append((bytes(name), bytes(value)))
    return heads.read_fields(pseudo, fields, scheme, ended=event.stream_ended is not None)
