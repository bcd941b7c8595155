"""The keeper as a worker sees it: the same protocol over a Unix socket, with a lease on what it has cached.

Theory. See ``socket``. ``fresh`` is true while the lease runs; whoever answers from a cache asks it first, and a worker
answers 503 while it is false. When the connection is lost, every watcher is told to forget everything, what was asked
is answered with a Fault ("unknown": a write may have happened) or raises for reads, and the worker connects again
until it is cancelled.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, cast, final

import msgspec
import trio

from hub.model.event import Event
from hub.model.failpoint import Failpoint, Point, no_failpoint
from hub.model.fault import Fault
from hub.model.http import UnavailableError
from hub.model.records import Record
from hub.state.address import address_of
from hub.state.entry import KINDS, check_commit, check_query, kind_of, leaf_of, unavailable
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
    FromKeeper,
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
    frame_of,
    from_keeper,
)
from hub.state.keeper import (
    Change,
    Claim,
    Conflict,
    Granted,
    Invalidation,
    Page,
    Query,
    TreeHead,
)
from hub.state.outbox import Outbox
from hub.state.patience import Patience, Waiting
from hub.state.plan import steps_of
from hub.state.schema import StoreError
from hub.state.socket import LEASE_S, RENEW_S, peer_uid
from hub.state.work import Commit

R = TypeVar("R", bound=Record)
A = TypeVar("A")

_AGAIN_S: Final = 0.1
_CHUNK: Final = 262_144
_GONE: Final = unavailable(
    "keeper.connection", "the keeper is out of reach; what was asked may have happened"
)


class KeeperGoneError(UnavailableError):
    """Say that the keeper could not be asked; the worker answers 503."""


@final
class RemoteKeeper:
    """Ask the keeper of another process. Made by ``connect_keeper``."""

    def __init__(
        self,
        path: Path,
        *,
        questions: int,
        patience_s: float,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        """Prepare; ``run`` connects.

        Args:
            path: The keeper's socket.
            questions: The most questions under way at once.
            patience_s: How long a question waits for its answer, seconds.
            failpoint: For tests.
        """
        self._path = path
        self._most = questions
        self._patience: Patience[Reply] = Patience(patience_s, lambda: Refused(_GONE))
        self._failpoint = failpoint
        self._outbox: Outbox | None = None
        self._asked: dict[int, Waiting[Reply]] = {}
        self._number = 0
        self._until = 0.0
        self._sent: dict[int, float] = {}
        self._watchers: list[Callable[[Invalidation], None]] = []
        self.leased = trio.Event()
        """Set when the first lease has come."""

    def fresh(self) -> bool:
        """Tell whether the lease runs: whether what was cached may be used now."""
        return trio.current_time() < self._until

    # The protocol

    async def claim(self, batch: Sequence[Claim]) -> tuple[Granted, ...] | Fault:
        """Answer each claim of a batch, in order; durable on return. See ``Keeper``."""
        reply = await self._ask(AskClaim(tuple(batch)))
        return reply.fault if isinstance(reply, Refused) else _of(reply, Answered).granted

    async def commit(
        self, changes: Sequence[Change], events: Sequence[Event]
    ) -> tuple[int, ...] | Conflict | Fault:
        """Write all changes and events, or none; return the events' indices when durable. See ``Keeper``."""
        check_commit(changes, events)
        work = Commit(steps_of(changes), [leaf_of(event) for event in events])
        reply = await self._ask(work)
        if isinstance(reply, Refused):
            return reply.fault
        return reply.conflict if isinstance(reply, Lost) else _of(reply, Indices).indices

    async def lookup(self, kind: type[R], key: str) -> tuple[R, int] | None:
        """Return a record with its version, or None.

        Raises:
            KeeperGoneError: The keeper could not be asked.
        """
        item = _of(await self._ask(AskLookup(kind_of(kind), key)), Found).item
        return None if item is None else (cast("R", item.record), item.version)

    async def search(self, query: Query) -> Page:
        """Return the records that match.

        Raises:
            ValueError: The question cannot be asked.
            KeeperGoneError: The keeper could not be asked.
        """
        check_query(query)
        return _of(await self._ask(AskSearch(query)), Matches).page

    async def events(self, start: int, limit: int) -> tuple[bytes, ...]:
        """Return the leaf bytes of up to ``limit`` events from index ``start`` on.

        Raises:
            KeeperGoneError: The keeper could not be asked.
        """
        return _of(await self._ask(AskEvents(start, limit)), Leaves).leaves

    async def trace(self, interaction_id: str) -> tuple[tuple[int, bytes], ...]:
        """Return index and leaf bytes of the events of one interaction.

        Raises:
            KeeperGoneError: The keeper could not be asked.
        """
        return _of(await self._ask(AskTrace(interaction_id)), Traced).events

    async def head(self) -> TreeHead:
        """Return the tree head as last committed.

        Raises:
            KeeperGoneError: The keeper could not be asked.
        """
        return _of(await self._ask(AskHead()), Head).head

    def watch(self, forget: Callable[[Invalidation], None]) -> Callable[[], None]:
        """Call ``forget`` for each changed record before the change is acknowledged; return what ends it."""
        self._watchers.append(forget)

        def end() -> None:
            with suppress(ValueError):
                self._watchers.remove(forget)

        return end

    async def _ask(self, question: Question | Commit) -> Reply:
        if self._outbox is None or len(self._asked) >= self._most:
            await trio.lowlevel.checkpoint()
            return Refused(_GONE)
        self._number += 1
        number, waiting = self._number, Waiting[Reply]()
        self._asked[number] = waiting
        self._failpoint(Point.BEFORE_ASK)
        try:
            if isinstance(question, Commit):
                self._outbox.say(Write(number, question))
            else:
                self._outbox.say(Ask(number, question))
            self._patience.begin(waiting)
            reply = await waiting.wait()
        except trio.BrokenResourceError:
            return Refused(_GONE)
        finally:
            self._asked.pop(number, None)
        self._failpoint(Point.AFTER_TOLD)
        return reply

    # The connection

    async def run(self) -> None:
        """Connect, and connect again when the keeper was lost, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._patience.run)
            while True:
                with suppress(OSError):
                    await self._connect()
                await trio.sleep(_AGAIN_S)

    async def _connect(self) -> None:
        with address_of(self._path) as address:
            stream = await trio.open_unix_socket(address)
        async with stream:
            if peer_uid(stream.socket) != os.geteuid():
                raise StoreError(f"{self._path}: the keeper runs as another user")
            try:
                await self._converse(stream)
            except* (trio.BrokenResourceError, trio.ClosedResourceError, FrameError):
                pass
            except* (msgspec.MsgspecError, UnicodeError, RecursionError):
                pass
            finally:
                self._lose()
                with trio.move_on_after(_AGAIN_S, shield=True):
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await stream.send_all(frame_of([Bye()]))

    async def _converse(self, stream: trio.SocketStream) -> None:
        outbox = Outbox(stream)
        outbox.say(Hello(PROTOCOL))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            nursery.start_soon(self._renew, outbox)
            self._outbox = outbox
            await self._listen(stream, outbox)
            nursery.cancel_scope.cancel()

    async def _renew(self, outbox: Outbox) -> None:
        while True:
            self._number += 1
            self._sent[self._number] = trio.current_time()
            outbox.say(Renew(self._number))
            await trio.sleep(RENEW_S)

    async def _listen(self, stream: trio.SocketStream, outbox: Outbox) -> None:
        frames = Frames()
        while data := await stream.receive_some(_CHUNK):
            for body in frames.receive(data):
                for message in from_keeper.decode(body):
                    self._take(message, outbox)
            self._patience.forget_done()

    def _take(self, message: FromKeeper, outbox: Outbox) -> None:
        match message:
            case Told():
                if (waiting := self._asked.get(message.number)) is not None:
                    waiting.finish(message.reply)
            case Changed():
                self._forget(message.records)
                outbox.say(Heard(message.number))
            case Lease():
                self._until = self._sent.get(message.number, 0.0) + LEASE_S
                self._sent = {n: at for n, at in self._sent.items() if n > message.number}
                self.leased.set()

    def _forget(self, records: Sequence[Invalidation]) -> None:
        for forget in list(self._watchers):
            for record in records:
                forget(record)

    def _lose(self) -> None:
        """Give up the lease, forget everything, and answer what was asked."""
        self._outbox = None
        self._until = 0.0
        self._sent = {}
        self._forget([Invalidation(kind, "") for kind in KINDS])
        for waiting in self._asked.values():
            waiting.finish(Refused(_GONE))


def _of(reply: Reply, kind: type[A]) -> A:
    if isinstance(reply, kind):
        return reply
    if isinstance(reply, Refused):
        raise KeeperGoneError(reply.fault.private)
    text = reply.text if isinstance(reply, Bug) else f"nothing like {kind.__name__}"
    raise RuntimeError(f"the keeper raised or replied: {text}")


@asynccontextmanager
async def connect_keeper(
    path: Path,
    *,
    questions: int = 4096,
    patience_s: float = 6.0,
    connect_s: float = 5.0,
    failpoint: Failpoint = no_failpoint,
) -> AsyncIterator[RemoteKeeper]:
    """Connect to the keeper behind a socket; yields once there is a lease.

    Args:
        path: The keeper's socket.
        questions: The most questions under way at once.
        patience_s: How long a question waits for its answer; longer than the keeper's own patience, seconds.
        connect_s: How long the first lease may take, seconds.
        failpoint: For tests.

    Raises:
        StoreError: There is no keeper, or it is another user's.
    """
    keeper = RemoteKeeper(path, questions=questions, patience_s=patience_s, failpoint=failpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        with trio.move_on_after(connect_s):
            await keeper.leased.wait()
        if not keeper.leased.is_set():
            raise StoreError(f"{path}: no keeper answers there")
        yield keeper
        nursery.cancel_scope.cancel()
