"""Whatever befalls an exchange, what it took of the edge is given back: plans by chance against both HTTP/2 engines and HTTP/1.1."""

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.edge.exchange import Exchange
from hub.model.caller import NOBODY
from hub.model.http import Admission, Request
from hub.model.terms import Face
from tests.edge.giving_back import BEHAVIOURS, World, bounded, run, settled
from tests.protocol.h2_frames import ENGINES

WORDS = (
    *("open",) * 8, *("data",) * 5, *("reset",) * 2, *("widen",) * 2, *("pass",) * 3, "settings", "goaway", "gone",
    *("stuck",) * 2, *("loose",) * 2, "drain", "drain_now", "cancel", "connect",
)  # fmt: skip
STEP = st.tuples(
    st.sampled_from(WORDS),
    st.integers(0, 1),
    st.integers(0, len(BEHAVIOURS) * 2),
    st.integers(0, 4_000),
    st.booleans(),
)
PLANS = st.lists(STEP, min_size=5, max_size=50)
BUSY = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
QUICK, STREAMED = BEHAVIOURS.index("quick"), 2


@pytest.mark.parametrize("engine", [*ENGINES, "http/1.1"])
@settings(max_examples=60, derandomize=True, suppress_health_check=BUSY, database=None)
@given(plan=PLANS)
def test_what_an_exchange_took_is_given_back_however_it_ends(engine, plan):
    run(engine, plan)


@pytest.mark.nightly
@pytest.mark.parametrize("engine", [*ENGINES, "http/1.1"])
@settings(max_examples=5_000, suppress_health_check=BUSY, database=None)
@given(plan=PLANS)
def test_it_is_given_back_whatever_happens_for_minutes(engine, plan):
    run(engine, plan)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_nobody_read_of_an_upload_leaves_the_connections_window_whole(engine):
    run(engine, [("open", 0, QUICK, STREAMED, True), ("data", 0, 0, 233, False)] * 3)


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_application_is_not_asked_for_who_left_before_the_task_ran(
    engine, autojump_clock
):
    async with trio.open_nursery() as nursery:
        world = World(engine, nursery)
        place = world.connect()
        await settled(world)
        place.line.prompt = True
        place.client.open("late", "none", ends=True, length=0, expects=False, fair=True)
        place.client.say()
        place.line.over = True
        await trio.testing.wait_all_tasks_blocked()
        assert place.served
        assert not world.house.asked


def test_what_came_before_a_streamed_body_was_too_large_is_credited():
    credited = []
    request = Request(face=Face.TPP, method="POST", authority="", path="/", peer=NOBODY)
    exchange = Exchange(
        1, request, Admission(limit=10, stream=True), bounded(), lambda _, n: credited.append(n), bool
    )  # fmt: skip
    for _ in range(3):
        exchange.add(bytes(6), 7)
    assert sum(credited) == 21
