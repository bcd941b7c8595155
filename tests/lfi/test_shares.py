"""Many payments at once against one consent: the version of the allowance lets exactly as many through as the limit."""

import pytest
import trio

from hub.model.clock import FixedClock
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.model.limits import Allowance, confirm, release, reserve
from hub.state.keeper import Conflict, Put
from hub.state.memory import MemoryKeeper
from tests.model.test_limits import START, money, multi, periodic

CONTROLS = {
    "number": ({}, {"MaximumCumulativeNumberOfPayments": 10}),
    "value": ({}, {"MaximumCumulativeValueOfPayments": money("10.99")}),
    "period number": ({"MaximumCumulativeNumberOfPaymentsPerPeriod": 10}, {}),
    "period value": ({"MaximumCumulativeValueOfPaymentsPerPeriod": money("10.00")}, {}),
}


async def share(keeper, terms, name, decide):
    """Decide on what is there, write against its version, and decide anew if somebody was faster."""
    while True:
        held = await keeper.lookup(Allowance, "c")
        await trio.lowlevel.checkpoint()
        taken, version = held or (Allowance(consent_id="c"), 0)
        decided = decide(taken, name)
        if isinstance(decided, Fault):
            return decided
        event = Event(kind=Kind.INTENT, time_ms=0)
        done = await keeper.commit([Put(decided, version)], [event])
        if not isinstance(done, Conflict):
            return decided


@pytest.mark.parametrize("kind", CONTROLS)
async def test_of_64_payments_at_once_exactly_10_pass_and_a_rejected_one_frees_its_share(kind):
    controls, wrapper = CONTROLS[kind]
    controls = {"MaximumIndividualAmount": money("1.00"), **controls}
    terms = multi(periodic("VariableOnDemand", Controls=controls), **wrapper)
    keeper = MemoryKeeper(clock=FixedClock(0))
    passed = []

    def take(taken, name):
        return reserve(terms, taken, name, 100, "AED", START)

    async def pay(name):
        if not isinstance(await share(keeper, terms, name, take), Fault):
            passed.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(pay, f"p{number}")
    assert len(passed) == 10
    await share(keeper, terms, passed[0], release)
    await share(keeper, terms, passed[1], confirm)
    async with trio.open_nursery() as nursery:
        for number in range(64, 80):
            nursery.start_soon(pay, f"p{number}")
    assert len(passed) == 11
