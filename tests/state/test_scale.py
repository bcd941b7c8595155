"""A million consents: start-up, cold lookups and searches stay quick (nightly)."""

import random
import time

import pytest

from hub.model.consent import Consent, Status
from hub.state.keeper import Put, Query
from hub.state.open import open_keeper
from tests.state.keepers import consent, event, limits

CONSENTS = 1_000_000
GROUP = 2000


async def fill(keeper) -> None:
    statuses = list(Status)
    for start in range(0, CONSENTS, GROUP):
        some = [
            consent(
                f"c{at:07}",
                user=f"u{at // 3}",
                accounts=[f"a{at}"],
                updated=at,
                status=statuses[at % 7],
                client=f"t{at % 50}",
            )
            for at in range(start, start + GROUP)
        ]
        done = await keeper.commit([Put(one, 0) for one in some], [event(f"e{start}")])
        assert isinstance(done, tuple)


async def timed(awaitable) -> float:
    start = time.perf_counter()
    await awaitable
    return time.perf_counter() - start


@pytest.mark.nightly
async def test_a_million_consents_do_not_slow_the_store(tmp_path, clock):
    async with open_keeper(tmp_path, clock=clock, limits=limits()) as keeper:
        await fill(keeper)
    start, dice = time.perf_counter(), random.Random(1)
    async with open_keeper(tmp_path, clock=clock, limits=limits()) as keeper:
        assert time.perf_counter() - start < 5
        keys = [f"c{dice.randrange(CONSENTS):07}" for _ in range(2000)]
        times = sorted([await timed(keeper.lookup(Consent, key)) for key in keys])
        assert times[int(len(times) * 0.99)] < 0.002
        for query in (
            Query(kind="consent", where=(("psu", "u77"),)),
            Query(kind="consent", where=(("account", "a5"), ("status", "Expired"))),
            Query(kind="consent", where=(("client", "t7"),), order="updated", descending=True),
            Query(kind="consent", order="due", at_most=(("due", 5_000_000_000),)),
        ):
            assert await timed(keeper.search(query)) < 0.1, query
