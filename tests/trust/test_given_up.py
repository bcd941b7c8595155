"""What is given up half way, as a registration whose caller hangs up, is done by the next look."""

import pytest
import trio

from hub.model.caller import Caller
from hub.model.fault import Fault
from hub.model.records import Setting
from hub.trust import reading, refresh, refresher
from hub.trust.mirror import DocumentFault
from hub.trust.snapshot import bucket_of
from hub.trust.view import Risk
from tests.trust.framework import APP, NOW, ORG, enrol, open_world, peer_of, refreshed, running
from tests.waiting import until

STRANGER = "33333333-3333-3333-3333-333333333333"


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


def judged(trust):
    outcome = trust.judge(peer_of("c1"), NOW, Risk.PAY)
    return outcome.check if isinstance(outcome, Fault) else outcome


async def test_a_look_that_is_given_up_hides_no_withdrawal(world, monkeypatch):
    async with running(world.trust()) as trust:
        await enrol(trust)
        await refreshed(trust)
        assert isinstance(judged(trust), Caller)
        world.directory.withdraw(ORG)
        with monkeypatch.context() as patched, trio.move_on_after(20) as scope:

            async def given_up(_):
                scope.cancel()
                await trio.sleep_forever()

            patched.setattr(reading.Reader, "changed", given_up)
            await trust._refresher.look(STRANGER, APP)
        assert scope.cancelled_caught
        await refreshed(trust)
        assert judged(trust) == "trust.organisation_inactive"


async def test_a_withdrawal_that_was_not_kept_because_of_a_cancellation_is_kept_later(
    world, monkeypatch
):
    async with running(world.trust()) as trust:
        await enrol(trust)
        await refreshed(trust)
        world.directory.withdraw(ORG)
        with monkeypatch.context() as patched, trio.move_on_after(20) as scope:

            async def given_up(*_):
                scope.cancel()
                await trio.sleep_forever()

            patched.setattr(refresher, "keep", given_up)
            async with trust._refresher._fetching(anew=True) as fetcher:
                await trust._refresher._look_at_index(fetcher)
            await trust._refresher.look(ORG, APP)
        assert scope.cancelled_caught
        await refreshed(trust)
        kept, _ = await world.keeper.lookup(Setting, f"trust/index/{bucket_of(ORG)}")
        assert b"Withdrawn" in kept.value


async def test_an_older_list_is_not_put_over_a_newer_one(world, monkeypatch):
    changed, slow, let_go = reading.Reader.changed, trio.Event(), trio.Event()
    first = [True]

    async def slowly(reader):
        if first and first.pop():
            slow.set()
            await let_go.wait()
        return await changed(reader)

    async with running(world.trust()) as trust:
        await enrol(trust)
        world.directory.withdraw(ORG)
        await refreshed(trust)
        world.directory.reinstate(ORG)
        monkeypatch.setattr(reading.Reader, "changed", slowly)
        lists = trust._refresher._one_list
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trust._refresher.look, STRANGER, APP)
            await slow.wait()
            world.directory.withdraw(ORG)
            nursery.start_soon(refreshed, trust)
            await until(lambda: lists.statistics().tasks_waiting, 10, "the round to wait")
            let_go.set()
        await refreshed(trust)
        assert judged(trust) == "trust.organisation_inactive"


async def test_a_revocation_list_that_was_refused_is_not_taken_for_the_one_before(
    world, monkeypatch
):
    async with running(world.trust()) as trust:
        await enrol(trust)
        await refreshed(trust)
        world.pki.revoke(int(peer_of("c1").serial, 16))
        with monkeypatch.context() as patched:
            patched.setattr(refresh, "read_crl", lambda *_: DocumentFault("not signed by us"))
            assert "not signed" in await refreshed(trust)
            assert "not signed" in await refreshed(trust)
        await refreshed(trust)
        assert judged(trust) == "trust.certificate_revoked"


async def test_what_a_single_fetch_of_keys_learnt_is_kept_too(world, monkeypatch):
    async def unknown(*_):
        return {}

    monkeypatch.setattr(refresher, "look_at_ends", unknown)
    async with running(world.trust()) as trust:
        await enrol(trust)
        await refreshed(trust)
        world.directory.revoke(world.keys["sig1"].kid)
        await trust.refresh_keys(APP)
        await refreshed(trust)
    async with running(world.trust(leader=False)) as follower:
        assert world.keys["sig1"].kid in follower._known.clients[APP].revoked
