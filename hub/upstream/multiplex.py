"""Many exchanges over few HTTP/2 connections to the bank.

Theory. No task of its own reads a connection: whoever waits for an answer reads for all, and when it leaves, another one
that waits goes on. Octets to be sent gather in one buffer that one task at a time sends; a task that is cancelled leaves
the rest to the next. So a cancelled exchange resets its own stream and harms no other. A request that the bank provably
has not processed (REFUSED_STREAM, or above the last stream of a GOAWAY) is sent once more over another connection,
whatever its method, if its body is still whole.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Self, final

import trio

from hub.config import Limits
from hub.model.fault import Fault
from hub.model.http import Headers
from hub.upstream.bank import BankAnswer, BankCall, BankStreamBroken
from hub.upstream.exchange import Progress, Upload, patience
from hub.upstream.faults import bank_failure
from hub.upstream.h2 import H2Answer, H2Client
from hub.upstream.tls import TlsConnection

Connect = Callable[[Progress], Awaitable[TlsConnection | Fault]]
_BROKEN: Final = (OSError, ssl.SSLError, trio.ClosedResourceError, trio.BusyResourceError)


@final
class Shared:
    """One HTTP/2 connection that several exchanges use at once."""

    def __init__(self, tls: TlsConnection, client: H2Client) -> None:
        """Take a connection after its handshake."""
        self._tls = tls
        self.client = client
        self._unsent = b""
        self._sending = False
        self._reading = False
        self._waiting: dict[H2Answer, trio.Event] = {}
        self.opened = trio.current_time()
        self.finished = 0

    def usable(self, age: float) -> bool:
        """Tell whether one more exchange may begin."""
        return self.client.room and trio.current_time() - self.opened < age

    async def flush(self) -> None:
        """Send what is to be sent, unless somebody does already.

        Raises:
            OSError: The connection broke.

        Cancellation: the rest goes with the next.
        """
        self._unsent += self.client.take()
        if self._sending:
            return
        self._sending = True
        try:
            while self._unsent or self._tls.unsent:
                data, self._unsent = self._unsent, b""
                await self._tls.send(data)
                self._unsent += self.client.take()
        finally:
            self._sending = False

    def push(self) -> None:
        """Send what goes without waiting; a peer that takes nothing gets nothing new."""
        self._unsent += self.client.take()
        if self._sending:
            return
        data, self._unsent = self._unsent, b""
        try:
            self._tls.push(data)
        except _BROKEN:
            self.client.end()
        if self._tls.unsent:
            self.client.leaving = True

    async def until(self, answer: H2Answer, holds: Callable[[], bool]) -> None:
        """Wait until something holds that frames may make true; read for all while nobody else does.

        Cancellation: nothing is lost; another one reads on.
        """
        try:
            while not holds():
                if self._reading:
                    self._waiting[answer] = event = trio.Event()
                    await event.wait()
                else:
                    await self._read()
        finally:
            self._waiting.pop(answer, None)
            if not self._reading:
                self._wake_one()

    async def _read(self) -> None:
        self._reading = True
        try:
            await self.flush()
            data = await self._tls.receive()
            if data:
                self.client.receive(data)
            else:
                self.client.end()
            await self.flush()
        except _BROKEN:
            self.client.end()
        finally:
            self._reading = False
            self._wake_touched()

    def _wake_touched(self) -> None:
        touched, self.client.touched = self.client.touched, set()
        for answer in touched:
            if (event := self._waiting.pop(answer, None)) is not None:
                event.set()

    def _wake_one(self) -> None:
        for answer in self._waiting:
            self._waiting.pop(answer).set()
            return

    def close(self) -> None:
        """End the connection at once."""
        self.client.end()
        self._tls.close()
        self._wake_touched()


@final
class SharedStream:
    """Yield the body of a long answer as it comes; the bank's window opens as it is taken."""

    def __init__(
        self, shared: Shared, answer: H2Answer, deadline: float, done: Callable[[], None]
    ) -> None:
        """Take over an answer whose head is in; ``done`` is called once at its end."""
        self._shared = shared
        self._answer = answer
        self.deadline = deadline
        self._done: Callable[[], None] | None = done

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Cancellation: the stream is reset, its connection goes on.
        """
        answer, shared = self._answer, self._shared
        came = False
        try:
            with trio.move_on_at(self.deadline):
                await shared.until(answer, lambda: bool(answer.pieces) or answer.over)
                came = True
        finally:
            if not came:
                self.close()
        if answer.pieces:
            return shared.client.took(answer)
        if answer.complete:
            self.close()
            raise StopAsyncIteration
        self.close()
        check = "bank.reset" if came else "bank.timeout"
        raise BankStreamBroken(
            bank_failure(check, f"the answer broke off: {answer.problem}", sent=True)
        )

    async def aclose(self) -> None:
        """Stop; a stream that has not ended is reset."""
        self.close()

    def close(self) -> None:
        """Stop at once."""
        done, self._done = self._done, None
        if done is not None:
            self._shared.client.cancel(self._answer)
            done()


@final
class Multiplexed:
    """Exchange calls over HTTP/2 as long as the bank speaks it."""

    def __init__(
        self, *, limits: Limits, authority: bytes, connect: Connect, note: Callable[[str], None]
    ) -> None:
        """Connect to nothing yet.

        Args:
            limits: Bounds.
            authority: The bank's ``host[:port]``.
            connect: Opens a connection, offering both protocols (an async function).
            note: Told of a request sent again.
        """
        self._limits = limits
        self._authority = authority
        self._connect = connect
        self._note = note
        self._shared: list[Shared] = []
        self._opening = trio.Lock()
        self._declined_until = 0.0
        self._streams: set[SharedStream] = set()
        self.spare: list[TlsConnection] = []
        """Connections over which the bank chose HTTP/1.1; whoever sees them takes them."""

    @property
    def spoken(self) -> bool:
        """Tell whether the bank speaks HTTP/2, as far as we know."""
        return trio.current_time() >= self._declined_until

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._shared)

    def close(self) -> None:
        """End all connections; new ones may be opened."""
        for stream in tuple(self._streams):
            stream.close()
        while self._shared:
            self._shared.pop().close()
        self._declined_until = 0.0

    def retire(self) -> None:
        """Use no present connection for anything new (other credentials hold now)."""
        for shared in self._shared:
            shared.client.leaving = True
        self._declined_until = 0.0
        self.reap()

    def reap(self) -> None:
        """Close what is of no more use and serves nobody, and streams that nobody ended in time."""
        now = trio.current_time()
        for stream in [one for one in self._streams if one.deadline < now]:
            stream.close()
        kept = []
        for shared in self._shared:
            idle = not shared.client.open
            if shared.client.problem or (idle and not shared.usable(self._limits.bank_age_s)):
                shared.close()
            else:
                kept.append(shared)
        self._shared = kept

    async def exchange(
        self,
        call: BankCall,
        target: str,
        headers: Headers,
        upload: Upload,
        progress: Progress,
        started: float,
        keep: Callable[[], Callable[[], None]],
    ) -> BankAnswer | Fault | None:
        """Send one call; None if the bank speaks HTTP/1.1 only, and nothing was sent.

        ``keep`` takes over what is to be released at the end of a streamed answer.

        Faults: as ``Bank.exchange``. Cancellation: its stream is reset.
        """
        for last in (False, True):
            shared = await self._acquire(progress)
            if shared is None or isinstance(shared, Fault):
                return shared
            used = shared.finished > 0
            result, refused = await self._over(
                shared, call, target, headers, upload, progress, started, keep
            )
            if not isinstance(result, Fault) or result.check != "bank.reset" or last:
                return result
            whole = upload.stream is None
            repeatable = call.repeatable and call.method == "GET" and used and not progress.received
            if not ((refused and whole) or repeatable):
                return result
            self._note("bank.sent_again")
        return None  # pragma: no cover - the loop has returned

    async def _acquire(self, progress: Progress) -> Shared | Fault | None:
        progress.stage = "connect"
        async with self._opening:
            if not self.spoken:
                return None
            self.reap()
            for shared in self._shared:
                if shared.usable(self._limits.bank_age_s):
                    return shared
            return await self._open(progress)

    async def _open(self, progress: Progress) -> Shared | Fault | None:
        opened = await self._connect(progress)
        if isinstance(opened, Fault):
            return opened
        if opened.protocol != "h2":
            self._declined_until = trio.current_time() + self._limits.bank_age_s
            self.spare.append(opened)
            return None
        client = H2Client(
            streams=self._limits.bank_streams, header_octets=self._limits.bank_header_octets
        )
        shared = Shared(opened, client)
        self._shared.append(shared)
        return shared

    async def _over(
        self,
        shared: Shared,
        call: BankCall,
        target: str,
        headers: Headers,
        upload: Upload,
        progress: Progress,
        started: float,
        keep: Callable[[], Callable[[], None]],
    ) -> tuple[BankAnswer | Fault, bool]:
        """Exchange over one connection; return what came, and whether the bank says it has done nothing."""
        progress.stage, progress.sent = "sending", True
        client = shared.client
        empty = upload.stream is None and not upload.body
        try:
            answer = client.begin(
                call.method, self._authority, target, _framed(headers, upload), end=empty
            )
        except ValueError as error:
            return bank_failure("bank.malformed", str(error), sent=False), False
        handed_over = False
        try:
            await _send_body(shared, answer, upload, empty=empty)
            progress.stage = "waiting for the answer"
            fault = await self._gather(shared, answer, call, progress)
            if fault is not None:
                return fault, answer.refused
            stream = None
            body = b""
            if answer.complete and answer.size <= self._most(call):
                body = b"".join([client.took(answer) for _ in range(len(answer.pieces))])
                shared.finished += 1
            else:
                deadline = started + patience(call, self._limits)
                stream = self._stream(shared, answer, deadline, keep())
                handed_over = True
            return BankAnswer(
                status=answer.status,
                headers=tuple(answer.headers),
                body=body,
                stream=stream,
                bank_us=int((trio.current_time() - started) * 1e6),
            ), False
        except _BROKEN as error:
            client.end()
            return bank_failure("bank.reset", f"the connection broke: {error}", sent=True), False
        finally:
            if not handed_over:
                client.cancel(answer)
            shared.push()

    def _stream(
        self, shared: Shared, answer: H2Answer, deadline: float, release: Callable[[], None]
    ) -> SharedStream:
        def done() -> None:
            self._streams.discard(stream)
            shared.finished += 1
            release()
            shared.push()

        stream = SharedStream(shared, answer, deadline, done)
        self._streams.add(stream)
        return stream

    def _most(self, call: BankCall) -> int:
        limits = self._limits
        return limits.complete_answer_octets if call.stream_answer else limits.bank_answer_octets

    async def _gather(
        self, shared: Shared, answer: H2Answer, call: BankCall, progress: Progress
    ) -> Fault | None:
        """Wait until the answer is complete, or long enough to be handed over as a stream."""
        most = self._most(call)
        await shared.until(answer, lambda: answer.over or bool(answer.status))
        progress.received = bool(answer.status)
        taken: list[tuple[bytes, int]] = []
        size = 0
        while not answer.over and size <= most:
            await shared.until(answer, lambda: answer.over or bool(answer.pieces))
            while answer.pieces and not answer.over:
                piece = shared.client.took(answer)
                taken.append((piece, 0))
                size += len(piece)
        answer.pieces.extendleft(reversed(taken))
        if answer.problem:
            check = "bank.malformed" if answer.malformed else "bank.reset"
            return bank_failure(check, answer.problem, sent=not answer.refused)
        if answer.size > most and not call.stream_answer:
            return bank_failure("bank.malformed", "the answer is too long", sent=True)
        return None


async def _send_body(shared: Shared, answer: H2Answer, upload: Upload, *, empty: bool) -> None:
    """Send head and body as far as the windows allow; stop when the bank has answered before the end."""
    if not empty and upload.stream is None:
        await _send_piece(shared, answer, upload.body, end=True)
    elif upload.stream is not None:
        try:
            sent = 0
            async for piece in upload.stream:
                sent += len(piece)
                if upload.length is not None and sent > upload.length:
                    raise ConnectionResetError("the upload is longer than it announced")
                await _send_piece(shared, answer, piece, end=False)
                if answer.over:
                    break
            if upload.length is not None and sent != upload.length and not answer.over:
                raise ConnectionResetError("the upload is not as long as it announced")
            shared.client.send(answer, b"", end=True)
        finally:
            if isinstance(upload.stream, AsyncGenerator):
                await upload.stream.aclose()
    await shared.flush()


async def _send_piece(shared: Shared, answer: H2Answer, data: bytes, *, end: bool) -> None:
    at = 0
    while at < len(data) and not answer.over:
        room = shared.client.window(answer)
        if not room:
            await shared.until(answer, lambda: answer.over or shared.client.window(answer) > 0)
            continue
        piece = data[at : at + room]
        at += len(piece)
        shared.client.send(answer, piece, end=end and at == len(data))
        await shared.flush()


def _framed(headers: Headers, upload: Upload) -> Headers:
    """Announce the length where there is a body of known length, whatever the headers said."""
    ours = tuple([field for field in headers if field[0] != b"content-length"])
    if upload.length is None or not (upload.length or upload.stream is not None):
        return ours
    return (*ours, (b"content-length", b"%d" % upload.length))
