"""Throttling, and the canary: what a payload holds is nowhere afterwards."""

import orjson
import pytest

from hub.model.consent import Consent
from hub.model.records import digest_of
from tests.gateway.test_reads import BALANCE
from tests.gateway.world import CONSENT, NOW, World, answer_of, consent_of, grant_of, token_of

OTHER = "0a1b2c3d-0000-4000-8000-000000000002"


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


async def test_what_one_level_refuses_is_not_taken_from_the_others():
    world = await World({"calls_operation_per_s": 1.0, "calls_platform_per_s": 5.0}).start()
    answers = [(await world.get("/accounts")).status for _ in range(30)]
    assert answers == [200, 200] + [429] * 28
    assert (await world.get("/parties")).status != 429, (
        "one client's refused calls cost nobody else"
    )


async def test_a_tenant_without_limits_asks_the_keeper_nothing():
    world = await World().start()
    asked = []
    world.keeper.claim = asked.append
    assert (await world.get("/accounts")).status == 200
    assert asked == []


ATTENDED = {b"x-fapi-customer-ip-address": b"192.0.2.1"}


async def test_pages_of_a_customer_are_limited_by_the_day_where_the_tenant_says_so():
    limits = {"pages_attended_per_day": 2, "pages_unattended_per_day": 1}
    world = await World(limits).start(expires=NOW + 86_400)
    attended = [await world.get("/accounts", headers=ATTENDED) for _ in range(3)]
    alone = [await world.get("/accounts/acc-1/balances") for _ in range(2)]
    assert [a.status for a in attended + alone] == [200, 200, 429, 200, 429]
    checks = [e["check"] for e in await world.events() if e.get("status") == 429]
    assert checks == ["throttle.attended", "throttle.unattended"]
    for answer in (attended[2], alone[1]):
        assert answer.body == b""
    wait = int(dict(attended[2].headers)[b"retry-after"])
    world.clock.advance(wait - 1)
    assert (await world.get("/accounts", headers=ATTENDED)).status == 429
    world.clock.advance(1)
    assert (await world.get("/accounts", headers=ATTENDED)).status == 200


async def test_what_is_no_page_of_a_customer_is_not_counted_as_one():
    world = await World({"pages_unattended_per_day": 1}).start()
    path = f"/account-access-consents/{CONSENT}"
    assert [(await world.get(path)).status for _ in range(3)] == [200, 200, 200]
    assert (await world.get("/accounts/not-consented/balances")).status == 403
    assert (await world.get("/accounts/acc-1/transactions", "fromBookingDateTime=x")).status == 400
    assert (await world.get("/accounts")).status == 200
    assert (await world.get("/accounts")).status == 429


async def test_a_customer_with_two_consents_has_one_day():
    world = await World({"pages_unattended_per_day": 1}).start()
    other = consent_of(id=OTHER, group_id=OTHER)
    await world.keep(other, grant_of(id="g2", consent_id=OTHER), token_of(digest=digest_of("other"), consent_id=OTHER, grant_id="g2"))  # fmt: skip
    assert (await world.get("/accounts")).status == 200
    headers = {b"authorization": b"Bearer other"}
    assert (await world.get("/accounts", headers=headers)).status == 429


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
