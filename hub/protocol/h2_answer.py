"""HTTP/2, what a client holds of an answer, and the checks of its header blocks.

Source: RFC 9113 sections 8.1.1, 8.2, 8.3.2, 8.7.
"""

from collections import deque
from typing import Final, final

from hub.model.http import Headers
from hub.protocol import heads
from hub.protocol.h2_output import Stream
from hub.protocol.hpack import Field

STREAM_WINDOW: Final = 131_072
"""Octets that a server may send of one answer before they are credited."""


@final
class Answer:
    """Hold what has come of one answer.

    Attributes:
        number: Of its stream.
        status: Of the final answer; 0 before its head is in.
        headers: Of the final answer.
        pieces: Body octets not yet taken, each with what is still to be credited for it.
        size: Body octets that came.
        held: Body octets not yet taken.
        want: How many of them the caller is ready to hold.
        opened: By how much the server has widened the window of a request without a body.
        complete: The whole answer is in.
        problem: Why it never will be; empty otherwise.
        malformed: The server has broken the rules, here or elsewhere on the connection.
        refused: The server says that it has not processed the request (RFC 9113 section 8.7).
        upload: The request's body, as far as it is not sent; None for a request without one.
    """

    __slots__ = (
        "complete", "credit", "headers", "held", "interim", "left", "malformed", "number", "opened", "pieces",
        "problem", "refused", "size", "status", "upload", "want", "window",
    )  # fmt: skip

    def __init__(self, number: int, want: int) -> None:
        """Nothing has come yet."""
        self.number = number
        self.want = want
        self.status = self.size = self.held = self.credit = self.interim = self.opened = 0
        self.headers: Headers = ()
        self.pieces: deque[tuple[bytes, int]] = deque()
        self.window = STREAM_WINDOW
        self.left: int | None = None
        self.complete = self.malformed = self.refused = False
        self.problem = ""
        self.upload: Stream | None = None

    @property
    def over(self) -> bool:
        """Tell whether nothing more will come."""
        return self.complete or bool(self.problem)

    def ready(self) -> bool:
        """Tell whether it is over, or holds more than was wanted."""
        return self.complete or self.held > self.want or bool(self.problem)


@final
class Block:
    """Hold a checked header block: a head if ``status`` is not 0, trailers otherwise; or why it is malformed."""

    __slots__ = ("fault", "headers", "length", "status")

    def __init__(
        self, status: int = 0, headers: Headers = (), length: int | None = None, *, fault: str = ""
    ) -> None:
        """Hold it."""
        self.status = status
        self.headers = headers
        self.length = length
        self.fault = fault


def checked(fields: list[Field]) -> Block:
    """Check the fields of an answer (RFC 9113 sections 8.1.1, 8.2, 8.3.2)."""
    status = 0
    if fields and fields[0][0] == b":status":
        value = fields[0][1]
        status = int(value) if len(value) == 3 and value.isdigit() else 0
        if not 100 <= status <= 599:
            return Block(fault="a status that is none")
        fields = fields[1:]
    fault = heads.check_fields(fields)
    if fault:
        return Block(fault=fault)
    if heads.connection_bound(fields):
        return Block(fault="connection_field")
    lengths = {value for name, value in fields if name == b"content-length"}
    if len(lengths) > 1 or not all(len(n) < 16 and n.isdigit() for n in lengths):
        return Block(fault="a length that is not clear")
    length = int(lengths.pop()) if lengths and status != 304 else None
    return Block(status, tuple(fields), length)
