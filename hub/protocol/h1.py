"""HTTP/1.1 on httptools: heads delimited here, parsed by llhttp; bodies framed by our own strict decoder.

Theory of operation. One request at a time: octets of a following (pipelined) request wait, bounded, until the
current answer is sent and its handler has ended; so answers are in order by construction. A head is searched for
its end before anything looks at it: its size is bounded, and bare CR, bare LF, line folding and NUL are refused
although some parsers forgive them. llhttp then judges the grammar. Framing is decided by us from the parsed fields:
``Content-Length`` or exactly ``chunked``, never both, never twice; anything else is refused and the connection
closed, so that no octet is ever read in two ways. Upgrade is ignored. Source: RFC 9112 sections 2.2, 5, 6, 7, 9.
"""

import re
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, final

import httptools

from hub.model.http import Headers
from hub.protocol import heads
from hub.protocol.message import (
    Body,
    Bounds,
    Ended,
    EngineEvent,
    Gone,
    Head,
    Opened,
    Refusal,
    Refused,
)

_STRAY: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0|\r\n[ \t]")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e]*)?")
_PLAIN_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,12})\r\n")
_LINE_MOST: Final = 256
_HELD_MOST: Final = 65536
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class _Phase(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    WAIT = auto()
    """The request is complete; what follows waits for the answer."""
    SHUT = auto()
    """Nothing of the peer is read any more."""


@final
class _Parsed:
    """Collect what httptools finds in one head."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp takes the white space before a value away, not that after it (RFC 9112 section 5.1).
        self.fields.append((name.lower(), value.rstrip(b" \t")))


@final
class H1Engine:
    """Serve one HTTP/1.1 connection."""

    __slots__ = (
        "_answered", "_at", "_bounds", "_buffer", "_chunked_answer", "_close", "_continue", "_draining", "_leaving",
        "_left", "_method", "_minor", "_out", "_phase", "_pieces", "_seen", "_skips", "_stream", "_trailer", "_unread",
        "_waiting", "fault",
    )  # fmt: skip

    def __init__(self, bounds: Bounds, *, scheme: bytes = b"https", now: float = 0.0) -> None:
        """Wait for the first head; ``scheme`` and ``now`` are there for the sake of one interface."""
        del scheme, now
        self._bounds = bounds
        self._buffer = b""
        self._at = 0
        """What of the buffer has been read, while it is read."""
        self._seen = 0
        """So much of an incomplete head is in order."""
        self._skips = False
        """An empty line may stand before the next request."""
        self._pieces: list[bytes] = []
        self._phase = _Phase.HEAD
        self._stream = 0
        self._left = 0
        self._trailer = 0
        self._unread = 0
        self._out: list[bytes] = []
        self._waiting = False
        self._answered = True
        self._close = self._draining = self._leaving = False
        self._continue = False
        self._chunked_answer = False
        self._method = ""
        self._minor = 1
        self.fault = ""

    @property
    def closing(self) -> bool:
        """Tell whether to close once everything is sent."""
        return (self._close or self._draining) and self._answered and not self._waiting

    @property
    def has_output(self) -> bool:
        """Tell whether ``take`` would give something."""
        return bool(self._out)

    @property
    def partial(self) -> bool:
        """Tell whether a head has begun and is not complete."""
        return self._phase is _Phase.HEAD and bool(self._buffer)

    @property
    def open_streams(self) -> int:
        """Return 1 while a request is being handled."""
        return int(self._waiting)

    @property
    def wants_data(self) -> bool:
        """Tell whether more may be read: not while a body waits to be consumed or requests are held back."""
        return self._unread < self._bounds.stream_window and len(self._buffer) < _HELD_MOST

    def receive(self, data: bytes, now: float) -> list[EngineEvent]:
        """Take octets of the current request, or hold those of the next."""
        del now
        if self._phase is _Phase.SHUT:
            return []
        self._buffer += data
        return self._advance()

    def take(self) -> bytes:
        """Return what is to be sent."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def answer(self, stream: int, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer; the caller gives ``content-length``."""
        if not self._may_answer(stream):
            return
        self._status_line(status, headers, b"")
        if self._method != "HEAD":
            self._out.append(body)
        self._finish()

    def start(self, stream: int, status: int, headers: Headers) -> None:
        """Send the head of an answer of unknown length: chunked, or ended by closing for HTTP/1.0."""
        if not self._may_answer(stream):
            return
        self._chunked_answer = self._minor > 0
        if not self._chunked_answer:
            self._close = True
        self._status_line(
            status, headers, b"transfer-encoding: chunked\r\n" if self._chunked_answer else b""
        )

    def write(self, stream: int, data: bytes) -> None:
        """Send a piece of a body."""
        if self._may_answer(stream) and data and self._method != "HEAD":
            self._out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked_answer else data)

    def end(self, stream: int) -> None:
        """End a body."""
        if self._may_answer(stream):
            if self._chunked_answer and self._method != "HEAD":
                self._out.append(b"0\r\n\r\n")
            self._finish()

    def go_on(self, stream: int) -> None:
        """Send 100 (Continue) if the client waits for it."""
        if self._continue and stream == self._stream and not self._answered:
            self._continue = False
            self._out.append(_CONTINUE)

    def backlog(self, stream: int) -> int:
        """Return 0: HTTP/1.1 has no window; the transport's own back-pressure holds."""
        del stream
        return 0

    def consume(self, stream: int, octets: int) -> None:
        """Tell that a piece of the body was read."""
        if stream == self._stream:
            self._unread = max(0, self._unread - octets)

    def reset(self, stream: int) -> None:
        """Abandon the request: only closing the connection can say so."""
        if stream == self._stream and not self._answered:
            self._answered = self._close = True
            self._phase = _Phase.SHUT

    def release(self, stream: int) -> list[EngineEvent]:
        """Begin with the next request, whose octets may be here already."""
        if stream != self._stream or not self._waiting:
            return []
        self._waiting = False
        self._unread = 0
        if self._close or self._phase is not _Phase.WAIT:
            self._phase = _Phase.SHUT
            self._close = True
            return []
        self._phase = _Phase.HEAD
        self._skips = True
        return self._advance()

    def drain(self) -> None:
        """Answer what is there, say ``connection: close``; the listener gives idle connections a moment."""
        self._leaving = True
        self._close = self._close or self._waiting

    def drain_now(self) -> None:
        """Close as soon as nothing is being answered."""
        self._draining = True

    def _may_answer(self, stream: int) -> bool:
        return stream == self._stream and not self._answered

    def _status_line(self, status: int, headers: Headers, framing: bytes) -> None:
        heads.check_answer(headers)
        if self._phase is not _Phase.WAIT or self._draining:
            self._close = True  # an unread body cannot be skipped safely
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b""))]
        parts += [b"%b: %b\r\n" % field for field in headers]
        parts.append(framing)
        parts.append(b"connection: close\r\n\r\n" if self._close else b"\r\n")
        self._out.append(b"".join(parts))

    def _finish(self) -> None:
        self._answered = True

    def _advance(self) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        progress = True
        while progress and self._phase not in {_Phase.WAIT, _Phase.SHUT}:
            match self._phase:
                case _Phase.HEAD:
                    progress = self._head(events)
                case _Phase.SIZED | _Phase.CHUNK:
                    progress = self._body(events)
                case _Phase.CHUNK_SIZE:
                    self._whole_chunks()
                    progress = self._line(events)
                case _Phase.CHUNK_END | _Phase.TRAILERS:
                    progress = self._line(events)
        self._gather(events)
        if self._at:
            self._buffer, self._at = self._buffer[self._at :], 0
        return events

    def _head(self, events: list[EngineEvent]) -> bool:
        buffer = self._buffer
        if self._skips and buffer[:2] == b"\r\n":
            buffer = self._buffer = buffer[2:]  # RFC 9112 section 2.2: one empty line after a body
            self._skips = False
        seen, most = self._seen, self._bounds.header_octets
        end = buffer.find(b"\r\n\r\n", max(0, seen - 3), most)
        if end < 0:
            if len(buffer) >= most:
                self._refuse(431, "header_octets", events)
            elif _STRAY.search(buffer, max(0, seen - 2), _settled(buffer)) is not None:
                self._refuse(400, "line_end", events)
            else:
                self._seen = len(buffer)
            return False
        raw, self._buffer = buffer[: end + 4], buffer[end + 4 :]
        self._seen, self._skips = 0, False
        if _STRAY.search(raw, max(0, seen - 2)) is not None:
            self._refuse(400, "line_end", events)
            return False
        head = self._parse(raw)
        if isinstance(head, Refusal):
            self._refuse(head.status, head.reason, events)
            return False
        self._open(head, events)
        return True

    def _parse(self, raw: bytes) -> Head | Refusal:
        if raw.count(b" ", 0, raw.index(b"\r\n")) != 2:
            return Refusal(400, "grammar")  # llhttp forgives runs of spaces
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            pass  # not offered, hence ignored (RFC 9110 section 7.8)
        except httptools.HttpParserError:
            return Refusal(400, "grammar")
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            return Refusal(505, "version")
        self._minor = int(version[-1])
        fault = heads.check_fields(parsed.fields)
        if fault:
            return Refusal(400, fault)
        method = parser.get_method()
        self._method = method.decode()
        self._close = self._leaving or not self._minor or self._wants_close(parsed.fields)
        coded = self._coding(parsed.fields)
        if isinstance(coded, Refusal):
            return coded
        self._left = -1 if coded else 0
        return heads.read_head(
            method, parsed.target, None, parsed.fields, host_required=self._minor > 0
        )

    def _wants_close(self, fields: list[tuple[bytes, bytes]]) -> bool:
        return any(name == b"connection" and b"close" in value.lower() for name, value in fields)

    def _coding(self, fields: list[tuple[bytes, bytes]]) -> bool | Refusal:
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        if not codings:
            return False
        if codings != [b"chunked"] and [c.lower() for c in codings] != [b"chunked"]:
            return Refusal(501, "transfer_encoding")
        if not self._minor or any(name == b"content-length" for name, _ in fields):
            return Refusal(400, "transfer_encoding")
        return True

    def _open(self, head: Head, events: list[EngineEvent]) -> None:
        self._stream += 1
        self._waiting, self._answered = True, False
        self._chunked_answer = False
        chunked = self._left < 0
        self._left = head.content_length or 0
        ended = not chunked and self._left == 0
        self._continue = head.expects_continue and not ended and self._minor > 0
        if ended:
            self._phase = _Phase.WAIT
        else:
            self._phase = _Phase.CHUNK_SIZE if chunked else _Phase.SIZED
        events.append(Opened(self._stream, head, ended))

    def _body(self, events: list[EngineEvent]) -> bool:
        piece = self._buffer[self._at : self._at + self._left]
        if not piece:
            return False
        self._at += len(piece)
        self._left -= len(piece)
        self._unread += len(piece)
        self._continue = False
        self._pieces.append(piece)
        if self._left == 0:
            if self._phase is _Phase.CHUNK:
                self._phase = _Phase.CHUNK_END
            else:
                self._end(events)
        return True

    def _whole_chunks(self) -> None:
        """Take the chunks that are here in full; whatever is not plain is left to ``_line``.

        A peer may send chunks of one octet: taken line by line, 64 KiB of them held up everybody for 70 ms.
        """
        buffer, at = self._buffer, self._at
        while (found := _PLAIN_SIZE.match(buffer, at)) is not None:
            start = found.end()
            end = start + int(found[1], 16)
            if start == end or buffer[end : end + 2] != b"\r\n":
                break
            self._pieces.append(buffer[start:end])
            self._unread += end - start
            self._continue = False
            at = end + 2
        self._at = at

    def _gather(self, events: list[EngineEvent]) -> None:
        """Say at once what of a body has come at once, however small its chunks are."""
        if pieces := self._pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._pieces = []
            events.append(Body(self._stream, data, len(data)))

    def _line(self, events: list[EngineEvent]) -> bool:
        """Take one line of the chunked coding (RFC 9112 section 7.1); bare LF is never a line end."""
        at = self._at
        end = self._buffer.find(b"\n", at, at + _LINE_MOST)
        if end < 0:
            if len(self._buffer) - at >= _LINE_MOST:
                self._break("chunk_line", events)
            return False
        line, self._at = self._buffer[at : end + 1], end + 1
        if line[-2:] != b"\r\n" or _STRAY.search(line) is not None:
            self._break("line_end", events)
            return False
        return self._take_line(line[:-2], events)

    def _take_line(self, line: bytes, events: list[EngineEvent]) -> bool:
        if self._phase is _Phase.CHUNK_END:
            if line:
                self._break("chunk_end", events)
                return False
            self._phase = _Phase.CHUNK_SIZE
        elif self._phase is _Phase.CHUNK_SIZE:
            found = _CHUNK_SIZE.fullmatch(line)
            if found is None:
                self._break("chunk_size", events)
                return False
            self._left = int(found[1], 16)
            self._trailer = 0
            self._phase = _Phase.CHUNK if self._left else _Phase.TRAILERS
        elif line:
            return self._take_trailer(line, events)
        else:
            self._end(events)
        return True

    def _take_trailer(self, line: bytes, events: list[EngineEvent]) -> bool:
        """Check a trailer's form and forget it: nothing in the Hub reads trailers."""
        name, colon, value = line.partition(b":")
        self._trailer += len(line)
        if (
            not colon
            or self._trailer > self._bounds.header_octets
            or heads.check_fields([(name.lower(), value.strip(b" \t"))])
        ):
            self._break("trailer", events)
            return False
        return True

    def _end(self, events: list[EngineEvent]) -> None:
        self._gather(events)
        self._phase = _Phase.WAIT
        events.append(Ended(self._stream))

    def _refuse(self, status: int, reason: str, events: list[EngineEvent]) -> None:
        self._stream += 1
        self._answered = False
        self._close = True
        self._phase = _Phase.SHUT
        self.fault = reason
        self._buffer = b""
        events.append(Refused(self._stream, status, reason))

    def _break(self, reason: str, events: list[EngineEvent]) -> None:
        """Give up in the middle of a body: nothing after it can be told apart."""
        self._gather(events)
        self._phase = _Phase.SHUT
        self._buffer, self._at = b"", 0
        self._close = True
        self.fault = reason
        if not self._answered:
            events.append(Gone(self._stream, reason))


def _settled(buffer: bytes) -> int:
    """Return how much of an incomplete head can be judged: a CR at its end may yet become a line end."""
    return len(buffer) - (buffer[-1:] == b"\r")
