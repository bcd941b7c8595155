"""What outlives a process and what must not: used proofs and assertions (F5), keys that their owner removed (F11)."""

from contextlib import asynccontextmanager

import pytest

from hub.model.clock import FixedClock
from hub.protocol import jose
from tests.authz.desk import ALICE, KEYS, NOW, Desk, refused
from tests.state.keepers import open_sqlite
from tests.trust.framework import APP, ORG, enrol, open_world, running
from tests.waiting import until

CREDENTIALS = {"grant_type": "client_credentials", "scope": "accounts"}
FLOOD_S = 600


@pytest.fixture
def clock():
    return FixedClock(NOW)


@asynccontextmanager
async def process(clock, folder, seed):
    """Run an authorization server over the database of a folder, as one process does from its start to its end."""
    async with open_sqlite(clock, folder) as keeper:
        desk = Desk(clock=clock, keeper=keeper, seed=seed)
        yield desk
        desk.close()


async def test_f5_a_used_proof_stays_used_after_a_restart(clock, tmp_path):
    async with process(clock, tmp_path, "first") as desk:
        proof = ((b"dpop", desk.proof("/token").encode()),)
        assert (await desk.token(**CREDENTIALS, headers=proof)).status == 200
    clock.advance(50)
    async with process(clock, tmp_path, "second") as desk:
        desk.count = 100
        answer = await desk.token(**CREDENTIALS, headers=proof)
        refused(answer, "invalid_dpop_proof", 400, "dpop.replay")
        fresh = ((b"dpop", desk.proof("/token").encode()),)
        assert (await desk.token(**CREDENTIALS, headers=fresh)).status == 200


async def test_f5_a_used_assertion_stays_used_after_a_restart_in_any_spelling(clock, tmp_path):
    async with process(clock, tmp_path, "first") as desk:
        assertion = desk.assertion(jti="once")
        again = desk.assertion(jti="once", iat=None)
        assert (await desk.token(**CREDENTIALS, client_assertion=assertion)).status == 200
    async with process(clock, tmp_path, "second") as desk:
        for replayed in (assertion, again):
            answer = await desk.token(**CREDENTIALS, client_assertion=replayed)
            refused(answer, "invalid_client", 401, "client_assertion.replay")
        padded = await desk.token(**CREDENTIALS, client_assertion=assertion + "=")
        refused(padded, "invalid_client", 401, "client_assertion.well_formed")


async def test_f11_a_key_that_its_owner_removed_signs_nothing_any_more(desk):
    assertion = desk.assertion(header={"kid": "alice-1"})
    new = jose.PrivateKey(kid="alice-2", key=KEYS[ALICE].key)
    desk.trust.published[ALICE] = {"alice-2": new}
    answer = await desk.token(**CREDENTIALS, client_assertion=assertion)
    refused(answer, "invalid_client", 401, "client_assertion.key")
    assert (await desk.token(**CREDENTIALS, client_assertion=desk.assertion(key=new))).status == 200


@pytest.fixture
async def mirrored(tmp_path, mock_clock):
    """Mirror a framework; the time of waits runs on and can be jumped."""
    mock_clock.rate = 1
    async with open_world(tmp_path) as world:
        trust = world.trust()
        async with running(trust):
            assert (await enrol(trust)).status == 204
            yield world, trust


async def test_f11_a_removed_key_is_gone_after_one_interval(mirrored, mock_clock):
    world, trust = mirrored
    kid = world.keys["sig1"].kid
    assert trust.key(APP, kid, "sig") is not None
    world.directory.revoke(kid)
    settings = world.settings()
    world.clock.advance(int(min(settings.refresh, settings.keys_refresh)) + 1)
    mock_clock.jump(2)
    await until(lambda: trust.key(APP, kid, "sig") is None, 10, "the key to be gone")


async def test_f11_a_flood_of_unknown_keys_costs_one_fetch_in_thirty_seconds(mirrored, mock_clock):
    world, trust = mirrored
    world.asked.clear()
    for _ in range(FLOOD_S):
        await trust.refresh_keys(APP)
        mock_clock.jump(1)
    fetched = world.asked.count(("public", f"/{ORG}/{APP}/application.jwks"))
    assert FLOOD_S // 30 <= fetched <= FLOOD_S // 30 + 3
