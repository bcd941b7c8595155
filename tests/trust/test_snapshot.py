"""What is kept of the framework: sealed, followed by workers, obeyed for as long as its senders vouch for it."""

import stat

import msgspec
import pytest
import trio
import trio.testing

from hub.model.caller import Caller
from hub.model.clock import SeededDice
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.sandbox.server import FaultPlan
from hub.state.keeper import Put
from hub.trust import reading
from hub.trust.fetch import _max_age
from hub.trust.seal import Seal
from hub.trust.snapshot import bucket_of
from hub.trust.view import Risk
from hub.trust.web import Answer
from tests.trust.framework import (
    APP,
    NOW,
    ORG,
    enrol,
    open_world,
    peer_of,
    refreshed,
    running,
)

DOWN = FaultPlan(close=True)


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def trust(world):
    made = world.trust()
    async with running(made):
        assert (await enrol(made)).status == 204
        yield made


def judged(trust, risk=Risk.READ):
    outcome = trust.judge(peer_of("c1"), NOW, risk)
    return outcome.check if isinstance(outcome, Fault) else outcome


async def test_a_snapshot_that_somebody_changed_is_not_used_and_said_so(world):
    async with running(world.trust()) as first:
        await enrol(first)
    name = f"trust/client/{APP}"
    kept, _ = await world.keeper.lookup(Setting, name)
    forged = kept.value[:32] + kept.value[32:].replace(b"BDSP", b"XXXX")
    assert forged != kept.value
    event = Event(kind=Kind.NODE, time_ms=NOW * 1000)
    await world.keeper.commit([Put(Setting(name=name, value=forged))], [event])
    world.break_everything(DOWN)
    async with running(world.trust()) as second:
        assert judged(second) == "trust.stale"
    events = [msgspec.json.decode(leaf) for leaf in await world.keeper.events(0, 1000)]
    (told,) = [e for e in events if e.get("check") == "trust.snapshot_rejected"]
    assert told["subject"] == name


async def test_a_snapshot_of_another_tenant_opens_nothing_here(world):
    seal, other = Seal(b"a" * 32), Seal(b"b" * 32)
    sealed = other.close("trust/dates", b"value")
    assert seal.open("trust/dates", sealed) is None
    assert other.open("trust/dates", sealed) == b"value"
    assert other.open("trust/client/x", sealed) is None
    assert other.open("trust/dates", b"") is None


async def test_the_seals_key_is_made_once_and_its_owners_only(tmp_path):
    first = Seal.of_folder(tmp_path, SeededDice("a"))
    second = Seal.of_folder(tmp_path, SeededDice("b"))
    assert second.open("n", first.close("n", b"v")) == b"v"
    assert stat.S_IMODE((tmp_path / "trust.key").stat().st_mode) == 0o600


async def test_a_worker_obeys_the_outage_policy_too(world, trust):
    follower = world.trust(leader=False)
    async with running(follower):
        assert isinstance(judged(follower, risk=Risk.PAY), Caller)
        world.break_everything(DOWN)
        world.clock.advance(1_900)
        await refreshed(trust)
        await trio.testing.wait_all_tasks_blocked()
        assert judged(follower, risk=Risk.PAY) == "trust.stale"
        assert isinstance(judged(follower), Caller)
        world.mend()
        await refreshed(trust)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(judged(follower, risk=Risk.PAY), Caller)


async def test_a_certificate_that_only_a_worker_has_met_is_asked_about(world):
    settings = {"crl": "", "ocsp": f"{world.directory.bases.pki}/ocsp"}
    leader, follower = world.trust(**settings), world.trust(leader=False, **settings)
    async with running(leader), running(follower):
        await enrol(follower)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(judged(follower), Caller)
        await trio.testing.wait_all_tasks_blocked()
        world.pki.revoke(int(peer_of("c1").serial, 16))
        await refreshed(leader)
        await trio.testing.wait_all_tasks_blocked()
        assert judged(follower) == "trust.certificate_revoked"
        world.faults["pki"].set(DOWN)  # silence takes nothing back
        world.clock.advance(86_400)
        await refreshed(leader)
        await trio.testing.wait_all_tasks_blocked()
        assert judged(follower) == "trust.certificate_revoked"


async def test_a_revocation_survives_a_restart_during_an_outage(world):
    settings = {"crl": "", "ocsp": f"{world.directory.bases.pki}/ocsp"}
    async with running(world.trust(**settings)) as first:
        await enrol(first)
        judged(first)
        world.pki.revoke(int(peer_of("c1").serial, 16))
        await refreshed(first)
    world.break_everything(DOWN)
    async with running(world.trust(**settings)) as second:
        assert judged(second) == "trust.certificate_revoked"


async def test_a_document_that_its_sender_vouches_for_is_not_asked_for_in_every_round(
    world, trust, monkeypatch
):
    memory = trust._refresher._memory
    sets = [url for url in memory.known if url.endswith("/application.jwks")]
    for url in sets:
        memory.known[url] = msgspec.structs.replace(memory.known[url], fresh=NOW + 900)
    for advance, asked in ((300, False), (300, False), (300, True)):
        world.clock.advance(advance)
        world.asked.clear()
        assert await trust._refresher._round()
        path = f"/{ORG}/{APP}/application.jwks"
        assert (("public", path) in world.asked) is asked, world.clock.now() - NOW
    memory.known[sets[0]] = msgspec.structs.replace(memory.known[sets[0]], fresh=NOW + 9_999)
    world.asked.clear()
    await trust.refresh()  # an operator asks: everything is asked for
    assert ("public", f"/{ORG}/{APP}/application.jwks") in world.asked


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("max-age=300", 300),
        ("public, Max-Age=60", 60),
        ("max-age=99999", 900),
        ("max-age=300, no-cache", 0),
        ("no-store", 0),
        ("max-age=-1", 0),
        ("max-age=1e9", 0),
        ("max-age=" + "9" * 5000, 0),
        ("", 0),
    ],
)
def test_how_long_a_sender_vouches(header, seconds):
    answer = Answer(200, ((b"cache-control", header.encode()),), b"")
    assert _max_age(answer) == seconds


async def test_a_large_list_is_read_in_another_process(world, trust, monkeypatch):
    monkeypatch.setattr(reading, "SMALL", 10)
    began = []
    open_process = trio.lowlevel.open_process

    async def counted(command, **more):
        began.append(command)
        return await open_process(command, **more)

    monkeypatch.setattr(trio.lowlevel, "open_process", counted)
    world.directory.withdraw(ORG)
    await refreshed(trust)
    assert judged(trust) == "trust.organisation_inactive"
    assert len(began) == 1
    world.directory.reinstate(ORG)
    world.faults["api"].set(FaultPlan(wrong_shape=True))
    await refreshed(trust)
    assert judged(trust) == "trust.organisation_inactive"
    assert trust.status()["problem"]
    world.mend()
    await refreshed(trust)
    assert isinstance(judged(trust), Caller)


async def test_only_the_organisations_that_changed_are_read_and_kept_anew(world, trust):
    world.directory.withdraw(ORG)
    before = dict(trust._known.buckets)
    await refreshed(trust)
    changed = {b for b, content in trust._known.buckets.items() if content != before[b]}
    assert changed == {bucket_of(ORG)}
    kept, _ = await world.keeper.lookup(Setting, f"trust/index/{bucket_of(ORG)}")
    assert b"Withdrawn" in kept.value


async def test_a_bank_without_a_registration_is_refused_while_nothing_is_known(world):
    world.break_everything(DOWN)
    trust = world.trust()
    async with running(trust):
        fault = trust.vet(peer_of("c1"), NOW)
        assert (fault.check, fault.status) == ("trust.stale", 503)


async def test_the_tenants_own_files_and_published_keys_are_on_the_radar(world):
    trust = world.trust(watched={"tpp edge": world.keys["server"].cert_path})
    async with running(trust):
        await enrol(trust)
        world.clock.advance(370 * 86_400)
        await refreshed(trust)
        found = {(b.owner, b.what) for b in trust.expiries()}
        assert {("tenant", "tpp edge"), ("tenant", "trust client")} <= found
        assert {(APP, "published key"), (APP, "published transport")} <= found


async def test_a_certificate_that_ended_is_forgotten_a_week_later(world, trust):
    judged(trust)
    await trio.testing.wait_all_tasks_blocked()
    name = f"trust/seen/{peer_of('c1').serial}"
    assert await world.keeper.lookup(Setting, name) is not None
    world.clock.advance(peer_of("c1").not_after + 6 * 86_400 - NOW)
    await refreshed(trust)
    assert await world.keeper.lookup(Setting, name) is not None
    world.clock.advance(86_400)
    await refreshed(trust)
    assert await world.keeper.lookup(Setting, name) is None
    assert peer_of("c1").serial not in trust._known.seen


async def test_a_clock_that_is_set_back_after_an_outage_leaves_nothing_stale(world, trust):
    follower = world.trust(leader=False)
    async with running(follower):
        world.break_everything(DOWN)
        world.clock.advance(3_600)
        await refreshed(trust)
        await trio.testing.wait_all_tasks_blocked()
        assert judged(follower, risk=Risk.PAY) == judged(trust, risk=Risk.PAY) == "trust.stale"
        world.mend()
        world.clock.advance(-3_600)
        await refreshed(trust)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(judged(trust, risk=Risk.PAY), Caller)
        assert isinstance(judged(follower, risk=Risk.PAY), Caller)
