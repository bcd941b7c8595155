"""One HTTP/2 connection that many exchanges use at once, without a task of its own.

Theory. Whoever waits for an answer may have to work for all: one of those who wait reads (the reader), one at a time sends
what a full socket held back (the drainer), the others park and are woken directly when their answer is ready. Whoever
leaves hands its work to another one that waits, the newest, which will probably wait longest. So a cancelled exchange
harms no other, and with one exchange in flight nothing is handed about.

What several tasks write in one pass of the scheduler leaves as one TLS record run and one system call: the first of them
lets the others of the pass go first, then sends for all. A connection that carries nothing else is written to at once.

Deadlines cost no cancel scope each: the reader's one wait ends at ``_limit``, which is no later than the deadline of anybody
who parks without a scope of its own; it then wakes whose time has come. Deadlines mostly come in order, so a newcomer
that would have to shorten that wait (and takes a scope instead) is rare.

Invariants. While somebody is parked, there is a reader, or one that was parked (``_heir``) was just woken and will be. While octets are held
back, the same holds for the drainer; where only the reader is left, it drains first. ``client`` never has output that nobody
will send.
"""

import math
import ssl
from collections.abc import Callable
from typing import Final, Protocol, final

import trio

from hub.protocol.h2_answer import Answer
from hub.protocol.h2_client import H2Client
from hub.upstream.tls import TlsConnection

BROKEN: Final = (OSError, ssl.SSLError, trio.ClosedResourceError, trio.BusyResourceError)


class Line(Protocol):
    """Carry octets to one peer without waiting where that is possible; ``tls.TlsConnection`` does."""

    @property
    def unsent(self) -> bool:
        """Tell whether octets are held back."""
        ...

    def push(self, data: bytes) -> None:
        """Send as much as goes without waiting, and hold back the rest."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all, after what is held back.

        Cancellation: a part may have been sent, the rest is held back.
        """
        ...

    async def receive(self) -> bytes:
        """Wait for octets; nothing at the end.

        Cancellation: nothing is lost.
        """
        ...

    def poll(self) -> bytes | None:
        """Return what came meanwhile, None for nothing, no octets at the end."""
        ...

    def close(self) -> None:
        """End the connection at once."""
        ...


@final
class Shared:
    """Carry the exchanges of one connection."""

    __slots__ = (
        "_draining", "_heir", "_limit", "_parked", "_reading", "_tls", "_turn", "_writing", "client", "finished",
        "heard", "opened", "used",
    )  # fmt: skip

    def __init__(self, tls: TlsConnection | Line, client: H2Client) -> None:
        """Take a connection after its handshake (its class is named so that calls of it are direct where both are compiled)."""
        self._tls = tls
        self.client = client
        self._parked: dict[Answer, tuple[trio.lowlevel.Task, float]] = {}
        self._reading = self._draining = self._writing = False
        self._heir: Answer | None = None
        self._limit = 0.0
        self._turn = trio.move_on_at(0.0)
        self.opened = self.used = self.heard = trio.current_time()
        self.finished = 0

    def usable(self, now: float, age: float, rest: float) -> bool:
        """Tell whether one more exchange may begin; a connection that rested is looked at first."""
        client = self.client
        if not client.room or now - self.opened >= age:
            return False
        if client.open:
            return True
        if now - self.used >= rest:
            return False
        self._look(now)
        return client.room

    def _look(self, now: float) -> None:
        """Take what came while nobody read: the server may have said farewell."""
        if self._reading:
            return
        data = self._tls.poll()
        while data and not self.client.problem:
            self.client.receive(data, now)
            data = self._tls.poll()
        if data is not None:
            self.close()
        else:
            self.nudge()

    def push(self) -> None:
        """Send what goes without waiting; the rest is for the drainer."""
        tls = self._tls
        try:
            if tls.unsent:
                tls.push(b"")
            if not tls.unsent:
                tls.push(self.client.take())
        except BROKEN:
            self.close()

    def nudge(self) -> None:
        """Send what was written, if nobody is about to."""
        if self.client.has_output and not self._writing:
            self.push()
            if self._tls.unsent:
                self._hand_over()

    async def send(self) -> None:
        """Send what was written, together with what other tasks write in this pass.

        Cancellation: none; it never waits for the server.
        """
        if self._writing:
            return
        if self.client.open > 1:
            self._writing = True
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._writing = False
        self.push()

    async def until(self, answer: Answer, holds: Callable[[], bool], deadline: float) -> bool:
        """Wait until something holds that frames may make true, or the deadline; tell whether it holds.

        Args:
            answer: Whose frames; it is ``touched`` when they come. Only one task waits for it.
            holds: Looked at after each of them.
            deadline: By trio's clock.

        Cancellation: nothing is lost; another one reads on.
        """
        try:
            while not holds():
                if self._tls.unsent and not self._draining:
                    await self._drain(holds, deadline)
                elif not self._reading:
                    await self._read(holds, deadline)
                elif deadline >= self._limit:
                    await trio.lowlevel.wait_task_rescheduled(self._parking(answer, deadline))
                else:
                    with trio.move_on_at(deadline):
                        await trio.lowlevel.wait_task_rescheduled(self._parking(answer, deadline))
                if self._heir is answer:
                    self._heir = None
                if not holds() and trio.current_time() >= deadline:
                    return False
        finally:
            if self._parked or self._tls.unsent:
                self._hand_over()
        return True

    def _parking(self, answer: Answer, deadline: float) -> Callable[[object], trio.lowlevel.Abort]:
        """Note that the present task waits, from now on; return what takes that back."""
        parked = self._parked
        parked[answer] = (trio.lowlevel.current_task(), deadline)

        def abort(_: object) -> trio.lowlevel.Abort:
            parked.pop(answer, None)
            return trio.lowlevel.Abort.SUCCEEDED

        return abort

    async def _read(self, holds: Callable[[], bool], deadline: float) -> None:
        """Read for all until our own wait is over, or octets are held back that nobody sends."""
        self._reading = True
        try:
            if deadline < self._limit:
                self._limit = deadline
            elif self._limit <= trio.current_time():
                self._limit = self._soonest(deadline)
            self._hand_over()
            while not holds() and (self._draining or not self._tls.unsent):
                with trio.move_on_at(self._limit) as self._turn:
                    await self._receive()
                if self._turn.cancelled_caught and not self._expire(deadline):
                    return
        finally:
            self._reading = False

    async def _receive(self) -> None:
        client = self.client
        try:
            data = await self._tls.receive()
            if data:
                self.heard = trio.current_time()
                client.receive(data, self.heard)
            else:
                client.end_of_connection()
        except BROKEN:
            client.end_of_connection()
        self.nudge()
        self._wake_touched()

    def _expire(self, deadline: float) -> bool:
        """Wake whose deadline has passed; tell whether ours has not, and until when to read on."""
        now = trio.current_time()
        for answer in [a for a, (_, until) in self._parked.items() if until <= now]:
            trio.lowlevel.reschedule(self._parked.pop(answer)[0])
        self._limit = self._soonest(deadline)
        return deadline > now

    def _soonest(self, deadline: float) -> float:
        return min([deadline, *[until for _, until in self._parked.values()]])

    async def _drain(self, holds: Callable[[], bool], deadline: float) -> None:
        """Send what a full socket held back; read as well if nobody else does: the bank may answer before it takes it."""
        self._draining = True
        try:
            self._hand_over()
            with trio.move_on_at(deadline):
                if self._reading or self._heir is not None:
                    await self._send_held()
                else:
                    await self._send_and_read(holds)
        finally:
            self._draining = False

    async def _send_held(self) -> None:
        try:
            while self._tls.unsent or self.client.has_output:
                await self._tls.send(b"")
                self.push()
        except BROKEN:
            self.close()

    async def _send_and_read(self, holds: Callable[[], bool]) -> None:
        """Do both until all is sent or our own wait is over; who parks meanwhile keeps its deadline itself."""
        self._reading, self._limit = True, math.inf
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_beside, holds, nursery.cancel_scope.cancel)
                await self._send_held()
                nursery.cancel_scope.cancel()
        finally:
            self._reading = False

    async def _read_beside(self, holds: Callable[[], bool], stop: Callable[[], None]) -> None:
        while not holds():
            await self._receive()
        stop()

    def _wake_touched(self) -> None:
        touched, parked = self.client.touched, self._parked
        if touched:
            self.client.touched = []
            for answer in touched:
                found = parked.pop(answer, None)
                if found is not None:
                    trio.lowlevel.reschedule(found[0])

    def _hand_over(self) -> None:
        """Wake another one that waits if there is work that nobody does; the reader, if only it is left to send."""
        held = self._tls.unsent and not self._draining
        if self._heir is not None or (self._reading and not held):
            return
        if self._parked:
            self._heir, (task, _) = self._parked.popitem()
            trio.lowlevel.reschedule(task)
        elif held and self._reading:
            self._turn.cancel()

    def close(self) -> None:
        """End the connection at once; whoever waits on it is told."""
        self.client.end_of_connection()
        self._tls.close()
        self._wake_touched()
