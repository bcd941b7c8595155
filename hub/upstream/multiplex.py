"""Many exchanges over few HTTP/2 connections to the bank: which connection, which request again, what becomes of a body.

A request goes over the first connection that has room, so that many share one. One that the bank provably has not processed
(REFUSED_STREAM, or above the last stream of a GOAWAY) is sent once more over another connection, whatever its method, if
its body is still whole: to one that has said how many streams it takes, or first of all on a new one, for the refusal may have
been that we did not know yet (RFC 9113 section 6.5.2); a GET also where a connection that had been used before ended without a single octet of the
answer. Nothing is sent a third time. How a connection is shared, and its deadlines, is the business of ``shared``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self, final

import trio

from hub.config import Limits
from hub.model.fault import Fault
from hub.model.http import Headers
from hub.protocol.h2_answer import Answer
from hub.protocol.h2_client import H2Client
from hub.protocol.h2_request import OF_ONE_REQUEST, field_block, request_block
from hub.upstream.bank import BankAnswer, BankCall, BankStreamBroken
from hub.upstream.ending import ended
from hub.upstream.exchange import NOTHING, Progress, Upload
from hub.upstream.faults import bank_failure
from hub.upstream.pool import Slot
from hub.upstream.shared import Shared
from hub.upstream.tls import TlsConnection

Connect = Callable[[Progress], Awaitable[TlsConnection | Fault]]
_ACCEPT: Final = (b"accept", b"application/json")
_WRITTEN_MOST: Final = 64
_ALIKE_MOST: Final = 2048
_ALIKE_OCTETS: Final = 1024


@final
class Sending:
    """Hold one exchange on its way: the call, what goes with it, and how long it may take."""

    __slots__ = (
        "authorization",
        "call",
        "deadline",
        "progress",
        "slot",
        "started",
        "target",
        "upload",
    )

    def __init__(
        self,
        call: BankCall,
        target: str,
        authorization: bytes,
        upload: Upload,
        progress: Progress,
        started: float,
        deadline: float,
        slot: Slot,
    ) -> None:
        """Take all that an attempt needs.

        Args:
            call: What is asked.
            target: Its path and query at the bank.
            authorization: The value of the header that authenticates us; empty for none.
            upload: Its body.
            progress: Told how far it comes.
            started: When the exchange began, trio's clock.
            deadline: When it ends.
            slot: Kept until the end of a streamed answer.
        """
        self.call = call
        self.target = target
        self.authorization = authorization
        self.upload = upload
        self.progress = progress
        self.started = started
        self.deadline = deadline
        self.slot = slot


@final
class SharedStream:
    """Yield the body of a long answer as it comes; the bank's window opens as it is taken."""

    def __init__(
        self, shared: Shared, answer: Answer, deadline: float, done: Callable[[], None]
    ) -> None:
        """Take over an answer whose head is in; ``done`` is called once at its end."""
        self._shared = shared
        self._answer = answer
        self.deadline = deadline
        self._whole = False
        self._done: Callable[[], None] | None = done
        answer.want = 0

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Cancellation: the stream is reset, its connection goes on.
        """
        answer, shared = self._answer, self._shared
        if self._done is None and not self._whole:
            # By whoever keeps house: a part must not pass for the whole.
            raise BankStreamBroken(
                bank_failure("bank.timeout", "the answer was given up", sent=True)
            )
        came = False
        try:
            came = await shared.until(answer, answer.ready, self.deadline)
        finally:
            if not came:
                self.close()
        if answer.pieces:
            piece = shared.client.took(answer)
            shared.nudge()
            return piece
        self.close()
        if answer.complete:
            self._whole = True
            raise StopAsyncIteration
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
        self._born_before = 0.0
        self._streams: set[SharedStream] = set()
        self._written: dict[bytes, bytes] = {}
        self._alike: dict[tuple[str, str, Headers], bytes] = {}
        """What requests for the same thing have in common, written; at most 2 MiB."""
        self.spare: list[TlsConnection] = []
        """Connections over which the bank chose HTTP/1.1; whoever sees them takes them."""

    @property
    def spoken(self) -> bool:
        """Tell whether the bank speaks HTTP/2, as far as we know."""
        return not self._declined_until or trio.current_time() >= self._declined_until

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._shared)

    @property
    def most(self) -> int:
        """Return how many exchanges the bank takes at once, as far as we know; 0 before it has spoken."""
        streams = max((one.client.most for one in self._shared), default=0)
        return min(self._limits.bank_exchanges, streams * self._limits.bank_connections)

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
        self._born_before = trio.current_time()
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
            if shared.client.problem or (idle and not self._usable(shared, now)):
                shared.close()
            else:
                kept.append(shared)
        self._shared = kept

    def _usable(self, shared: Shared, now: float) -> bool:
        return shared.usable(now, self._limits.bank_age_s, self._limits.bank_idle_s)

    async def exchange(self, sending: Sending) -> BankAnswer | Fault | None:
        """Send one call; None if the bank speaks HTTP/1.1 only, and nothing was sent.

        Faults: as ``Bank.exchange``. Cancellation: its stream is reset.
        """
        call, progress = sending.call, sending.progress
        for last in (False, True):
            shared = self._ready(sending.started, last) or await self._acquire(sending, last)
            if shared is None or isinstance(shared, Fault):
                return shared
            used = shared.finished > 0
            result, refused = await self._over(shared, sending)
            if not isinstance(result, Fault) or result.check != "bank.reset" or last:
                return result
            whole = sending.upload.stream is None
            repeatable = call.repeatable and call.method == "GET" and used and not progress.received
            if not ((refused and whole) or repeatable):
                return result
            self._note("bank.sent_again")
        return None  # pragma: no cover - the loop has returned

    def _ready(self, now: float, again: bool) -> Shared | None:  # noqa: FBT001 - called for each exchange
        """Return a connection that has room; for what is sent ``again``, one that is known to have it."""
        for shared in self._shared:
            if (shared.client.greeted or not again) and self._usable(shared, now):
                return shared
        return None

    async def _acquire(self, sending: Sending, again: bool) -> Shared | Fault | None:  # noqa: FBT001 - as above
        progress = sending.progress
        progress.stage = "connect"
        with trio.move_on_at(sending.deadline):
            async with self._opening:
                if not self.spoken:
                    return None
                self.reap()
                if (shared := self._ready(trio.current_time(), again)) is not None:
                    return shared
                if len(self._shared) >= self._limits.bank_connections:
                    return bank_failure("bank.busy", "no stream is free", sent=False)
                return await self._open(progress)
        return progress.expired()

    async def _open(self, progress: Progress) -> Shared | Fault | None:
        opened = await self._connect(progress)
        if isinstance(opened, Fault):
            return opened
        if opened.protocol != "h2":
            self._declined_until = trio.current_time() + self._limits.bank_age_s
            self.spare.append(opened)
            return None
        client = H2Client(
            streams=self._limits.bank_streams,
            header_octets=self._limits.bank_header_octets,
            now=trio.current_time(),
        )
        shared = Shared(opened, client)
        if opened.opened < self._born_before:
            client.leaving = True  # retired before it was there: for the present exchange only
        self._shared.append(shared)
        return shared

    async def _over(self, shared: Shared, sending: Sending) -> tuple[BankAnswer | Fault, bool]:
        """Exchange over one connection; return what came, and whether the bank says it has done nothing."""
        progress, upload, client = sending.progress, sending.upload, shared.client
        progress.stage, progress.sent = "sending", True
        try:
            block = self._block(sending)
        except ValueError as error:
            return bank_failure("bank.malformed", str(error), sent=False), False
        answer = client.begin(
            block, upload.body, ends=upload.stream is None, want=self._most(sending.call)
        )
        handed_over = False
        try:
            await shared.send()
            if upload.stream is not None:
                fault = await _send_stream(shared, answer, sending, upload.stream)
                if fault is not None:
                    return fault, False
            progress.stage = "waiting for the answer"
            came = await shared.until(answer, answer.ready, sending.deadline)
            progress.received = bool(answer.status)
            if not came and shared.heard < sending.started:
                client.leaving = (
                    True  # silent all the while: what comes next had better not wait for it
                )
            if not came or answer.problem or answer.size > answer.want:
                fault = _failure(answer, sending, came=came)
                if fault is not None:
                    return fault, answer.refused
            body, stream = b"", None
            if answer.complete and answer.size <= answer.want:
                body = client.body(answer)
                shared.finished += 1
            else:
                stream = self._stream(shared, answer, sending)
                handed_over = True
            now = trio.current_time()
            shared.used = now
            return BankAnswer(
                status=answer.status,
                headers=answer.headers,
                body=body,
                stream=stream,
                bank_us=int((now - sending.started) * 1e6),
            ), False
        finally:
            if not handed_over:
                client.cancel(answer)
                shared.nudge()

    def _block(self, sending: Sending) -> bytes:
        """Write the request's header block; most of it is the same for many."""
        call, headers = sending.call, sending.call.headers
        at = len(headers)
        while at and headers[at - 1][0] in OF_ONE_REQUEST:
            at -= 1
        last = self._authorized(sending.authorization)
        if at == len(headers) or sending.upload is not NOTHING:
            return self._begun(call.method, sending.target, _framed(headers, sending.upload)) + last
        name = (call.method, sending.target, headers[:at])
        begun = self._alike.get(name)
        if begun is None:
            begun = self._begun(call.method, sending.target, _framed(headers[:at], NOTHING))
            if len(begun) <= _ALIKE_OCTETS:
                if len(self._alike) >= _ALIKE_MOST:
                    self._alike.clear()
                self._alike[name] = begun
        return b"".join((begun, last, *[field_block(*field) for field in headers[at:]]))

    def _begun(self, method: str, target: str, headers: Headers) -> bytes:
        """Write a header block but for what authenticates us."""
        return request_block(
            method.encode("ascii"), self._authority, target.encode("latin-1"), headers
        )

    def _authorized(self, authorization: bytes) -> bytes:
        """Write the field that authenticates us, the same for many; nothing for none."""
        written = self._written.get(authorization)
        if written is None:
            if len(self._written) >= _WRITTEN_MOST:
                self._written.clear()
            written = field_block(b"authorization", authorization) if authorization else b""
            self._written[authorization] = written
        return written

    def _stream(self, shared: Shared, answer: Answer, sending: Sending) -> SharedStream:
        slot = sending.slot.keep()

        def done() -> None:
            self._streams.discard(stream)
            shared.finished += 1
            shared.used = trio.current_time()
            slot.give_back()
            shared.nudge()

        stream = SharedStream(shared, answer, sending.deadline, done)
        self._streams.add(stream)
        return stream

    def _most(self, call: BankCall) -> int:
        limits = self._limits
        return limits.complete_answer_octets if call.stream_answer else limits.bank_answer_octets


def _failure(answer: Answer, sending: Sending, *, came: bool) -> Fault | None:
    """Return the Fault of an answer that is not as it should be; None for one that is to be streamed."""
    if answer.problem:
        check = "bank.malformed" if answer.malformed else "bank.reset"
        return bank_failure(check, answer.problem, sent=not answer.refused)
    if not came:
        return sending.progress.expired()
    if not sending.call.stream_answer:
        return bank_failure("bank.malformed", "the answer is too long", sent=True)
    return None


async def _send_stream(
    shared: Shared, answer: Answer, sending: Sending, stream: AsyncIterator[bytes]
) -> Fault | None:
    """Send a streamed body, as far as the bank takes it in time."""
    try:
        with trio.move_on_at(sending.deadline):
            await _send_pieces(shared, answer, sending.upload, stream)
            return None
    except ValueError as error:
        return bank_failure("bank.reset", str(error), sent=True)
    return sending.progress.expired()


async def _send_pieces(
    shared: Shared, answer: Answer, upload: Upload, stream: AsyncIterator[bytes]
) -> None:
    """Send a body as far as the windows allow; stop when the bank has answered before its end.

    Raises:
        ValueError: It is not as long as announced.
    """
    client, sent = shared.client, 0

    def fits() -> bool:
        return answer.over or not client.backlog(answer)

    async with ended(stream):
        async for piece in stream:
            sent += len(piece)
            if upload.length is not None and sent > upload.length:
                raise ValueError("the upload is longer than it announced")
            client.write(answer, piece)
            await shared.send()
            await shared.until(answer, fits, trio.current_effective_deadline())
            if answer.over:
                return
        if upload.length is not None and sent != upload.length:
            raise ValueError("the upload is not as long as it announced")
        client.end(answer)
        await shared.send()


def _framed(headers: Headers, upload: Upload) -> Headers:
    """Ask for JSON where nothing else is asked for; announce the length of a body, whatever the headers said."""
    length: tuple[tuple[bytes, bytes], ...] = ()
    if upload.length is not None and (upload.length or upload.stream is not None):
        length = ((b"content-length", b"%d" % upload.length),)
    asked = announced = False
    for name, _ in headers:
        if name == b"accept":
            asked = True
        elif name == b"content-length":
            announced = True
    if announced:
        headers = tuple([field for field in headers if field[0] != b"content-length"])
    if not asked:
        headers = (_ACCEPT, *headers)
    return (*headers, *length) if length else headers
