"""SQLite against the keeper in memory: any sequence of operations, restarts among them, gives the same answers."""

import tempfile
import threading
from pathlib import Path

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.model.clock import FixedClock
from hub.model.consent import Consent, Status
from hub.model.limits import Allowance
from hub.model.records import AccessToken, Seen, Setting
from hub.state.keeper import Drop, Once, Put, Query
from hub.state.memory import MemoryKeeper
from hub.state.open import open_keeper
from tests.state.keepers import NOW, consent, event, limits
from tests.state.test_shares import payment_consent, reserve, settle

NAMES = st.sampled_from(["a", "b", "c", "d"])
EXPECT = st.sampled_from([None, None, None, None, 0, 1, 2])


def token(name: str, expires: int, consent_id: str) -> AccessToken:
    return AccessToken(
        digest=name,
        client_id="c",
        scope="s",
        x5t_s256="x",
        issued=NOW,
        expires=expires,
        consent_id=consent_id,
    )


RECORDS = st.one_of(
    st.builds(Setting, name=NAMES, value=st.binary(max_size=3)),
    st.builds(token, NAMES, st.integers(NOW - 3700, NOW + 100), st.sampled_from(["", "a", "b"])),
    st.builds(
        consent,
        NAMES,
        status=st.sampled_from(Status),
        user=st.sampled_from([None, "u", "v"]),
        accounts=st.lists(st.sampled_from(["1", "2", "3"]), max_size=3),
        updated=st.integers(0, 4),
        expires=st.sampled_from([NOW, NOW + 5]),
    ),
    st.builds(Seen, space=st.just("jti"), value=NAMES, until=st.integers(NOW, NOW + 50)),
)
CHANGES = st.one_of(
    st.builds(Put, RECORDS, EXPECT),
    st.builds(Drop, st.sampled_from(["setting", "access", "consent"]), NAMES, EXPECT),
    st.builds(reserve, NAMES, st.integers(0, 1000)),
    st.builds(reserve, NAMES, st.integers(0, 1000)),
    st.builds(settle, NAMES, st.sampled_from(["Pending", "Rejected", "AcceptedWithoutPosting"])),
    st.builds(
        Put,
        st.builds(
            payment_consent,
            st.sampled_from([Status.AUTHORIZED, Status.AUTHORIZED, Status.REVOKED]),
            st.integers(1, 4),
        ),
    ),
)
WHERE = st.one_of(
    st.tuples(st.just("psu"), st.sampled_from(["u", "v"])),
    st.tuples(st.just("account"), st.sampled_from(["1", "2", "3"])),
    st.tuples(st.just("status"), st.sampled_from([str(status) for status in Status])),
    st.tuples(st.just("updated"), st.integers(0, 4)),
)
BOUND = st.one_of(
    st.tuples(st.just("updated"), st.integers(0, 4)),
    st.tuples(st.just("due"), st.integers(NOW, NOW + 5)),
)
QUERIES = st.builds(
    Query,
    kind=st.sampled_from(["consent"] * 7 + ["access", "setting", "seen"]),
    where=st.lists(WHERE, max_size=2).map(tuple),
    at_least=st.lists(BOUND, max_size=1).map(tuple),
    at_most=st.lists(BOUND, max_size=1).map(tuple),
    order=st.sampled_from(["", "updated", "due", "group", "status"]),
    descending=st.booleans(),
    offset=st.integers(0, 2),
    limit=st.integers(1, 4),
    count=st.booleans(),
)


class Host:
    """A thread in which a keeper on SQLite lives."""

    def __init__(self, folder: Path, clock: FixedClock) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live, folder, clock))
        self._thread.start()
        assert self._ready.wait(10)

    async def _live(self, folder, clock) -> None:
        async with open_keeper(folder, clock=clock, limits=limits()) as self.keeper:
            self._token = trio.lowlevel.current_trio_token()
            self._stop = trio.Event()
            self._ready.set()
            await self._stop.wait()

    def run(self, function, *args):
        return trio.from_thread.run(function, *args, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(10)
        assert not self._thread.is_alive()


class KeeperMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FixedClock(NOW)
        self.memory = MemoryKeeper(clock=self.clock)
        self.host = Host(Path(self.folder.name), self.clock)

    def both(self, name, *args):
        expected = self.host.run(getattr(self.memory, name), *args)
        assert self.host.run(getattr(self.host.keeper, name), *args) == expected
        return expected

    @initialize(records=st.lists(RECORDS, min_size=4, max_size=12))
    def fill(self, records):
        payments = Put(payment_consent())
        self.both("commit", [*(Put(record) for record in records), payments], [event("a")])

    @rule(
        changes=st.lists(CHANGES, min_size=1, max_size=4),
        events=st.lists(NAMES, min_size=1, max_size=3),
    )
    def commit(self, changes, events):
        self.both("commit", changes, [event(name) for name in events])

    @rule(onces=st.lists(NAMES, min_size=1, max_size=3), until=st.integers(-5, 40))
    def claim(self, onces, until):
        moment = self.clock.now() + until
        self.both("claim", [Once("jti", name, moment) for name in onces])

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def purge(self):
        self.both("purge")

    @rule(kind=st.sampled_from([Setting, AccessToken, Consent, Allowance]), name=NAMES)
    def lookup(self, kind, name):
        self.both("lookup", kind, name)

    @rule(queries=st.lists(QUERIES, min_size=1, max_size=4))
    def search(self, queries):
        for query in queries:
            self.both("search", query)
            self.both("search", Query(kind=query.kind, where=query.where[:1], count=True))

    @rule(name=NAMES)
    def trace(self, name):
        self.both("trace", name)

    @rule(start=st.integers(0, 20), limit=st.integers(1, 20))
    def read_events(self, start, limit):
        self.both("events", start, limit)

    @rule()
    def restart(self):
        self.host.close()
        self.host = Host(Path(self.folder.name), self.clock)

    @invariant()
    def heads_agree(self):
        self.both("head")

    def teardown(self):
        self.host.close()
        self.folder.cleanup()


TestKeeperMachine = KeeperMachine.TestCase
TestKeeperMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
