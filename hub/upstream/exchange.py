"""One exchange over one connection: send a request, read one answer, hand long bodies over piece by piece.

Invariants. ``Progress.sent`` turns true before the first octet leaves, ``Progress.received`` with the first octet that
comes. A connection is reused only after a request that was sent whole and an answer that was complete and followed by nothing. A streamed answer owns
its connection and gives it back, or closes it, exactly once.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final, Self, final

import trio

from hub.config import Limits
from hub.model.fault import Fault
from hub.model.http import Headers
from hub.upstream.bank import BankCall, BankStreamBroken
from hub.upstream.ending import ended
from hub.upstream.faults import bank_failure
from hub.upstream.h1 import LAST_CHUNK, AnswerReader, chunk
from hub.upstream.tls import TlsConnection

_PIECE = 65536


@final
class Progress:
    """Remember how far an exchange came, so that its Fault can say what may have happened."""

    __slots__ = ("received", "sent", "stage")

    def __init__(self) -> None:
        """Start before anything happened."""
        self.stage = "queue"
        self.sent = False
        self.received = False

    def expired(self) -> Fault:
        """Return the Fault of an exchange whose deadline passed at this stage."""
        if self.stage == "queue":
            return bank_failure("bank.busy", "no connection became free in time", sent=False)
        if self.stage == "connect":
            return bank_failure("bank.unreachable", "no connection in time", sent=False)
        return bank_failure("bank.timeout", f"deadline passed while {self.stage}", sent=self.sent)


class Upload:
    """Hold the body of a request: complete, or in pieces with or without an announced length.

    Attributes:
        whole: It was sent to its end; what follows a part of it on the connection would be read as its rest.
    """

    __slots__ = ("body", "length", "stream", "whole")

    def __init__(self, body: bytes, stream: AsyncIterator[bytes] | None, headers: Headers) -> None:
        """Take the body of a call; a ``content-length`` among its headers is the length of its stream."""
        self.body = body
        self.stream = stream
        self.whole = True
        self.length: int | None = len(body)
        if stream is not None:
            announced = next((v for n, v in headers if n == b"content-length"), b"")
            self.length = int(announced) if announced.isdigit() else None

    async def send(self, connection: TlsConnection, head: bytes) -> bytes | None:
        """Send head and body; stop early and return what came if the peer answers before the end.

        Raises:
            OSError: The connection broke.
            ValueError: The stream is not as long as announced.
        """
        if self.stream is None:
            return await self._send_complete(connection, head)
        await connection.send(head)
        async with ended(self.stream):
            return await self._send_pieces(connection, self.stream)

    async def _send_pieces(
        self, connection: TlsConnection, stream: AsyncIterator[bytes]
    ) -> bytes | None:
        sent, self.whole = 0, False
        async for piece in stream:
            if not piece:
                continue
            sent += len(piece)
            if self.length is not None and sent > self.length:
                break
            framed = piece if self.length is not None else chunk(piece)
            early = await connection.send_hearing(framed)
            if early is not None:
                return early
        if self.length is None:
            await connection.send(LAST_CHUNK)
        elif sent != self.length:
            raise ValueError("the upload is not as long as it announced")
        self.whole = True
        return None

    async def _send_complete(self, connection: TlsConnection, head: bytes) -> bytes | None:
        if len(self.body) <= _PIECE:
            await connection.send(head + self.body)
            return None
        self.whole = False
        await connection.send(head)
        for at in range(0, len(self.body), _PIECE):
            early = await connection.send_hearing(self.body[at : at + _PIECE])
            self.whole = at + _PIECE >= len(self.body) and not connection.unsent
            if early is not None:
                return early
        return None


NOTHING: Final = Upload(b"", None, ())
"""What a request without a body sends."""


def patience(call: BankCall, limits: Limits) -> float:
    """Return how long an exchange may take, in seconds: the operation's own deadline, within the tenant's bound."""
    return min(call.deadline_ms / 1000, limits.bank_exchange_s)


async def converse(
    connection: TlsConnection, head: bytes, upload: Upload, reader: AnswerReader, progress: Progress
) -> Fault | None:
    """Send one request and read until the head of its answer is in.

    Faults: ``bank.reset``, ``bank.tls``, ``bank.malformed``. None: look at ``reader``.

    Cancellation: the connection is of no more use.
    """
    progress.stage = "sending"
    progress.sent = True
    try:
        early = await upload.send(connection, head)
        progress.stage = "waiting for the answer"
        if early is not None:
            progress.received = progress.received or bool(early)
            _feed(reader, early, connection)
        while not (reader.headers_complete or reader.problem):
            data = await connection.receive()
            progress.received = progress.received or bool(data)
            _feed(reader, data, connection)
    except ssl.SSLError as untrusted:
        return bank_failure("bank.tls", f"TLS: {untrusted}", sent=True)
    except (OSError, ValueError) as error:
        return bank_failure("bank.reset", f"the connection broke: {error}", sent=True)
    return refusal(reader)


async def finish(
    connection: TlsConnection, reader: AnswerReader, body: list[bytes], most: int
) -> Fault | None:
    """Read on until the answer is complete or ``most`` octets of body are in ``body``.

    Faults and cancellation as ``converse``.
    """
    taken = sum(map(len, body))
    try:
        while True:
            piece = reader.take()
            taken += len(piece)
            body.append(piece)
            if reader.complete or reader.problem or taken > most:
                break
            _feed(reader, await connection.receive(), connection)
    except (OSError, ssl.SSLError) as error:
        return bank_failure("bank.reset", f"the answer broke off: {error}", sent=True)
    return refusal(reader)


def refusal(reader: AnswerReader) -> Fault | None:
    """Return the Fault of an answer that was refused, or None."""
    if not reader.problem:
        return None
    if not reader.started:
        return bank_failure("bank.reset", "closed without an answer", sent=True)
    return bank_failure("bank.malformed", reader.problem, sent=True)


def _feed(reader: AnswerReader, data: bytes, connection: TlsConnection) -> None:
    if data:
        reader.feed(data)
    else:
        reader.end(clean=connection.clean_end)


class AnswerStream:
    """Yield the body of a long answer as it comes; nothing is read that nobody asked for.

    Iteration raises ``BankStreamBroken`` if the answer breaks off or its deadline passes. Whoever stops early calls
    ``aclose``.
    """

    def __init__(
        self,
        connection: TlsConnection,
        reader: AnswerReader,
        first: bytes,
        deadline: float,
        done: Callable[[TlsConnection, bool], None],
    ) -> None:
        """Take over a connection whose answer's head is in.

        Args:
            connection: Owned from now on.
            reader: In the middle of the answer.
            first: Body octets that are already in.
            deadline: Of the whole exchange, trio's clock.
            done: Called once with the connection and whether it may be reused.
        """
        self._connection = connection
        self._reader = reader
        self._first = first
        self.deadline = deadline
        self._whole = False
        self._done: Callable[[TlsConnection, bool], None] | None = done

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Cancellation: the connection is closed.
        """
        if self._first and self._done is not None:
            first, self._first = self._first, b""
            return first
        result: bytes | Fault | None = None
        try:
            with trio.move_on_at(self.deadline):
                result = await self._next()
        finally:
            if result is None or isinstance(result, Fault):
                self.close()
        if result is None:
            result = bank_failure("bank.timeout", "deadline passed within the answer", sent=True)
        if isinstance(result, Fault):
            raise BankStreamBroken(result)
        if not result:
            self._whole = True
            self._release(reusable=self._reader.reusable)
            raise StopAsyncIteration
        return result

    async def _next(self) -> bytes | Fault:
        if self._whole:
            return b""
        if self._done is None:  # by whoever keeps house: a part must not pass for the whole
            return bank_failure("bank.timeout", "the answer was given up", sent=True)
        while True:
            piece = self._reader.take()
            if self._reader.problem:
                return refusal(self._reader) or b""
            if piece or self._reader.complete:
                return piece
            try:
                _feed(self._reader, await self._connection.receive(), self._connection)
            except (OSError, ssl.SSLError) as error:
                return bank_failure("bank.reset", f"the answer broke off: {error}", sent=True)

    async def aclose(self) -> None:
        """Stop; the connection is closed unless the answer was complete."""
        self.close()

    def close(self) -> None:
        """Stop at once."""
        self._release(reusable=False)

    def _release(self, *, reusable: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._connection, reusable)
