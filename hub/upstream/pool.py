"""Connections to one host: slots that bound how many are busy, and a stack of those that wait to be used again.

Invariants: busy connections never exceed ``most``; as many as that again may queue up to ``waiting`` exchanges, the next
is refused at once. An idle connection is lent only if it is young enough, was used recently enough, belongs to the
present TLS context, and nothing came from it while it was idle. The most recently used one is lent first.
"""

import ssl
from typing import final

import trio

from hub.upstream.tls import TlsConnection, open_connection


@final
class Slot:
    """Hold one slot of the pool; it is given back exactly once, by its exchange or by the stream that kept it."""

    __slots__ = ("_pool",)

    def __init__(self, pool: "Pool") -> None:
        """Hold a slot that the pool has counted."""
        self._pool: Pool | None = pool

    def keep(self) -> "Slot":
        """Return a slot that takes this one's place."""
        pool, self._pool = self._pool, None
        return Slot(pool) if pool is not None else self

    def give_back(self) -> None:
        """Give it back, if that was not done."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.release()


class Pool:
    """Lend connections, one exchange at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        most: int,
        waiting: int,
        age: float,
        idle: float,
        connect: float,
    ) -> None:
        """Start empty.

        Args:
            host: Server name.
            port: TCP port.
            context: For new connections.
            most: Connections busy at once.
            waiting: Exchanges that may queue beside ``most``; the more a shared connection takes, the fewer.
            age: Longest life of a connection, seconds.
            idle: Longest rest, seconds.
            connect: Longest wait for a new connection, seconds.
        """
        self.host = host
        self.port = port
        self._context = context
        self.most = most
        """Exchanges at once; more where connections are shared."""
        self._resting_most = most
        self._waiting = waiting
        self._age = age
        self._rest = idle
        self._connect = connect
        self._idle: list[TlsConnection] = []
        self._born_before = 0.0
        self._queue = trio.lowlevel.ParkingLot()
        self.busy = 0

    @property
    def idle(self) -> int:
        """Return how many connections wait to be used."""
        return len(self._idle)

    @property
    def queued(self) -> bool:
        """Tell whether anybody waits for a slot."""
        return bool(self._queue)

    def take(self) -> "Slot | None":
        """Return a slot, or None if all are taken."""
        if self.busy >= self.most:
            return None
        self.busy += 1
        return Slot(self)

    async def acquire(self) -> "Slot | None":
        """Return a slot, waiting if need be; None if too many wait already.

        Cancellation: no slot is taken.
        """
        slot = self.take()
        if slot is not None:
            return slot
        if self.busy + len(self._queue) >= self._resting_most + self._waiting:
            return None
        await self._queue.park()
        return Slot(self)

    def release(self) -> None:
        """Take a slot back: for the longest waiting exchange, if there is one."""
        if self._queue and self.busy <= self.most:
            self._queue.unpark()
        else:
            self.busy -= 1

    def allow(self, most: int) -> None:
        """Let so many exchanges be busy at once; who waits already gets what is free before any other."""
        self.most = most
        while self._queue and self.busy < most:
            self.busy += 1
            self._queue.unpark()

    def reuse(self) -> TlsConnection | None:
        """Return an idle connection that is still good, or None."""
        now = trio.current_time()
        while self._idle:
            connection = self._idle.pop()
            if self._good(connection, now) and connection.poll() is None:
                return connection
            connection.close()
        return None

    async def fresh(self, context: ssl.SSLContext | None = None) -> TlsConnection:
        """Open a new connection, by another context than the pool's if one is given.

        Raises:
            OSError: Not reachable.
            ssl.SSLError: Not who it should be.
            trio.TooSlowError: Not within ``connect`` seconds.

        Cancellation: nothing stays open.
        """
        began = trio.current_time()
        with trio.fail_after(self._connect):
            connection = await open_connection(self.host, self.port, context or self._context)
        connection.opened = began  # what is renewed meanwhile does not hold for it
        return connection

    def rest(self, connection: TlsConnection) -> None:
        """Keep a connection for the next exchange, if it is worth it."""
        connection.used = trio.current_time()
        if self._good(connection, connection.used) and len(self._idle) < self._resting_most:
            self._idle.append(connection)
        else:
            connection.close()

    def reap(self) -> None:
        """Close what has rested too long, grown too old or was closed by its peer."""
        now = trio.current_time()
        kept = []
        for connection in self._idle:
            if self._good(connection, now) and connection.poll() is None:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept

    def renew(self, context: ssl.SSLContext) -> None:
        """Use another TLS context from now on; connections of the old one end with their present exchange."""
        self._context = context
        self._born_before = trio.current_time()
        self.reap()

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _good(self, connection: TlsConnection, now: float) -> bool:
        return (
            connection.opened >= self._born_before
            and now - connection.opened < self._age
            and now - connection.used < self._rest
        )
