"""The timekeeper: whose time is over is cancelled then, however often the time was moved, and nobody else is."""

import math

import trio

from hub.edge.timekeeper import Timekeeper


async def at(moment):
    """Wait until then."""
    with trio.move_on_at(moment):
        await trio.sleep_forever()


async def ending(times, seconds, ends, name):
    with trio.move_on_at(math.inf) as scope:
        times.allow(scope, trio.current_time() + seconds)
        await trio.sleep_forever()
    assert scope.cancelled_caught
    ends[name] = trio.current_time()
    times.forget(scope)


async def test_each_ends_at_its_own_time_in_whatever_order_they_came(nursery, autojump_clock):
    times, ends = Timekeeper(), {}
    nursery.start_soon(times.run)
    async with trio.open_nursery() as inner:
        for name, seconds in (("late", 30), ("soon", 3), ("between", 10), ("with it", 10)):
            inner.start_soon(ending, times, seconds, ends, name)
            await trio.testing.wait_all_tasks_blocked()
    assert ends == {"soon": 3, "between": 10, "with it": 10, "late": 30}
    nursery.cancel_scope.cancel()


async def test_a_time_that_was_moved_holds_and_the_old_one_does_not(nursery, autojump_clock):
    times = Timekeeper()
    nursery.start_soon(times.run)
    with trio.move_on_at(math.inf) as scope:
        for moved in (10, 15, 20):
            times.allow(scope, moved)
            await at(moved - 1)
        await trio.sleep_forever()
    assert trio.current_time() == 20
    assert times.lifted(scope)
    nursery.cancel_scope.cancel()


async def test_a_time_that_comes_sooner_than_before_is_heard_of(nursery, autojump_clock):
    times = Timekeeper()
    nursery.start_soon(times.run)
    with trio.move_on_at(math.inf) as scope:
        times.allow(scope, 50)
        await at(1)
        times.allow(scope, 5)
        await trio.sleep_forever()
    assert trio.current_time() == 5
    nursery.cancel_scope.cancel()


async def test_who_was_lifted_or_forgotten_is_left_alone(nursery, autojump_clock):
    times = Timekeeper()
    nursery.start_soon(times.run)
    with trio.move_on_at(math.inf) as lifted, trio.move_on_at(math.inf) as forgotten:
        for scope in (lifted, forgotten):
            times.allow(scope, 5)
            assert not times.lifted(scope)
        times.lift(lifted)
        times.forget(forgotten)
        await at(99)
        assert times.lifted(lifted)
    assert not lifted.cancel_called
    assert not forgotten.cancel_called
    nursery.cancel_scope.cancel()
