"""HTTP/2, the reading half of the lean engine: frames cut, judged by their header, header blocks made whole.

Each frame's header is judged once, before its payload has come; so an oversize frame or a flood is refused without
being stored, and chunking changes nothing. Source: RFC 9113 sections 3.4, 4.1, 4.2, 4.3, 6.1, 6.10, 10.5.
"""

from collections.abc import Iterator
from typing import Final, final

from hub.protocol import guard
from hub.protocol.guard import PREFACE, Budgets, Violation
from hub.protocol.h2_output import END_HEADERS, END_STREAM, MOST
from hub.protocol.heads import read_fields
from hub.protocol.message import Bounds, Head, Refusal

ACK: Final = 0x01
_PADDED: Final = 0x08
_PRIORITISED: Final = 0x20

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload; padding of HEADERS is off, CONTINUATION never occurs."""


@final
class Input:
    """Turn octets into frames."""

    __slots__ = (
        "_block", "_block_flags", "_block_stream", "_bounds", "_budgets", "_buffer", "_charged", "_continued",
        "_greeted", "_heading", "_octets", "_started",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, budgets: Budgets, *, preface: bool = True) -> None:
        """Wait for the preface; a server sends none."""
        self._bounds = bounds
        self._budgets = budgets
        self._buffer = b""
        self._block: list[bytes] = []
        self._block_stream = self._block_flags = self._continued = self._octets = 0
        self._started = not preface
        self._greeted = self._charged = self._heading = False

    @property
    def partial(self) -> bool:
        """Tell whether the preface, the first SETTINGS or a header block is incomplete."""
        return not self._greeted or self._block_stream > 0 or self._heading

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield each whole frame.

        Raises:
            Violation: at the first frame that may not be, after those before it.
        """
        if self._buffer:
            data = self._buffer + data
        at = 0
        if not self._started:
            if data[:24] != PREFACE[: len(data)]:
                raise Violation(guard.PROTOCOL_ERROR, "preface")
            if len(data) < len(PREFACE):
                self._buffer = data
                return
            self._started, at = True, len(PREFACE)
        size = len(data)
        while size - at >= 9:
            length = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            kind, flags = data[at + 3], data[at + 4]
            stream = int.from_bytes(data[at + 5 : at + 9]) & MOST
            if not self._charged:
                self._judge(length, kind, flags, stream)
                self._charged = True
            end = at + 9 + length
            if end > size:
                self._heading = kind == guard.HEADERS
                break
            self._charged = self._heading = False
            payload, at = data[at + 9 : end], end
            if kind == guard.HEADERS or kind == guard.CONTINUATION:  # noqa: PLR1714 - on every request
                block = self._block_of(kind, flags, stream, payload)
                if block is not None:
                    yield guard.HEADERS, self._block_flags, stream, block
            else:
                yield kind, flags, stream, payload
        self._buffer = data[at:]

    def _judge(self, length: int, kind: int, flags: int, stream: int) -> None:
        """Refuse or charge a frame by its header."""
        if length > self._bounds.frame_octets:
            raise Violation(guard.FRAME_SIZE_ERROR, "frame_size")
        if self._block_stream or kind == guard.CONTINUATION:
            self._judge_continuation(length, kind, stream)
        elif not self._greeted:
            if kind != guard.SETTINGS or flags & ACK:
                raise Violation(guard.PROTOCOL_ERROR, "first_frame")
            self._greeted = True
        elif kind == guard.PUSH_PROMISE:
            raise Violation(guard.PROTOCOL_ERROR, "push_promise")
        elif kind == guard.DATA:
            self._budgets.data(length, ends=bool(flags & END_STREAM))
        elif kind == guard.RST_STREAM:
            self._budgets.reset_received()
        elif kind == guard.SETTINGS:
            self._budgets.settings(length)
        elif kind != guard.HEADERS:
            self._budgets.control(kind)

    def _judge_continuation(self, length: int, kind: int, stream: int) -> None:
        if kind != guard.CONTINUATION or stream != self._block_stream:
            raise Violation(guard.PROTOCOL_ERROR, "continuation")
        self._continued += 1
        self._octets += length
        if self._continued > self._bounds.continuations:
            raise Violation(guard.ENHANCE_YOUR_CALM, "continuations")
        if self._octets > self._bounds.header_octets:
            raise Violation(guard.ENHANCE_YOUR_CALM, "header_block")

    def _block_of(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes | None:
        """Return a header block once it is whole."""
        if kind == guard.HEADERS:
            payload = _fragment(flags, stream, payload)
            self._block_flags = flags
            if flags & END_HEADERS:
                return payload
            self._block, self._block_stream = [payload], stream
            self._continued, self._octets = 0, len(payload)
            return None
        self._block.append(payload)
        if not flags & END_HEADERS:
            return None
        block = b"".join(self._block)
        self._block, self._block_stream = [], 0
        return block


def _fragment(flags: int, stream: int, payload: bytes) -> bytes:
    """Take padding and the deprecated priority off a HEADERS frame (RFC 9113 section 6.2)."""
    if not stream & 1:
        raise Violation(guard.PROTOCOL_ERROR, "stream_number")
    if flags & _PADDED:
        payload = unpadded(payload)
    if flags & _PRIORITISED:
        if len(payload) < 5:
            raise Violation(guard.FRAME_SIZE_ERROR, "headers")
        payload = payload[5:]
    return payload


def unpadded(payload: bytes) -> bytes:
    """Take the padding off (RFC 9113 section 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise Violation(guard.PROTOCOL_ERROR, "padding")
    return payload[1 : len(payload) - payload[0]]


def settings_of(flags: int, stream: int, payload: bytes) -> list[tuple[int, int]] | None:
    """Take a SETTINGS frame apart into names and values; None for an acknowledgement (RFC 9113 section 6.5)."""
    if stream:
        raise Violation(guard.PROTOCOL_ERROR, "settings")
    if len(payload) % 6 or (flags & ACK and payload):
        raise Violation(guard.FRAME_SIZE_ERROR, "settings")
    if flags & ACK:
        return None
    return [
        (int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6]))
        for at in range(0, len(payload), 6)
    ]


def judge_fields(fields: list[tuple[bytes, bytes]], scheme: bytes, *, ends: bool) -> Head | Refusal:
    """Split pseudo-fields off, which come first and once each (RFC 9113 section 8.3), and judge the rest."""
    pseudo: dict[bytes, bytes] = {}
    for count, (name, value) in enumerate(fields):
        if name[:1] != b":":
            return read_fields(pseudo, fields[count:], scheme, ended=ends)
        if name in pseudo:
            break
        pseudo[name] = value
    else:
        return read_fields(pseudo, [], scheme, ended=ends)
    return Refusal(400, "pseudo_fields", malformed=True)
