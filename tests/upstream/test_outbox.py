"""The outbox: every change is told, in order per consent, until it was heard; what is not is visible and replayable."""

from collections import Counter

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Status
from hub.model.consent_change import with_status
from hub.model.event import Event, Kind, Verdict
from hub.model.records import Delivery, Payment, Setting
from hub.observe import Observer
from hub.state.keeper import Put, Query
from hub.state.memory import MemoryKeeper
from hub.upstream.faults import bank_failure
from hub.upstream.outbox import BACK_OFF_S, Outbox, Target, replay, settle
from tests.lfi.desk import NOW, consent
from tests.lfi.test_payment_log import payment
from tests.upstream.scripted import limits
from tests.waiting import virtual


class World:
    """A store, an outbox, and a target that answers as told."""

    def __init__(self, answers=(), keeper=None, clock=None):
        self.clock = clock or FixedClock(NOW)
        self.keeper = keeper or MemoryKeeper(clock=self.clock)
        self.answers = list(answers)
        self.told = []
        self.observer = Observer(self.clock, log=False)
        self.position = 0
        self.outbox = Outbox(
            keeper=self.keeper,
            targets={"bank": Target(wants=lambda _: True, send=self.send)},
            limits=limits(),
            clock=self.clock,
            dice=SeededDice(),
            observer=self.observer,
        )

    async def send(self, found, delivery):
        answer = self.answers.pop(0) if self.answers else 204
        self.told.append((found.id, delivery.operation, delivery.index, str(found.status), answer))
        await trio.lowlevel.checkpoint()
        return answer

    async def create(self, consent_id):
        event = Event(
            kind=Kind.CONSENT,
            time_ms=self.clock.now_ms(),
            consent_id=consent_id,
            change=">AwaitingAuthorization",
        )
        await self.keeper.commit([Put(consent(consent_id), 0)], [event])

    async def change(self, consent_id, status):
        found, version = await self.keeper.lookup(type(consent()), consent_id)
        changed = with_status(found, status, self.clock.now_ms())
        event = Event(
            kind=Kind.CONSENT,
            time_ms=self.clock.now_ms(),
            consent_id=consent_id,
            change=f"{found.status}>{status}",
        )
        await self.keeper.commit([Put(changed, version)], [event])

    async def round(self):
        """Begin what is due, and wait for its end; return how much was tried."""
        self.position = await self.outbox.follow(self.position)
        before = await self.attempts()
        async with trio.open_nursery() as nursery:
            again = await self.outbox.begin(nursery)
        return await self.attempts() - before + again

    async def attempts(self):
        page = await self.keeper.search(Query(kind="delivery", limit=1000))
        return sum(item.record.attempts for item in page.items)

    async def drain(self):
        while await self.round():
            pass

    async def deliveries(self, state):
        page = await self.keeper.search(
            Query(kind="delivery", where=(("state", state),), order="index", limit=1000)
        )
        return [item.record for item in page.items]


@pytest.fixture
async def world():
    made = World()
    yield made
    made.observer.close()


async def test_each_change_is_told_once_and_in_order(world):
    await world.create("a")
    await world.change("a", Status.AUTHORIZED)
    await world.create("b")
    await world.drain()
    assert [t[:2] for t in world.told if t[0] == "a"] == [("a", "post"), ("a", "patch")]
    assert [t[:2] for t in world.told if t[0] == "b"] == [("b", "post")]
    await world.drain()
    assert len(world.told) == 3
    assert len(await world.deliveries("told")) == 3


async def test_a_later_change_waits_for_an_earlier_one_and_others_do_not(world):
    world.answers = [500]
    await world.create("a")
    await world.round()
    await world.change("a", Status.AUTHORIZED)
    await world.create("b")
    await world.drain()
    assert [t[0] for t in world.told] == ["a", "b"]
    world.clock.advance(5)
    await world.drain()
    assert [t[:2] for t in world.told] == [
        ("a", "post"),
        ("b", "post"),
        ("a", "post"),
        ("a", "patch"),
    ]


async def test_what_is_told_of_payments_is_as_of_today(world):
    class Today:
        async def current(self, found, now):
            return msgspec.structs.replace(found, updated_ms=now)

    told = []

    async def send(found, _delivery):
        told.append(found.updated_ms)
        return 204

    world.outbox._consumption = Today()
    world.outbox._targets["bank"] = Target(wants=lambda _: True, send=send)
    await world.create("a")
    world.clock.advance(86_400)
    await world.drain()
    assert told == [NOW + 86_400]


async def test_what_is_told_again_while_it_is_replayed_is_replayed_once(world, monkeypatch):
    monkeypatch.setattr("hub.upstream.outbox._BATCH", 2)
    for name in "abc":
        await world.create(name)
    await world.drain()
    commit, told = world.keeper.commit, len(world.told)

    async def told_at_once(changes, events):
        done = await commit(changes, events)
        if events[0].route == "outbox.replay":
            await world.drain()
        assert len(world.told) < 10, "it would never end"
        return done

    monkeypatch.setattr(world.keeper, "commit", told_at_once)
    assert await replay(world.keeper, world.clock, 0, "told") == 3
    assert len(world.told) == told + 3


class TrioClock:
    """Wall time that passes as trio's does."""

    def now_ms(self):
        return NOW * 1000 + round(trio.current_time() * 1000)

    def now(self):
        return self.now_ms() // 1000


class Receivers:
    """Clients that hear as they are told to: each takes its time; who takes ten seconds has not heard."""

    def __init__(self, takes, **bounds):
        self.world = World(clock=TrioClock())
        self.world.outbox._limits = limits(**bounds)
        self.world.outbox._targets["bank"] = Target(
            wants=lambda _: True, send=self.send, each_client=True
        )
        self.takes = takes
        self.heard = []
        self.under_way = []
        self.most = Counter()
        self.searches = 0
        search = self.world.keeper.search

        async def counted(query):
            self.searches += 1
            return await search(query)

        self.world.keeper.search = counted

    async def send(self, found, delivery):
        client, lane = found.client_id, found.id
        assert lane not in [one for _, one in self.under_way], "one at a time in each lane"
        self.under_way.append((client, lane))
        now = Counter(one for one, _ in self.under_way)
        self.most |= now | Counter({"all": now.total()})
        takes = self.takes.get(client, 0.01)
        try:
            await virtual(takes(delivery) if callable(takes) else takes)
        finally:
            self.under_way.remove((client, lane))
        if takes == 10:
            return bank_failure("webhook.unreachable", "no answer in time", sent=True)
        self.heard.append((lane, delivery.index, trio.current_time()))
        return 204

    def when(self, lane):
        return [at for one, _, at in self.heard if one == lane]

    async def events(self, **counts):
        """Let so many consents of each client be made at once."""
        names = [(client, f"{client}{at:03}") for client in counts for at in range(counts[client])]
        events = [
            Event(kind=Kind.CONSENT, time_ms=1, consent_id=name, change=">AwaitingAuthorization")
            for _, name in names
        ]
        puts = [Put(consent(name, client_id=client), 0) for client, name in names]
        puts.append(Put(Setting(name="outbox.cursor", value=b"0")))
        await self.world.keeper.commit(puts, events)

    async def run(self, seconds, **later):
        """Run the outbox; after a second (of sixty) let ``later`` happen too."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.world.outbox.run)
            await virtual(1)
            for name, client in later.items():
                await self.later(name, client)
            await virtual(seconds - 1)
            nursery.cancel_scope.cancel()
        self.world.observer.close()

    async def later(self, name, client):
        event = Event(
            kind=Kind.CONSENT, time_ms=1, consent_id=name, change=">AwaitingAuthorization"
        )
        await self.world.keeper.commit([Put(consent(name, client_id=client), 0)], [event])


async def test_a_receiver_that_hangs_delays_nobody_else(autojump_clock):
    those = Receivers({"slow": 10})
    await those.events(slow=400)
    await those.run(60, good="good")
    [at] = those.when("good")
    assert at < 2
    waiting = await those.world.deliveries("waiting")
    assert len(waiting) == 400, "none of the others was lost"
    assert sum(1 for one in waiting if one.attempts) >= 16, "and they are told in their turn"
    assert those.most["slow"] == 8
    assert those.searches < 4000, "nobody looks without end for what cannot be told"


async def test_beyond_the_bound_of_all_a_delivery_waits_until_one_that_hangs_has_ended(
    autojump_clock,
):
    those = Receivers({"one": 10, "two": 10}, deliveries=4, deliveries_per_receiver=2)
    await those.events(one=20, two=20)
    await those.run(60, good="good", better="better")
    assert those.most["all"] == 4
    assert those.most["one"] == those.most["two"] == 2
    assert 10 <= those.when("good")[0] < 11
    assert 10 <= those.when("better")[0] < 11
    assert those.searches < 1000, "while there is no room nobody looks"


async def test_a_long_queue_to_one_who_hears_well_hides_nobody_behind_it(autojump_clock):
    those = Receivers({"busy": 0.5})
    await those.events(busy=500)
    await those.run(45, good="good")
    assert those.when("good")[0] < 3
    assert len(those.heard) == 501, "each was told, and once"
    busy = [index for lane, index, _ in those.heard if lane != "good"]
    assert max(at - index for at, index in enumerate(busy)) < 60, "the oldest first, by and large"


async def test_lanes_are_told_in_order_one_at_a_time_and_once_while_others_are_slow(autojump_clock):
    pace = [0.0, 3.5, 0.02, 0.7]
    those = Receivers({"a": lambda delivery: pace[delivery.index % 4], "b": 0.3})
    await those.events(a=6, b=6)
    for status in (Status.AUTHORIZED, Status.SUSPENDED, Status.AUTHORIZED, Status.REVOKED):
        for name in [f"{client}{at:03}" for client in "ab" for at in range(6)]:
            await those.world.change(name, status)
    await those.run(300)
    indexes = {}
    for lane, index, _ in those.heard:
        indexes.setdefault(lane, []).append(index)
    assert len(indexes) == 12
    assert all(found == sorted(set(found)) and len(found) == 5 for found in indexes.values())


async def test_what_is_never_heard_becomes_a_dead_letter_and_is_replayed_when_asked(world):
    world.answers = [bank_failure("bank.timeout", "x", sent=True)] * (len(BACK_OFF_S) + 1)
    await world.create("a")
    await world.drain()
    for pause in BACK_OFF_S:
        world.clock.advance(pause - 1)
        assert await world.round() == 0
        world.clock.advance(1)
        await world.drain()
    assert len(world.told) == 7
    (dead,) = await world.deliveries("dead")
    assert dead.attempts == 7
    world.clock.advance(86400)
    assert await world.round() == 0
    assert await replay(world.keeper, world.clock, 0) == 1
    await world.drain()
    assert len(await world.deliveries("told")) == 1
    ledger = [
        msgspec.json.decode(leaf, type=Event)
        for leaf in await world.keeper.events(0, 1000)
        if b'"route":"outbox.bank"' in leaf
    ]
    assert [e.change for e in ledger] == [*["waiting>waiting"] * 6, "waiting>dead", "waiting>told"]
    assert {e.consent_id for e in ledger} == {"a"}


async def test_nothing_is_forgotten_when_the_node_dies_between_telling_and_recording(world):
    await world.create("a")
    world.position = await world.outbox.follow(0)
    commit = world.keeper.commit

    async def dies(*_):
        raise RuntimeError("dead")

    world.keeper.commit = dies
    with pytest.raises(ExceptionGroup):
        await world.round()
    world.keeper.commit = commit
    after = World(keeper=world.keeper, clock=world.clock)
    await after.drain()
    after.observer.close()
    assert [t[:2] for t in world.told + after.told] == [("a", "post")] * 2, "at least once"
    assert len(await world.deliveries("told")) == 1


async def test_the_outbox_goes_on_where_it_stopped_and_is_woken_by_a_change(world, autojump_clock):
    async with trio.open_nursery() as nursery:
        await nursery.start(world.outbox.run)
        await world.create("a")
        await virtual(3)
        nursery.cancel_scope.cancel()
    await world.change("a", Status.AUTHORIZED)
    after = World(keeper=world.keeper, clock=world.clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(after.outbox.run)
        await virtual(3)
        nursery.cancel_scope.cancel()
    after.observer.close()
    assert [t[:2] for t in world.told + after.told] == [("a", "post"), ("a", "patch")]


async def test_an_outbox_that_never_ran_does_not_tell_the_past(world, autojump_clock):
    await world.create("old")
    async with trio.open_nursery() as nursery:
        await nursery.start(world.outbox.run)
        await world.create("new")
        await virtual(3)
        nursery.cancel_scope.cancel()
    assert [t[0] for t in world.told] == ["new"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "tick"]), max_size=25),
    st.lists(st.sampled_from([204, 204, 500, 404]), max_size=40),
)
def test_every_lane_keeps_its_order_whatever_fails(steps, answers):
    async def run():
        world = World(answers)
        made = {}
        for step in steps:
            if step == "tick":
                await world.round()
                world.clock.advance(7)
            elif step in made:
                await world.change(step, Status.SUSPENDED)
                made[step] += 1
            else:
                await world.create(step)
                made[step] = 1
        for _ in range(60):
            await world.drain()
            world.clock.advance(21_600)
        world.observer.close()
        for name, count in made.items():
            heard = [
                index for who, _, index, _, status in world.told if who == name and status == 204
            ]
            assert heard == sorted(heard)
            dead = [d for d in await world.deliveries("dead") if d.consent_id == name]
            assert len(set(heard)) + len(dead) == count

    trio.run(run)


def test_back_off_follows_the_published_steps():
    delivery = Delivery(index=1, target="bank", consent_id="c", operation="post", time_ms=0)
    for pause in BACK_OFF_S:
        delivery = settle(delivery, 503, 1000)
        assert (delivery.state, delivery.due_ms) == ("waiting", 1000 + pause * 1000)
    assert settle(delivery, 503, 1000).state == "dead"
    assert settle(delivery, 204, 1000).state == "told"


async def test_payments_are_told_to_those_who_want_them_and_only_what_is_known(world):
    others = []

    async def send(_found, delivery):
        await trio.lowlevel.checkpoint()
        others.append((delivery.payment_id, delivery.operation))
        return 202

    world.outbox._targets["webhook"] = Target(wants=lambda _: True, send=send, payments=True)
    await world.create("a")
    made = payment("p-1", consent_id="a")

    async def outcome(change, subject="p-1", verdict=Verdict.ALLOWED):
        event = Event(
            kind=Kind.OUTCOME,
            time_ms=world.clock.now_ms(),
            consent_id="a",
            subject=subject,
            verdict=verdict,
            change=change,
        )
        await world.keeper.commit([Put(made)], [event])

    await outcome("made")
    await outcome("Pending>Rejected")
    await outcome("unknown", verdict=Verdict.UNKNOWN)
    await outcome("unsent", subject="reservation")
    await world.drain()
    assert [t[:2] for t in world.told] == [("a", "post")]
    assert others == [("", "post"), ("p-1", "post"), ("p-1", "patch")]


async def test_a_payment_is_looked_up_only_for_those_who_are_told_of_payments(world, monkeypatch):
    await world.create("a")
    looked, lookup = [], world.keeper.lookup

    async def look(kind, key):
        looked.append(kind)
        return await lookup(kind, key)

    monkeypatch.setattr(world.keeper, "lookup", look)
    made = Event(
        kind=Kind.OUTCOME,
        time_ms=world.clock.now_ms(),
        consent_id="a",
        subject="p-1",
        change="made",
    )
    await world.keeper.commit([Put(payment("p-1", consent_id="a"))], [made])
    await world.drain()
    assert [told[:2] for told in world.told] == [("a", "post")]
    assert Payment not in looked


async def test_what_waits_and_what_is_dead_can_be_seen_from_outside(world, autojump_clock):
    world.answers = [500] * 20
    await world.create("a")
    await world.round()
    world.clock.advance(3)
    await world.outbox._gauge()
    shown = world.observer.exposition().decode()
    assert "hub_outbox_oldest_seconds 3.0" in shown
    assert "hub_outbox_waiting 1.0" in shown
    for pause in BACK_OFF_S:
        world.clock.advance(pause)
        await world.drain()
    await world.outbox._gauge()
    shown = world.observer.exposition().decode()
    assert "hub_outbox_dead 1.0" in shown
    assert "hub_outbox_oldest_seconds 0.0" in shown
