"""How long a head may take: its own time only, not that of those before it, nor the time in which nobody reads."""

import pytest
import trio

from hub.edge.connection import Connection
from hub.edge.desk import Desk
from hub.edge.listener import _bounds
from hub.model.caller import Peer
from hub.model.terms import Face
from tests.edge import rig
from tests.protocol.h2_frames import ENGINES, GREETING, headers

HALF = 12


async def at(moment: float) -> None:
    """Wait until then."""
    with trio.move_on_at(moment):
        await trio.sleep_forever()


class Line:
    """A transport without a socket: its peer sends each piece at its second, and then takes nothing until another."""

    def __init__(self, pieces: list[tuple[float, bytes]], takes: float = 0.0) -> None:
        self.pieces = pieces
        self.takes = takes
        self.sent = b""

    @property
    def stuck(self) -> bool:
        return 0.0 < trio.current_time() < self.takes

    @property
    def waiting(self) -> int:
        return int(self.stuck)

    async def receive(self) -> bytes:
        if (
            not self.pieces
        ):  # it stays a second for its answer: whose caller is gone before its turn has none
            await at(trio.current_time() + 1.0)
            return b""
        second, data = self.pieces.pop(0)
        await at(second)
        return data

    def send_now(self, data: bytes) -> bool:
        self.sent += data
        return not self.stuck

    async def flush(self) -> None:
        await at(self.takes)

    async def bye(self) -> None:
        pass


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


async def served(nursery, line, engine):
    """Serve a connection over the line; return what was noted of it."""
    notebook, limits = rig.Notebook(), rig.limits()
    assert limits.header_s == 10
    desk = Desk(
        face=Face.TPP, app=rig.echo_router(), limits=limits, observer=notebook, clock=None, hosts=()
    )
    nursery.start_soon(desk.times.run)
    await Connection(desk, line, engine(_bounds(limits)), Peer(address="192.0.2.1")).run()
    nursery.cancel_scope.cancel()
    return notebook


async def test_heads_that_each_come_in_time_are_served_however_the_octets_are_cut(
    nursery, autojump_clock, engine
):
    octets = b"".join(headers(number) for number in range(1, 17, 2))
    cuts = range(HALF, len(octets), len(headers(1)))
    pieces = [(0.0, GREETING + octets[:HALF])]
    pieces += [(3.0 * at, octets[cut : cut + len(headers(1))]) for at, cut in enumerate(cuts, 1)]
    notebook = await served(nursery, Line(pieces), engine)
    assert notebook.reasons("connection_refused") == []
    assert [response.status for _, response, _ in notebook.answers] == [200] * 8


async def test_the_time_in_which_nobody_reads_a_head_is_not_counted(
    nursery, autojump_clock, engine
):
    pieces = [(0.0, GREETING), (1.0, headers(1) + headers(3)[:HALF]), (9.0, headers(3)[HALF:])]
    notebook = await served(nursery, Line(pieces, takes=25.0), engine)
    assert notebook.reasons("connection_refused") == []
    assert [response.status for _, response, _ in notebook.answers] == [200] * 2


async def test_a_head_that_does_not_go_on_once_it_is_read_again_is_late(
    nursery, autojump_clock, engine
):
    pieces = [(0.0, GREETING), (1.0, headers(1) + headers(3)[:HALF]), (45.0, headers(3)[HALF:])]
    notebook = await served(nursery, Line(pieces, takes=25.0), engine)
    assert notebook.reasons("connection_refused") == ["header_s"]
    assert trio.current_time() == 35.0
