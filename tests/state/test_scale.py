"""Many consents: start-up, cold lookups and searches stay quick; ten thousand here, a million in tests/wire/test_many_consents.py."""

import random
import time

from hub.model.consent import Consent, ConsentType, Status
from hub.state.cache import Cache
from hub.state.keeper import Put, Query
from hub.state.open import open_keeper
from tests.state.keepers import consent, event, limits

GROUP = 2000
PERMISSIONS = ["ReadAccountsBasic", "ReadAccountsDetail", "ReadBalances", "ReadTransactionsDetail"]


def whole(at: int) -> Consent:
    """Make a consent of the size that real ones have, found by every index."""
    name = f"{at:08}-0000-4000-8000-000000000000"
    data = {
        "ConsentId": name,
        "Permissions": PERMISSIONS,
        "ExpirationDateTime": "2026-06-02T08:00:00Z",
        "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
        "Status": "Authorized",
        "CreationDateTime": "2026-06-01T08:00:00Z",
    }
    return consent(
        name,
        status=list(Status)[at % 7],
        user=f"u{at // 3}",
        accounts=[f"a{at}", f"b{at}"],
        updated=at,
        client=f"t{at % 50}",
        consent_type=list(ConsentType)[at % 3],
        group_id=f"g{at // 4}",
        request={"type": "t", "consent": data},
        body={"Data": data},
        tpp={"clientId": "t", "tppName": "A TPP", "decodedSsa": {"redirect_uris": ["x" * 60] * 3}},
    )


async def fill(keeper, count: int) -> None:
    for start in range(0, count, GROUP):
        some = [whole(at) for at in range(start, start + GROUP)]
        done = await keeper.commit([Put(one, 0) for one in some], [event(f"e{start}")])
        assert isinstance(done, tuple)


async def timed(awaitable) -> float:
    start = time.perf_counter()
    await awaitable
    return time.perf_counter() - start


async def warm_lookup(keeper, key: str) -> float:
    """Return the seconds that a remembered consent takes, as the gateway asks for it; the best of twenty rounds."""
    cache = Cache(keeper, {Consent: 10_000})
    await cache.lookup(Consent, key)
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            await cache.lookup(Consent, key)
        best = min(best, (time.perf_counter() - start) / 500)
    cache.close()
    return best


async def measured(folder, clock, count: int) -> dict[str, float]:
    """Fill a store, open it anew, and time what the hot path and the lists ask of it; milliseconds."""
    async with open_keeper(folder, clock=clock, limits=limits()) as keeper:
        await fill(keeper, count)
    start, dice = time.perf_counter(), random.Random(1)
    async with open_keeper(folder, clock=clock, limits=limits()) as keeper:
        opened = time.perf_counter() - start
        keys = [f"{dice.randrange(count):08}-0000-4000-8000-000000000000" for _ in range(2000)]
        times = sorted([await timed(keeper.lookup(Consent, key)) for key in keys])
        warm = await warm_lookup(keeper, keys[0])
        searches = {}
        for name, query in {
            "customer": Query(kind="consent", where=(("psu", "u77"),)),
            "account": Query(kind="consent", where=(("account", "a5"), ("status", "Expired"))),
            "group": Query(kind="consent", where=(("group", "g9"), ("organisation", "org"))),
            "client": Query(
                kind="consent", where=(("client", "t7"),), order="updated", descending=True
            ),
            "stream": Query(kind="consent", at_least=(("updated", count - 9),), order="updated"),
            "due": Query(kind="consent", order="due", at_most=(("due", 5_000_000_000),)),
        }.items():
            searches[name] = 1000 * await timed(keeper.search(query))
    return {
        "start": 1000 * opened,
        "cold_p50": 1000 * times[len(times) // 2],
        "cold_p99": 1000 * times[int(len(times) * 0.99)],
        "warm": 1000 * warm,
        **{f"list_{name}": value for name, value in searches.items()},
    }


def assert_quick(found: dict[str, float], *, generous: int = 1) -> None:
    """Hold what was found to its bounds; a machine that others load is given a multiple of them."""
    lists = [value for name, value in found.items() if name.startswith("list_")]
    assert found["start"] < 5000 * generous, found
    assert found["cold_p99"] < 2 * generous, found
    assert found["warm"] < 0.002 * generous, found
    assert max(lists) < 100 * generous, found


async def test_ten_thousand_consents_do_not_slow_the_store(tmp_path, clock):
    assert_quick(await measured(tmp_path, clock, 10_000), generous=10)
