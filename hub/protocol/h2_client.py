"""HTTP/2, the client side of the lean engine: requests written as one piece, answers that grow as frames come.

Theory of operation. ``begin`` writes a request and returns its ``Answer``. ``receive`` handles each frame that ``Input``
has cut and judged and marks the answers that changed in a way somebody waits for (``touched``): one is over, holds more
octets than were wanted at once, or its upload has been sent. No callback, no event object: whoever waits looks at the
answer. Header blocks of one server repeat to the octet, so a decoded and checked block is remembered as long as the
compression table does not change; we ask for a table of no size, then it never does. Requests are encoded as literals:
no state that a server could desynchronise.

Flow control. Body octets up to ``want`` are what the caller is ready to hold: they are credited as they come. Beyond,
they are credited as they are taken, so that a stream nobody reads stops its sender. The connection's window is that of all
its streams together and one more, so that those nobody reads never stop another. Updates go by half windows of a stream.

Invariants. A header block is decoded always, even of an answer nobody waits for. What breaks a rule for one answer ends
that answer (``malformed``) and resets its stream; what breaks one for the connection ends them all (``problem``). After
GOAWAY no new stream begins; streams above its last one are ``refused``, the others go on. ``refused`` is only ever said of
an answer of which nothing came. Streams that we ended first are remembered (``_late``): what is under way for them is
ignored. Source: RFC 9113 sections 5.1, 5.2, 6.4 to 6.9, 8.1, 8.7.
"""

from collections import deque
from typing import Final, final

from hub.protocol import guard
from hub.protocol.guard import Budgets, Violation
from hub.protocol.h2_answer import STREAM_WINDOW, Answer, Block, checked
from hub.protocol.h2_input import ACK, Input, settings_of, unpadded
from hub.protocol.h2_output import END_STREAM, MOST, Output, Stream, frame
from hub.protocol.hpack import Decoder, HpackError, ListTooLarge
from hub.protocol.message import Bounds

_PADDED: Final = 0x08
_INTERIM_MOST: Final = 8
_LATE_MOST: Final = 256
_BLOCKS_MOST: Final = 256
_SETTINGS_ACK: Final = frame(guard.SETTINGS, ACK, 0, b"")
_TABLE, _ENABLE_PUSH, _STREAMS, _WINDOW, _FRAME, _LIST = range(1, 7)


@final
class H2Client:
    """Speak with one server."""

    __slots__ = (
        "_answers", "_blocks", "_budgets", "_credit", "_decoder", "_handlers", "_input", "_late",
        "_late_floor", "_late_order", "_most", "_next", "_out", "_streams", "_window", "greeted", "leaving", "problem",
        "touched",
    )  # fmt: skip

    def __init__(self, *, streams: int, header_octets: int, now: float = 0.0) -> None:
        """Begin; the preface waits in ``take``.

        Args:
            streams: The most at once, if the server allows as many.
            header_octets: The largest header list of an answer.
            now: As for ``receive``.
        """
        bounds = Bounds(header_octets=header_octets)
        self._budgets = Budgets(bounds, now)
        self._input = Input(bounds, self._budgets, preface=False)
        self._out = Output(self._budgets)
        self._decoder = Decoder(header_octets)
        self._blocks: dict[bytes, Block] = {}
        self._answers: dict[int, Answer] = {}
        self._late: set[int] = set()
        self._late_order: deque[int] = deque()
        self._late_floor = self._credit = 0
        self._next = 1
        self._streams = self._most = streams
        self._window = (streams + 1) * STREAM_WINDOW
        self._handlers = {
            guard.RST_STREAM: self._on_reset,
            guard.SETTINGS: self._on_settings,
            guard.PING: self._on_ping,
            guard.GOAWAY: self._on_goaway,
            guard.WINDOW_UPDATE: self._on_window,
            guard.PRIORITY: self._on_priority,
        }
        self.greeted = False
        """The server has said how many streams it takes."""
        self.leaving = False
        """Begin nothing more here."""
        self.problem = ""
        """Why the connection is of no more use."""
        self.touched: list[Answer] = []
        """What changed since somebody looked; whoever looks empties it."""
        self._out.parts.append(_greeting(header_octets, self._window))

    @property
    def open(self) -> int:
        """Return how many answers are awaited."""
        return len(self._answers)

    @property
    def room(self) -> bool:
        """Tell whether one more stream may begin."""
        return len(self._answers) < self._most and not self.leaving and self._next < MOST

    @property
    def most(self) -> int:
        """Return how many streams may be open at once."""
        return self._most

    @property
    def has_output(self) -> bool:
        """Tell whether ``take`` would give something."""
        return bool(self._out.parts)

    def take(self) -> bytes:
        """Return what is to be sent."""
        return self._out.take()

    def begin(self, block: bytes, body: bytes = b"", *, ends: bool = True, want: int = 0) -> Answer:
        """Write a request; there must be ``room``.

        Args:
            block: From ``h2_request.request_block``.
            body: All of it (what the windows hold back follows by itself), or its beginning.
            ends: Whether nothing follows; otherwise ``write`` and ``end``.
            want: See ``Answer.want``.
        """
        number = self._next
        self._next += 2
        answer = self._answers[number] = Answer(number, want)
        if ends and not body and not self._out.owes_update and len(block) <= self._out.most_frame:
            self._out.parts.append(
                b"%b\x01\x05%b%b" % (len(block).to_bytes(3), number.to_bytes(4), block)
            )
            return answer
        answer.upload = upload = Stream(number, self._out.initial, 0)
        if not ends:
            self._out.head(upload, block, ends=False)
            self.write(answer, body)
        elif not body:
            self._out.head(upload, block, ends=True)
            answer.upload = None
        elif self._out.complete(upload, block, body):
            upload.finished = True
        return answer

    def write(self, answer: Answer, data: bytes) -> None:
        """Send a piece of a body; look at ``backlog`` before the next."""
        upload = answer.upload
        if upload is not None and data and not (upload.finished or answer.over):
            upload.pending = bytes(upload.pending) + data
            self._out.push(upload)

    def end(self, answer: Answer) -> None:
        """End a body."""
        upload = answer.upload
        if upload is not None and not (upload.finished or answer.over):
            upload.wants_end = True
            upload.finished = self._out.push(upload)

    def backlog(self, answer: Answer) -> int:
        """Return how many octets of a body wait for the server's windows."""
        return 0 if answer.upload is None or answer.over else len(answer.upload.pending)

    def took(self, answer: Answer) -> bytes:
        """Return the next piece of a body and let the server send as much again."""
        data, cost = answer.pieces.popleft()
        answer.held -= len(data)
        if cost and not self.problem:
            self._give_credit(cost)
            self._open_window(answer, cost)
        return data

    def body(self, answer: Answer) -> bytes:
        """Return all that is held."""
        if len(answer.pieces) == 1:
            return self.took(answer)
        return b"".join([self.took(answer) for _ in range(len(answer.pieces))])

    def cancel(self, answer: Answer) -> None:
        """Forget an answer that is over; otherwise tell the server that nobody waits for this answer; what came of it is credited back."""
        if self._answers.pop(answer.number, None) is not None:
            answer.problem = "cancelled"
            self._reset(answer, guard.CANCEL)
        while answer.pieces:
            self.took(answer)

    def end_of_connection(self) -> None:
        """Take the end of the connection: whatever is open will not be answered."""
        self._break("the connection ended", breach=False)

    def receive(self, data: bytes, now: float) -> None:
        """Take octets of the server; look at ``touched`` and ``problem`` afterwards.

        Args:
            data: As they come.
            now: Seconds of any steady clock, for the budgets.
        """
        if self.problem:
            return
        self._budgets.at(now)
        try:
            for kind, flags, stream, payload in self._input.feed(data):
                if kind == guard.DATA:
                    self._on_data(flags, stream, payload)
                elif kind == guard.HEADERS:
                    self._on_headers(flags, stream, payload)
                elif (handler := self._handlers.get(kind)) is not None:
                    handler(flags, stream, payload)
        except Violation as violation:
            self._fail(violation.code, violation.reason)
        except ListTooLarge:
            self._fail(guard.ENHANCE_YOUR_CALM, "header_list")
        except HpackError:
            self._fail(guard.COMPRESSION_ERROR, "hpack")

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        block = self._blocks.get(payload) or self._read(payload)
        answer = self._answers.get(stream)
        if answer is None:
            self._unasked(stream, guard.HEADERS)
            return
        ends = bool(flags & END_STREAM)
        if block.fault:
            self._spoil(answer, block.fault)
        elif answer.status:
            self._trailers(answer, block, ends=ends)
        elif block.status < 200:
            self._interim(answer, block, ends=ends)
        else:
            answer.status, answer.headers, answer.left = block.status, block.headers, block.length
            if ends:
                self._finish(answer)

    def _read(self, payload: bytes) -> Block:
        """Decode and check a block; remember it if the same octets will mean the same again."""
        decoder, blocks = self._decoder, self._blocks
        before = decoder.changes
        block = checked(decoder.decode(payload))
        if decoder.changes != before or len(blocks) >= _BLOCKS_MOST:
            blocks.clear()
        if decoder.changes == before:
            blocks[payload] = block
        return block

    def _trailers(self, answer: Answer, block: Block, *, ends: bool) -> None:
        """End a body by trailers, whose fields are checked and forgotten (RFC 9113 section 8.1)."""
        if block.status or not ends:
            self._spoil(answer, "trailers that are none")
        else:
            self._finish(answer)

    def _interim(self, answer: Answer, block: Block, *, ends: bool) -> None:
        answer.interim += 1
        if ends or not 100 <= block.status < 200 or block.status == 101:
            self._spoil(answer, "a head without a final status")
        elif answer.interim > _INTERIM_MOST:
            self._spoil(answer, "interim answers without end")

    def _on_data(self, flags: int, stream: int, payload: bytes) -> None:
        octets = len(payload)
        if flags & _PADDED:
            payload = unpadded(payload)
        self._window -= octets
        if self._window < 0:
            raise Violation(guard.FLOW_CONTROL_ERROR, "connection_window")
        answer = self._answers.get(stream)
        if answer is None:
            self._give_credit(octets)
            self._unasked(stream, guard.DATA)
            return
        answer.window -= octets
        size = len(payload)
        if answer.left is not None:
            answer.left -= size
        if answer.window < 0 or not answer.status or (answer.left or 0) < 0:
            self._give_credit(octets)
            self._spoil(answer, "a body that may not be")
            return
        self._keep(answer, payload, octets)
        if flags & END_STREAM:
            self._finish(answer)
        elif answer.held > answer.want:
            self.touched.append(answer)

    def _keep(self, answer: Answer, data: bytes, octets: int) -> None:
        size = len(data)
        answer.size += size
        answer.held += size
        if answer.held <= answer.want:
            self._give_credit(octets)
            self._open_window(answer, octets)
            octets = 0
        if size:
            answer.pieces.append((data, octets))
        elif octets:
            self._give_credit(octets)

    def _finish(self, answer: Answer) -> None:
        """End an answer; a request whose body is not sent by then is of no more interest (section 8.1)."""
        if answer.left:
            self._spoil(answer, "less than announced")
            return
        answer.complete = True
        self._budgets.renew()
        self.touched.append(answer)
        del self._answers[answer.number]
        if answer.upload is not None and not answer.upload.finished:
            self._reset(answer, guard.NO_ERROR)

    def _spoil(self, answer: Answer, why: str) -> None:
        """End an answer by a breach that concerns it alone."""
        del self._answers[answer.number]
        answer.problem, answer.malformed = why, True
        self.touched.append(answer)
        self._reset(answer, guard.PROTOCOL_ERROR)
        self._budgets.reset_provoked()

    def _unasked(self, stream: int, kind: int) -> None:
        """Judge a frame of a stream that is not open: ignored if it ended early, a breach otherwise (section 5.1)."""
        if stream >= self._next or not stream & 1:
            raise Violation(guard.PROTOCOL_ERROR, "idle_stream")
        if stream <= self._late_floor or stream in self._late:
            self._budgets.control(kind)
        elif kind == guard.HEADERS:
            raise Violation(guard.STREAM_CLOSED, "closed_stream")
        else:
            self._out.frame(guard.RST_STREAM, 0, stream, guard.STREAM_CLOSED.to_bytes(4))
            self._budgets.reset_provoked()

    def _on_priority(self, flags: int, stream: int, payload: bytes) -> None:
        """Ignore it: RFC 9113 section 5.3.2 deprecates priorities."""
        del flags
        if not stream:
            raise Violation(guard.PROTOCOL_ERROR, "priority")
        if len(payload) != 5:
            raise Violation(guard.FRAME_SIZE_ERROR, "priority")

    def _on_reset(self, flags: int, stream: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise Violation(guard.FRAME_SIZE_ERROR, "rst_stream")
        if not stream & 1 or stream >= self._next:
            raise Violation(guard.PROTOCOL_ERROR, "reset_of_idle")
        answer = self._answers.pop(stream, None)
        if answer is None:
            return
        self._remember(stream)
        code = int.from_bytes(payload)
        if code == guard.REFUSED_STREAM:
            self._refuse(answer, "the server refused the stream")
            return
        answer.problem = f"the server reset the stream with {code}"
        self._drop_upload(answer)
        self.touched.append(answer)

    def _refuse(self, answer: Answer, why: str) -> None:
        answer.problem, answer.refused = why, not answer.status
        self._drop_upload(answer)
        self.touched.append(answer)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        settings = settings_of(flags, stream, payload)
        if settings is None:
            return
        self.greeted = True
        for name, value in settings:
            self._setting(name, value)
        self._out.parts.append(_SETTINGS_ACK)
        self._unblock()

    def _setting(self, name: int, value: int) -> None:
        """Apply one setting (RFC 9113 section 6.5.2)."""
        if name == _ENABLE_PUSH and value:
            raise Violation(guard.PROTOCOL_ERROR, "enable_push")
        if name == _TABLE:
            self._out.allow_table(value)
        elif name == _STREAMS:
            self._most = min(self._streams, value)
        elif name == _FRAME:
            if not 16384 <= value < 2**24:
                raise Violation(guard.PROTOCOL_ERROR, "max_frame_size")
            self._out.most_frame = value
        elif name == _WINDOW:
            if value > MOST:
                raise Violation(guard.FLOW_CONTROL_ERROR, "initial_window")
            change, self._out.initial = value - self._out.initial, value
            for answer in self._answers.values():
                if answer.upload is not None:
                    answer.upload.send_window += change
                if self._send_window(answer) > MOST:
                    raise Violation(guard.FLOW_CONTROL_ERROR, "initial_window")

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise Violation(guard.PROTOCOL_ERROR, "ping")
        if len(payload) != 8:
            raise Violation(guard.FRAME_SIZE_ERROR, "ping")
        if not flags & ACK:
            self._out.frame(guard.PING, ACK, 0, payload)

    def _on_goaway(self, flags: int, stream: int, payload: bytes) -> None:
        """Begin nothing more; what the server will not process is refused, the rest goes on (section 6.8)."""
        del flags
        if stream:
            raise Violation(guard.PROTOCOL_ERROR, "goaway")
        if len(payload) < 8:
            raise Violation(guard.FRAME_SIZE_ERROR, "goaway")
        self.leaving = True
        last = int.from_bytes(payload[:4]) & MOST
        for number in [number for number in self._answers if number > last]:
            self._remember(number)
            self._refuse(self._answers.pop(number), "GOAWAY before it")

    def _on_window(self, flags: int, stream: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise Violation(guard.FRAME_SIZE_ERROR, "window_update")
        step = int.from_bytes(payload) & MOST
        if not stream:
            self._out.widen(step)
        elif (answer := self._answers.get(stream)) is not None:
            if not step or self._send_window(answer) + step > MOST:
                self._spoil(answer, "a window that may not be")
            elif answer.upload is not None:
                answer.upload.send_window += step
            else:
                answer.opened += step
        elif stream >= self._next or not stream & 1:
            raise Violation(guard.PROTOCOL_ERROR, "window_of_idle")
        self._unblock()

    def _send_window(self, answer: Answer) -> int:
        """Return what the server allows for a request's body, whether it has one or not."""
        upload = answer.upload
        return self._out.initial + answer.opened if upload is None else upload.send_window

    def _unblock(self) -> None:
        """Send what the windows let go on; whoever waits for that may look."""
        held = [a for a in self._answers.values() if a.upload is not None and a.upload.pending]
        if held:
            self._out.unblock()
            self.touched += [a for a in held if a.upload is not None and not a.upload.pending]

    def _open_window(self, answer: Answer, octets: int) -> None:
        """Let the server send more of a body that has not ended, by half windows."""
        answer.credit += octets
        if answer.credit * 2 >= STREAM_WINDOW and not answer.over:
            self._out.frame(guard.WINDOW_UPDATE, 0, answer.number, answer.credit.to_bytes(4))
            answer.window += answer.credit
            answer.credit = 0

    def _give_credit(self, octets: int) -> None:
        self._credit += octets
        if self._credit * 2 >= STREAM_WINDOW:
            self._out.frame(guard.WINDOW_UPDATE, 0, 0, self._credit.to_bytes(4))
            self._window += self._credit
            self._credit = 0

    def _reset(self, answer: Answer, code: int) -> None:
        self._drop_upload(answer)
        self._out.frame(guard.RST_STREAM, 0, answer.number, code.to_bytes(4))
        self._remember(answer.number)

    def _remember(self, number: int) -> None:
        """Ignore what is under way for a stream that we hold for ended."""
        self._late.add(number)
        self._late_order.append(number)
        if len(self._late_order) > _LATE_MOST:
            forgotten = self._late_order.popleft()
            self._late.discard(forgotten)
            self._late_floor = max(self._late_floor, forgotten)

    def _drop_upload(self, answer: Answer) -> None:
        if answer.upload is not None:
            answer.upload.finished = True
            self._out.drop(answer.upload)

    def _fail(self, code: int, reason: str) -> None:
        self._out.frame(guard.GOAWAY, 0, 0, bytes(4) + code.to_bytes(4))
        self._break(f"a breach of the protocol: {reason}", breach=True)

    def _break(self, why: str, *, breach: bool) -> None:
        self.problem = self.problem or why
        self.leaving = True
        for answer in self._answers.values():
            answer.problem = answer.problem or why
            answer.malformed = breach
            self._drop_upload(answer)
            self.touched.append(answer)
        self._answers.clear()


def _greeting(header_octets: int, window: int) -> bytes:
    """Return preface, SETTINGS, and the update that opens the connection's window."""
    settings = (
        (_TABLE, 0),
        (_ENABLE_PUSH, 0),
        (_STREAMS, 0),
        (_WINDOW, STREAM_WINDOW),
        (_LIST, header_octets),
    )
    payload = b"".join([name.to_bytes(2) + value.to_bytes(4) for name, value in settings])
    out = guard.PREFACE + frame(guard.SETTINGS, 0, 0, payload)
    return out + frame(guard.WINDOW_UPDATE, 0, 0, (window - 65_535).to_bytes(4))
