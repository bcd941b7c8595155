"""What the edge refuses becomes events: each one of a known caller, one a minute of strangers."""

import pytest
import trio

from hub.model.caller import Peer
from hub.model.clock import FixedClock, SeededDice
from hub.model.event import Kind
from hub.model.fault import Fault, Source
from hub.model.http import Admission, Request, Response
from hub.model.terms import Face
from hub.node.leased import Leased
from hub.node.refusals import Refusals
from hub.state.memory import MemoryKeeper
from tests.edge.rig import Notebook

KNOWN = Peer(address="192.0.2.7", x5t_s256="t" * 43, client_id="client", organisation_id="org")
STRANGER = Peer(address="192.0.2.7")
FULL = Fault(source=Source.HUB, status=503, code="", public="full", check="store.full")


class Desk:
    def __init__(self):
        self.clock = FixedClock(1_780_000_000)
        self.keeper = MemoryKeeper(clock=self.clock)
        self.notebook = Notebook()
        self.refusals = Refusals(
            keeper=self.keeper,
            clock=self.clock,
            dice=SeededDice("refusals"),
            observer=self.notebook,
        )

    async def refuse(self, peer, status=404, check="edge.path_unknown"):
        request = Request(
            face=Face.TPP, method="GET", authority="h", path="/secret-path", peer=peer
        )
        return await self.refusals.refused(request, Response(status=status), check)

    async def events(self):
        from msgspec import json

        from hub.model.event import Event

        return [json.decode(leaf, type=Event) for leaf in await self.keeper.events(0, 1000)]


@pytest.fixture
async def desk(nursery):
    made = Desk()
    nursery.start_soon(made.refusals.run)
    return made


async def test_each_refusal_of_a_known_caller_is_an_event_before_the_answer(desk):
    for _ in range(3):
        answer = await desk.refuse(KNOWN)
        assert answer.status == 404
        assert answer.event is not None
    events = await desk.events()
    assert [(e.kind, e.client_id, e.check, e.status) for e in events] == [
        (Kind.CALL, "client", "edge.path_unknown", 404)
    ] * 3
    assert len({e.interaction_id for e in events}) == 3


async def test_a_path_is_never_written_down(desk):
    await desk.refuse(KNOWN)
    await desk.refuse(STRANGER)
    await trio.testing.wait_all_tasks_blocked()
    leaves = b"".join(await desk.keeper.events(0, 10))
    assert leaves
    assert b"secret-path" not in leaves


async def test_strangers_are_one_event_per_network_check_and_minute_and_all_are_counted(desk):
    for _ in range(1000):
        await desk.refuse(STRANGER)
    for last in range(100):
        desk.refusals.turned_away(Face.TPP, f"192.0.2.{last}", "edge.handshake_s")
    desk.refusals.turned_away(Face.TPP, "198.51.100.1", "edge.handshake_s")
    await trio.testing.wait_all_tasks_blocked()
    first = await desk.events()
    assert [(e.kind, e.check, e.subject, e.count) for e in first] == [
        (Kind.REFUSED, "edge.path_unknown", "192.0.2.0/24", 1),
        (Kind.REFUSED, "edge.handshake_s", "192.0.2.0/24", 1),
        (Kind.REFUSED, "edge.handshake_s", "198.51.100.0/24", 1),
    ]
    desk.clock.advance(60)
    await desk.refuse(STRANGER)
    await trio.testing.wait_all_tasks_blocked()
    assert (await desk.events())[-1].count == 1000


async def test_a_refusal_that_cannot_be_written_is_503(desk):
    desk.keeper.refusal = FULL
    assert (await desk.refuse(KNOWN)).status == 503


async def test_an_answer_for_a_failed_store_does_not_wait_for_the_store(desk):
    desk.keeper.refusal = FULL
    answer = await desk.refuse(KNOWN, 503, "edge.unavailable")
    assert answer.status == 503
    desk.keeper.refusal = None


async def test_what_waits_is_bounded_and_what_is_lost_is_noted():
    desk = Desk()  # nobody writes
    for number in range(300):
        desk.refusals.turned_away(Face.TPP, f"10.{number}.0.1".replace("10.2", "11.2"), "edge.x")
    assert [n for n, _ in desk.notebook.notes].count("refusal_lost") > 0


class Served:
    def admit(self, request):
        return Admission()

    async def respond(self, request):
        return Response(status=200)


def test_a_worker_without_a_lease_admits_nothing():
    leased = True
    app = Leased(Served(), lambda: leased)
    request = Request(face=Face.TPP, method="GET", authority="h", path="/")
    assert isinstance(app.admit(request), Admission)
    leased = False
    refused = app.admit(request)
    assert isinstance(refused, Response)
    assert (refused.status, refused.headers) == (503, ((b"retry-after", b"1"),))
