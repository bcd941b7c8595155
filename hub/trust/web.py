"""A small HTTP/1.1 client for the framework's documents: h11 on trio, bounded, kept alive within one round.

Theory. Connections are kept per origin for as long as the ``Web`` is open, which is one round. A kept connection that
turns out to be closed before a single octet of the answer came is replaced once, since nothing was answered yet and
everything asked here may be asked twice. No redirects, no content coding, no cookies, no proxy from the environment.
"""

import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import SplitResult, urlsplit

import h11
import msgspec
import trio

from hub.model.http import Headers

_PIECE: Final = 65_536
_CLOSE_S: Final = 1.0
_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, ssl.SSLError)
_FIXED: Final = ((b"accept-encoding", b"identity"), (b"user-agent", b"api-hub"))


class Answer(msgspec.Struct, frozen=True):
    """Hold a complete answer, header names in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """Return the first value of a header, or an empty string."""
        return next((v.decode("latin-1") for k, v in self.headers if k == name), "")


class Failure(msgspec.Struct, frozen=True):
    """Say why there is no answer; ``silent``: not one octet of it had come."""

    why: str
    silent: bool = False


@final
class Web:
    """Keep connections to the origins of one round. An async context manager."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        """Use ``tls`` for every https origin."""
        self._tls = tls
        self._idle: dict[str, list[_Line]] = {}
        self._open: set[_Line] = set()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close every connection, without ceremony; all of them also when cancelled."""
        with trio.move_on_after(_CLOSE_S, shield=True):
            for line in list(self._open):
                await trio.aclose_forcefully(line.stream)

    async def exchange(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: bytes,
        most: int,
        into: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> Answer | Failure:
        """Send one request and read its answer, at most ``most`` octets of body.

        With ``into``, the body of a 200 is given to it in pieces, and the answer has none.

        Cancellation: the connection is closed; the request may or may not have been answered.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        while True:
            kept = bool(self._idle.get(origin))
            line = self._idle[origin].pop() if kept else await self._connect(parts)
            if isinstance(line, Failure):
                return line
            answer = await self._over(
                line, origin, _request(method, parts, headers, body), body, most, into
            )
            if kept and isinstance(answer, Failure) and answer.silent:
                continue
            return answer

    async def _over(
        self,
        line: "_Line",
        origin: str,
        request: h11.Request,
        body: bytes,
        most: int,
        into: Callable[[bytes], Awaitable[None]] | None,
    ) -> Answer | Failure:
        reusable = False
        try:
            answer = await line.ask(request, body, most, into)
            reusable = isinstance(answer, Answer) and line.next_cycle()
        finally:
            if reusable:
                self._idle.setdefault(origin, []).append(line)
            else:
                self._open.discard(line)
                await trio.aclose_forcefully(line.stream)
        return answer

    async def _connect(self, parts: SplitResult) -> "_Line | Failure":
        host = parts.hostname or ""
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            raw = await trio.open_tcp_stream(host, port)
        except (OSError, ValueError) as error:
            return Failure(f"cannot connect: {type(error).__name__}")
        if parts.scheme != "https":
            return self._joined(raw)
        stream = trio.SSLStream(raw, self._tls, server_hostname=host, https_compatible=True)
        try:
            await stream.do_handshake()
        except _BROKEN as error:
            await trio.aclose_forcefully(raw)
            return Failure(f"TLS: {_reason(error)}")
        except BaseException:
            await trio.aclose_forcefully(raw)
            raise
        return self._joined(stream)

    def _joined(self, stream: trio.abc.Stream) -> "_Line":
        line = _Line(stream)
        self._open.add(line)
        return line


def _reason(error: BaseException) -> str:
    """Return what OpenSSL said, where it said something."""
    cause = error.__cause__ if error.__cause__ is not None else error
    reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "")
    return str(reason or type(cause).__name__)


def _request(method: str, parts: SplitResult, headers: Headers, body: bytes) -> h11.Request:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fixed = [(b"host", parts.netloc.encode()), *_FIXED, *headers]
    if method != "GET":
        fixed.append((b"content-length", b"%d" % len(body)))
    return h11.Request(method=method, target=target, headers=fixed)


@final
class _Line:
    """One connection, one exchange at a time."""

    __slots__ = ("_h11", "stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_PIECE)

    async def ask(
        self,
        request: h11.Request,
        body: bytes,
        most: int,
        into: Callable[[bytes], Awaitable[None]] | None,
    ) -> Answer | Failure:
        """Send one request and read its answer."""
        begun = False
        try:
            await self._send(request, body)
            head = await self._next()
            while isinstance(head, h11.InformationalResponse):
                head = await self._next()
            if not isinstance(head, h11.Response):
                return Failure("closed before an answer", silent=True)
            begun = True
            return await self._rest(head, most, into if head.status_code == 200 else None)
        except _BROKEN as error:
            return Failure(f"connection: {_reason(error)}", silent=not begun)
        except h11.RemoteProtocolError as error:
            return Failure(f"not HTTP: {error}", silent=not begun and "closed" in str(error))

    async def _send(self, request: h11.Request, body: bytes) -> None:
        pieces = [self._h11.send(request)]
        if body:
            pieces.append(self._h11.send(h11.Data(data=body)))
        pieces.append(self._h11.send(h11.EndOfMessage()))
        await self.stream.send_all(b"".join(piece for piece in pieces if piece))

    async def _rest(
        self, head: h11.Response, most: int, into: Callable[[bytes], Awaitable[None]] | None
    ) -> Answer | Failure:
        body, size = bytearray(), 0
        while isinstance(event := await self._next(), h11.Data):
            size += len(event.data)
            if size > most:
                return Failure(f"larger than {most} octets")
            if into is None:
                body += event.data
            else:
                await into(bytes(event.data))
        return Answer(head.status_code, tuple((k, v) for k, v in head.headers), bytes(body))

    async def _next(self) -> object:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self.stream.receive_some(_PIECE)))
        return event

    def next_cycle(self) -> bool:
        """Make ready for another exchange, if both sides keep the connection."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False
