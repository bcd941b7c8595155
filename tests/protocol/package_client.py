"""The oracle of the lean client: the client side of the ``h2`` package, with GOAWAY withheld from it.

Theory. ``h2`` ends its connection at the first GOAWAY and would lose the answers that the bank still owes. So frames are cut
here, GOAWAY is understood here and never handed on: streams above the last one that it names were not processed, the others
go on, no new ones begin. Every stream is one ``H2Answer`` that grows as frames come; whoever waits for it looks at it.

Invariants. A frame larger than the bound ends the connection from its nine-octet header. Between two finished answers at
most ``_CONTROL`` frames come that carry neither. What the bank sends beyond the windows given to it is refused by ``h2``;
windows are opened again only as bodies are taken.

Source: RFC 9113 sections 5.1.2, 5.2, 6.4, 6.8, 8.1.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
from typing_extensions import override

from hub.model.http import Headers
from hub.protocol.hpack import encode

_FRAME: Final = 16_384
_HEAD: Final = 9
_DATA, _HEADERS, _GOAWAY = 0, 1, 7
_CONTROL: Final = 1_000
_WINDOW: Final = 1_048_576
_DROPPED: Final = frozenset((b"connection", b"host", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"))  # fmt: skip


@final
class H2Answer:
    """Hold what has come of one answer."""

    __slots__ = (
        "complete",
        "headers",
        "malformed",
        "pieces",
        "problem",
        "refused",
        "size",
        "status",
        "stream",
    )

    def __init__(self, stream: int) -> None:
        """Nothing has come yet."""
        self.stream = stream
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: deque[tuple[bytes, int]] = deque()
        """Body octets with what each costs of the window."""
        self.size = 0
        self.complete = False
        self.problem = ""
        """Why it will never be complete."""
        self.malformed = False
        """The bank has broken the rules, here or elsewhere on the connection."""
        self.refused = False
        """The bank says that it has not processed the request (RFC 9113 section 8.7)."""

    @property
    def over(self) -> bool:
        """Tell whether nothing more will come."""
        return self.complete or bool(self.problem)


@final
class _Literals(hpack.Encoder):
    """Encode requests as literals without indexing: Huffman coding of a bearer alone cost as much as the rest."""

    @override
    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """Return a header block; nothing is Huffman-coded."""
        return encode(tuple([(bytes(name), bytes(value)) for name, value in headers]))


@final
class H2Client:
    """Speak with one server."""

    __slots__ = (
        "_answers",
        "_buffer",
        "_control",
        "_h2",
        "_streams",
        "leaving",
        "problem",
        "touched",
    )

    def __init__(self, *, streams: int, header_octets: int) -> None:
        """Begin; the preface waits in ``take``.

        Args:
            streams: The most at once, if the server allows as many.
            header_octets: The largest header list of an answer.
        """
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: header_octets,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0,
            },
        )
        self._h2.decoder.max_header_list_size = header_octets
        self._h2.encoder = _Literals()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._streams = streams
        self._answers: dict[int, H2Answer] = {}
        self._buffer = b""
        self._control = 0
        self.leaving = False
        self.problem = ""
        self.touched: set[H2Answer] = set()
        """Whose state changed since somebody looked."""

    @property
    def open(self) -> int:
        """Return how many answers are awaited."""
        return len(self._answers)

    @property
    def room(self) -> bool:
        """Tell whether one more stream may begin."""
        most = min(self._streams, self._h2.remote_settings.max_concurrent_streams)
        return not (self.leaving or self.problem) and len(self._answers) < most

    def begin(
        self, method: str, authority: bytes, target: str, headers: Headers, *, end: bool
    ) -> H2Answer:
        """Write the head of a request.

        Raises:
            ValueError: A part would not survive as one request.
        """
        fields: list[tuple[bytes, bytes]] = [
            (b":method", method.encode("ascii")),
            (b":scheme", b"https"),
            (b":authority", authority),
            (b":path", target.encode("latin-1")),
        ]
        fields += [field for field in headers if field[0] not in _DROPPED]
        stream = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream, fields, end_stream=end)
        except h2.exceptions.ProtocolError as error:
            raise ValueError(f"not fit for a request: {type(error).__name__}") from None
        answer = self._answers[stream] = H2Answer(stream)
        return answer

    def window(self, answer: H2Answer) -> int:
        """Return how many body octets may be sent now."""
        if answer.over or self.problem:
            return 0
        return min(
            self._h2.local_flow_control_window(answer.stream), self._h2.max_outbound_frame_size
        )

    def send(self, answer: H2Answer, data: bytes, *, end: bool) -> None:
        """Write body octets, no more than ``window``."""
        if not (answer.over or self.problem):
            self._h2.send_data(answer.stream, data, end_stream=end)

    def took(self, answer: H2Answer) -> bytes:
        """Return the next piece of a body and let the server send as much again."""
        data, cost = answer.pieces.popleft()
        if not self.problem:
            try:
                self._h2.acknowledge_received_data(cost, answer.stream)
            except (h2.exceptions.ProtocolError, KeyError):
                self._h2.increment_flow_control_window(cost)
        return data

    def cancel(self, answer: H2Answer) -> None:
        """Tell the server that nobody waits for this answer; what came of it is credited back."""
        known = self._answers.pop(answer.stream, None) is not None
        while answer.pieces:
            self.took(answer)
        if known and not answer.over and not self.problem:
            try:
                self._h2.reset_stream(answer.stream, h2.errors.ErrorCodes.CANCEL)
            except h2.exceptions.ProtocolError:
                answer.problem = "cancelled"
        answer.problem = answer.problem or ("" if answer.complete else "cancelled")

    def receive(self, data: bytes) -> None:
        """Take octets of the server; look at ``touched`` and ``problem`` afterwards."""
        self._buffer += data
        at = 0
        while not self.problem and len(self._buffer) - at >= _HEAD:
            length = int.from_bytes(self._buffer[at : at + 3])
            if length > _FRAME:
                self._break("a frame beyond the bound")
                break
            end = at + _HEAD + length
            if len(self._buffer) < end:
                break
            self._frame(self._buffer[at:end])
            at = end
        self._buffer = self._buffer[at:]

    def end(self) -> None:
        """The connection has ended: whatever is open will not be answered."""
        self._break("the connection ended", breach=False)

    def take(self) -> bytes:
        """Return what is to be sent."""
        return self._h2.data_to_send()

    def _frame(self, frame: bytes) -> None:
        kind = frame[3]
        self._control = (
            0 if kind == _HEADERS or (kind == _DATA and len(frame) > _HEAD) else self._control + 1
        )
        if self._control > _CONTROL:
            self._break("a flood of control frames")
        elif kind == _GOAWAY:
            self._goaway(frame[_HEAD:])
        else:
            try:
                self._events(self._h2.receive_data(frame))
            except (h2.exceptions.ProtocolError, ValueError, UnicodeDecodeError) as error:
                self._break(f"a breach of the protocol: {type(error).__name__}")

    def _goaway(self, payload: bytes) -> None:
        """Begin nothing more; what the server will not process is refused, the rest goes on."""
        if len(payload) < 8:
            self._break("a short GOAWAY")
            return
        self.leaving = True
        last = int.from_bytes(payload[:4]) & 0x7FFF_FFFF
        for stream in [number for number in self._answers if number > last]:
            self._refuse(stream, "GOAWAY before it")

    def _refuse(self, stream: int, why: str) -> None:
        answer = self._answers.pop(stream, None)
        if answer is not None:
            answer.problem, answer.refused = why, not answer.status
            self.touched.add(answer)

    def _events(self, events: Iterable[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.ResponseReceived(stream_id=stream, headers=fields):
                    self._head(stream, fields or [])
                case h2.events.DataReceived(
                    stream_id=stream, data=data, flow_controlled_length=cost
                ):
                    self._body(stream, data or b"", cost or 0)
                case h2.events.StreamEnded(stream_id=stream):
                    self._finish(stream or 0)
                case h2.events.StreamReset(stream_id=stream, error_code=code):
                    self._reset(stream or 0, int(code or 0))
                case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                    self.touched |= set(self._answers.values())
                case _:
                    pass  # interim answers, trailers, PING and SETTINGS are h2's or nobody's business

    def _head(self, stream: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        answer = self._answers.get(stream)
        if answer is None:
            return
        for name, value in fields:
            if name == b":status":
                answer.status = int(value) if len(value) == 3 and value.isdigit() else 0
            else:
                answer.headers.append((name, value))
        if not 200 <= answer.status <= 599:
            answer.problem, answer.malformed = "a status that is none", True
            self._answers.pop(stream, None)
        self.touched.add(answer)

    def _body(self, stream: int, data: bytes, cost: int) -> None:
        answer = self._answers.get(stream)
        if answer is None:
            if cost:
                self._h2.increment_flow_control_window(cost)
            return
        answer.size += len(data)
        answer.pieces.append((data, cost))
        self.touched.add(answer)

    def _finish(self, stream: int) -> None:
        answer = self._answers.pop(stream, None)
        if answer is not None:
            answer.complete = True
            self.touched.add(answer)

    def _reset(self, stream: int, code: int) -> None:
        if code == h2.errors.ErrorCodes.REFUSED_STREAM:
            self._refuse(stream, "the bank refused the stream")
            return
        answer = self._answers.pop(stream, None)
        if answer is not None:
            answer.problem = f"the bank reset the stream with {code}"
            self.touched.add(answer)

    def _break(self, why: str, *, breach: bool = True) -> None:
        self.problem = self.problem or why
        self.leaving = True
        for answer in self._answers.values():
            answer.problem = answer.problem or why
            answer.malformed = breach
            self.touched.add(answer)
        self._answers.clear()
