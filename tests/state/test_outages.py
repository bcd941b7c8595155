"""Planned outages: kept with their events, bounded, called off."""

import msgspec
import pytest

from hub.model.clock import FixedClock, SeededDice
from hub.model.fault import Fault
from hub.state.memory import MemoryKeeper
from hub.state.outages import MOST, Outage, cancel_outage, outages, plan_outage

NOW = 1_795_000_000
DAY = 86_400


@pytest.fixture
def keeper():
    return MemoryKeeper(clock=FixedClock(NOW))


async def plan(keeper, begins=NOW + 60, ends=NOW + 120, reason="disks", dice=None):
    return await plan_outage(
        keeper,
        FixedClock(NOW),
        dice or SeededDice(f"{begins}-{ends}"),
        begins=begins,
        ends=ends,
        reason=reason,
        interaction_id="i",
    )


async def test_an_outage_is_kept_with_its_event_and_is_under_way_in_its_time(keeper):
    planned = await plan(keeper)
    assert isinstance(planned, Outage)
    assert await outages(keeper) == (planned,)
    assert [planned.now(at) for at in (NOW + 59, NOW + 60, NOW + 119, NOW + 120)] == [
        False,
        True,
        True,
        False,
    ]
    (event,) = [msgspec.json.decode(leaf) for leaf in await keeper.events(0, 10)]
    assert (event["route"], event["subject"], event["interaction_id"]) == (
        "admin.outage",
        planned.id,
        "i",
    )


async def test_one_that_is_called_off_is_never_under_way(keeper):
    planned = await plan(keeper)
    called_off = await cancel_outage(keeper, FixedClock(NOW), planned.id, "i")
    assert called_off.cancelled
    assert not called_off.now(NOW + 60)
    assert (await cancel_outage(keeper, FixedClock(NOW), "other", "i")).check == "outage.unknown"


@pytest.mark.parametrize(
    ("begins", "ends", "reason", "check"),
    [
        (NOW + 10, NOW + 10, "", "outage.period"),
        (NOW + 20, NOW + 10, "", "outage.period"),
        (NOW - 20, NOW, "", "outage.period"),
        (NOW, NOW + 31 * DAY, "", "outage.period"),
        (NOW + 400 * DAY, NOW + 401 * DAY, "", "outage.period"),
        (2**62, 2**62 + 1, "", "outage.period"),
        (NOW, NOW + 10, "x" * 201, "outage.reason"),
        (NOW, NOW + 10, "a\nb", "outage.reason"),
    ],
)
async def test_what_makes_no_sense_is_refused(keeper, begins, ends, reason, check):
    refused = await plan(keeper, begins, ends, reason)
    assert isinstance(refused, Fault)
    assert refused.check == check
    assert await outages(keeper) == ()


async def test_only_so_many_are_kept_the_earliest_ended_forgotten_first(keeper):
    for number in range(MOST + 5):
        assert isinstance(await plan(keeper, NOW + number, NOW + number + 10), Outage)
    kept = await outages(keeper)
    assert len(kept) == MOST
    assert kept[0].begins == NOW + 5
