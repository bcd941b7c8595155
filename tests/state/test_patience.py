"""Waiting with one clock for all: in order, once, and nobody is kept who waits no more."""

import pytest
import trio
import trio.testing

from hub.state.patience import Patience, Waiting
from tests.waiting import virtual


@pytest.fixture
async def patience(nursery):
    one = Patience(5.0, lambda: "late")
    nursery.start_soon(one.run)
    return one


async def wait(patience, waiting, answers):
    patience.begin(waiting)
    answers.append((await waiting.wait(), trio.current_time()))


async def test_each_is_late_after_the_same_time(nursery, patience, autojump_clock):
    answers, start = [], trio.current_time()
    for at in (0.0, 1.0, 1.5):
        await virtual(at)
        nursery.start_soon(wait, patience, Waiting(), answers)
    await virtual(8)
    assert [one for one, _ in answers] == ["late"] * 3
    assert [at - start for _, at in answers] == pytest.approx([5.0, 6.0, 7.5], abs=0.1)


async def test_the_first_answer_counts(nursery, patience, autojump_clock):
    answers, waiting = [], Waiting()
    nursery.start_soon(wait, patience, waiting, answers)
    await trio.testing.wait_all_tasks_blocked()
    waiting.finish("first")
    waiting.finish("second")
    await virtual(10)
    assert [one for one, _ in answers] == ["first"]


async def test_nobody_is_kept_who_is_done_or_gone(patience):
    answers = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait, patience, Waiting(), answers)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    patience.forget_done()
    assert not patience._queue
    assert not answers
