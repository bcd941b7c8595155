"""Serve the keeper to workers over a Unix socket; no change is acknowledged before every worker has forgotten.

Theory. A worker may answer from its caches only while it holds a lease: one second, counted by the worker from the
moment it *sent* the renewal, by the keeper from the moment it *received* it; so the keeper's idea of the end is always
the later one, and no clock is compared with another. When something changes, each worker is told, and the keeper waits
until it has heard or until the lease it holds at that moment is over. Leases granted afterwards need no thought: the
socket keeps the order, so a worker learns of the change before it learns of such a lease.

Invariants. A worker that goes without ``Bye`` is waited for until its lease is over, even though its connection is
gone. Only processes of our own user are served. One worker's faults end that worker's connection only.
"""

import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, cast, final

import msgspec
import trio

from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault
from hub.state.accepting import accepted
from hub.state.address import address_of
from hub.state.entry import KINDS, unavailable
from hub.state.frames import (
    PROTOCOL,
    Answered,
    Ask,
    AskClaim,
    AskEvents,
    AskHead,
    AskLookup,
    AskSearch,
    AskTrace,
    Bug,
    Bye,
    Changed,
    Found,
    FrameError,
    Frames,
    FromWorker,
    Head,
    Heard,
    Hello,
    Indices,
    Lease,
    Leaves,
    Lost,
    Matches,
    Question,
    Refused,
    Renew,
    Reply,
    Told,
    Traced,
    Write,
    from_worker,
)
from hub.state.keeper import Conflict, Invalidation, Keeper, Versioned
from hub.state.outbox import Outbox
from hub.state.schema import StoreError
from hub.state.work import Commit, Done, Failed, check_work

LEASE_S: Final = 1.0
RENEW_S: Final = 0.2
_QUESTIONS: Final = 4096
_BACKLOG: Final = 64
_CHUNK: Final = 262_144

Tell = Callable[[Sequence[Invalidation]], Awaitable[None]]


class ServedKeeper(Keeper, Protocol):
    """A keeper in process, which also waits for an audience before it acknowledges a change."""

    def attend(self, tell: Tell) -> Callable[[], None]:
        """Await ``tell`` with what changed before a change is acknowledged; return what ends it."""
        ...

    async def commit_all(self, works: Sequence[Commit]) -> Sequence[Done]:
        """Do for each of some commits what ``commit`` does."""
        ...


async def serve_keeper(
    keeper: ServedKeeper,
    path: Path,
    *,
    failpoint: Failpoint = no_failpoint,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve workers until cancelled; started when the socket (mode 0600) takes connections.

    Args:
        keeper: The keeper of this process.
        path: Where the socket is made; one left behind is replaced.
        failpoint: For tests.

    Raises:
        StoreError: The socket cannot be made.
    """
    listener = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                connection = await accepted(listener)
                if peer_uid(connection) != os.geteuid():
                    connection.close()
                    continue
                nursery.start_soon(_serve, keeper, trio.SocketStream(connection), failpoint)
    finally:
        listener.close()
        _remove(path)


def _listen(path: Path) -> trio.socket.SocketType:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        with address_of(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise StoreError(f"{path}: the keeper's socket cannot be made ({error})") from None
    return trio.socket.from_stdlib_socket(listener)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def peer_uid(connection: trio.socket.SocketType) -> int:
    """Return the user id of the process at the other end of a Unix socket."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])


async def _serve(keeper: ServedKeeper, stream: trio.SocketStream, failpoint: Failpoint) -> None:
    """Serve one worker, and outlive its lease."""
    worker = _Worker(keeper, Outbox(stream), failpoint)
    end = keeper.attend(worker.tell)
    try:
        async with stream:
            await worker.converse(stream)
    finally:
        worker.gone.set()
        try:
            await trio.sleep_until(worker.until)
        finally:
            end()


@final
class _Worker:
    """One worker's connection: its lease, what it has heard, what it asks."""

    def __init__(self, keeper: ServedKeeper, outbox: Outbox, failpoint: Failpoint) -> None:
        self._keeper = keeper
        self._failpoint = failpoint
        self._outbox = outbox
        self.until = trio.current_time()
        self.gone = trio.Event()
        self._told = 0
        self._heard = 0
        self._hearing = trio.Event()
        self._questions = 0
        self._writes: list[Write] = []
        """What came in the octets just received: put to the keeper together, by one task."""
        self._greeted = False

    async def tell(self, changed: Sequence[Invalidation]) -> None:
        """Tell the worker what changed; return when it has heard or its lease is over."""
        deadline = self.until
        self._told += 1
        number = self._told
        if not self.gone.is_set():
            with suppress(trio.BrokenResourceError):
                self._outbox.say(Changed(number, tuple(changed)))
        with trio.move_on_at(deadline):
            while self._heard < number and self.until:
                await self._hearing.wait()

    async def converse(self, stream: trio.SocketStream) -> None:
        """Take the worker's messages until it goes; whatever it does wrong ends it only."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbox.run)
                await self._listen(stream, nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, FrameError):
            pass
        except* (msgspec.MsgspecError, UnicodeError, RecursionError):
            pass

    async def _listen(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        frames = Frames()
        while data := await stream.receive_some(_CHUNK):
            for body in frames.receive(data):
                for message in from_worker.decode(body):
                    if not self._take(message, nursery):
                        return
            if self._writes:
                nursery.start_soon(self._commit, self._writes)
                self._writes = []

    def _take(self, message: FromWorker, nursery: trio.Nursery) -> bool:
        """Act on one message; False if it was the last."""
        if not self._greeted and not isinstance(message, Hello):
            raise FrameError("the first message was not Hello")
        match message:
            case Hello():
                self._greeted = message.protocol == PROTOCOL
            case Write():
                if self._is_sound(message) and self._admitted(message.number):
                    self._writes.append(message)
            case Ask():
                if self._admitted(message.number):
                    nursery.start_soon(self._answer, message)
            case Renew():
                self.until = trio.current_time() + LEASE_S
                self._outbox.say(Lease(message.number))
            case Heard():
                self._hear(message.number)
            case Bye():
                self.until = 0.0
                self._hear(self._told)
                return False
        return self._greeted

    def _hear(self, number: int) -> None:
        self._heard = max(self._heard, number)
        self._hearing.set()
        self._hearing = trio.Event()

    def _is_sound(self, write: Write) -> bool:
        try:
            check_work(write.work)
        except (ValueError, KeyError) as error:
            self._outbox.say(Told(write.number, _bug(error)))
            return False
        return True

    def _admitted(self, number: int) -> bool:
        if self._questions >= _QUESTIONS:
            fault = unavailable("keeper.queue", "a worker asks too much at once")
            self._outbox.say(Told(number, Refused(fault)))
            return False
        self._questions += 1
        return True

    async def _commit(self, writes: Sequence[Write]) -> None:
        self._failpoint(Point.AFTER_ASKED)
        replies: Sequence[Reply]
        try:
            done = await self._keeper.commit_all([write.work for write in writes])
            replies = [_reply(one) for one in done]
        except Exception as error:  # noqa: BLE001 - as in ``_answer``
            replies = [_bug(error)] * len(writes)
        finally:
            self._questions -= len(writes)
        self._failpoint(Point.BEFORE_TOLD)
        self._outbox.say_all(
            [Told(write.number, reply) for write, reply in zip(writes, replies, strict=True)]
        )

    async def _answer(self, message: Ask) -> None:
        self._failpoint(Point.AFTER_ASKED)
        try:
            reply = await answer(self._keeper, message.question)
        except Exception as error:  # noqa: BLE001 - a bug is the asking worker's to raise, not the keeper's to die of
            reply = _bug(error)
        finally:
            self._questions -= 1
        self._failpoint(Point.BEFORE_TOLD)
        self._outbox.say(Told(message.number, reply))


def _bug(error: Exception) -> Bug:
    return Bug(f"{type(error).__name__}: {error}")


def _reply(done: Done) -> Reply:
    if isinstance(done, Conflict):
        return Lost(done)
    if isinstance(done, Failed):
        return _bug(done.error)
    return Refused(done) if isinstance(done, Fault) else Indices(cast("tuple[int, ...]", done))


async def answer(keeper: Keeper, question: Question) -> Reply:
    """Put a worker's question to the keeper.

    Cancellation: as the keeper's.
    """
    match question:
        case AskClaim():
            granted = await keeper.claim(question.batch)
            return Refused(granted) if isinstance(granted, Fault) else Answered(granted)
        case AskLookup():
            found = await keeper.lookup(KINDS[question.kind], question.key)
            return Found(None if found is None else Versioned(*found))
        case AskSearch():
            return Matches(await keeper.search(question.query))
        case AskEvents():
            return Leaves(await keeper.events(question.start, question.limit))
        case AskTrace():
            return Traced(await keeper.trace(question.interaction_id))
        case AskHead():
            return Head(await keeper.head())
