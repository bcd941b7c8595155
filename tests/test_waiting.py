"""Waiting itself: it ends when the condition holds, and says what it waited for when it does not."""

import signal
import subprocess
import sys
import threading

import pytest
import trio
import trio.testing

from tests.waiting import ended, ended_blocking, until, until_blocking, virtual


async def test_waiting_returns_what_the_condition_found():
    answers = iter([[], 0, "found"])
    assert await until(lambda: next(answers), 5, "an answer") == "found"
    answers = iter([[], 0, "found"])
    assert until_blocking(lambda: next(answers), 5, "an answer") == "found"


async def test_waiting_for_another_thread_and_with_an_asynchronous_condition():
    there = threading.Event()
    thread = threading.Thread(target=there.set)

    async def condition():
        if not thread.ident:
            thread.start()
        await trio.lowlevel.checkpoint()
        return there.is_set()

    assert await until(condition, 5, "the thread")
    thread.join()


async def test_a_wait_in_vain_says_what_it_waited_for_and_what_it_saw():
    sentence = r"^waited 0.03 s for a third bird; last seen: \[\]; the sky is empty$"
    with pytest.raises(AssertionError, match=sentence):
        await until(list, 0.03, "a third bird", seen=lambda: "the sky is empty")
    with pytest.raises(AssertionError, match=sentence):
        until_blocking(list, 0.03, "a third bird", seen=lambda: "the sky is empty")


async def test_a_condition_that_never_answers_is_given_up(autojump_clock):
    with pytest.raises(AssertionError, match="for an answer; last seen: nothing"):
        await until(trio.sleep_forever, 60, "an answer")


async def test_the_end_of_a_process_is_noticed_and_its_staying_is_told():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pytest.raises(AssertionError, match=rf"for the end of a child \({child.pid}\)"):
        await ended(child.pid, 0.01, "a child")
    with pytest.raises(AssertionError, match=rf"for the end of a child \({child.pid}\)"):
        ended_blocking(child.pid, 0.01, "a child")
    child.kill()
    await ended(child.pid, 5, "a child")
    ended_blocking(child.pid, 5, "a child")
    assert child.wait() == -signal.SIGKILL
    child.stdin.close()
    await ended(child.pid, 5, "a process that is no more")


async def test_virtual_time_passes_on_a_mock_clock(autojump_clock):
    before = trio.current_time()
    await virtual(1000)
    assert trio.current_time() == before + 1000


async def test_virtual_time_is_refused_on_a_real_clock():
    with pytest.raises(AssertionError, match="real time is not waited for"):
        await virtual(0)


async def test_virtual_time_is_refused_on_a_clock_that_nobody_moves(mock_clock):
    with pytest.raises(AssertionError, match="nobody moves this clock"):
        await virtual(1)
