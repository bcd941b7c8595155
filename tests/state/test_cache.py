"""The cache: what it remembers is never older than the last acknowledged commit."""

import time

import pytest
import trio

from hub.model.consent import Consent
from hub.model.records import Grant, Setting
from hub.state.cache import Cache
from hub.state.keeper import Drop, Invalidation, Put
from hub.state.memory import MemoryKeeper
from hub.state.open import open_keeper
from tests.state.keepers import consent, event, limits


@pytest.fixture
def keeper(clock):
    return MemoryKeeper(clock=clock)


async def put(keeper, name, value=b"v"):
    await keeper.commit([Put(Setting(name=name, value=value))], [event()])


class Slow:
    """A keeper whose lookups are answered at once and delivered late."""

    def __init__(self, keeper):
        self._keeper = keeper
        self.watch = keeper.watch
        self.answered = trio.Event()
        self.deliver = trio.Event()
        self.lookups = 0

    async def lookup(self, kind, key):
        self.lookups += 1
        found = await self._keeper.lookup(kind, key)
        self.answered.set()
        await self.deliver.wait()
        return found


async def test_a_record_is_looked_up_once(keeper):
    await put(keeper, "a")
    slow = Slow(keeper)
    slow.deliver.set()
    cache = Cache(slow, {Setting: 10})
    assert cache.peek(Setting, "a") is None
    first = await cache.get(Setting, "a")
    assert first == (Setting(name="a", value=b"v"), 1)
    assert await cache.get(Setting, "a") == first
    assert cache.peek(Setting, "a") == first
    assert slow.lookups == 1


async def test_a_change_is_seen_at_once(keeper):
    cache = Cache(keeper, {Setting: 10})
    await put(keeper, "a", b"old")
    await cache.get(Setting, "a")
    await put(keeper, "a", b"new")
    assert cache.peek(Setting, "a") is None
    assert (await cache.get(Setting, "a"))[0].value == b"new"
    await keeper.commit([Drop("setting", "a")], [event()])
    assert await cache.get(Setting, "a") is None


async def test_a_lookup_in_flight_never_fills_in_a_stale_value(keeper):
    await put(keeper, "a", b"old")
    slow = Slow(keeper)
    cache = Cache(slow, {Setting: 10})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.get, Setting, "a")
        await slow.answered.wait()
        await put(keeper, "a", b"new")
        slow.deliver.set()
    assert cache.peek(Setting, "a") is None
    assert (await cache.get(Setting, "a"))[0].value == b"new"


async def test_what_does_not_exist_is_not_remembered(keeper):
    cache = Cache(keeper, {Setting: 10})
    assert await cache.get(Setting, "a") is None
    await put(keeper, "a")
    assert await cache.get(Setting, "a") is not None


async def test_nothing_is_answered_from_memory_without_freshness(keeper):
    fresh = [True]
    cache = Cache(keeper, {Setting: 10}, fresh=lambda: fresh[0])
    await put(keeper, "a")
    await cache.get(Setting, "a")
    assert cache.peek(Setting, "a") is not None
    fresh[0] = False
    assert cache.peek(Setting, "a") is None


async def test_the_bound_holds_and_the_recently_used_stay(keeper):
    cache = Cache(keeper, {Setting: 10})
    for number in range(100):
        await put(keeper, str(number))
    for number in range(100):
        await cache.get(Setting, str(number))
        await cache.get(Setting, "0")
        assert cache.size <= 10
    assert cache.peek(Setting, "0") is not None
    assert cache.peek(Setting, "50") is None


async def test_kinds_that_are_not_remembered_are_a_bug(keeper):
    cache = Cache(keeper, {Setting: 10})
    with pytest.raises(KeyError):
        cache.peek(Grant, "a")
    await keeper.commit([Put(Grant(id="a", client_id="c", consent_id="k", created=1))], [event()])


async def test_an_empty_key_forgets_the_whole_kind(keeper):
    forgetters = []
    slow = Slow(keeper)
    slow.deliver.set()
    slow.watch = lambda forget: forgetters.append(forget) or (lambda: None)
    cache = Cache(slow, {Setting: 10, Consent: 10})
    await put(keeper, "a")
    await cache.get(Setting, "a")
    forgetters[0](Invalidation("consent", ""))
    assert cache.peek(Setting, "a") is not None
    forgetters[0](Invalidation("setting", ""))
    assert cache.peek(Setting, "a") is None


async def test_clear_forgets_everything(keeper):
    cache = Cache(keeper, {Setting: 10})
    await put(keeper, "a")
    await cache.get(Setting, "a")
    cache.clear()
    assert cache.size == 0


async def test_a_hit_takes_under_two_microseconds(keeper):
    cache = Cache(keeper, {Setting: 10})
    await put(keeper, "a")
    await cache.get(Setting, "a")
    best = min(_timed(cache) for _ in range(20))
    assert best < 2e-6


def _timed(cache) -> float:
    start = time.perf_counter()
    for _ in range(500):
        cache.peek(Setting, "a")
    return (time.perf_counter() - start) / 500


async def test_what_the_keeper_has_in_memory_is_not_waited_for(clock, tmp_path):
    async with open_keeper(tmp_path, clock=clock, limits=limits()) as keeper:
        cache = Cache(keeper, {Consent: 10, Setting: 10})
        await keeper.commit([Put(consent("c")), Put(Setting(name="s", value=b"v"))], [event()])
        assert cache.peek(Consent, "c") is None
        assert (await cache.get(Consent, "c"))[1] == 1
        cache.clear()
        assert cache.peek(Consent, "c") == (consent("c"), 1)
        await keeper.commit([Put(consent("c", updated=2))], [event()])
        assert cache.peek(Consent, "c") is None
        assert await cache.get(Consent, "c") == (consent("c", updated=2), 2)
        assert cache.peek(Setting, "s") is None
