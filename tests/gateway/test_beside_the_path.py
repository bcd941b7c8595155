"""What is done beside a request: answers judged in shadow, and the note of when data was last shared."""

import weakref

import msgspec
import trio
import trio.testing

from hub.gateway.shadow import EVERY, MOST, QUEUE, Shadow
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.state.keeper import Put
from tests.gateway.world import CONSENT, World, consent_of, contract

BALANCES = "account-information.balances"
BAD = {"data": 7}


async def shadow_of(world, mode="shadow"):
    return Shadow(contract=contract(), observer=world.observer, mode=mode)


async def test_one_answer_in_so_many_is_judged_and_nothing_waits_for_it():
    world = World()
    shadow = await shadow_of(world)
    for _ in range(EVERY + 1):
        assert shadow.look(BALANCES, BAD) is None
    assert shadow._take.statistics().current_buffer_used == 2
    world.observer.close()
    assert "bank_answer_off_schema" not in world.log.getvalue()


async def test_answers_beyond_the_queue_are_counted_as_unseen():
    world = World()
    shadow = await shadow_of(world)
    for _ in range(EVERY * (QUEUE + 1)):
        shadow.look(BALANCES, BAD)
    world.observer.close()
    assert world.log.getvalue().count("bank_answer_unseen") == 1


async def test_a_large_answer_is_unseen_and_the_last_one_judged_is_not_kept():
    class Answer(dict):
        """A dict that can be watched."""

    world = World()
    shadow = await shadow_of(world)
    assert shadow.look(BALANCES, BAD, MOST + 1) is None
    assert shadow._take.statistics().current_buffer_used == 0
    answer = Answer(data=7)
    gone = weakref.ref(answer)
    for _ in range(EVERY):
        shadow.look(BALANCES, answer, MOST)
    del answer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shadow.run)
        await trio.testing.wait_all_tasks_blocked()
        assert gone() is None
        nursery.cancel_scope.cancel()
    world.observer.close()
    assert world.log.getvalue().count("bank_answer_unseen") == 1
    assert world.log.getvalue().count("bank_answer_off_schema") == 1


async def test_enforced_every_answer_is_judged_at_once():
    world = World()
    shadow = await shadow_of(world, "enforce")
    for _ in range(2):
        assert shadow.look(BALANCES, BAD).check == "bank.schema"
    assert shadow.look(BALANCES, {"data": []}) is None
    world.observer.close()


async def test_switched_off_nothing_is_looked_at():
    world = World()
    shadow = await shadow_of(world, "off")
    assert shadow.look(BALANCES, BAD) is None
    assert shadow._take.statistics().current_buffer_used == 0
    world.observer.close()


async def usage(world):
    found = await world.keeper.lookup(Consent, CONSENT)
    return found[0].usage.get("lastDataShared"), found[1]


async def test_a_read_notes_in_its_consent_when_data_was_shared_once_a_minute():
    world = await World().start()
    assert (await usage(world))[0] is None
    for _ in range(3):
        assert (await world.get("/accounts/acc-1/balances")).status == 200
    first = await usage(world)
    assert first[0] == "2026-05-28T20:26:40Z"
    assert first[1] == 2
    world.clock.advance(60)
    await world.get("/accounts/acc-1/balances")
    assert (await usage(world)) == ("2026-05-28T20:27:40Z", 3)


async def test_a_moment_that_a_bank_wrote_with_another_offset_is_not_taken_for_a_later_one():
    world = await World().start(consent_of(usage={"lastDataShared": "2026-05-28T22:00:00+04:00"}))
    await world.get("/accounts/acc-1/balances")
    assert (await usage(world))[0] == "2026-05-28T20:26:40Z"


async def test_a_refused_read_shares_nothing():
    world = await World().start()
    assert (await world.get("/accounts/other/balances")).status == 403
    assert (await usage(world))[0] is None


async def test_a_consent_that_changed_meanwhile_costs_neither_the_read_nor_the_change():
    world = await World().start()
    exchange, calls = world.bank.exchange, []

    async def meanwhile(call):
        calls.append(call)
        consent, version = await world.keeper.lookup(Consent, CONSENT)
        changed = msgspec.structs.replace(consent, authorization_channel="App")
        event = Event(kind=Kind.NODE, time_ms=1)
        await world.keeper.commit([Put(changed, expect=version)], [event])
        return await exchange(call)

    world.bank.exchange = meanwhile
    assert (await world.get("/accounts/acc-1/balances")).status == 200
    assert len(calls) == 1
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert (consent.authorization_channel, consent.usage) == ("App", {})
    assert [e["status"] for e in await world.events()] == [200]
