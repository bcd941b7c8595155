"""A client, a line and an application in memory, which do whatever a plan says; and what must be true of the edge after each step.

A plan is a list of steps, each a tuple of a word and small numbers; a step that makes no sense when it comes is left out, so
any list is a plan and a failing one can be made shorter.
"""

import math
import re
from collections import Counter
from contextlib import suppress
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio
import trio.testing

from hub.edge.connection import Connection
from hub.edge.desk import Desk, contained
from hub.edge.exchange import BodyTooLarge
from hub.edge.listener import _bounds
from hub.model.caller import Peer
from hub.model.http import Admission, Response, UnavailableError
from hub.model.terms import Face
from hub.protocol.h1 import H1Engine
from hub.protocol.h2_output import frame
from tests.edge import rig
from tests.protocol.h2_frames import ENGINES, GOAWAY, RST
from tests.waiting import virtual

STREAMS = 4
WINDOW = 4_000
ROOM = 9_000
"""The connection's window: less than what ``STREAMS`` streams may send at once, so that a loss soon shows."""
BEHAVIOURS = ("quick", "large", "hang", "late", "pieces", "endless", "stall", "raise", "unavailable", "body", "refused", "unadmitted", "half", "spoilt")  # fmt: skip
UPLOADS = ("none", "whole", "streamed", "kept")


def bounded():
    return rig.limits(
        streams=STREAMS, stream_window=WINDOW, connection_window=ROOM, requests=6, bodies_octets=30_000, request_s=5.0,
        send_s=3.0, send_rate_octets_s=100, header_s=2.0, body_rate_octets_s=1000, idle_s=500.0, commit_s=1.0,
    )  # fmt: skip


class House:
    """Answer as the path says; remember who was answered."""

    def __init__(self):
        self.asked = Counter()
        self.under_way = 0
        self.streams = 0

    def admit(self, request):
        behaviour, upload = request.path.split("/")[1:3]
        if behaviour == "refused":
            return Response(status=404)
        if behaviour == "unadmitted":
            raise ZeroDivisionError
        return Admission(
            limit=6_000, stream=upload == "streamed", cancel_with_caller=upload != "kept"
        )

    async def respond(self, request):
        self.asked[request.peer.address, request.path] += 1
        self.under_way += 1
        try:
            return await getattr(self, request.path.split("/")[1])(request)
        finally:
            self.under_way -= 1

    async def quick(self, request):
        return Response(status=200, body=b"quick")

    async def large(self, request):
        return Response(status=200, body=bytes(20_000))

    async def hang(self, request):
        await trio.sleep_forever()

    async def late(self, request):
        await virtual(1)
        return Response(status=200, body=b"late")

    async def pieces(self, request):
        return Response(status=200, stream=self.streaming(3, 5_000))

    async def endless(self, request):
        return Response(status=200, stream=self.streaming(40, 2_000))

    async def stall(self, request):
        return Response(status=200, stream=self.streaming(2, 10, math.inf))

    async def half(self, request):
        if request.stream is not None:
            async for _ in request.stream:
                break
        return Response(status=200, body=b"half")

    async def body(self, request):
        octets = len(request.body)
        if request.stream is not None:
            async for piece in request.stream:
                octets += len(piece)
        return Response(status=200, body=b"%d" % octets)

    async def spoilt(self, request):
        raise BodyTooLarge

    async def unavailable(self, request):
        raise UnavailableError

    async def streaming(self, count, octets, pause=0.1):
        self.streams += 1
        try:
            for _ in range(count):
                yield bytes(octets)
                await virtual(pause)
        finally:
            self.streams -= 1


setattr(House, "raise", lambda self, request: 1 // 0)


class Line:
    """A transport in memory whose peer takes as many octets as it is allowed to."""

    def __init__(self):
        self.said = b""
        self.over = self.broken = False
        self.prompt = False
        """What comes is given to who reads before anybody else may run."""
        self.allowed = math.inf
        self.held = b""
        self.taken = b""
        self.changed = trio.Event()

    def change(self):
        self.changed.set()
        self.changed = trio.Event()

    @property
    def stuck(self):
        return bool(self.held)

    @property
    def waiting(self):
        return len(self.held)

    async def receive(self):
        while not (self.said or self.over or self.broken):
            await self.changed.wait()
        if not self.prompt:
            await trio.lowlevel.checkpoint()
        if self.broken:
            raise ConnectionResetError
        said, self.said = self.said, b""
        return said

    def send_now(self, data):
        if self.broken:
            raise BrokenPipeError
        self.held += data
        octets = int(min(self.allowed, len(self.held)))
        self.allowed -= octets
        self.taken += self.held[:octets]
        self.held = self.held[octets:]
        return not self.held

    async def flush(self):
        while self.held:
            await self.changed.wait()
            self.send_now(b"")

    async def bye(self):
        await trio.lowlevel.checkpoint()


class Client:
    """An HTTP/2 client that keeps the rules, on the ``h2`` package; GOAWAY is kept from it, or it would say nothing more."""

    def __init__(self, line):
        self.line = line
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self.h2.initiate_connection()
        self.opened = []
        self.writing = set()
        self.reset = set()
        self.answered = Counter()
        self.ended = Counter()
        self.fair = set()
        self.refused = []
        self.leaving = False
        self.unsettled = True
        self.greeted = False
        self.rest = b""

    def hear(self):
        """Take what came, frame by frame."""
        data, self.line.taken = self.rest + self.line.taken, b""
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3])):
            one, data = data[:end], data[end:]
            stream = int.from_bytes(one[5:9])
            if one[3] == GOAWAY:
                self.leaving = True
                continue
            if one[3] == RST and one[9:13] == (7).to_bytes(4):
                self.refused.append(stream)
            self.heard(one, stream)
            if self.line.broken:
                return
        self.rest = data

    def heard(self, one, stream):
        try:
            events = self.h2.receive_data(one)
        except h2.exceptions.ProtocolError:
            assert stream in self.reset, "the package takes no 100 for a stream that it has reset"
            self.line.broken = True
            self.line.change()
            return
        for event in events:
            self.happened(event)

    def happened(self, event):
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.greeted = True
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.unsettled = False
        elif isinstance(event, h2.events.ResponseReceived):
            self.answered[event.stream_id] += 1
        elif isinstance(event, h2.events.StreamReset):
            self.writing.discard(event.stream_id)
            self.ended[event.stream_id] = 1
        elif isinstance(event, h2.events.StreamEnded):
            self.ended[event.stream_id] = 1

    def say(self):
        if not (self.line.over or self.line.broken):
            self.line.said += self.h2.data_to_send()
            self.line.change()

    def open(self, behaviour, upload, *, ends, length, expects, fair):
        if self.leaving or not self.room:
            return
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET" if ends else "POST"), (":scheme", "https"), (":authority", "h")]
        fields.append((":path", f"/{behaviour}/{upload}/{stream}"))
        if length:
            fields.append(("content-length", str(length)))
        if expects:
            fields.append(("expect", "100-continue"))
        self.h2.send_headers(stream, fields, end_stream=ends)
        self.opened.append(stream)
        if fair:
            self.fair.add(stream)
        if not ends:
            self.writing.add(stream)

    @property
    def room(self):
        """Tell whether one more request is within the limit."""
        return self.h2.open_outbound_streams < STREAMS

    def settle(self, window):
        self.unsettled = True  # the package takes the answer to one for the answer to all
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})

    def farewell(self):
        self.say()
        self.line.said += frame(GOAWAY, 0, 0, bytes(8))
        self.leaving = True

    def pick(self, among, at):
        return sorted(among)[at % len(among)] if among else None

    def data(self, at, octets, *, ends):
        stream = self.pick(self.writing, at)
        if (
            stream is None or not self.greeted
        ):  # before it knows the windows it may send more than they hold
            return
        octets = min(octets, self.h2.local_flow_control_window(stream), 16_384)
        pad = 5 if octets > 20 and at & 1 else None
        self.h2.send_data(
            stream, bytes(max(0, octets - (6 if pad else 0))), end_stream=ends, pad_length=pad
        )
        if ends:
            self.writing.discard(stream)

    def abandon(self, at):
        live = [s for s in self.opened if not self.ended[s] and s not in self.reset]
        stream = self.pick(live, at)
        if stream is not None:
            self.h2.reset_stream(stream, 8)
            self.writing.discard(stream)
            self.reset.add(stream)

    def widen(self, at, octets):
        if at % 3 == 0:
            self.h2.increment_flow_control_window(octets)
            return
        stream = self.pick(
            [s for s in self.opened if not self.ended[s] and s not in self.reset], at
        )
        if stream is not None:
            self.h2.increment_flow_control_window(octets, stream)


class Client1:
    """A client of HTTP/1.1 that sends its requests ahead; answers are counted by their status lines."""

    def __init__(self, line):
        self.line = line
        self.said = b""
        self.heard = b""
        self.opened = []
        self.answered, self.ended, self.reset, self.refused, self.fair = (
            Counter(),
            Counter(),
            (),
            (),
            set(),
        )
        self.left = 0
        self.leaving = False
        self.unsettled = True

    @property
    def room(self):
        return not (self.left or self.leaving)

    def hear(self):
        self.heard += self.line.taken
        self.line.taken = b""
        if b"\r\nconnection: close\r\n" in self.heard:
            self.leaving = True
        for stream in self.opened[: len(STATUS.findall(self.heard))]:
            self.answered[stream] = self.ended[stream] = 1
        assert len(STATUS.findall(self.heard)) <= len(self.opened), "answered once"

    def say(self):
        if not (self.line.over or self.line.broken):
            self.line.said, self.said = self.line.said + self.said, b""
            self.line.change()

    def open(self, behaviour, upload, *, ends, length, expects, fair):
        if not self.room:
            return
        self.opened.append(len(self.opened) + 1)
        path = f"/{behaviour}/{upload}/{len(self.opened)}"
        self.left = 0 if ends else length or math.inf
        framing = (
            ""
            if ends
            else f"content-length: {length}\r\n"
            if length
            else "transfer-encoding: chunked\r\n"
        )
        asks = "expect: 100-continue\r\n" if expects and not ends else ""
        method = "GET" if ends else "POST"
        self.said += f"{method} {path} HTTP/1.1\r\nhost: h\r\n{framing}{asks}\r\n".encode()

    def data(self, at, octets, *, ends):
        if self.left == math.inf:
            chunk = b"%x\r\n%b\r\n" % (octets, bytes(octets)) if octets else b""
            self.said += chunk + (b"0\r\n\r\n" if ends else b"")
            self.left = 0 if ends else math.inf
        elif self.left:
            octets = min(octets, self.left)
            self.said += bytes(octets)
            self.left -= octets

    def abandon(self, at):
        """Do nothing: only leaving says so."""

    def widen(self, at, octets):
        """Do nothing: there are no windows."""

    def farewell(self):
        """Do nothing, as above."""


STATUS = re.compile(rb"HTTP/1\.1 [2-5][0-9][0-9] ")


class World:
    """A desk with connections, and what has become of each."""

    def __init__(self, engine, nursery):
        self.house, self.notebook, self.limits = House(), rig.Notebook(), bounded()
        self.desk = Desk(
            face=Face.TPP, app=self.house, limits=self.limits, observer=self.notebook, clock=None, hosts=()
        )  # fmt: skip
        self.make = ENGINES.get(engine, H1Engine)
        self.nursery = nursery
        self.places = []

    def connect(self):
        line = Line()
        engine = self.make(_bounds(self.limits), scheme=b"https", now=trio.current_time())
        peer = Peer(address=f"192.0.2.{len(self.places)}")
        connection = Connection(self.desk, line, engine, peer)
        speaks = Client1 if isinstance(engine, H1Engine) else Client
        place = Place(line, engine, connection, speaks(line))
        self.places.append(place)
        self.nursery.start_soon(self.serve, place)
        return place

    async def serve(self, place):
        with contained(self.notebook, "connection_failed"):
            async with trio.open_nursery() as own:
                place.cancel = own.cancel_scope.cancel
                await place.connection.run()
        place.served = True

    @property
    def live(self):
        return [place for place in self.places if not place.served]

    def check(self):
        """Assert what is true whenever nobody is about to run."""
        desk = self.desk
        exchanges = [one for p in self.places for one in p.connection._exchanges.values()]
        assert not self.notebook.reasons("connection_failed"), self.notebook.notes
        refused = set(self.notebook.reasons("connection_refused"))
        assert refused <= {"header_s", "InvalidBodyLengthError"}, (
            "who keeps the rules is not refused"
        )
        assert all(not p.connection._exchanges for p in self.places if p.served)
        assert desk.under_way == sum(one.counted for one in exchanges), "under way"
        assert set(desk.patient) <= set(exchanges), "patient"
        given_up = [one for one in exchanges if one.gone and one.admission.cancel_with_caller]
        assert not given_up, "cancelled with its caller"
        held = sum(one.held for one in exchanges)
        assert held <= desk._held, "held"
        assert held == desk._held or any(p.line.waiting for p in self.places), "held"
        assert desk.resting == sum(len(p.connection._seats._resting) for p in self.places)
        for place in self.places:
            place.client.hear()
            place.check()

    def at_rest(self):
        """Assert what is true when nobody asks for anything any more."""
        desk = self.desk
        self.check()
        assert (desk.under_way, desk._held, len(desk.patient)) == (0, 0, 0)
        assert (self.house.under_way, self.house.streams) == (0, 0)
        assert desk.resting == 0, "their time is over"
        assert not desk.times._until
        assert all(times == 1 for times in self.house.asked.values()), "asked once"
        for place in self.places:
            place.at_rest()


class Place:
    """One connection from both ends."""

    def __init__(self, line, engine, connection, client):
        self.line, self.engine, self.connection, self.client = line, engine, connection, client
        self.served = self.drained = False
        self.cancel = lambda: None

    @property
    def whole(self):
        """Tell whether the connection is as good as at its beginning."""
        return not (
            self.served
            or self.client.leaving
            or self.line.over
            or self.line.broken
            or self.engine.closing
            or (self.drained and isinstance(self.engine, H1Engine))  # its next answer says farewell
        )

    def check(self):
        client = self.client
        assert not set(client.refused) & client.fair, "refused within its limit"
        assert max(client.answered.values(), default=0) <= 1, "answered once"
        assert self.engine.open_streams <= 2 * STREAMS

    def at_rest(self):
        assert not self.connection._exchanges
        assert self.served or self.engine.open_streams == 0
        if self.whole:
            client = self.client
            silent = [s for s in client.opened if not client.ended[s] and s not in client.reset]
            assert not silent, "answered or reset"
            assert self.missing() == 0, "the connection's window"

    def missing(self):
        """Return what of the connection's window was not given back."""
        if isinstance(self.engine, H1Engine):
            return self.engine._unread
        if hasattr(self.engine, "_h2"):
            manager = self.engine._h2._inbound_flow_control_window_manager
            return manager.max_window_size - manager.current_window_size - manager._bytes_processed
        return ROOM_BOTH - self.engine._receive_window - self.engine._credit


ROOM_BOTH = max(ROOM, 65_535)


def step(world, word, which, at, octets):
    """Do one step of a plan; True if those who run may first run."""
    if word == "connect" and len(world.places) < 3:
        world.connect()
    if not world.live:
        return
    place = world.live[which % len(world.live)]
    client, line = place.client, place.line
    gone = line.over or line.broken
    if word == "open" and not gone:
        client.open(
            BEHAVIOURS[at % len(BEHAVIOURS)],
            UPLOADS[octets % 4],
            ends=octets % 4 == 0,
            length=octets if octets % 3 == 0 and octets % 4 else 0,
            expects=octets % 5 == 0,
            fair=client.room and place.engine.open_streams + len(line.said) // 9 < 2 * STREAMS,
        )
    elif word == "data" and not gone:
        client.data(at, octets, ends=octets % 4 == 0)
    elif word == "reset" and not gone:
        client.abandon(at)
    elif word == "widen" and not gone:
        client.widen(at, octets + 1)
    elif word == "settings" and not (gone or client.unsettled):
        client.settle(octets * (at % 3))
    elif word == "goaway" and not gone:
        client.farewell()
    elif word == "gone":
        line.over = at % 2 == 0
        line.broken = not line.over
        line.change()
    elif word == "stuck":
        line.allowed = octets if at % 2 else 0
    elif word == "loose":
        line.allowed = math.inf
        line.change()
    elif word == "drain":
        place.drained = True
        place.connection.drain()
    elif word == "drain_now":
        client.leaving = True
        client.fair.clear()  # what is on its way may come too late
        place.connection.drain_now()
    elif word == "cancel":
        place.cancel()


async def carried_out(engine, plan):
    """Carry out a plan, then let everything come to rest, and see whether each connection is as good as new."""
    async with trio.open_nursery() as nursery:
        world = World(engine, nursery)
        nursery.start_soon(world.desk.times.run)
        world.connect()
        await settled(world)
        await settled(world)
        for word, which, at, octets, at_once in plan:
            with suppress(h2.exceptions.ProtocolError):  # the client itself may not do that now
                step(world, word, which, at, octets)
            if word == "pass":
                await virtual(at / 2)
            if at_once:
                continue
            await settled(world)
            world.check()
        await at_rest(world)
        for place in world.live:
            if place.whole:
                await as_good_as_new(world, place)
        for place in world.live:
            place.line.over = True
            place.line.change()
        await virtual(60)
        assert not world.live
        world.at_rest()
        nursery.cancel_scope.cancel()


async def settled(world):
    """Let all that was said arrive, and all who can run do so."""
    for place in world.places:
        place.client.hear()
        place.client.say()
    await trio.testing.wait_all_tasks_blocked()


async def at_rest(world):
    for place in world.places:
        place.line.allowed = math.inf
        place.line.change()
    await settled(world)
    await virtual(60)
    await settled(world)
    await virtual(1)
    world.at_rest()


async def as_good_as_new(world, place):
    """Use all that a client may use at once, twice."""
    client = place.client
    if isinstance(client, Client1):
        await as_good_as_new1(world, client)
        return
    for _ in range(2):
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
        client.h2.increment_flow_control_window(60_000)
        await settled(world)
        before = len(client.opened)
        for _ in range(STREAMS):
            client.open("body", "whole", ends=False, length=0, expects=False, fair=True)
        fresh = client.opened[before:]
        assert len(fresh) == STREAMS, "a client at rest has nothing open"
        for part in (0, 1):
            for stream in fresh:
                client.h2.send_data(stream, bytes(WINDOW // 2), end_stream=bool(part))
                client.writing.discard(stream)
            await settled(world)
        await virtual(1)
        client.hear()
        assert [client.answered[s] for s in fresh] == [1] * STREAMS
        assert all(client.ended[s] for s in fresh)
        place.check()


async def as_good_as_new1(world, client):
    """Send two requests ahead, each with a body."""
    before = len(client.opened)
    for _ in range(2):
        client.open("body", "whole", ends=False, length=5_000, expects=False, fair=True)
        client.data(0, 5_000, ends=True)
    await settled(world)
    await virtual(1)
    client.hear()
    assert [client.answered[s] for s in client.opened[before:]] == [1, 1], client.heard[-200:]


def run(engine, plan):
    trio.run(partial(carried_out, engine, plan), clock=trio.testing.MockClock(autojump_threshold=0))
