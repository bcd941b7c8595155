"""The circuit breaker: when it opens, who probes, and that one dead bank costs its callers nothing."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from hub.upstream.circuit import Circuit, Permit
from tests.upstream.scripted import OK, bank, get, limits


def opened():
    circuit = Circuit(3, 1.0, 8.0)
    for _ in range(3):
        circuit.failed(0.0, circuit.admit(0.0))
    return circuit


def test_it_opens_after_failures_in_a_row_only():
    circuit = Circuit(3, 1.0, 8.0)
    assert not circuit.failed(0.0, Permit.YES)
    assert not circuit.failed(0.0, Permit.YES)
    circuit.answered()
    assert not circuit.failed(0.0, Permit.YES)
    assert not circuit.failed(0.0, Permit.YES)
    assert circuit.failed(0.0, Permit.YES)
    assert circuit.admit(0.5) is Permit.NO


def test_one_probe_at_a_time_passes_after_the_pause():
    circuit = opened()
    assert circuit.admit(1.0) is Permit.PROBE
    assert circuit.admit(1.0) is Permit.NO
    circuit.given_up(Permit.PROBE)
    assert circuit.admit(1.0) is Permit.PROBE
    assert circuit.answered()
    assert circuit.admit(1.0) is Permit.YES


def test_each_failed_probe_doubles_the_pause_up_to_its_bound():
    circuit = opened()
    now, pauses = 1.0, []
    for _ in range(5):
        assert circuit.admit(now) is Permit.PROBE
        circuit.failed(now, Permit.PROBE)
        later = next(t for t in range(1, 99) if circuit.admit(now + t) is Permit.PROBE)
        circuit.given_up(Permit.PROBE)
        pauses.append(later)
        now += later
    assert pauses == [2, 4, 8, 8, 8]


def test_failures_of_calls_that_were_under_way_do_not_lengthen_the_pause():
    circuit = opened()
    for _ in range(20):
        circuit.failed(0.9, Permit.YES)
    assert circuit.admit(1.0) is Permit.PROBE


@given(st.lists(st.tuples(st.sampled_from("afg"), st.floats(0, 5)), max_size=60))
def test_while_open_at_most_one_exchange_is_under_way(steps):
    circuit, now, probing = Circuit(2, 1.0, 4.0), 0.0, False
    for what, pause in steps:
        now += pause
        was_open = circuit.open
        permit = circuit.admit(now)
        if was_open:
            assert permit is not Permit.YES
            assert not (probing and permit is Permit.PROBE)
        if permit is Permit.NO:
            continue
        if what == "a":
            circuit.answered()
            probing = False
        elif what == "f":
            circuit.failed(now, permit)
            probing = False
        elif permit is Permit.PROBE:
            probing = True
            circuit.given_up(permit)
            probing = False


async def test_a_dead_bank_is_refused_at_once_and_found_again(tmp_path, mock_clock):
    alive = False

    async def script(line):
        while await line.request():
            if not alive:
                line.reset()
                return
            await line.say(OK)

    bounds = limits(bank_failures=3, bank_open_s=0.2)
    async with bank(script, tmp_path, bounds=bounds) as (peer, hub):
        for _ in range(3):
            assert (await hub.exchange(get())).check == "bank.reset"
        asked = peer.connections
        fault = await hub.exchange(get())
        assert fault.check == "bank.circuit_open"
        assert fault.private.endswith("(sent=no)")
        assert peer.connections == asked
        alive = True
        mock_clock.jump(0.25)
        assert (await hub.exchange(get())).status == 200


async def test_an_abandoned_probe_lets_the_next_one_pass(tmp_path, mock_clock):
    mode = "reset"
    hanging = trio.Event()

    async def script(line):
        while await line.request():
            if mode == "reset":
                line.reset()
                return
            if mode == "hang":
                hanging.set()
                await trio.sleep_forever()
            await line.say(OK)

    bounds = limits(bank_failures=1, bank_open_s=0.05)
    async with bank(script, tmp_path, bounds=bounds) as (_, hub):
        await hub.exchange(get())
        mock_clock.jump(0.06)
        mode = "hang"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.exchange, get())
            await hanging.wait()
            nursery.cancel_scope.cancel()
        mode = "answer"
        assert (await hub.exchange(get())).status == 200
