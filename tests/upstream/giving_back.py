"""A bank that does whatever a call's path says, callers who end in every way, and what must be true of the way to it at rest.

As at the edge (``tests/edge/giving_back.py``) a plan is a list of steps, and any list is a plan. Connections are of TCP and TLS on
loopback, at given time.
"""

import math
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import trio
import trio.testing

from hub.model.fault import Fault
from hub.protocol.h2_output import frame
from hub.upstream.bank import BankCall, BankStreamBroken
from tests.protocol.h2_frames import GOAWAY
from tests.upstream.scripted import Identity, connections, limits
from tests.waiting import virtual

BEHAVIOURS = ("quick", "large", "hang", "late", "slow", "refuse", "reset", "half", "goaway", "farewell", "cut", "malformed", "early", "huge", "deaf")  # fmt: skip
HOWS = ("plain", "streamed", "whole", "upload", "stalled")
DEADLINE_S = 10.0
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@cache
def identity():
    return Identity(Path(mkdtemp(prefix="bank-")), "127.0.0.1")


def bounded():
    return limits(
        bank_connections=2, bank_streams=3, bank_exchanges=6, bank_waiting=4, bank_failures=8, bank_open_s=1.0,
        bank_open_most_s=4.0, bank_idle_s=1e6, bank_age_s=1e6, bank_answer_octets=300_000, bank_exchange_s=DEADLINE_S,
        bank_connect_s=2.0,
    )  # fmt: skip


class Served2:
    """The bank's end of one connection of HTTP/2."""

    def __init__(self, stream, nursery):
        self.stream, self.nursery = stream, nursery
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.lock = trio.StrictFIFOLock()
        self.widened = trio.Event()
        self.paths = {}
        self.waiting = set()

    async def flush(self, more=b""):
        async with self.lock:
            await self.stream.send_all(self.h2.data_to_send() + more)

    async def run(self):
        self.h2.initiate_connection()
        await self.flush()
        while data := await self.stream.receive_some(65536):
            for event in self.h2.receive_data(data):
                self.happened(event)
            self.widened.set()
            self.widened = trio.Event()
            await self.flush()

    def happened(self, event):
        if isinstance(event, h2.events.RequestReceived):
            path = dict(event.headers)[b":path"].decode()
            self.paths[event.stream_id] = behaviour = path.split("/")[1]
            if event.stream_ended is not None or behaviour not in {"quick", "late", "large"}:
                self.nursery.start_soon(self.answer, behaviour, event.stream_id)
            else:
                self.waiting.add(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            behaviour = self.paths[event.stream_id]
            if behaviour in {"quick", "late", "large"} and event.stream_id in self.waiting:
                self.nursery.start_soon(self.answer, behaviour, event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            heard = self.paths[event.stream_id] != "deaf" and event.flow_controlled_length
            if heard:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def answer(self, behaviour, stream):
        with suppress(h2.exceptions.ProtocolError, KeyError, *BROKEN):
            await getattr(self, behaviour)(stream)

    async def head(self, stream, *, ends=False, **fields):
        self.h2.send_headers(stream, [(":status", "200"), *fields.items()], end_stream=ends)
        await self.flush()

    async def body(self, stream, octets, *, ends=True):
        while octets:
            room = min(self.h2.local_flow_control_window(stream), 16_384, octets)
            if room <= 0:
                await self.widened.wait()
                continue
            octets -= room
            self.h2.send_data(stream, bytes(room), end_stream=ends and not octets)
            await self.flush()

    async def quick(self, stream):
        await self.head(stream)
        await self.body(stream, 2)

    async def large(self, stream):
        await self.head(stream)
        await self.body(stream, 150_000)

    async def huge(self, stream):
        await self.head(stream)
        await self.body(stream, 400_000)

    async def hang(self, stream):
        pass

    async def deaf(self, stream):
        pass

    async def late(self, stream):
        await virtual(1)
        await self.quick(stream)

    async def slow(self, stream):
        await self.head(stream)
        for _ in range(8):
            await self.body(stream, 20_000, ends=False)
            await virtual(1)
        await self.body(stream, 1)

    async def refuse(self, stream):
        self.h2.reset_stream(stream, 7)
        await self.flush()

    async def reset(self, stream):
        self.h2.reset_stream(stream, 2)
        await self.flush()

    async def half(self, stream):
        await self.head(stream)
        await self.body(stream, 100_000, ends=False)
        await self.reset(stream)

    async def goaway(self, stream):
        await self.flush(frame(GOAWAY, 0, 0, max(0, stream - 2).to_bytes(4) + bytes(4)))

    async def farewell(self, stream):
        await self.flush(frame(GOAWAY, 0, 0, stream.to_bytes(4) + bytes(4)))
        await self.quick(stream)

    async def cut(self, stream):
        await trio.aclose_forcefully(self.stream)

    async def malformed(self, stream):
        self.h2.config.normalize_outbound_headers = self.h2.config.validate_outbound_headers = False
        await self.head(stream, Upper="x")

    async def early(self, stream):
        await self.quick(stream)
        self.h2.reset_stream(stream, 0)
        await self.flush()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


async def served1(stream):
    """Be the bank's end of one connection of HTTP/1.1."""
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some(65536)
            if not data:
                return
            buffer += data
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        behaviour = head.split(b"/")[1].decode()
        if behaviour in {"hang", "deaf"}:
            await trio.sleep_forever()
        if behaviour == "early":
            await stream.send_all(HEAD % 2 + b"ok")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        chunked = b"chunked" in head.lower()
        while len(buffer) < length or (chunked and not buffer.endswith(b"0\r\n\r\n")):
            data = await stream.receive_some(65536)
            if not data:
                return
            buffer += data
        buffer = b"" if chunked else buffer[length:]
        if behaviour in {"refuse", "reset", "goaway", "cut"}:
            return
        await answered1(stream, behaviour)


async def answered1(stream, behaviour):
    if behaviour == "late":
        await virtual(1)
    if behaviour == "malformed":
        await stream.send_all(b"HTTP/1.1 twohundred\r\n\r\n")
    elif behaviour == "half":
        await stream.send_all(HEAD % 150_000 + bytes(100_000))
        raise trio.BrokenResourceError
    elif behaviour == "slow":
        await stream.send_all(HEAD % 160_000)
        for _ in range(8):
            await stream.send_all(bytes(20_000))
            await virtual(1)
    elif behaviour != "early":
        octets = {"large": 150_000, "huge": 400_000}.get(behaviour, 2)
        await stream.send_all(HEAD % octets + bytes(octets))


class Bank:
    """The bank, and whether it still talks."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.lines = set()
        self.context = identity().server_context()

    async def serve(self, plain, protocol):
        self.context.set_alpn_protocols([protocol])
        stream = trio.SSLStream(plain, self.context, server_side=True)
        self.lines.add(plain)
        try:
            await stream.do_handshake()
            async with trio.open_nursery() as own:
                if protocol == "h2":
                    await Served2(stream, own).run()
                else:
                    await served1(stream)
                own.cancel_scope.cancel()
        except* (*BROKEN, h2.exceptions.ProtocolError):
            pass
        finally:
            self.lines.discard(plain)
            await trio.aclose_forcefully(plain)

    async def cut(self):
        for line in tuple(self.lines):
            await trio.aclose_forcefully(line)


class Caller:
    """One call and what becomes of it."""

    def __init__(self, hub, behaviour, how):
        self.hub = hub
        self.scope = trio.CancelScope()
        self.answer = None
        self.stream = None
        self.over = False
        self.uploading = 0
        body = bytes(150_000) if how == "whole" else b""
        upload = (
            self.pieces(math.inf if how == "stalled" else 0.1)
            if how in {"upload", "stalled"}
            else None
        )
        self.call = BankCall(
            method="POST" if body or upload else "GET", path=f"/{behaviour}/x", body=body, stream=upload,
            repeatable=not (body or upload), stream_answer=how == "streamed", deadline_ms=int(DEADLINE_S * 1000),
        )  # fmt: skip

    async def pieces(self, pause):
        self.uploading += 1
        try:
            for _ in range(4):
                yield bytes(30_000)
                await virtual(pause) if pause < math.inf else await trio.sleep_forever()
        finally:
            self.uploading -= 1

    async def run(self):
        with self.scope:
            self.answer = await self.hub.exchange(self.call)
            if not isinstance(self.answer, Fault):
                self.stream = self.answer.stream
        self.over = True

    async def take(self):
        """Take one piece."""
        with suppress(BankStreamBroken, StopAsyncIteration), trio.move_on_after(1):
            await anext(self.stream)


class World:
    """The way to the bank, and all who are on it."""

    def __init__(self, hub, bank, nursery):
        self.hub, self.bank, self.nursery = hub, bank, nursery
        self.callers = []

    def call(self, behaviour, how):
        caller = Caller(self.hub, behaviour, how)
        self.callers.append(caller)
        self.nursery.start_soon(caller.run)
        return caller

    def check(self):
        hub, pool = self.hub, self.hub._pool
        under_way = sum(not one.over for one in self.callers)
        streams = len(hub._streams) + (len(hub._multiplexed._streams) if hub._multiplexed else 0)
        assert 0 <= pool.busy <= under_way + streams, "slots"
        assert len(pool._queue) <= under_way
        assert not pool._queue or pool.busy >= pool.most, "nobody waits where there is room"

    def at_rest(self):
        hub, pool = self.hub, self.hub._pool
        assert all(one.over for one in self.callers), "each call has ended"
        assert not any(one.uploading for one in self.callers), "each upload was ended"
        assert (pool.busy, len(pool._queue), len(hub._streams)) == (0, 0, 0), "slots at rest"
        assert not hub._circuit._probing
        if hub._multiplexed is not None:
            assert not hub._multiplexed._streams
            for shared in hub._multiplexed._shared:
                whole(shared)


def whole(shared):
    """Assert that a connection at rest is as good as at its beginning."""
    client = shared.client
    assert client.open == 0
    assert not shared._parked
    assert (shared._reading, shared._draining, shared._writing, shared._heir) == (False, False, False, None)  # fmt: skip
    if not client.problem:
        assert client._window + client._credit == (3 + 1) * 131_072, "the connection's window"
        assert not client._out._blocked


async def step(world, word, which, at):
    """Do one step of a plan."""
    callers = world.callers
    one = callers[which % len(callers)] if callers else None
    if word == "call":
        world.call(BEHAVIOURS[at % len(BEHAVIOURS)], HOWS[which % len(HOWS)])
    elif word == "pass":
        await virtual(at / 4)
    elif word == "cut":
        await world.bank.cut()
    elif word == "close":
        world.hub.close()
    elif word == "retire" and world.hub._multiplexed is not None:
        world.hub._multiplexed.retire()
    elif one is not None and word == "cancel":
        one.scope.cancel()
    elif one is not None and one.stream is not None:
        if word == "take":
            await one.take()
        elif word == "abandon":
            await one.stream.aclose()


async def carried_out(protocol, plan):
    """Carry out a plan, let everything come to rest, and use all that may be used at once."""
    async with trio.open_nursery() as nursery:
        bank = Bank(nursery)
        serve = partial(bank.serve, protocol=protocol)
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        where = {"base_url": f"https://127.0.0.1:{port}", "http2": protocol == "h2"}
        hub = connections(identity().folder, port, bounds=bounded(), **where)
        world = World(hub, bank, nursery)
        nursery.start_soon(hub._keep_house)
        for word, which, at, at_once in plan:
            await step(world, word, which, at)
            if not at_once:
                await trio.testing.wait_all_tasks_blocked()
                world.check()
        await virtual(3 * DEADLINE_S)
        world.at_rest()
        await as_good_as_new(world)
        hub.close()
        nursery.cancel_scope.cancel()


async def as_good_as_new(world):
    assert (await world.hub.exchange(BankCall(method="GET", path="/quick/x", repeatable=True))).status == 200  # fmt: skip
    await virtual(1)
    callers = [world.call("late", "plain") for _ in range(world.hub._pool.most)]
    await virtual(3)
    assert [getattr(one.answer, "status", one.answer) for one in callers] == [200] * len(callers)
    world.at_rest()


def run(protocol, plan):
    # Time passes once nothing has come for a millisecond: what one end of a socket sent is not always at the other at once.
    clock = trio.testing.MockClock(autojump_threshold=0.001)
    trio.run(partial(carried_out, protocol, plan), clock=clock)
