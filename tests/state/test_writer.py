"""The writer's division of labour: what computes is done by the loop, what waits or is large by one thread of its own."""

import threading

import pytest
import trio
import trio.testing

from hub.model.failpoint import Point
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.state.entry import leaf_of
from hub.state.keeper import Conflict, Put
from hub.state.open import open_keeper
from hub.state.plan import steps_of
from hub.state.thread import Thread
from hub.state.work import Commit
from tests.state.keepers import event, limits


class Places:
    """A failpoint that notes on which thread the store is at its points."""

    def __init__(self):
        self.seen: list[tuple[Point, str]] = []

    def __call__(self, point):
        if point in {Point.AFTER_BEGIN, Point.BEFORE_COMMIT}:
            self.seen.append((point, threading.current_thread().name))


def put(name: str) -> Put:
    return Put(Setting(name=name, value=b"v"))


async def test_a_small_work_is_prepared_by_the_loop_and_synced_by_the_thread(tmp_path, clock):
    places = Places()
    async with open_keeper(tmp_path, clock=clock, limits=limits(), failpoint=places) as keeper:
        assert await keeper.commit([put("a")], [event()]) == (0,)
    here = threading.current_thread().name
    assert places.seen == [(Point.AFTER_BEGIN, here), (Point.BEFORE_COMMIT, "commit")]


async def test_a_large_work_does_not_hold_the_loop(tmp_path, clock):
    places = Places()
    async with open_keeper(tmp_path, clock=clock, limits=limits(), failpoint=places) as keeper:
        changes = [put(str(number)) for number in range(17)]
        assert await keeper.commit(changes, [event()]) == (0,)
        await keeper.purge()
    assert {place for _, place in places.seen} == {"commit"}


async def test_nothing_of_a_prepared_group_is_seen_before_it_is_committed(tmp_path, clock):
    seen = []

    def look(point):
        if point is Point.BEFORE_COMMIT:
            seen.append(trio.from_thread.run(keeper.lookup, Setting, "a", trio_token=token))

    token = trio.lowlevel.current_trio_token()
    async with open_keeper(tmp_path, clock=clock, limits=limits(), failpoint=look) as keeper:
        await keeper.commit([put("a")], [event()])
        assert seen == [None]
        assert await keeper.lookup(Setting, "a") is not None


async def test_whoever_stops_waiting_for_a_commit_leaves_the_others_alone(tmp_path, clock):
    gate, results = threading.Event(), []

    def held(point):
        if point is Point.BEFORE_COMMIT:
            assert gate.wait(10)

    async def write(name: str) -> None:
        results.append(await keeper.commit([put(name)], [event()]))

    async with open_keeper(tmp_path, clock=clock, limits=limits(), failpoint=held) as keeper:
        async with trio.open_nursery() as stays, trio.open_nursery() as leaves:
            stays.start_soon(write, "a")
            leaves.start_soon(write, "b")
            await trio.testing.wait_all_tasks_blocked()
            leaves.cancel_scope.cancel()
            gate.set()
        assert [isinstance(one, Fault) for one in results] == [False]
        assert await keeper.lookup(Setting, "b") is not None


async def test_works_that_come_together_have_a_result_each(tmp_path, clock):
    steps = [steps_of([Put(Setting(name="a", value=b"v"), expect)]) for expect in (0, 7, 1)]
    works = [Commit(some, [leaf_of(event())]) for some in steps]
    async with open_keeper(tmp_path, clock=clock, limits=limits(commit_queue=3)) as keeper:
        assert await keeper.commit_all(works) == [(0,), Conflict(0), (1,)]
        assert (await keeper.lookup(Setting, "a"))[1] == 2
        assert await keeper.commit_all([]) == []
        works = [Commit((), [leaf_of(event())])] * 5
        done = await keeper.commit_all(works)
        assert done[:3] == [(2,), (3,), (4,)]
        assert [(one.status, one.check) for one in done[3:]] == [(503, "keeper.queue")] * 2
        assert await keeper.commit_all(works[:1]) == [(5,)]


async def test_many_small_works_are_prepared_in_several_turns(tmp_path, clock):
    places = Places()
    async with open_keeper(tmp_path, clock=clock, limits=limits(), failpoint=places) as keeper:
        works = [Commit(steps_of([put(str(n))]), [leaf_of(event())]) for n in range(510)]
        assert await keeper.commit_all(works) == [(n,) for n in range(510)]
        assert len(places.seen) == 2 * 5, "five groups of 102"
        places.seen.clear()
        events = [Commit((), [leaf_of(event())])] * 512
        assert len(await keeper.commit_all(events)) == 512
        assert len(places.seen) == 2, "what is cheap goes together"


async def test_whoever_waits_for_others_to_hear_is_told_when_the_keeper_stops(tmp_path, clock):
    answers, told = [], trio.Event()

    async def never_hears(_changed) -> None:
        told.set()
        await trio.sleep_forever()

    async def write(keeper) -> None:
        answers.append(await keeper.commit([put("a")], [event()]))

    async with (
        trio.open_nursery() as outside,
        open_keeper(tmp_path, clock=clock, limits=limits()) as keeper,
    ):
        keeper.attend(never_hears)
        outside.start_soon(write, keeper)
        await told.wait()
    assert [(one.status, one.check) for one in answers] == [(503, "keeper.stopping")]
    async with open_keeper(tmp_path, clock=clock, limits=limits()) as keeper:
        assert await keeper.lookup(Setting, "a") is not None


async def test_a_cancelled_task_waits_for_its_threads_job():
    thread, gate, ended = Thread("test"), threading.Event(), []

    def job() -> None:
        assert gate.wait(10)
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, job)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        assert not ended
        gate.set()
    assert ended == [True]
    thread.close()
    assert "test" not in {one.name for one in threading.enumerate()}


async def test_a_job_that_fails_raises_in_its_task_and_the_thread_goes_on():
    thread = Thread("test")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    assert await thread.run(lambda: "next") == "next"
    thread.close()
