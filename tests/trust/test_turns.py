"""However much is known, a refresh is small work at a time, and each part keeps its own date."""

import msgspec
import pytest
import trio

from hub.model.caller import Caller
from hub.model.clock import SeededDice
from hub.model.fault import Fault
from hub.sandbox.server import FaultPlan
from hub.trust import reading, refresher
from hub.trust.fetch import Unreachable
from hub.trust.mirror import DocumentFault
from hub.trust.view import Risk
from tests.trust.framework import (
    APP,
    NOW,
    ORG,
    OTHER_APP,
    enrol,
    open_world,
    peer_of,
    refreshed,
    running,
)
from tests.waiting import until


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


def judged(trust, name):
    outcome = trust.judge(peer_of(name), NOW, Risk.PAY)
    return outcome.check if isinstance(outcome, Fault) else outcome


async def test_only_what_could_not_be_confirmed_grows_old_also_for_others_and_after_a_restart(
    world,
):
    settings = {"crl": ""}
    async with running(world.trust(**settings)) as trust, trio.open_nursery() as nursery:
        follower = world.trust(leader=False, **settings)
        await nursery.start(follower.run)
        assert (await enrol(trust, "c1")).status == 204
        assert (await enrol(trust, "c1b")).status == 204
        await refreshed(trust)
        path = f"/organisations/{ORG}/softwarestatements/{APP}"
        world.faults["api"].set(FaultPlan(path=path, status=500))
        world.clock.advance(1_900)
        await refreshed(trust)
        assert judged(trust, "c1") == "trust.stale"
        assert isinstance(judged(trust, "c1b"), Caller)
        assert set(trust._known.late) == {APP}
        await until(lambda: judged(follower, "c1") == "trust.stale", 10, "the follower to hear")
        assert isinstance(judged(follower, "c1b"), Caller)
        nursery.cancel_scope.cancel()
    async with running(world.trust(**settings)) as again:
        assert judged(again, "c1") == "trust.stale"
        assert isinstance(judged(again, "c1b"), Caller)
        world.mend()
        await refreshed(again)
        assert isinstance(judged(again, "c1"), Caller)
        assert again._known.late == {}


async def test_a_round_stops_asking_when_nobody_answers(world, monkeypatch):
    asked = []

    async def silent(*_):
        asked.append(1)
        return Unreachable("https://framework.example", "no answer within 10 s")

    dice = SeededDice("many")
    async with running(world.trust(also=[(ORG, dice.uuid()) for _ in range(60)])) as trust:
        monkeypatch.setattr(refresher, "look_at_client", silent)
        await refreshed(trust)
        assert refresher._SILENT <= len(asked) <= refresher._SILENT + refresher._AT_ONCE
        assert "no answer" in trust.status()["problem"]


async def test_an_unchanged_client_is_not_installed_again(world):
    async with running(world.trust()) as trust:
        await enrol(trust)
        await refreshed(trust)
        before = trust._known.clients[APP]
        await refreshed(trust)
        assert trust._known.clients[APP] is before
        assert OTHER_APP not in trust._known.clients


ROWS = msgspec.json.encode(
    [{"OrganisationId": f"{n:036x}", "Status": "Active"} for n in range(4_000)]
)


async def read(document, held):
    async with reading.reading(held) as reader:
        for at in range(0, len(document), 50_000):
            await reader.take(document[at : at + 50_000])
        return await reader.changed(), reader.child


async def test_the_reader_returns_only_what_differs_from_what_is_held():
    assert len(ROWS) > reading.SMALL
    first, child = await read(ROWS, {})
    assert child.returncode == 0
    assert first == reading.buckets_of(ROWS)
    assert (await read(ROWS, first))[0] == {}
    other = ROWS.replace(b'Active"}]', b'Withdrawn"}]')
    changed, _ = await read(other, first)
    assert len(changed) == 1


async def test_a_large_document_that_is_cut_short_is_said_to_be_no_list():
    said, child = await read(ROWS[:-5], {})
    assert isinstance(said, DocumentFault)
    assert child.returncode == 1


async def test_a_reader_that_is_given_up_leaves_no_process():
    with trio.move_on_after(5):
        async with reading.reading({}) as reader:
            await reader.take(ROWS)
            assert reader.child.returncode is None
    assert reader.child.returncode is not None
