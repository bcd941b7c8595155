"""The tenant's small secrets: one for all, made once, and a store that cannot keep one is no bug."""

import pytest
import trio

from hub.model.clock import FixedClock, SeededDice
from hub.model.http import UnavailableError
from hub.state.entry import unavailable
from hub.state.memory import MemoryKeeper
from hub.state.secrets import Secrets
from tests.state.keepers import NOW


@pytest.fixture
def keeper():
    return MemoryKeeper(clock=FixedClock(NOW))


def secrets(keeper, seed):
    return Secrets(keeper=keeper, clock=FixedClock(NOW), dice=SeededDice(seed))


async def test_all_who_need_a_secret_at_once_have_the_same(keeper):
    found = set()

    async def need(seed):
        found.add(await secrets(keeper, seed).get("salt"))

    async with trio.open_nursery() as nursery:
        for seed in "abcdef":
            nursery.start_soon(need, seed)
    assert len(found) == 1
    assert {len(one) for one in found} == {32}


async def test_a_store_that_cannot_keep_a_secret_is_unavailable_and_asked_again(keeper):
    ours = secrets(keeper, "a")
    keeper.refusal = unavailable("keeper.disk", "full")
    for need in (ours.get("salt"), ours.nonces()):
        with pytest.raises(UnavailableError):
            await need
    keeper.refusal = None
    assert len(await ours.get("salt")) == 32
