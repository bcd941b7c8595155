"""What is long over is forgotten whole, and nothing else: not what is in use, not after a crash halfway, not by a wrong clock."""

from pathlib import Path

import apsw
import msgspec
import orjson
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hub.config import ConfigError, config_folder, load
from hub.lfi.forgetting import Forgetting
from hub.lfi.sweep import settle_due
from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import Consent, Status
from hub.model.consent_history import history_line
from hub.model.fault import Fault
from hub.model.limits import Allowance, Share, Taken
from hub.model.payment_file import file_note
from hub.model.records import (
    Attempt,
    ConsentChange,
    Delivery,
    Grant,
    Payment,
    RefreshToken,
    Setting,
)
from hub.observe import Observer
from hub.state.backup import check_backup
from hub.state.entry import KINDS, unavailable
from hub.state.keeper import Put, Query
from hub.state.open import DATABASE
from hub.upstream.outbox import settle
from tests.state.keepers import KEEPERS, NOW, consent, event, open_memory, open_sqlite

DAYS = 366
KEPT_S = DAYS * 86_400
BEFORE = Path(__file__).with_name("before_forgetting.sql")


@pytest.fixture
def clock():
    return FixedClock(NOW)


@pytest.fixture(params=sorted(KEEPERS))
async def keeper(request, clock, tmp_path):
    async with KEEPERS[request.param](clock, tmp_path) as opened:
        yield opened


def forgetting(keeper, clock):
    return Forgetting(
        keeper=keeper,
        clock=clock,
        dice=SeededDice(),
        observer=Observer(clock, log=False),
        days=DAYS,
    )


def over(name, status=Status.REVOKED, **more):
    fields = {"updated": NOW * 1000, "created_ms": NOW * 1000 - 9, "expires": NOW - 1}
    return consent(name, status=status, **(fields | more))


def hanging(one, waiting=()):
    """Return a record of each kind that hangs on a consent."""
    about = {"client_id": "tpp", "consent_id": one.id}
    return [
        Grant(id=f"grant-{one.id}", created=NOW, **about),
        RefreshToken(
            digest=f"refresh-{one.id}",
            grant_id=f"grant-{one.id}",
            scope="",
            issued=NOW,
            expires=NOW + 10 * KEPT_S,
            **about,
        ),
        history_line(one, line_id=f"line-{one.id}", time_ms=NOW, interaction_id="i", patch={}),
        Delivery(
            index=len(one.id),
            target=f"bank-{one.id}",
            consent_id=one.id,
            operation="patch",
            time_ms=NOW,
            state="waiting" if waiting else "dead",
            told_ms=NOW * 1000,
        ),
        payment(f"payment-{one.id}", one.id),
        Allowance(consent_id=one.id, total=Taken(1, 100)),
        file_note(one, taken=True),
    ]


def payment(name, consent_id):
    return Payment(
        id=name,
        consent_id=consent_id,
        client_id="tpp",
        organisation_id="org",
        payment_type="x",
        idempotency_key="k",
        created_ms=NOW,
        updated_ms=NOW,
    )


def attempt(consent_id, state):
    return Attempt(
        id=state,
        client_id="tpp",
        consent_id=consent_id,
        digest="d",
        reservation="r",
        created=NOW,
        state=state,
    )


async def put(keeper, *records):
    done = await keeper.commit([Put(one) for one in records], [event()])
    assert isinstance(done, tuple)


async def names(keeper):
    """Return the key of every record there is, by its kind; what tells the moment left out."""
    found = set()
    for kind in KINDS:
        page = await keeper.search(Query(kind=kind, limit=1000))
        found |= {(kind, item.record.key) for item in page.items}
    return found - {("setting", "consents.forgetting")}


async def told(keeper):
    """Return the events of the forgetting."""
    leaves = await keeper.events(0, 1000)
    return [one for one in map(orjson.loads, leaves) if one.get("route") == "consents.forget"]


async def pass_by(clock, forgetting, seconds):
    """Let time pass as a Hub that runs sees it: the hours are there, too."""
    for _ in range(-(-seconds // 86_400)):
        clock.advance(min(seconds, 86_400))
        seconds -= 86_400
        assert await forgetting.hour() is None


async def test_a_consent_is_forgotten_to_the_second_with_everything_that_hangs_on_it(keeper, clock):
    old, young = over("old"), over("young", expires=NOW + 1)
    live = over("live", Status.AUTHORIZED, expires=NOW + 10 * KEPT_S)
    kept = [young, *hanging(young), live, *hanging(live)]
    await put(keeper, old, *hanging(old), *kept)
    everything = await names(keeper)
    looked = forgetting(keeper, clock)
    clock.advance(KEPT_S - 1)
    assert (await looked.batch(clock.now())).forgotten == 0
    assert await names(keeper) == everything
    clock.advance(1)
    done = await looked.batch(clock.now())
    assert (done.forgotten, done.kept, done.more) == (1, 2, False)
    assert await names(keeper) == {name for name in everything if "old" not in name[1]}
    said = (await told(keeper))[-1]
    assert (said["kind"], said["consent_id"], said["change"]) == ("node", "old", "forgotten")
    assert "old" not in {i.record.key for i in (await keeper.search(Query(kind="consent"))).items}


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda one: [hanging(one, waiting=True)[3]], id="a delivery waits"),
        pytest.param(
            lambda one: [Allowance(consent_id=one.id, open={"p": Share(1, "")})],
            id="a payment has no end",
        ),
        pytest.param(lambda one: [attempt(one.id, "unknown")], id="an outcome is not known"),
        pytest.param(lambda one: [attempt(one.id, "open")], id="the bank is being asked"),
        pytest.param(
            lambda one: [over("member", group_id=one.id, updated=NOW * 1000 + KEPT_S)],
            id="the first of a group",
        ),
    ],
)
async def test_what_is_in_use_is_not_forgotten(clock, tmp_path, use):
    async with open_memory(clock, tmp_path) as keeper:
        one, other = over("one"), over("other")
        await put(keeper, one, other, *hanging(other))
        await put(keeper, *hanging(one), *use(one))
        before = await names(keeper)
        clock.advance(KEPT_S)
        done = await forgetting(keeper, clock).batch(clock.now())
        assert (done.forgotten, done.more) == (1, False)
        assert await names(keeper) == {name for name in before if "other" not in name[1]}


async def test_too_many_payments_without_an_outcome_hold_everything_and_are_told(clock, tmp_path):
    """Whose they are cannot be said any more, so nothing is forgotten; and somebody has to hear of it."""
    async with open_memory(clock, tmp_path) as keeper:
        await put(keeper, over("one"))
        for first in range(0, 1000, 250):
            some = [attempt("other", "unknown") for _ in range(250)]
            named = [msgspec.structs.replace(a, id=f"p{first + at}") for at, a in enumerate(some)]
            await put(keeper, *named)
        clock.advance(KEPT_S)
        observer = Observer(clock, log=False)
        looked = Forgetting(
            keeper=keeper, clock=clock, dice=SeededDice(), observer=observer, days=DAYS
        )
        done = await looked.batch(clock.now())
        assert (done.forgotten, done.kept, done.more) == (0, 1, False)
        assert b'hub_notes_total{name="consents.forget_waits"} 1.0' in observer.exposition()


async def test_a_consent_that_runs_out_is_kept_from_then_on(clock, tmp_path):
    async with open_memory(clock, tmp_path) as keeper:
        await put(keeper, over("a", Status.AUTHORIZED, expires=NOW + 100))
        looked = forgetting(keeper, clock)
        clock.advance(KEPT_S + 100)
        assert (await looked.batch(clock.now())).forgotten == 0, "nobody has written its end"
        assert await settle_due(keeper, clock, SeededDice()) is None
        assert (await looked.batch(clock.now())).forgotten == 0
        clock.advance(KEPT_S)
        assert (await looked.batch(clock.now())).forgotten == 1


async def test_what_is_kept_does_not_stand_in_the_way_of_the_rest(clock, tmp_path, autojump_clock):
    async with open_memory(clock, tmp_path) as keeper:
        stuck = [over(f"stuck{at:03d}", updated=at) for at in range(120)]
        held = [Allowance(consent_id=one.id, open={"p": Share(1, "")}) for one in stuck]
        await put(keeper, *stuck, *held, *(over(f"x{at:03d}") for at in range(120)))
        looked = forgetting(keeper, clock)
        await put(keeper, Setting(name="consents.forgetting", value=b"%d" % (NOW + KEPT_S)))
        clock.advance(KEPT_S)
        assert await looked.hour() is None
        left = await keeper.search(Query(kind="consent", limit=1000))
        assert {item.record.key for item in left.items} == {one.id for one in stuck}


async def test_a_crash_halfway_is_made_good_after_a_restart(clock, tmp_path):
    """A consent on which very much hangs takes several commits, and goes with the last."""
    one, clocked = over("one"), clock
    lines = [
        msgspec.structs.replace(hanging(one)[2], id=f"line{at:03d}", time_ms=NOW + at)
        for at in range(700)
    ]
    async with open_sqlite(clocked, tmp_path) as keeper:
        await put(keeper, one, *hanging(one)[:2], *hanging(one)[3:], *lines)
        clocked.advance(KEPT_S)
        commit, commits = keeper.commit, []

        async def dying(changes, events):
            commits.append(len(changes))
            return (
                unavailable("keeper.disk", "")
                if len(commits) > 2
                else await commit(changes, events)
            )

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper, "commit", dying)
            fault = await forgetting(keeper, clocked).batch(clocked.now())
        assert isinstance(fault, Fault)
        assert commits == [250, 250, 207]
    async with open_sqlite(clocked, tmp_path) as keeper:
        assert await keeper.lookup(Consent, "one") is not None
        left = await keeper.search(Query(kind="consent_change", limit=1000))
        assert len(left.items) == 204, "history goes last"
        assert (await forgetting(keeper, clocked).batch(clocked.now())).forgotten == 1
        assert await names(keeper) == set()
        assert [said["change"] for said in await told(keeper)] == ["forgetting"] * 2 + ["forgotten"]


@pytest.mark.parametrize("more", [0, 300])
async def test_what_somebody_changes_meanwhile_is_looked_at_again(clock, tmp_path, more):
    async with open_memory(clock, tmp_path) as keeper:
        one = over("one")
        lines = [msgspec.structs.replace(hanging(one)[2], id=f"line{at}") for at in range(more)]
        await put(keeper, one, *hanging(one), *lines)
        clock.advance(KEPT_S)
        commit, commits = keeper.commit, []

        async def late(changes, events):
            commits.append(changes)
            assert len(commits) == 1, "the rest is for the next hour"
            await commit([Put(hanging(one)[4])], events)
            return await commit(changes, events)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper, "commit", late)
            assert (await forgetting(keeper, clock).batch(clock.now())).forgotten == 0
        assert await keeper.lookup(Payment, "payment-one") is not None
        assert (await forgetting(keeper, clock).batch(clock.now())).forgotten == 1


async def test_a_clock_that_jumps_forgets_nothing_for_days_and_goes_back_at_once(clock, tmp_path):
    async with open_sqlite(clock, tmp_path) as keeper:
        await put(keeper, over("one"))
        assert await forgetting(keeper, clock).hour() is None
    clock.advance(50 * KEPT_S)
    for _ in range(5):  # restarts are no hours
        async with open_sqlite(clock, tmp_path) as keeper:
            for _ in range(DAYS // 6):
                assert await forgetting(keeper, clock).hour() is None
            assert await keeper.lookup(Consent, "one") is not None
    clock.advance(-50 * KEPT_S)
    async with open_sqlite(clock, tmp_path) as keeper:
        looked = forgetting(keeper, clock)
        assert await looked.hour() is None
        assert int((await keeper.lookup(Setting, "consents.forgetting"))[0].value) == NOW
        await pass_by(clock, looked, KEPT_S - 86_400)
        assert await keeper.lookup(Consent, "one") is not None
        await pass_by(clock, looked, 2 * 86_400)
        assert await keeper.lookup(Consent, "one") is None


async def test_the_first_start_with_a_wrong_clock_forgets_nothing(clock, tmp_path):
    clock.advance(50 * KEPT_S)
    async with open_memory(clock, tmp_path) as keeper:
        await put(keeper, over("one"))
        assert await forgetting(keeper, clock).hour() is None
        assert await keeper.lookup(Consent, "one") is not None


async def test_the_moment_is_written_once_a_day(clock, tmp_path):
    async with open_memory(clock, tmp_path) as keeper:
        looked = forgetting(keeper, clock)
        for _ in range(48):
            assert await looked.hour() is None
            clock.advance(3600)
        assert [said["change"] for said in await told(keeper)] == ["moment"] * 2


async def test_a_store_that_takes_nothing_is_tried_again_an_hour_later(clock, tmp_path, mock_clock):
    async with open_memory(clock, tmp_path) as keeper:
        moment = Setting(name="consents.forgetting", value=b"%d" % (NOW + KEPT_S))
        await put(keeper, over("one"), moment)
        clock.advance(KEPT_S)
        async with trio.open_nursery() as nursery:
            await nursery.start(forgetting(keeper, clock).run)
            full = unavailable("keeper.disk", "full")
            for seconds, refusal, left in (
                (3599, None, 1),
                (1, full, 1),
                (3599, None, 1),
                (1, None, 0),
            ):
                keeper.refusal = refusal
                await wait_all_tasks_blocked()
                mock_clock.jump(seconds)
                await wait_all_tasks_blocked()
                assert len((await keeper.search(Query(kind="consent"))).items) == left
            nursery.cancel_scope.cancel()


async def test_a_database_of_the_version_before_is_read_and_its_old_consents_are_forgotten(
    clock, tmp_path
):
    folder = tmp_path / "state"
    folder.mkdir()
    made = apsw.Connection(str(folder / DATABASE))
    made.execute(BEFORE.read_text())
    made.close()
    assert check_backup(folder / DATABASE).size == 1
    async with open_sqlite(clock, tmp_path) as keeper:
        grant = (await keeper.lookup(Grant, "grant-live"))[0]
        assert (grant.expires, grant.purge_at()) == (0, None)
        before = await names(keeper)
        clock.advance(KEPT_S)
        assert (await forgetting(keeper, clock).batch(clock.now())).forgotten == 1
        assert await names(keeper) == {name for name in before if "live" in name[1]} | {
            ("delivery", "000000000000002:bank")
        }
        assert (await keeper.lookup(Consent, "live"))[0].status is Status.AUTHORIZED
    async with open_sqlite(clock, tmp_path) as keeper:
        assert (await keeper.lookup(ConsentChange, "line-live"))[0].operation == "patch"
    assert check_backup(folder / DATABASE).size == 2


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_grant_goes_after_all_that_it_gave(clock, tmp_path, kind):
    async with KEEPERS[kind](clock, tmp_path) as keeper:
        about = {"client_id": "tpp", "consent_id": "c"}
        refresh = RefreshToken(
            digest="r", grant_id="g", scope="", issued=NOW, expires=NOW + 100, **about
        )
        await put(keeper, Grant(id="g", created=NOW, expires=NOW + 100, **about), refresh)
        clock.advance(100 + 2 * 86_400 - 1)
        await keeper.purge()
        assert await names(keeper) == {("grant", "g")}
        clock.advance(1)
        await keeper.purge()
        assert await names(keeper) == set()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_dead_letter_is_kept_for_ninety_days_and_one_that_waits_for_as_long_as_it_does(
    clock, tmp_path, kind
):
    async with KEEPERS[kind](clock, tmp_path) as keeper:
        waiting = hanging(over("c"), waiting=True)[3]
        last = msgspec.structs.replace(waiting, attempts=6)
        dead = msgspec.structs.replace(settle(last, 500, NOW * 1000), index=7)
        assert dead.state == "dead"
        await put(keeper, waiting, dead)
        clock.advance(90 * 86_400 - 1)
        assert await keeper.purge() == 0
        clock.advance(1)
        assert await keeper.purge() == 1
        assert await names(keeper) == {("delivery", waiting.key)}
        replayed = msgspec.structs.replace(dead, state="waiting")
        assert replayed.purge_at() is None


def test_less_than_a_year_is_refused():
    path = config_folder() / "hub.production.toml"
    with pytest.raises(ConfigError, match="consent_history_days"):
        load(path, {"HUB__LIMITS__CONSENT_HISTORY_DAYS": "365"})
    assert load(path, {}).settings.limits.consent_history_days == 2557
