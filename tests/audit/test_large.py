"""A log of many events: published as they come, restarted, indexed, searched and verified; each in a stated time."""

import os
import random
import sys
import time
from contextlib import contextmanager

import pytest
import trio

from bench.evidence import append as record
from hub.audit.index import open_index
from hub.audit.open import open_log
from hub.audit.publish import Publisher
from hub.audit.search import Selection, search
from hub.model.clock import FixedClock
from hub.state.open import open_keeper
from tests.audit.crash_child import ORIGIN, PEM, Quiet
from tests.audit.test_index import DUBAI, NOW, ROUTES, call
from tests.state.keepers import limits

EVENTS = int(os.environ.get("AUDIT_EVENTS", "10000000"))
AT_ONCE = 5000
"""Events of one commit: each makes a slice of interactions, about as many as thousands of small commits do."""
PER_SECOND = 100
SEARCHES = 100


class Made:
    """Events as they come in practice: interaction ids without order, many consents, a tenth refused."""

    def __init__(self, count):
        self.count = count
        self.consents = [f"c{n}" for n in range(max(10, count // 100))]
        self.known: list[str] = []
        self._dice = random.Random(7)

    def some(self, start):
        """Return the next events."""
        end = min(self.count, start + AT_ONCE)
        names = [f"{self._dice.getrandbits(128):032x}" for _ in range(start, end)]
        self.known += self._dice.sample(names, max(1, SEARCHES * len(names) // self.count))
        return [
            call(
                NOW + at // PER_SECOND,
                interaction_id=name,
                consent_id=self._dice.choice(self.consents),
                client_id=f"t{at % 50}",
                organisation_id=f"o{at % 20}",
                route=ROUTES[at % 3],
                status=200 if at % 10 else 403,
            )
            for at, name in enumerate(names, start)
        ]


class Times:
    """Seconds that things took; worst of all where it was more than one."""

    def __init__(self):
        self.s: dict[str, float] = {}

    @contextmanager
    def of(self, name):
        began = time.monotonic()
        yield
        self.s[name] = max(round(time.monotonic() - began, 4), self.s.get(name, 0))


async def filled(folder, made, clock, times):
    """Append all events through the keeper while they are published, as a node does."""
    async with open_keeper(folder, clock=clock, limits=limits(commit_s=300)) as keeper:
        log = open_log(folder, origin=ORIGIN, pem=PEM)
        with times.of("append_and_publish_s"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Publisher(log, keeper, Quiet()).run)
                for start in range(0, made.count, AT_ONCE):
                    done = await keeper.commit((), made.some(start))
                    assert done[0] == start
                nursery.cancel_scope.cancel()
            await log.publish(keeper)
    assert log.size == made.count


async def verified(folder, made, times):
    """Run the verifier that lies beside the log, alone; its progress is told on the way."""
    command = [sys.executable, "-I", "verify.py", "log", "log", "--key", "key"]
    with times.of("verify_all_s"):
        done = await trio.run_process(
            command, cwd=folder / "audit", capture_stdout=True, capture_stderr=True
        )
    assert b"%d entries" % made.count in done.stdout
    assert done.stderr.count(b" of %d entries" % made.count) >= max(1, made.count // 1_000_000)


async def searched(keeper, index, made, times):
    middle = NOW + made.count // PER_SECOND // 2
    asked = [
        ("interaction", Selection(interaction_id=name))
        for name in made.known[:: len(made.known) // SEARCHES]
    ]
    asked += 5 * [
        ("consent", Selection(consent_id=made.consents[3])),
        ("tpp", Selection(tpp="t7")),
        ("organisation", Selection(tpp="o7")),
        ("refused", Selection(verdict="refused")),
        ("status", Selection(status=403, route=ROUTES[1])),
        ("time", Selection(start_ms=middle * 1000, end_ms=(middle + 5) * 1000)),
    ]
    for name, selection in asked:
        with times.of(f"search_{name}_s"):
            found = await search(keeper, selection, limit=20, index=index)
        assert found
        assert name != "interaction" or len(found) == 1


async def large(folder, count) -> dict[str, float]:
    """Fill a log, and time what people wait for; seconds."""
    made, clock, times = Made(count), FixedClock(NOW), Times()
    await filled(folder, made, clock, times)
    async with trio.open_nursery() as nursery:
        with times.of("restart_s"):
            keeper = await nursery.start(kept_open, folder, clock)
            open_log(folder, origin=ORIGIN, pem=PEM)
        index = open_index(folder, DUBAI)
        async with trio.open_nursery() as both:
            both.start_soon(verified, folder, made, times)
            with times.of("index_all_s"):
                await index.follow(keeper)
        await searched(keeper, index, made, times)
        index.close()
        nursery.cancel_scope.cancel()
    times.s["database_mb"] = (folder / "hub.db").stat().st_size // 1_000_000
    return times.s


async def kept_open(folder, clock, *, task_status):
    async with open_keeper(folder, clock=clock, limits=limits(commit_s=300)) as keeper:
        task_status.started(keeper)
        await trio.sleep_forever()


def judge(figures) -> None:
    assert figures["search_interaction_s"] < 0.05
    assert figures["restart_s"] < 5
    for name, value in figures.items():
        assert not name.startswith("search_") or value < 0.25, name


async def test_a_hundred_thousand_events_are_searched_at_once(tmp_path):
    judge(await large(tmp_path, 100_000))


@pytest.mark.nightly
async def test_ten_million_events_are_searched_at_once(tmp_path):
    figures = await large(tmp_path, EVENTS)
    record("audit-ten-million", {"events": EVENTS}, [7], figures)
    judge(figures)
