"""What an operator asks of a node over its socket: refused in words whatever shape it has."""

from types import SimpleNamespace

import pytest

from hub.model.clock import FixedClock, SeededDice
from hub.node.operate import consent_commands, delivery_commands, outage_commands
from hub.state.memory import MemoryKeeper

NOW = 1_790_000_000
ODD = ([], {}, None, True, 1.5, "", "nope", -1, 2**70, [[]])


@pytest.fixture
def commands():
    clock = FixedClock(NOW)
    given = SimpleNamespace(
        keeper=MemoryKeeper(clock=clock), clock=clock, dice=SeededDice("operate")
    )
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
