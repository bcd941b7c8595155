"""One connection and those who wait on it: who reads, who sends, whose time is up, and what leaves together."""

import math

import pytest
import trio
import trio.testing
from hpack import Encoder

from hub.protocol.h2_client import H2Client
from hub.protocol.h2_output import frame
from hub.protocol.h2_request import request_block
from hub.upstream.bank import BankStreamBroken
from hub.upstream.multiplex import SharedStream
from hub.upstream.shared import Shared

BLOCK = request_block(b"GET", b"bank", b"/", ())
SETTINGS = frame(4, 0, 0, b"")


class Line:
    """A connection in memory: what is sent is kept, what is said is received; it may be full."""

    def __init__(self):
        self.sent = []
        self.full = False
        self.readers = 0
        self.held = b""
        self.closed = False
        self._say, self._hear = trio.open_memory_channel(100)
        self._emptied = trio.Event()

    @property
    def unsent(self):
        return bool(self.held)

    def push(self, data):
        if self.closed:
            raise BrokenPipeError
        self.held += data
        if self.held and not self.full:
            self.sent.append(self.held)
            self.held = b""

    async def send(self, data):
        self.held += data
        while self.full:
            await self._emptied.wait()
        self.push(b"")

    def empty(self):
        self.full = False
        self._emptied.set()

    async def receive(self):
        assert not self.readers, "one at a time reads"
        self.readers += 1
        try:
            return await self._hear.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None
        finally:
            self.readers -= 1

    def say(self, *octets):
        self._say.send_nowait(b"".join(octets))

    def poll(self):
        try:
            return self._hear.receive_nowait()
        except trio.WouldBlock:
            return None

    def close(self):
        self.closed = True
        self._say.close()


def answer_to(*answers):
    return b"".join(
        [frame(1, 5, a.number, Encoder().encode([(":status", "200")])) for a in answers]
    )


class Rig:
    """A connection and its callers; ``results`` says how each wait ended."""

    def __init__(self):
        self.line = Line()
        self.client = H2Client(streams=100, header_octets=65_536)
        self.shared = Shared(self.line, self.client)
        self.line.say(SETTINGS)
        self.results = {}
        self.times = {}

    async def call(self, name, seconds=10.0, *, body=b""):
        answer = self.client.begin(BLOCK, body)
        self.results[name] = answer
        await self.shared.send()
        came = await self.shared.until(answer, answer.ready, trio.current_time() + seconds)
        self.results[name] = came and answer.complete
        self.times[name] = trio.current_time()
        self.client.cancel(answer)
        self.shared.nudge()


async def cancellable(rig, name, *, task_status):
    async with trio.open_nursery() as own:
        own.start_soon(rig.call, name)
        task_status.started(own.cancel_scope)


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def test_what_is_written_in_one_pass_leaves_together():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.call, 0)
        await settle()
        rig.line.sent.clear()
        for name in range(1, 30):
            nursery.start_soon(rig.call, name)
        await settle()
        assert len(rig.line.sent) == 1
        rig.line.say(answer_to(*rig.results.values()))
    assert set(rig.results.values()) == {True}


async def test_a_lone_request_is_sent_without_a_turn_of_the_scheduler():
    rig = Rig()
    answer = rig.client.begin(BLOCK)
    with trio.testing.assert_no_checkpoints():
        await rig.shared.send()
    assert len(rig.line.sent) == 1
    rig.client.cancel(answer)


async def test_answers_in_any_order_reach_their_callers():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for name in range(20):
            nursery.start_soon(rig.call, name)
        await settle()
        pending = dict(rig.results)
        for name in (7, 0, 19, 3, *[n for n in range(20) if n not in {7, 0, 19, 3}]):
            rig.line.say(answer_to(pending[name]))
            await settle()
            assert rig.results[name] is True
            assert rig.line.readers == (1 if rig.client.open else 0)


async def test_a_cancelled_reader_leaves_its_work_to_another():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(cancellable, rig, "reader")
        await settle()
        nursery.start_soon(rig.call, "other")
        await settle()
        scope.cancel()
        await settle()
        assert rig.line.readers == 1
        rig.line.say(answer_to(rig.results["other"]))
    assert rig.results["other"] is True


async def test_every_deadline_is_kept_whoever_reads(mock_clock):
    rig = Rig()
    waits = {"reader": 5.0, "later": 7.0, "same": 5.0, "sooner": 1.0, "last": 9.0}
    async with trio.open_nursery() as nursery:
        for name, seconds in waits.items():
            nursery.start_soon(rig.call, name, seconds)
            await settle()
        for moment in (1.0, 4.0, 2.0, 2.0):
            mock_clock.jump(moment)
            await settle()
    assert set(rig.results.values()) == {False}
    assert rig.times == {name: pytest.approx(seconds) for name, seconds in waits.items()}


async def test_an_answer_that_comes_after_some_gave_up_reaches_the_rest(mock_clock):
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for name, seconds in {"reader": 5.0, "patient": 50.0, "short": 1.0}.items():
            nursery.start_soon(rig.call, name, seconds)
            await settle()
        patient = rig.results["patient"]
        mock_clock.jump(20.0)
        await settle()
        rig.line.say(answer_to(patient))
    assert rig.results == {"reader": False, "patient": True, "short": False}


async def test_octets_that_a_full_socket_held_back_are_sent_by_one_while_another_reads():
    rig = Rig()
    rig.line.full = True
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(rig.call, name)
        await settle()
        assert (rig.line.sent, rig.line.readers) == ([], 1)
        pending = dict(rig.results)
        rig.line.empty()
        await settle()
        assert len(b"".join(rig.line.sent)) > 3 * len(BLOCK)
        assert rig.line.readers == 1
        rig.line.say(answer_to(*pending.values()))
    assert set(rig.results.values()) == {True}


async def test_a_cancelled_drainer_leaves_its_work_to_another():
    rig = Rig()
    rig.line.full = True
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(cancellable, rig, "drainer")
        await settle()
        for name in ("reader", "third"):
            nursery.start_soon(rig.call, name)
            await settle()
        scope.cancel()
        await settle()
        rig.line.empty()
        await settle()
        assert rig.line.sent
        rig.line.say(answer_to(rig.results["reader"], rig.results["third"]))
    assert (rig.results["reader"], rig.results["third"]) == (True, True)


async def test_a_cancelled_drainer_leaves_its_work_to_the_one_who_reads():
    rig = Rig()
    rig.line.full = True
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(cancellable, rig, "drainer")
        await settle()
        nursery.start_soon(rig.call, "reader")
        await settle()
        scope.cancel()
        await settle()
        rig.line.empty()
        await settle()
        assert rig.line.sent
        rig.line.say(answer_to(rig.results["reader"]))
    assert rig.results["reader"] is True


async def test_an_answer_that_comes_before_all_is_sent_is_heard(mock_clock):
    rig = Rig()
    rig.line.full = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.call, "early")
        await settle()
        for name, seconds in {"short": 1.0, "long": 9.0}.items():
            nursery.start_soon(rig.call, name, seconds)
            await settle()
        early = rig.results["early"]
        mock_clock.jump(2.0)
        await settle()
        assert rig.results["short"] is False
        rig.line.say(answer_to(early))
        await settle()
        assert rig.results["early"] is True
        rig.line.empty()
        await settle()
        rig.line.say(answer_to(rig.results["long"]))
    assert rig.results["long"] is True


async def test_what_a_window_lets_go_is_sent_when_the_socket_was_full_for_a_while():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: rig.call("large", body=bytes(100_000)))
        await settle()
        rig.line.full = True
        opened = (50_000).to_bytes(4)
        rig.line.say(frame(8, 0, 0, opened), frame(8, 0, 1, opened))
        await settle()
        rig.line.empty()
        await settle()
        assert len(b"".join(rig.line.sent)) > 100_000
        rig.line.say(answer_to(rig.results["large"]))
    assert rig.results["large"] is True


async def test_what_one_who_leaves_could_not_send_is_sent_by_the_one_who_reads():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.call, "reader")
        await settle()
        rig.line.full = True
        rig.client.cancel(rig.client.begin(BLOCK))
        rig.shared.nudge()
        sent = len(rig.line.sent)
        await settle()
        rig.line.empty()
        await settle()
        assert len(rig.line.sent) == sent + 1
        rig.line.say(answer_to(rig.results["reader"]))
    assert rig.results["reader"] is True


async def test_the_end_of_the_connection_wakes_everybody():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        for name in range(10):
            nursery.start_soon(rig.call, name)
        await settle()
        rig.line.say(b"")
    assert set(rig.results.values()) == {False}
    assert not rig.shared.usable(trio.current_time(), 600, 55)


async def test_a_connection_that_breaks_while_it_is_sent_to_wakes_everybody():
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.call, "first")
        await settle()
        rig.line.closed = True
        nursery.start_soon(rig.call, "second")
    assert rig.results == {"first": False, "second": False}


async def test_a_connection_that_rested_is_looked_at_before_it_is_used():
    for farewell in (frame(7, 0, 0, bytes(8)), b""):
        rig = Rig()
        now = trio.current_time()
        assert rig.shared.usable(now, 600, 55)
        rig.line.say(farewell)
        assert not rig.shared.usable(now, 600, 55)


async def test_a_server_that_chatters_without_end_is_heard_within_the_budget_only():
    rig = Rig()
    said = 0

    def for_ever():
        nonlocal said
        said += 1
        return frame(6, 0, 0, bytes(8)) * 100

    rig.line.poll = for_ever
    rig.line.say(SETTINGS)
    rig.client.receive(SETTINGS, trio.current_time())
    assert not rig.shared.usable(trio.current_time(), 600, 55)
    assert said <= 12
    assert rig.line.closed


async def test_a_connection_that_is_too_old_or_rested_too_long_is_not_used():
    rig = Rig()
    now = trio.current_time()
    assert not rig.shared.usable(now + 601, 600, 1000)
    assert not rig.shared.usable(now + 56, 600, 55)
    assert rig.shared.usable(now + 54, 600, 55)


async def test_a_whole_answer_that_was_given_up_half_read_does_not_pass_for_whole():
    rig = Rig()
    answer = rig.client.begin(BLOCK)
    head = frame(1, 4, answer.number, Encoder().encode([(":status", "200")]))
    rig.line.say(head, frame(0, 0, answer.number, b"part"), frame(0, 1, answer.number, b"rest"))
    given_back = []
    stream = SharedStream(rig.shared, answer, math.inf, lambda: given_back.append(1))
    assert await anext(stream) == b"part"
    stream.close()
    with pytest.raises(BankStreamBroken):
        await anext(stream)
    assert given_back == [1]
