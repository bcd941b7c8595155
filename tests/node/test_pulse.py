"""The pulse: a loop that hangs is noticed by looks without a beat; a watcher's own sleep, and a slow start, are no hang."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import trio

from hub.node.pulse import HANGS, Heart, Pulse, beat, guard, heard, pipe
from tests.edge.rig import Notebook
from tests.waiting import virtual


def looks(pulse, beats):
    return [pulse.look(beaten=beaten == ".") for beaten in beats]


def test_a_loop_hangs_when_it_was_silent_for_the_bound_and_a_beat_begins_anew():
    pulse = Pulse(3, 3)
    assert looks(pulse, ".--.--.") == [0] * 7
    assert looks(pulse, "----") == [0, 0, HANGS, HANGS + 1]


def test_a_slow_start_has_a_bound_of_its_own_until_the_first_beat():
    pulse = Pulse(3, 8)
    assert looks(pulse, "-------") == [0] * 7
    assert looks(pulse, ".") == [0]
    assert looks(pulse, "---") == [0, 0, HANGS]
    assert looks(Pulse(3, 8), "--------")[-1] == HANGS


async def test_a_watcher_that_slept_for_an_hour_with_everybody_has_looked_once(autojump_clock):
    pulse, (hear, tell) = Pulse(3, 3), pipe()
    with hear, tell:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat, tell.fileno())
            await virtual(0.5)
            assert pulse.look(beaten=heard(hear)) == 0
            assert not heard(hear)
            autojump_clock.jump(3600)
            assert pulse.look(beaten=heard(hear)) == 0, "the loop had no chance to beat"
            await virtual(1.5)
            assert heard(hear)
            nursery.cancel_scope.cancel()


async def test_a_beat_never_waits_and_outlives_who_listens(autojump_clock):
    hear, tell = pipe()
    with tell:
        with hear:
            assert tell.write(bytes(1_000_000)) < 1_000_000, "the pipe is full"
            with trio.move_on_after(3):
                await beat(tell.fileno())
        assert not heard(hear)
        with trio.move_on_after(3):
            await beat(tell.fileno())


class Loop:
    """Beat at those looks of a watcher where it says so, and count the looks."""

    def __init__(self, beats, silent_s=3.0):
        self.notebook, self.ended, self.looked = Notebook(), [], 0
        self.limits = SimpleNamespace(loop_silent_s=silent_s)
        self.heart = Heart(self.notebook, lambda: self.limits, lambda: self.ended.append(True))
        self.beats = list(beats)

    def rest(self, _seconds):
        if not self.beats:
            return True
        self.looked += 1
        if self.beats.pop(0) == ".":
            self.heart.beat()
        return False

    def watched(self):
        self.heart.watch(self.rest)
        return self.ended, [fields for name, fields in self.notebook.notes if name == "loop_hangs"]


@pytest.mark.parametrize("beats", ["", "." * 50, ".--" * 20])
def test_a_node_whose_loop_turns_lives(beats):
    assert Loop(beats).watched() == ([], [])


def test_a_node_whose_loop_hangs_says_so_and_ends():
    loop = Loop("....-----------")
    assert loop.watched() == ([True], [{"seconds": 3}])
    assert loop.looked == 8


def test_a_node_that_came_back_after_it_was_told_lives():
    assert Loop(".---.--.").watched() == ([], [{"seconds": 3}])


def test_a_node_obeys_the_bound_in_force():
    loop = Loop("-" * 20)
    rest, loop.limits = loop.rest, SimpleNamespace(loop_silent_s=3.0)

    def change(seconds):
        if loop.looked == 2:
            loop.limits = SimpleNamespace(loop_silent_s=10.0)
        return rest(seconds)

    loop.heart.watch(change)
    assert loop.ended
    assert loop.looked == 2 + 10 + 1


HANGING = """
import os, signal
from hub.node.core import forbid_core_files
from hub.node.pulse import show_where_it_hangs
forbid_core_files()
show_where_it_hangs()
def hangs_here(payload):
    os.kill(os.getpid(), signal.SIGABRT)
hangs_here("AE07" + "0331234567890123456")
"""


def test_the_end_shows_where_it_hung_and_no_value():
    run = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, check=False)
    assert run.returncode == -6
    assert b"hangs_here" in run.stderr
    assert b"0331234567890123456" not in run.stderr


BLOCKED = """
import io, sys, threading, trio
from types import SimpleNamespace
from hub.model.clock import FixedClock
from hub.node import pulse
from hub.observe import Observer
pulse.BEAT_S = 0.2
pulse.show_where_it_hangs()
async def blocks_here():
    print("turns", flush=True)
    await trio.to_thread.run_sync(lambda: None)
    {}
async def main():
    async with trio.open_nursery() as nursery:
        limits = SimpleNamespace(loop_silent_s=0.4)
        nursery.start_soon(pulse.guard, lambda: limits, Observer(FixedClock(1), log=True))
        nursery.start_soon(blocks_here)
trio.run(main)
"""


@pytest.mark.parametrize("way", ["threading.Event().wait()", "[0 for _ in iter(int, 1)]"])
def test_a_node_ends_where_its_loop_waits_for_ever_or_turns_in_a_circle(way):
    command = [sys.executable, "-c", BLOCKED.format(way)]
    run = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert run.returncode == -6
    assert b"blocks_here" in run.stderr
    assert b'"note":"loop_hangs"' in run.stdout


def test_a_node_ends_where_its_loop_computes_and_gives_no_other_thread_a_turn():
    code = BLOCKED.format("pow(3, 10**9)").replace("0.2", "0.05").replace("0.4", "0.1")
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert run.returncode == -26
    assert b"blocks_here" in run.stderr


async def test_a_node_that_was_left_computes_as_long_as_it_likes(autojump_clock):
    limits = SimpleNamespace(loop_silent_s=3.0)
    with trio.move_on_after(10):
        await guard(lambda: limits, Notebook())
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
