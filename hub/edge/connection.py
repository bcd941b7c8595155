"""One connection: a reader, a writer, one task and one cancel scope per stream (``seat``), all deadlines.

Theory of operation. The reader gives octets to the engine and turns its events into exchanges; it never waits for
the application, only (deliberately) for room: while the peer does not take our output, or a body it sent is not
read. Each exchange is a task: it waits for its body, asks the application, gives the answer to the engine. The
writer wakes once per tick, takes everything the engine has, and sends it with one call; so a small answer is one
TLS record, and so are fifty.

Invariants. Every wait has a deadline: reading has the scope of ``_read`` whose deadline follows what the peer owes
(rest of a head, next request), a body has its rate, an answer ``request_s``; what was sent is waited for while the peer
takes enough of it in each ``send_s``. An exception ends one exchange (500 or reset) or, outside of one, this connection;
it is noted by type and goes no further. When the caller has gone, its exchanges are cancelled unless their admission
forbids it; the connection object lives until the last of them has ended.
"""

import math
import ssl
from collections.abc import AsyncIterator
from typing import Final, final

import trio
from msgspec import structs

from hub.edge.desk import CROWDED, Desk
from hub.edge.ending import ended
from hub.edge.exchange import BodyFault, CallerGone, Exchange, Pieces, Scope
from hub.edge.seat import Seat, Seats
from hub.edge.transport import Transport, flushed, too_slow
from hub.model.caller import Peer
from hub.model.http import Admission, Request, Response, UnavailableError
from hub.protocol.message import Body, Ended, Engine, EngineEvent, Gone, Opened, Refused

_AGAIN: Final = ((b"retry-after", b"1"),)
_LINGER_S: Final = 1.0
_PIECE: Final = 65536
_LARGE: Final = 16384
"""An answer beyond it is not left to the writer, which gathers."""


@final
class Connection:
    """Serve one connection from its first octet to its last."""

    __slots__ = (
        "_alarm", "_desk", "_engine", "_exchanges", "_lost", "_owed_since", "_peer", "_quiet", "_resume", "_scope",
        "_seats", "_stopping", "_transport",
    )  # fmt: skip

    def __init__(self, desk: Desk, transport: Transport, engine: Engine, peer: Peer) -> None:
        """Take a transport after its handshake and an engine that has not received anything."""
        self._desk = desk
        self._transport = transport
        self._engine = engine
        self._peer = peer
        self._exchanges: dict[int, Exchange] = {}
        self._seats = Seats(desk)
        self._alarm = trio.Event()
        self._resume: trio.Event | None = None
        self._quiet: trio.Event | None = None
        self._scope: Scope | None = None
        self._owed_since = math.inf
        self._lost = ""
        self._stopping = False

    async def run(self) -> None:
        """Serve until the peer leaves, breaks the rules, idles too long, or the drain is over.

        Whoever calls it does so inside ``contained``.

        Cancellation: exchanges are cancelled; the caller closes the transport.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read(nursery)
            await self._settle()
        if self._engine.fault:
            self._note("connection_refused", self._engine.fault)
            self._desk.turned_away(self._peer.address, f"edge.{self._engine.fault}")
        if not self._lost:
            with trio.move_on_after(_LINGER_S):
                await self._transport.bye()

    def drain(self) -> None:
        """Begin the end: tell the peer, go on with what was started."""
        self._engine.drain()
        self._wake()

    def drain_now(self) -> None:
        """End as soon as nothing is open."""
        self._engine.drain_now()
        self._wake()

    # Reading.

    async def _read(self, nursery: trio.Nursery) -> None:
        limits = self._desk.limits
        with trio.move_on_after(limits.header_s) as scope:
            self._scope = scope
            while not (self._engine.closing or self._lost):
                await self._room()
                try:
                    data = await self._transport.receive()
                except (OSError, ssl.SSLError) as error:
                    self._lose(type(error).__name__)
                    return
                if not data:
                    self._lose("left")
                    return
                self._take(data, nursery)
        if scope.cancelled_caught and not (self._engine.closing or self._lost):
            self._too_late()

    def _take(self, data: bytes, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        events = self._engine.receive(data, now)
        if events:  # a head that is incomplete after them has only begun
            self._owed_since = math.inf
        self._dispatch(events, nursery, now)
        for exchange in self._exchanges.values():
            if exchange.changed is not None and not self._engine.backlog(exchange.stream):
                exchange.notify()
        self._schedule(now)
        self._wake_for_output()

    async def _room(self) -> None:
        """Wait while the peer does not take our output, or its own body is not read here; no head is late by that."""
        scope, waits = self._scope, False
        while scope is not None and (not self._engine.wants_data or self._transport.stuck):
            waits, scope.deadline, self._owed_since = True, math.inf, math.inf
            self._resume = trio.Event()
            await self._resume.wait()
        if waits:
            self._schedule(trio.current_time())

    def _schedule(self, now: float) -> None:
        """Set until when the peer must have said something more."""
        scope, limits = self._scope, self._desk.limits
        if scope is None:
            return
        if self._engine.partial:
            self._owed_since = min(self._owed_since, now)
            scope.deadline = self._owed_since + limits.header_s
            return
        self._owed_since = math.inf
        scope.deadline = math.inf if self._exchanges else now + limits.idle_s

    def _too_late(self) -> None:
        if self._engine.partial:
            self._note("connection_refused", "header_s")
        self._engine.drain_now()
        self._wake()

    # Events of the engine.

    def _dispatch(self, events: list[EngineEvent], nursery: trio.Nursery, now: float) -> None:
        fresh: list[Exchange] = []
        for event in events:
            match event:
                case Opened():
                    if (exchange := self._open(event, nursery, now)) is not None:
                        fresh.append(exchange)
                case Body():
                    self._body(event)
                case Ended():
                    if (exchange := self._exchanges.get(event.stream)) is not None:
                        exchange.finish()
                case Gone():
                    if (exchange := self._exchanges.get(event.stream)) is not None:
                        exchange.lose(event.reason)
                case Refused():
                    self._refuse(event)
        for exchange in fresh:
            if exchange.gone:
                self._close(exchange, nursery)
            else:
                self._begin(exchange, nursery)

    def _open(self, event: Opened, nursery: trio.Nursery, now: float) -> Exchange | None:
        head = event.head
        request = Request(
            face=self._desk.face,
            method=head.method,
            authority=head.authority,
            path=head.path,
            query=head.query,
            headers=head.headers,
            peer=self._peer,
            received_ns=int(now * 1e9),
        )
        verdict = self._desk.admit(request, head)
        admission = verdict if isinstance(verdict, Admission) else Admission(limit=0)
        exchange = Exchange(
            event.stream, request, admission, self._desk.limits, self._engine_consume, self._desk.hold
        )  # fmt: skip
        self._exchanges[event.stream] = exchange
        exchange.ended = event.ended
        exchange.counted = verdict is not CROWDED
        self._desk.under_way += exchange.counted
        if isinstance(verdict, Response):
            self._begin(exchange, nursery, verdict)
            return None
        if head.expects_continue and not event.ended:
            self._engine.go_on(event.stream)
        return exchange

    def _body(self, event: Body) -> None:
        exchange = self._exchanges.get(event.stream)
        if exchange is None:
            self._engine_consume(event.stream, event.octets)
        else:
            exchange.add(event.data, event.octets)

    def _refuse(self, event: Refused) -> None:
        fields = self._desk.unread(self._peer, event)
        self._engine.answer(event.stream, event.status, fields, b"")
        self._wake()

    def _engine_consume(self, stream: int, octets: int) -> None:
        self._engine.consume(stream, octets)
        self._continue()
        self._wake_for_output()

    # One exchange.

    def _begin(
        self, exchange: Exchange, nursery: trio.Nursery, given: Response | None = None
    ) -> None:
        deadline = exchange.began + self._desk.limits.request_s
        if not self._seats.take(exchange, given, deadline):
            nursery.start_soon(self._serve, Seat(exchange, given), nursery)

    async def _serve(self, seat: Seat, nursery: trio.Nursery) -> None:
        times, scope = self._desk.times, trio.move_on_at(math.inf)
        seat.scope = scope
        try:
            with scope:  # until when is kept by ``times``: it moves with every exchange
                times.allow(scope, trio.current_time() + self._desk.limits.request_s)
                await self._served(seat, scope, nursery)
                # Rests here, not inside: who rests holds nothing of the exchange that was.
                while await self._seats.rest(seat):
                    await self._served(seat, scope, nursery)
            if seat.exchange is not None and scope.cancelled_caught and not seat.exchange.gone:
                self._desk.observer.note("request_late", face=self._desk.face)
                await self._give_up(seat.exchange, 503, "edge.late")
        except BodyFault as fault:
            await self._give_up(seat.exchange, fault.status, fault.check)
        except UnavailableError as missing:
            self._note("unavailable", type(missing).__name__)
            await self._give_up(seat.exchange, 503)
        except Exception as error:  # noqa: BLE001 - the firewall of the stream
            self._note("stream_failed", type(error).__name__)
            await self._give_up(seat.exchange, 500)
        finally:
            times.forget(scope)
            if seat.exchange is not None:
                self._close(seat.exchange, nursery)

    async def _served(self, seat: Seat, scope: Scope, nursery: trio.Nursery) -> None:
        """Serve an exchange to its good end; the seat is then without one."""
        exchange, given = seat.exchange, seat.given
        assert exchange is not None  # noqa: S101 - a seat is taken for one
        exchange.scope = scope
        if given is None:
            if exchange.gone:
                raise CallerGone  # before its task ran, when there was nothing to cancel
            request = exchange.request
            if exchange.admission.stream or not exchange.ended or exchange.size:
                request = exchange.request = await self._with_body(exchange, request)
            exchange.dispatched = True
            response = await self._desk.app.respond(request)
        elif given.status >= 400:
            response = await self._desk.refused(exchange.request, given)
        else:
            response = given
        await self._deliver(exchange, response, scope)
        seat.exchange = seat.given = exchange.scope = None
        self._close(exchange, nursery)

    async def _with_body(self, exchange: Exchange, request: Request) -> Request:
        """Give a request its body: as it comes, or once it is complete."""
        if exchange.admission.stream:
            return structs.replace(request, stream=Pieces(exchange))
        if exchange.ended:
            return structs.replace(request, body=await exchange.complete())
        with self._desk.patience(exchange):
            return structs.replace(request, body=await exchange.complete())

    async def _deliver(self, exchange: Exchange, response: Response, scope: Scope) -> None:
        engine, stream = self._engine, exchange.stream
        if response.stream is None:
            body = b"" if exchange.request.method == "HEAD" else response.body
            fields = self._desk.fields(response, len(response.body))
            engine.answer(stream, response.status, fields, body)
            exchange.started = True
            large = len(body) > _LARGE
            self._hand_over(at_once=large)
            waiting = engine.backlog(stream) or (large and self._transport.waiting)
            if waiting:
                self._desk.times.lift(scope)  # from here on each send has a deadline of its own
                await self._wait_for_reader(exchange, waiting)
        else:
            self._desk.times.lift(scope)
            await self._deliver_stream(exchange, response, scope)
        duration = int(trio.current_time() * 1e9) - exchange.request.received_ns
        self._desk.observer.answered(exchange.request, response, duration)

    async def _deliver_stream(self, exchange: Exchange, response: Response, scope: Scope) -> None:
        assert response.stream is not None  # noqa: S101 - said by the caller
        fields = self._desk.fields(response, None)
        async with ended(response.stream, self._desk.limits.commit_s):
            if exchange.request.method == "HEAD":
                self._engine.answer(exchange.stream, response.status, fields, b"")
                exchange.started = True
            else:
                self._engine.start(exchange.stream, response.status, fields)
                exchange.started = True
                await self._pass_on(exchange, response.stream, scope)

    async def _pass_on(
        self, exchange: Exchange, stream: AsyncIterator[bytes], scope: Scope
    ) -> None:
        engine, times, patience = self._engine, self._desk.times, self._desk.limits.request_s
        times.allow(scope, trio.current_time() + patience)
        async for piece in stream:
            times.lift(scope)
            for at in range(0, len(piece), _PIECE):
                engine.write(exchange.stream, piece[at : at + _PIECE])
                self._push()  # so that the next line knows whether the socket is full
                await trio.lowlevel.checkpoint()
                await self._drained(exchange)
            if exchange.gone:
                return
            times.allow(scope, trio.current_time() + patience)
        engine.end(exchange.stream)
        self._wake()

    async def _wait_for_reader(self, exchange: Exchange, octets: int) -> None:
        """Hold what does not fit the peer's window or socket, as far as there is memory for such answers."""
        if self._desk.hold(octets):
            exchange.held += octets
            await self._drained(exchange)
        else:
            self._note("slow_reader", "bodies_octets")
            self._engine.reset(exchange.stream)
            exchange.gone = "bodies_octets"

    async def _drained(self, exchange: Exchange) -> None:
        """Wait until the peer's window and socket took what was queued, as long as it goes on taking."""
        if not self._held_up(exchange):
            return
        limits, slow = self._desk.limits, False
        with self._desk.patience(exchange):
            while not slow and not exchange.crowded and self._held_up(exchange):
                before = self._engine.backlog(exchange.stream)
                with trio.move_on_after(limits.send_s):
                    while self._held_up(exchange) and not exchange.crowded:
                        await exchange.change()
                left = self._engine.backlog(exchange.stream)
                slow = left > 0 and too_slow(before - left, limits)  # the socket is for ``_flush``
        if self._held_up(exchange):
            exchange.gone = "crowded" if exchange.crowded else "send_s"
            self._note("slow_reader", exchange.gone)
            self._engine.reset(exchange.stream)

    def _held_up(self, exchange: Exchange) -> bool:
        """Tell whether the peer's window or socket has not taken what was queued."""
        waits = self._transport.stuck or self._engine.backlog(exchange.stream) > 0
        return waits and not exchange.gone

    async def _give_up(self, exchange: Exchange | None, status: int, check: str = "") -> None:
        """Answer with a bare status if nothing was said yet, else abandon the stream."""
        assert exchange is not None  # noqa: S101 - a seat without one has ended nothing badly
        if exchange.started or not status:
            self._engine.reset(exchange.stream)
        else:
            bare = Response(status=status, headers=_AGAIN if status == 503 else ())
            response = await self._desk.refused(exchange.request, bare, check)
            exchange.started = True
            fields = self._desk.fields(response, 0)
            self._engine.answer(exchange.stream, response.status, fields, b"")
            duration = int(trio.current_time() * 1e9) - exchange.request.received_ns
            self._desk.observer.answered(exchange.request, response, duration)

    def _close(self, exchange: Exchange, nursery: trio.Nursery) -> None:
        if not exchange.started:
            self._engine.reset(exchange.stream)
        self._exchanges.pop(exchange.stream, None)
        exchange.forgo()
        self._desk.let_go(exchange.held)
        self._desk.under_way -= exchange.counted
        events = self._engine.release(exchange.stream)
        if events and not self._lost:  # nobody waits for what was sent ahead
            self._dispatch(events, nursery, trio.current_time())
        if not self._exchanges:
            self._schedule(trio.current_time())
            if self._quiet is not None:
                self._quiet.set()
        self._continue()
        self._wake_for_output()

    # Writing and ending.

    def _wake(self) -> None:
        self._alarm.set()

    def _wake_for_output(self) -> None:
        if self._engine.has_output or self._engine.closing:
            self._alarm.set()

    def _hand_over(self, *, at_once: bool) -> None:
        """Send at once if this is the only exchange (a wake-up less: 40 us of 150), else let the writer gather."""
        if len(self._exchanges) > 1 and not at_once:
            self._wake()
        else:
            self._push()

    def _push(self) -> None:
        """Send what the engine has, as far as the socket takes it; the writer waits for the rest."""
        if self._transport.stuck or self._lost:
            self._wake()
            return
        try:
            if not self._transport.send_now(self._engine.take()):
                self._wake()
        except (OSError, ssl.SSLError) as error:
            self._lose(type(error).__name__)

    def _continue(self) -> None:
        if self._resume is not None:
            self._resume.set()
            self._resume = None

    async def _write(self) -> None:
        """Send what the engine has, once per wake-up, until told to stop."""
        while True:
            data = self._engine.take()
            if (data or self._transport.stuck) and not self._lost:
                await self._send(data)
            if self._engine.closing and self._scope is not None:
                self._scope.cancel()
            if self._stopping and not data:
                return
            if not data:
                await self._alarm.wait()
                self._alarm = trio.Event()

    async def _send(self, data: bytes) -> None:
        try:
            if not self._transport.send_now(data):
                await self._flush()
        except (OSError, ssl.SSLError) as error:
            self._lose(type(error).__name__)

    async def _flush(self) -> None:
        """Wait until the socket took everything, as far as there is memory for what it did not take."""
        desk, waiting = self._desk, self._transport.waiting
        if not desk.hold(waiting):
            self._note("slow_reader", "bodies_octets")
            self._lose("slow_reader")
            return
        try:
            taken = await flushed(self._transport, desk.limits)
        finally:
            desk.let_go(waiting)
        if not taken:
            self._note("slow_reader", "socket")
            self._lose("slow_reader")
        else:
            self._sent()

    def _sent(self) -> None:
        """Wake those who waited for the socket."""
        self._continue()
        for exchange in self._exchanges.values():
            exchange.notify()

    def _lose(self, reason: str) -> None:
        """Note that nothing can be sent any more, and that nobody waits for answers."""
        self._lost = self._lost or reason
        for exchange in self._exchanges.values():
            exchange.lose(reason)
        if self._scope is not None:
            self._scope.cancel()
        self._continue()
        self._wake()

    async def _settle(self) -> None:
        """Wait until the last exchange has ended (each has its deadline), then let the writer finish."""
        if self._exchanges:
            self._quiet = trio.Event()
            await self._quiet.wait()
        self._seats.close()
        self._stopping = True
        self._wake()

    def _note(self, name: str, reason: str) -> None:
        desk, address = self._desk, self._peer.address
        desk.observer.note(name, reason=reason, address=address, face=desk.face)
