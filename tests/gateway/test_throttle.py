"""Throttling, and the canary: what a payload holds is nowhere afterwards."""

import orjson
import pytest

from hub.model.consent import Consent
from tests.gateway.test_reads import BALANCE
from tests.gateway.world import CONSENT, NOW, World, answer_of, grant_of, token_of


@pytest.mark.parametrize("level", ["operation", "client", "organisation", "platform"])
async def test_each_level_refuses_when_its_bucket_is_empty_and_fills_again(level):
    world = await World({f"calls_{level}_per_s": 1.0}).start()
    answers = [await world.get("/accounts") for _ in range(3)]
    assert [a.status for a in answers] == [200, 200, 429]
    assert answers[2].body == b""
    assert dict(answers[2].headers)[b"retry-after"] == b"1"
    assert len(world.bank.calls) == 2
    assert (await world.events())[-1]["check"] == f"throttle.{level}"
    world.clock.advance(1)
    assert (await world.get("/accounts")).status == 200


async def test_operations_have_buckets_of_their_own():
    world = await World({"calls_operation_per_s": 0.5}).start()
    assert [(await world.get("/accounts")).status for _ in range(2)] == [200, 429]
    assert (await world.get("/parties")).status != 429


async def test_a_tenant_without_limits_asks_the_keeper_nothing():
    world = await World().start()
    asked = []
    world.keeper.claim = asked.append
    assert (await world.get("/accounts")).status == 200
    assert asked == []


async def test_nothing_of_a_payload_is_kept_or_told():
    world = await World(response_validation="shadow").start()
    marked = {
        **BALANCE,
        "balanceType": "canary-1",
        "extra": "canary-2",
        "amount": {"amount": "canary-3"},
    }
    world.bank.answer = answer_of({"data": [marked], "canary-4": "canary-5"})
    await world.get("/accounts/acc-1/balances")
    for status in (400, 403, 500):
        error = {"errorCode": "X.Y", "errorMessage": "said aloud", "debug": "canary-6"}
        world.bank.answer = answer_of(error, status)
        response = await world.get("/accounts/acc-1/balances", "fromBookingDateTime=canary-7")
        assert b"canary" not in response.body
    await world.get("/accounts/canary-8/transactions", "fromBookingDateTime=canary-9")
    world.observer.close()
    kept = orjson.dumps(await world.events()).decode() + world.log.getvalue()
    kept += repr((await world.keeper.lookup(Consent, CONSENT))[0])
    kept += world.observer.exposition().decode()
    assert "canary" not in kept
    assert "secret" not in kept


def test_records_of_a_token_hold_its_digest_only():
    assert token_of().digest != "secret"
    assert grant_of().created == NOW
