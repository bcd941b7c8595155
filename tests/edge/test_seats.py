"""Seats: a task and scope serve one exchange after another, and none suffers from what befell the one before."""

import math
import weakref

import pytest
import trio

from hub.edge.desk import Desk
from hub.edge.exchange import Exchange
from hub.edge.router import Router
from hub.edge.seat import Seat, Seats
from hub.model.caller import NOBODY
from hub.model.http import Admission, Request, Response
from hub.model.terms import Face
from tests.edge import rig
from tests.waiting import until


@pytest.fixture(params=rig.ENGINES)
def engine(request):
    return request.param


class House:
    """An application that remembers which task served which path."""

    def __init__(self) -> None:
        self.tasks = {}
        self.entered = trio.Event()
        self.cancelled = trio.Event()
        answers = ("quick", "fail", "stay", "streamed")
        self.app = Router({("GET", f"/{name}"): getattr(self, name) for name in answers})

    def _seen(self, request: Request) -> None:
        self.tasks.setdefault(request.path, []).append(trio.lowlevel.current_task())

    async def quick(self, request: Request) -> Response:
        self._seen(request)
        await trio.lowlevel.checkpoint()
        return Response(status=200)

    async def fail(self, request: Request) -> Response:
        self._seen(request)
        raise ZeroDivisionError

    async def stay(self, request: Request) -> Response:
        self._seen(request)
        self.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def streamed(self, request: Request) -> Response:
        self._seen(request)

        async def pieces():
            yield b"a"

        return Response(status=200, stream=pieces())

    def served(self, path: str) -> list[trio.lowlevel.Task]:
        return self.tasks.get(path, [])


async def ask(client: rig.H2Client, path: str) -> int:
    return (await client.answer(await client.open("GET", path)))[0]


async def test_a_task_whose_exchange_ended_well_serves_the_next(engine):
    house = House()
    async with rig.listening(house.app, engine=engine) as place, rig.h2_client(place) as client:
        for path in ("/quick", "/streamed", "/quick"):
            assert await ask(client, path) == 200
    assert len({*house.served("/quick"), *house.served("/streamed")}) == 1


async def test_a_task_whose_exchange_failed_serves_no_other(engine):
    house = House()
    async with rig.listening(house.app, engine=engine) as place, rig.h2_client(place) as client:
        assert [await ask(client, p) for p in ("/quick", "/fail", "/quick")] == [200, 500, 200]
    assert house.served("/quick")[0] is house.served("/fail")[0]
    assert house.served("/quick")[1] is not house.served("/fail")[0]


async def test_an_exchange_cancelled_by_its_caller_cancels_no_other(engine):
    house = House()
    async with rig.listening(house.app, engine=engine) as place, rig.h2_client(place) as client:
        assert await ask(client, "/quick") == 200
        number = await client.open("GET", "/stay")
        await house.entered.wait()
        client.h2.reset_stream(number)
        await client.flush()
        with trio.fail_after(5):
            await house.cancelled.wait()
        assert await ask(client, "/quick") == 200
    assert house.served("/stay")[0] is house.served("/quick")[0]
    assert house.served("/quick")[1] is not house.served("/stay")[0]


async def test_the_second_exchange_of_a_task_has_its_deadline_too(engine):
    house = House()
    async with rig.listening(house.app, engine=engine, request_s=0.3) as place:
        async with rig.h2_client(place) as client:
            assert await ask(client, "/quick") == 200
            began = trio.current_time()
            assert await ask(client, "/stay") == 503
            assert trio.current_time() - began >= 0.3
            assert await ask(client, "/quick") == 200
        await until(lambda: place.notebook.reasons("request_late"), 5, "the note")


async def test_many_at_once_have_a_task_each(engine):
    house = House()
    async with rig.listening(house.app, engine=engine) as place, rig.h2_client(place) as client:
        for _ in range(2):
            numbers = [await client.open("GET", "/stay") for _ in range(3)]
            await until(lambda: len(house.served("/stay")) >= 3, 5, "three at once")
            assert len(set(house.served("/stay"))) == 3
            for number in numbers:
                client.h2.reset_stream(number)
            await client.flush()
            house.tasks.clear()


def desk(requests: int = 99) -> Desk:
    return Desk(
        face=Face.TPP, app=Router({}), limits=rig.limits(requests=requests), observer=rig.Notebook(), clock=None, hosts=()
    )  # fmt: skip


def exchange() -> Exchange:
    request = Request(face=Face.TPP, method="GET", authority="", path="/", peer=NOBODY)
    return Exchange(1, request, Admission(limit=0), rig.limits(), ignore, bool)


def ignore(_stream: int, _octets: int) -> None:
    pass


class Rest:
    """A seat in a task of its own, as the connection has it."""

    def __init__(self, seats: Seats, desk: Desk) -> None:
        self.seats, self.desk = seats, desk
        self.seat, self.said = Seat(exchange(), None), []

    async def run(self, seconds: float = 10.0) -> None:
        with trio.move_on_at(math.inf) as scope:
            self.seat.scope = scope
            self.desk.times.allow(scope, trio.current_time() + seconds)
            while not self.said or self.said[-1]:
                self.seat.exchange = None
                self.said.append(await self.seats.rest(self.seat))


async def test_a_seat_that_rests_goes_when_its_time_is_over(nursery, autojump_clock):
    shared = desk()
    nursery.start_soon(shared.times.run)
    seats = Seats(shared)
    rest = Rest(seats, shared)
    await rest.run()
    assert trio.current_time() == 10
    assert not seats.take(exchange(), None, 99.0)
    assert rest.said == []
    nursery.cancel_scope.cancel()


async def test_a_seat_gets_the_exchange_its_answer_and_its_time(nursery, mock_clock):
    shared, given, asked = desk(), Response(status=503), exchange()
    nursery.start_soon(shared.times.run)
    seats = Seats(shared)
    rest = Rest(seats, shared)
    nursery.start_soon(rest.run)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(8)
    assert seats.take(asked, given, 18.0)
    assert (rest.seat.exchange, rest.seat.given) == (asked, given)
    assert not seats.take(exchange(), None, 18.0)
    await trio.testing.wait_all_tasks_blocked()
    assert rest.said == [True]
    mock_clock.jump(9)
    await trio.testing.wait_all_tasks_blocked()
    assert seats.take(asked, None, 30.0), "its first time would have been over at 10"
    seats.close()
    nursery.cancel_scope.cancel()


async def test_a_scope_that_is_spent_is_not_used_again(nursery):
    for spend in ("cancel", "lift"):
        shared = desk()
        seats = Seats(shared)
        seat = Seat(exchange(), None)
        with trio.move_on_at(math.inf) as scope:
            seat.scope = scope
            shared.times.allow(scope, math.inf if spend == "lift" else 1e9)
            if spend == "cancel":
                scope.cancel()
            assert not await seats.rest(seat)


async def test_all_connections_together_have_only_so_many_that_rest(nursery):
    shared = desk(3)
    one, other = Seats(shared), Seats(shared)
    rests = [Rest(seats, shared) for seats in (one, one, other, other)]
    for rest in rests:
        nursery.start_soon(rest.run)
    await trio.testing.wait_all_tasks_blocked()
    assert (shared.resting, [rest.said for rest in rests].count([False])) == (3, 1)
    assert one.take(exchange(), None, 30.0) or other.take(exchange(), None, 30.0)
    assert shared.resting == 2
    one.close()
    other.close()
    assert shared.resting == 0


async def test_who_is_cancelled_rests_no_longer(nursery, autojump_clock):
    shared = desk()
    nursery.start_soon(shared.times.run)
    await Rest(Seats(shared), shared).run()
    assert shared.resting == 0
    nursery.cancel_scope.cancel()


async def test_few_rest_and_none_once_the_connection_ends(nursery):
    shared = desk()
    seats = Seats(shared)
    rests = [Rest(seats, shared) for _ in range(20)]
    for rest in rests:
        nursery.start_soon(rest.run)
    await trio.testing.wait_all_tasks_blocked()
    assert [rest.said for rest in rests].count([False]) == 4
    seats.close()
    await trio.testing.wait_all_tasks_blocked()
    assert all(rest.said == [False] for rest in rests)
    late = Rest(seats, shared)
    await late.run()
    assert late.said == [False]


async def test_a_task_that_rests_holds_nothing_of_the_exchange_that_was(engine):
    kept = []

    async def streamed(request: Request) -> Response:
        async def pieces():
            yield b"a"

        stream = pieces()
        kept.append(weakref.ref(stream))
        return Response(status=200, stream=stream)

    app = Router({("GET", "/streamed"): streamed})
    async with rig.listening(app, engine=engine) as place, rig.h2_client(place) as client:
        assert await ask(client, "/streamed") == 200
        await until(lambda: place.notebook.answers, 5, "the answer was noted")
        place.notebook.answers.clear()
        await trio.testing.wait_all_tasks_blocked()
        assert kept[0]() is None
