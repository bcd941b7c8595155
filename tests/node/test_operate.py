"""What an operator asks of a node over its socket: refused in words whatever shape it has."""

from types import SimpleNamespace

import pytest

from hub.model.clock import FixedClock, SeededDice
from hub.model.event import Event, Kind
from hub.model.records import Delivery
from hub.node.operate import consent_commands, delivery_commands, outage_commands
from hub.state.entry import unavailable
from hub.state.keeper import Put
from hub.state.memory import MemoryKeeper

NOW = 1_790_000_000
ODD = ([], {}, None, True, 1.5, "", "nope", -1, 2**70, [[]])


@pytest.fixture
def given():
    clock = FixedClock(NOW)
    return SimpleNamespace(
        keeper=MemoryKeeper(clock=clock), clock=clock, dice=SeededDice("operate")
    )


@pytest.fixture
def commands(given):
    tables = (consent_commands(given), outage_commands(given), delivery_commands(given))
    return {name: command for table in tables for name, command in table.items()}


@pytest.mark.parametrize(
    ("do", "member", "good"),
    [
        ("revoke", "consent", {}),
        ("outage", "begins", {"ends": NOW + 60, "reason": ""}),
        ("outage", "ends", {"begins": NOW, "reason": ""}),
        ("outage-cancel", "outage", {}),
        ("replay", "first", {"state": "dead"}),
        ("replay", "state", {"first": 0}),
    ],
)
async def test_a_member_of_any_shape_is_refused(commands, do, member, good):
    for odd in ODD:
        reply = await commands[do]({**good, member: odd, "interaction_id": "i"})
        assert reply["error"], (do, member, odd)


async def test_a_replay_that_the_store_refuses_is_not_said_to_be_done(given, commands, monkeypatch):
    dead = Delivery(
        index=1, target="bank", consent_id="c", operation="post", time_ms=1, state="dead"
    )
    await given.keeper.commit([Put(dead)], [Event(kind=Kind.NODE, time_ms=1)])

    async def full(_changes, _events):
        return unavailable("keeper.disk", "full")

    with monkeypatch.context() as patch:
        patch.setattr(given.keeper, "commit", full)
        assert (await commands["replay"]({"first": 0}))["check"] == "keeper.disk"
    assert await commands["replay"]({"first": 0}) == {"replayed": 1}
