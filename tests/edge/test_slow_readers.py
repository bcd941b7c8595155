"""A large answer to who reads slowly: it may take its time as long as it goes on, and no longer; at given time."""

import math
from itertools import count

import pytest
import trio

from hub.edge.connection import Connection
from hub.edge.desk import Desk
from hub.edge.listener import _bounds
from hub.edge.router import Router
from hub.model.caller import Peer
from hub.model.http import Request, Response
from hub.model.terms import Face
from hub.protocol.h1 import H1Engine
from hub.protocol.h2_output import frame
from tests.edge import rig
from tests.protocol.h2_frames import DATA, ENGINES, PREFACE, RST, SETTINGS, WINDOW, headers
from tests.waiting import virtual

LARGE = 10_000_000
MBIT = 125_000
"""Octets that 1 Mbit/s carries in a second."""


async def large(request: Request) -> Response:
    return Response(status=200, body=bytes(LARGE))


async def endless(request: Request) -> Response:
    async def pieces():
        while True:
            yield bytes(65_536)

    return Response(status=200, stream=pieces())


class Reader:
    """A transport whose peer takes so many octets per second, and after its first words says each second what it says."""

    def __init__(self, first, *, rate=math.inf, until=math.inf, says=None, buffer=0):
        self.first = first
        self.rate = rate
        self.until = until
        self.says = says or (lambda _: b"")
        self.buffer = buffer
        self.sent = bytearray()
        self.waiting = 0
        self.left = trio.Event()

    @property
    def stuck(self):
        return self.waiting > 0

    async def receive(self):
        while not self.first:
            await virtual(1)
            if self.left.is_set():
                return b""
            self.first = self.says(trio.current_time())
        said, self.first = self.first, b""
        return said

    def send_now(self, data):
        self.sent += data
        self.waiting += len(data)
        if self.rate == math.inf:
            self.waiting = 0
        at_once = min(self.buffer, self.waiting)
        self.waiting, self.buffer = self.waiting - at_once, self.buffer - at_once
        return not self.waiting

    async def flush(self):
        while self.waiting:
            await virtual(1)
            if trio.current_time() < self.until:
                self.waiting = int(max(0, self.waiting - self.rate))

    async def bye(self):
        pass

    @property
    def taken(self):
        return len(self.sent) - self.waiting

    def frames(self):
        """Return kind, stream and length of each frame that was sent whole."""
        at, found = 0, []
        while at < len(self.sent):
            length = int.from_bytes(self.sent[at : at + 3])
            found.append((self.sent[at + 3], int.from_bytes(self.sent[at + 5 : at + 9]), length))
            at += 9 + length
        return found

    def body(self, stream):
        return sum(n for kind, one, n in self.frames() if (kind, one) == (DATA, stream))


async def served(line, make, wanted=lambda: False):
    """Serve a connection until an answer, a fault or what is ``wanted``; return what was noted, and when."""
    notebook, limits = rig.Notebook(), rig.limits()
    assert (limits.send_s, limits.send_rate_octets_s) == (30, 16_384)
    app = Router({("GET", "/"): large, ("GET", "/endless"): endless})
    desk = Desk(face=Face.TPP, app=app, limits=limits, observer=notebook, clock=None, hosts=())
    connection = Connection(desk, line, make(_bounds(limits)), Peer(address="192.0.2.1"))
    ended = math.nan
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.times.run)
        nursery.start_soon(connection.run)
        with trio.move_on_after(3600):
            while not (notebook.answers or notebook.reasons("slow_reader") or wanted()):
                await virtual(1)
            ended = trio.current_time()
        await virtual(0.5)  # for its last octets
        line.left.set()
        await virtual(2)
        nursery.cancel_scope.cancel()
    assert desk._held == 0, "its memory was given back"
    assert not desk.patient
    return notebook.reasons("slow_reader"), ended


H1 = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def h2(window, path=b"/", streams=(1,)):
    """Return a client's first words: windows of that size, and a request on each stream."""
    settings = frame(SETTINGS, 0, 0, b"\0\4" + window.to_bytes(4))
    wide = frame(WINDOW, 0, 0, (1 << 30).to_bytes(4))
    get = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"h"), (b":path", path))
    return PREFACE + settings + wide + b"".join(headers(one, base=get) for one in streams)


def credit(octets, stream=1):
    return frame(WINDOW, 0, stream, octets.to_bytes(4))


WAYS = {"http/1.1": (H1, H1Engine)} | {name: (h2(1 << 30), make) for name, make in ENGINES.items()}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


async def test_ten_megabytes_at_one_megabit_a_second_arrive(autojump_clock, way):
    first, make = way
    line = Reader(first, rate=MBIT)
    reasons, ended = await served(line, make)
    assert reasons == []
    assert 75 < ended < 90
    assert line.taken > LARGE


async def test_they_arrive_as_well_where_the_window_opens_slowly(autojump_clock, engine):
    line = Reader(h2(65_535), says=lambda _: credit(MBIT))
    reasons, ended = await served(line, engine)
    assert reasons == []
    assert 75 < ended < 90
    assert line.body(1) == LARGE


@pytest.mark.parametrize("rate", [0, 1, 16_000])
async def test_who_takes_less_than_the_least_rate_is_cut_off_after_send_s(
    autojump_clock, way, rate
):
    first, make = way
    reasons, ended = await served(Reader(first, rate=rate), make)
    assert reasons == ["socket"]
    assert ended <= 32, "the greeting may have taken a second"


@pytest.mark.parametrize("octets", [0, 1, 16_000])
async def test_a_window_that_hardly_opens_costs_its_stream_after_send_s(
    autojump_clock, engine, octets
):
    line = Reader(h2(octets), says=lambda _: credit(octets) if octets else b"")
    reasons, ended = await served(line, engine)
    assert reasons == ["send_s"]
    assert ended <= 31
    assert (RST, 1) in [(kind, stream) for kind, stream, _ in line.frames()]


async def test_what_was_taken_quickly_does_not_pay_for_silence_afterwards(autojump_clock, way):
    first, make = way
    reasons, ended = await served(Reader(first, rate=MBIT, until=20, buffer=4_000_000), make)
    assert reasons == ["socket"]
    assert ended <= 62, "the span in which it stopped, and one more"


async def test_a_shut_window_is_not_kept_open_by_what_other_streams_take(autojump_clock, engine):
    seconds = count()

    def says(_):
        return credit(MBIT, stream=3) if next(seconds) < 300 else b""

    line = Reader(h2(0, streams=(1, 3)), says=says)
    reasons, ended = await served(line, engine)
    assert reasons == ["send_s"]
    assert ended <= 31
    assert line.body(3) > 3_000_000
    resets = [stream for kind, stream, _ in line.frames() if kind == RST]
    assert resets == [1], "the other one goes on"


async def test_an_answer_in_pieces_goes_on_as_long_as_its_reader_does(autojump_clock, engine):
    line = Reader(h2(1 << 30, b"/endless"), rate=MBIT)
    reasons, _ = await served(line, engine, lambda: line.taken > LARGE)
    assert reasons == []
    line = Reader(h2(1 << 30, b"/endless"), rate=1000)
    began = trio.current_time()
    reasons, ended = await served(line, engine)
    assert reasons
    assert ended - began <= 62
