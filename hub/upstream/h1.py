"""HTTP/1.1 towards the bank, sans-IO: one request to bytes, bytes to one answer, and nothing that is left over.

Theory. A connection carries one exchange at a time, so the reader exists for one answer only. Framing comes from
httptools (llhttp); on top of it the reader refuses what would make two parsers disagree: both lengths, two lengths, a
transfer coding other than ``chunked``, control characters in values, a protocol switch, a storm of interim answers, and
any octet after the end of the answer. What is refused here ends the connection; nothing of it reaches the next caller.

Invariants: ``problem`` is set at most once and never together with a later ``complete``; the octets taken of one answer
never exceed the two bounds.

Source: RFC 9112 sections 2 to 7, RFC 9110 sections 6.5 and 15.
"""

import re
from functools import lru_cache
from typing import Final

import httptools

from hub.model.http import Headers
from hub.protocol.h2_request import OF_ONE_REQUEST

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TARGET: Final = re.compile(rb"/[\x21-\x22\x24-\x7e]*\Z")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"te"}
)
_HEADERS_MOST: Final = 128
_INTERIM_MOST: Final = 8
_WRITTEN_MOST: Final = 4096
_SHORT: Final = 192
"""Longer fields (bearers among them) are not remembered."""


def request_head(
    method: str, target: str, host: bytes, headers: Headers, length: int | None
) -> bytes:
    """Write the head of a request.

    Args:
        method: Upper case token.
        target: Path and query in origin form.
        host: ``host[:port]``.
        headers: Lower case names; framing fields among them are left out, they are decided here.
        length: Octets of the body; None for a chunked one.

    Raises:
        ValueError: A part would not survive as one request; what came from outside must have been refused before.
    """
    raw_target = target.encode("latin-1")
    if not (_TARGET.match(raw_target) and _TOKEN.match(method.encode())):
        raise ValueError("method or target is not fit for a request line")
    out = [b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (method.encode(), raw_target, host)]
    known = _WRITTEN.get
    out += [known(field) or _write(field) for field in headers]
    if length is None:
        out.append(b"transfer-encoding: chunked\r\n\r\n")
    elif length or method in {"POST", "PUT", "PATCH"}:
        out.append(b"content-length: %d\r\n\r\n" % length)
    else:
        out.append(b"\r\n")
    return b"".join(out)


def _line(name: bytes, value: bytes) -> bytes:
    """Write one field, or nothing for one that is decided here; most were written before and are remembered.

    Raises:
        ValueError: It would not stay one field.
    """
    if name in _OURS:
        return b""
    if not _TOKEN.match(name):
        raise ValueError(f"header {name!r} is not fit for a request")
    if not _VALUE.match(value):
        raise ValueError("a header value is not fit for a request")
    return b"%s: %s\r\n" % (name, value)


_WRITTEN: Final[dict[tuple[bytes, bytes], bytes]] = {}
"""Fields that come again, written; bounded."""


def _write(field: tuple[bytes, bytes]) -> bytes:
    """Write a field; remember it unless it is long or of this request alone."""
    written = _line(*field)
    if len(written) <= _SHORT and field[0] not in OF_ONE_REQUEST:
        if len(_WRITTEN) >= _WRITTEN_MOST:
            _WRITTEN.clear()
        _WRITTEN[field] = written
    return written


def _field(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """Return a received field in our form, or None where it is not valid."""
    if not (_TOKEN.match(name) and _VALUE.match(value)):
        return None
    return name.lower(), value.strip(b" \t")


_field_before: Final = lru_cache(maxsize=1024)(_field)


def chunk(piece: bytes) -> bytes:
    """Frame one non-empty piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


LAST_CHUNK: Final = b"0\r\n\r\n"


class AnswerReader:
    """Take the octets of one answer apart.

    Attributes:
        status: Of the final answer; 0 before its headers are complete.
        headers: Of the final answer, names in lower case.
        started: Whether any octet came.
        headers_complete: The final answer's headers are in.
        complete: The whole answer is in.
        problem: Why it is refused; empty if it is not.
        length: The announced length; None when there is none.
    """

    __slots__ = (
        "_body",
        "_body_most",
        "_header_most",
        "_header_octets",
        "_interim",
        "_parser",
        "_persists",
        "_still",
        "_taken",
        "_until_close",
        "complete",
        "headers",
        "headers_complete",
        "length",
        "problem",
        "started",
        "status",
    )

    def __init__(self, header_most: int, body_most: int) -> None:
        """Wait for one answer of at most that many octets of head and of body."""
        self._parser = httptools.HttpResponseParser(self)
        self._header_most = header_most
        self._body_most = body_most
        self._header_octets = 0
        self._interim = 0
        self._taken = 0
        self._still = 0
        self._body: list[bytes] = []
        self._until_close = False
        self._persists = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.started = False
        self.headers_complete = False
        self.complete = False
        self.problem = ""
        self.length: int | None = None

    @property
    def reusable(self) -> bool:
        """Tell whether the connection may carry another exchange."""
        return self.complete and not self.problem and not self._until_close and self._persists

    def feed(self, data: bytes) -> None:
        """Take received octets; look at ``problem`` and ``complete`` afterwards."""
        self.started = True
        if self.complete:
            self._refuse("octets after the end of the answer")
            return
        within_head, taken = not self.headers_complete, self._taken
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("a switch of protocols")
        except httptools.HttpParserError as error:
            self._refuse(type(error).__name__)
        if within_head:
            self._bound_head(len(data))
        elif taken == self._taken and not self.complete:
            self._bound_still(len(data))
        else:
            self._still = 0

    def _bound_head(self, octets: int) -> None:
        self._header_octets += octets
        if self._header_octets - self._taken > self._header_most:
            self._refuse("a head that is too long")

    def _bound_still(self, octets: int) -> None:
        """Bound what comes in a row without body: trailers, which the parser keeps, and extensions of chunks."""
        self._still += octets
        if self._still > self._header_most:
            self._refuse("a trailer that is too long")

    def end(self, *, clean: bool) -> None:
        """Take the end of the connection; only a clean TLS closure may end a body without a length."""
        if self.complete or self.problem:
            return
        if self._until_close and clean:
            self.complete = True
        else:
            self._refuse("an answer that breaks off")

    def take(self) -> bytes:
        """Return the body received since the last call."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return body

    def _refuse(self, problem: str) -> None:
        self.problem = self.problem or problem

    def on_message_begin(self) -> None:
        """See the first octet of a message (called by the parser)."""
        if self.complete:
            self._refuse("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """See one header field (called by the parser)."""
        if self.complete:
            return
        if len(self.headers) >= _HEADERS_MOST:
            self._refuse("too many headers")
            return
        short = len(name) + len(value) <= _SHORT
        field = _field_before(name, value) if short else _field(name, value)
        if field is None:
            self._refuse("a header that is not valid")
        elif (
            not self.headers_complete
        ):  # a trailer is none of the answer's headers (RFC 9110 section 6.5.1)
            self.headers.append(field)

    def on_headers_complete(self) -> None:
        """See the end of a head (called by the parser)."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            self.headers.clear()
            if status == 101 or status < 100 or self._interim > _INTERIM_MOST:
                self._refuse("interim answers that are not expected")
            return
        self.status = status
        self.headers_complete = True
        self._frame(status)

    def _frame(self, status: int) -> None:
        lengths = [value for name, value in self.headers if name == b"content-length"]
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if (lengths and codings) or len(lengths) > 1 or codings not in ([], [b"chunked"]):
            self._refuse("a length that is not clear")
        elif lengths and (len(lengths[0]) > 15 or not lengths[0].isdigit()):
            self._refuse("a length that is not a number")
        elif lengths:
            self.length = int(lengths[0])
            if self.length > self._body_most and status not in {204, 304}:
                self._refuse("a body that is too long")
        elif not codings and status not in {204, 304}:
            self._until_close = True
        if status > 599:
            self._refuse("a status that does not exist")

    def on_body(self, data: bytes) -> None:
        """See a part of the body (called by the parser)."""
        if self.complete:
            return
        self._taken += len(data)
        if self._taken > self._body_most:
            self._refuse("a body that is too long")
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """See the end of a message (called by the parser)."""
        if self.headers_complete and not self.complete:
            self.complete = True
            self._persists = bool(self._parser.should_keep_alive())
