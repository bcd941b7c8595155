"""A listener: accept within limits, shake hands, serve connections, drain.

Admission limits stand before any work: connections in total and per address, handshakes at once. A refusal is noted
with its reason; a flood of refusals becomes one line per reason and second, with a count. Draining: the socket closes
first, every connection is told (GOAWAY for streams yet to come), a moment later the last stream is named, then the
rest has ``drain_s`` to finish.
"""

import errno
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network
from typing import Final, Protocol, final

import trio

from hub.config import Limits
from hub.edge.connection import Connection
from hub.edge.desk import Desk, Register, Told, contained
from hub.edge.tls import ServerTls, refusal_reason
from hub.edge.transport import PlainTransport, TlsTransport, Transport
from hub.model.caller import Peer
from hub.model.clock import Clock
from hub.model.fault import Fault
from hub.model.http import App
from hub.model.terms import Face
from hub.protocol.h1 import H1Engine
from hub.protocol.h2 import H2Engine
from hub.protocol.message import Bounds, Engine
from hub.protocol.peer import read_peer
from hub.state.accepting import BREATH_S, EXHAUSTED

_BACKLOG: Final = 1024
_BATCH: Final = 64
_ROUND_TRIP_S: Final = 0.5
"""Between the two stages of a drain: more than a round trip within a country."""
_MAPPED: Final = "::ffff:"
_ENGINES: Final = ("lean", "package")


class Place(Protocol):
    """Say where to listen (``config.Listen`` and ``config.Lfi`` are such)."""

    @property
    def bind(self) -> str:
        """The address."""
        ...

    @property
    def port(self) -> int:
        """The port; 0 for any."""
        ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """The authorities to answer to; empty for any."""
        ...


@final
class Drain:
    """Tell a listener to end; kept by whoever started it."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        """Not yet."""
        self._started = trio.Event()

    def start(self) -> None:
        """Begin draining; repeating it does nothing."""
        self._started.set()

    @property
    def started(self) -> bool:
        """Tell whether draining has begun (``/readyz`` says no from then on)."""
        return self._started.is_set()

    async def wait(self) -> None:
        """Wait until draining begins. Cancellation: nothing happens."""
        await self._started.wait()


@final
class Renewal:
    """Give a running listener another application and other limits; kept by whoever started it."""

    __slots__ = ("_take",)

    def __init__(self) -> None:
        """No listener yet."""
        self._take: Callable[[App, Limits, tuple[str, ...]], None] | None = None

    def attach(self, take: Callable[[App, Limits, tuple[str, ...]], None]) -> None:
        """Remember who is to be told."""
        self._take = take

    def renew(self, app: App, limits: Limits, hosts: tuple[str, ...]) -> None:
        """Let the listener answer by ``app`` within ``limits``, for ``hosts``, from the next request on.

        Connections stay. Limits of the HTTP engines hold for connections to come.
        """
        if self._take is not None:
            self._take(app, limits, hosts)


def bind(place: Place, *, reuse_port: bool = False, ready: bool = True) -> socket.socket:
    """Return a non-blocking socket; it listens if it is ``ready``, else whoever serves it makes it listen.

    Raises:
        OSError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in place.bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((place.bind, place.port))
        if ready:
            listening.listen(_BACKLOG)
        listening.setblocking(False)  # noqa: FBT003
    except OSError:
        listening.close()
        raise
    return listening


async def serve(
    *,
    listen: Place,
    face: Face,
    app: App,
    limits: Limits,
    observer: Told,
    tls: ServerTls | None,
    engine: str = "lean",
    reuse_port: bool = False,
    listening: socket.socket | None = None,
    clock: Clock | None = None,
    drain: Drain | None = None,
    renewal: Renewal | None = None,
    register: Register | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a face until its drain is over.

    Args:
        listen: Where; ``task_status.started`` gets the bound port.
        face: Put into each Request.
        app: Answers.
        limits: All bounds.
        observer: Told of each answer, and of each refusal.
        tls: None: plain text, HTTP/1.1 only (loopback, ops).
        engine: The HTTP/2 engine: ``lean`` or ``package``.
        reuse_port: Several processes accept on one port.
        listening: A bound socket to accept from instead of a new one; it is closed at the end.
        clock: For the Date field; none is sent without.
        drain: Starts the graceful end; without one the listener ends by cancellation.
        renewal: Changes the application and the limits while it runs.
        register: Told of every refusal that is the edge's own.

    Raises:
        OSError: the port cannot be bound.
        ValueError: no such engine.

    Cancellation: connections are closed at once.
    """
    if engine not in _ENGINES:
        raise ValueError(f"no such HTTP/2 engine: {engine}")
    if listening is None:
        listening = bind(listen, reuse_port=reuse_port)
    else:
        listening.listen(_BACKLOG)
    desk = Desk(
        face=face,
        app=app,
        limits=limits,
        observer=observer,
        clock=clock,
        hosts=listen.hosts,
        register=register,
    )
    listener = _Listener(desk, tls, engine)
    if renewal is not None:
        renewal.attach(listener.renew)
    try:
        task_status.started(listening.getsockname()[1])
        await listener.run(listening, drain or Drain())
    finally:
        listening.close()


@final
class _Listener:
    __slots__ = ("_addresses", "_bounds", "_connections", "_desk", "_empty", "_leaving", "_make", "_quiet", "_shaking", "_tls", "_total", "_turns")  # fmt: skip

    def __init__(self, desk: Desk, tls: ServerTls | None, engine: str) -> None:
        limits = desk.limits
        self._desk = desk
        self._tls = tls
        self._make = _maker(engine)
        self._total = 0
        self._leaving = False
        self._addresses: dict[str, int] = {}
        self._connections: set[Connection] = set()
        self._turns = trio.Semaphore(limits.handshakes)
        self._shaking: dict[str, int] = {}
        self._empty = trio.Event()
        self._quiet: dict[str, tuple[float, int]] = {}
        self._bounds = _bounds(limits)

    def renew(self, app: App, limits: Limits, hosts: tuple[str, ...]) -> None:
        if limits.handshakes != self._desk.limits.handshakes:
            self._turns = trio.Semaphore(limits.handshakes)  # those under way keep the old one
        self._desk.renew(app, limits, hosts)
        self._bounds = _bounds(limits)

    async def run(self, listening: socket.socket, drain: Drain) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._desk.times.run)
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, listening, nursery)
                await drain.wait()
                accepting.cancel_scope.cancel()
            for _ in range(_BACKLOG // _BATCH + 1):  # those the kernel has connected already
                self._accept_waiting(listening, nursery)
            listening.close()
            with trio.move_on_after(self._desk.limits.drain_s) as grace:
                await self._end()
            if grace.cancelled_caught:
                self._desk.observer.note("drain_cut", face=self._desk.face, open=self._total)
            nursery.cancel_scope.cancel()

    async def _end(self) -> None:
        """Tell every connection, also those still shaking hands; the second stage a round trip later."""
        self._leaving = True
        for connection in tuple(self._connections):
            connection.drain()
        while self._total:
            with trio.move_on_after(_ROUND_TRIP_S):
                await self._none_left()
            for connection in tuple(self._connections):
                connection.drain_now()

    async def _none_left(self) -> None:
        if self._total:
            self._empty = trio.Event()
            await self._empty.wait()

    async def _accept(self, listening: socket.socket, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            if self._accept_waiting(listening, nursery):
                await trio.sleep(BREATH_S)
            await trio.lowlevel.checkpoint()

    def _accept_waiting(self, listening: socket.socket, nursery: trio.Nursery) -> bool:
        """Accept what waits, a batch at most; tell whether the machine has run out of something."""
        try:
            for _ in range(_BATCH):
                connected, origin = listening.accept()
                self._admit(connected, caller_of(origin[0]), nursery)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._refuse("accept_failed", errno.errorcode[error.errno], "")
                return True
        return False

    def _admit(self, connected: socket.socket, address: str, nursery: trio.Nursery) -> None:
        limits, counted = self._desk.limits, counted_as(address)
        mine = self._addresses.get(counted, 0)
        reason = ""
        if self._total >= limits.connections:
            reason = "connections"
        elif mine >= limits.connections_per_address:
            reason = "connections_per_address"
        elif self._shaking.get(counted, 0) >= limits.handshakes_per_address:
            reason = "handshakes_per_address"
        if reason:
            connected.close()
            self._refuse("connection_refused", reason, address)
            return
        connected.setblocking(False)  # noqa: FBT003
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._total += 1
        self._addresses[counted] = mine + 1
        if self._tls is not None:
            self._shaking[counted] = self._shaking.get(counted, 0) + 1
        nursery.start_soon(self._connection, connected, address)

    async def _connection(self, connected: socket.socket, address: str) -> None:
        try:
            with contained(self._desk.observer, "connection_failed"):
                if self._tls is None:
                    await self._serve(PlainTransport(connected), Peer(address=address), "http/1.1")
                else:
                    await self._serve_tls(connected, self._tls.context, address)
        finally:
            trio.lowlevel.notify_closing(connected)
            connected.close()
            self._leave(counted_as(address))

    async def _serve_tls(
        self, connected: socket.socket, context: ssl.SSLContext, address: str
    ) -> None:
        try:
            transport = TlsTransport(connected, context)
            peer = await self._shake(transport, address)
        finally:
            self._shaken(counted_as(address))
        if peer is not None:
            await self._serve(transport, peer, transport.protocol)

    def _shaken(self, counted: str) -> None:
        left = self._shaking[counted] - 1
        if left:
            self._shaking[counted] = left
        else:
            del self._shaking[counted]

    def _leave(self, counted: str) -> None:
        self._total -= 1
        left = self._addresses[counted] - 1
        if left:
            self._addresses[counted] = left
        else:
            del self._addresses[counted]
        if not self._total:
            self._empty.set()

    async def _shake(self, transport: TlsTransport, address: str) -> Peer | None:
        """Do the handshake and read the peer; None (noted) when it is refused."""
        try:
            with trio.fail_after(self._desk.limits.handshake_s):
                await transport.hello()
                await transport.handshake(self._turns)
        except (trio.TooSlowError, EOFError, OSError, ssl.SSLError) as error:
            slow = isinstance(error, trio.TooSlowError)
            reason = "handshake_s" if slow else refusal_reason(error)
            self._refuse("handshake_refused", reason, address, **transport.presented)
            return None
        certificate = transport.certificate
        if not certificate:
            return Peer(address=address, tls_version=transport.version)
        peer = read_peer(certificate, address=address, tls_version=transport.version)
        if isinstance(peer, Fault):
            self._refuse("handshake_refused", peer.check, address, **transport.presented)
            return None
        return peer

    async def _serve(self, transport: Transport, peer: Peer, protocol: str) -> None:
        scheme = b"http" if self._tls is None else b"https"
        now = trio.current_time()
        engine: Engine
        if protocol == "h2":
            engine = self._make(self._bounds, scheme=scheme, now=now)
        else:
            engine = H1Engine(self._bounds, scheme=scheme, now=now)
        connection = Connection(self._desk, transport, engine, peer)
        self._connections.add(connection)
        if self._leaving:
            connection.drain()
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def _refuse(self, name: str, reason: str, address: str, **certificate: str) -> None:
        """Note a refusal; more than one per reason within a second are counted into the next line.

        Refused certificates are told apart by the first character of their thumbprints: at most 64 lines a second.
        """
        self._desk.turned_away(address, f"edge.{reason}")
        now = trio.current_time()
        same = reason + certificate.get("certificate", "")[:1]
        last, count = self._quiet.get(same, (-10.0, 0))
        if now - last < 1.0:
            self._quiet[same] = (last, count + 1)
            return
        if len(self._quiet) > 256:
            self._quiet.clear()
        self._quiet[same] = (now, 0)
        face = self._desk.face
        self._desk.observer.note(
            name, reason=reason, address=address, face=face, count=count + 1, **certificate
        )


def caller_of(origin: str) -> str:
    """Return a peer's address as it is known: one of IPv4 that an IPv6 socket maps, as itself."""
    mapped = origin.removeprefix(_MAPPED)
    return mapped if "." in mapped else origin


@lru_cache(maxsize=4096)
def counted_as(address: str) -> str:
    """Return what the limits per address count: of IPv6 the /64, since one host may use all of its addresses."""
    if ":" not in address:
        return address
    return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))


def _maker(engine: str) -> Callable[..., Engine]:
    """Return the HTTP/2 engine's class; the package is imported only where it is asked for."""
    if engine == "lean":
        return H2Engine
    from hub.protocol.h2_package import H2PackageEngine  # noqa: PLC0415 - as above

    return H2PackageEngine


def _bounds(limits: Limits) -> Bounds:
    return Bounds(**{name: getattr(limits, name) for name in Bounds.__struct_fields__})
