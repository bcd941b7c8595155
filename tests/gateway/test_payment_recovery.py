"""Payments without an outcome: found, sent again only to a bank that de-duplicates, else settled by two operators."""

from io import StringIO
from itertools import pairwise

import msgspec
import orjson
import pytest
import trio

from hub.gateway.payment_recovery import Recovery
from hub.model.clock import SeededDice
from hub.model.consent import Consent
from hub.model.event import Event, Kind
from hub.model.records import Attempt, Payment
from hub.observe import Observer
from hub.state.keeper import Put
from hub.upstream.faults import bank_failure
from tests.gateway.test_idempotency import attempts
from tests.gateway.test_payments import MADE, MULTI, error_of, message_of, pay, started, taken
from tests.gateway.world import CONSENT, answer_of
from tests.waiting import virtual

TIMEOUT = bank_failure("bank.timeout", "no answer", sent=True)
UNREACHED = bank_failure("bank.unreachable", "refused", sent=False)


def recovery(world, **more) -> Recovery:
    """Make the recovery of a world."""
    return Recovery(
        keeper=world.keeper,
        bank=world.bank,
        clock=world.clock,
        dice=SeededDice("recovery"),
        observer=Observer(world.clock, StringIO()),
        time_zone="Asia/Dubai",
        **{"at_once": 8, **more},
    )


class DiedError(Exception):
    """Stand for the end of the process."""


async def crashed(world, *, dedupes: bool) -> Attempt:
    """Leave an attempt open, as a process that died after the intent does."""
    payments = world.gateway._payments
    payments._dedupes = dedupes
    sent = []

    class Dying:
        async def exchange(self, call):
            sent.append(call)
            raise DiedError

    payments._bank = Dying()
    with pytest.raises(DiedError):
        await pay(world)
    payments._bank = world.bank
    world.sent = sent
    [attempt] = await attempts(world)
    assert attempt.state == "open"
    return attempt


async def state(world) -> str:
    [attempt] = await attempts(world)
    return attempt.state


async def say(world, desk, **asked):
    """Give the operator's command for the one payment."""
    [attempt] = await attempts(world)
    command = desk.commands()["payment-settle"]
    return await command({"payment": attempt.id, "interaction_id": "i", **asked})


async def test_what_an_earlier_life_left_open_is_unknown_and_its_share_stays_taken(autojump_clock):
    world = await started(MULTI)
    await crashed(world, dedupes=False)
    desk = recovery(world)
    assert await desk.inherit() == 1
    assert await state(world) == "unknown"
    assert len((await taken(world)).open) == 1
    assert world.bank.calls == []
    assert await desk.look() == 0, "nobody looks at it again before an operator does"
    again = await pay(world)
    assert (again.status, error_of(again)) == (409, "GenericRecoverableError")
    events = [e for e in await world.events() if e["kind"] == "outcome"]
    assert [(e["verdict"], e.get("face", "node")) for e in events] == [("unknown", "node")]


async def test_what_a_dead_worker_left_open_is_unknown_once_nobody_can_hold_it():
    world = await started(MULTI)
    await crashed(world, dedupes=False)
    desk = recovery(world)
    assert await desk.look() == 0
    world.clock.advance(39)
    assert await desk.look() == 0
    world.clock.advance(1)
    assert await desk.look() == 1
    assert await state(world) == "unknown"


async def test_a_bank_that_de_duplicates_gets_the_very_same_request_again():
    world = await started(MULTI, connect_token="bank-token")
    await crashed(world, dedupes=True)
    desk = recovery(world)
    await desk.inherit()
    world.bank.answer = answer_of(MADE, 201)
    assert await desk.look() == 1
    [first], [again] = world.sent, world.bank.calls
    assert msgspec.structs.asdict(first) == msgspec.structs.asdict(again)
    assert await state(world) == "made"
    payment, _ = await world.keeper.lookup(Payment, "p-1")
    assert (payment.consent_id, payment.amount) == (CONSENT, "10.00")
    answer = await pay(world)
    assert answer.status == 201
    assert message_of(answer)["Data"]["PaymentId"] == "p-1"
    assert len(world.bank.calls) == 1
    assert (await pay(world)).body == answer.body, "the first late answer is the answer"


async def test_of_late_answers_at_once_one_is_the_answer():
    world = await started(MULTI)
    await crashed(world, dedupes=True)
    world.bank.answer = answer_of(MADE, 201)
    desk = recovery(world)
    await desk.inherit()
    await desk.look()
    answers = []

    async def order():
        answers.append(await pay(world))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(order)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    events = [e for e in await world.events() if e["kind"] == "call"]
    assert len(events) == 8


async def test_what_was_sent_is_forgotten_when_the_outcome_is_known():
    world = await started(MULTI)
    await crashed(world, dedupes=True)
    desk = recovery(world)
    await desk.inherit()
    await desk.look()
    [attempt] = await attempts(world)
    assert (attempt.question, attempt.draft) == (None, None)


async def test_a_refusal_of_the_second_sending_frees_the_share():
    world = await started(MULTI)
    await crashed(world, dedupes=True)
    world.bank.answer = answer_of({"errorCode": "GenericError", "errorMessage": "no"}, 400)
    desk = recovery(world)
    await desk.inherit()
    await desk.look()
    assert await state(world) == "refused"
    assert (await taken(world)).total.number == 0
    again = await pay(world)
    assert (again.status, error_of(again)) == (400, "GenericError")
    assert len(world.bank.calls) == 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "Consent.FailsControlParameters", "refused"),
        (403, "Consent.AccountTemporarilyBlocked", "refused"),
        (401, "GenericError", "unknown"),
        (403, "", "unknown"),
        (403, "AccessToken.InvalidScope", "unknown"),
        (404, "", "unknown"),
        (409, "Payment.DuplicateInFlight", "unknown"),
        (429, "", "unknown"),
    ],
)
async def test_a_refusal_of_the_second_sending_alone_says_nothing_of_the_first(
    status, code, expected
):
    world = await started(MULTI)
    await crashed(world, dedupes=True)
    world.bank.answer = answer_of({"errorCode": code, "errorMessage": "no"}, status)
    desk = recovery(world)
    await desk.inherit()
    await desk.look()
    assert await state(world) == expected
    assert (await taken(world)).total.number == (expected == "unknown")
    world.clock.advance(2)
    world.bank.answer = answer_of(MADE, 201)
    assert await desk.look() == (expected == "unknown")
    assert await state(world) == ("made" if expected == "unknown" else "refused")


async def test_sending_again_backs_off_and_ends_with_an_operator():
    world = await started(MULTI)
    await crashed(world, dedupes=True)
    world.bank.answer = TIMEOUT
    desk = recovery(world)
    await desk.inherit()
    waits = []
    while due := (await attempts(world))[0].due:
        world.clock.advance(due - world.clock.now() - 1)
        assert await desk.look() == 0
        world.clock.advance(1)
        assert await desk.look() == 1
        waits.append(world.clock.now())
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    assert gaps == [2, 5, 15, 60, 300, 1800, 7200]
    assert len(world.bank.calls) == 7
    assert await state(world) == "unknown"


async def test_a_bank_that_is_out_of_reach_for_a_day_uses_up_no_sending_and_then_an_operator_is_asked():
    world = await started(MULTI)
    first = await crashed(world, dedupes=True)
    world.bank.answer = UNREACHED
    desk = recovery(world)
    await desk.inherit()
    while world.clock.now() < first.created + 80_000:
        world.clock.advance((await attempts(world))[0].due - world.clock.now())
        assert await desk.look() == 1
    pause = (await attempts(world))[0].due - world.clock.now()
    assert pause == 7200, "an event for each try, and few of them"
    assert len(world.bank.calls) < 20
    while due := (await attempts(world))[0].due:
        world.clock.advance(due - world.clock.now())
        assert await desk.look() == 1
    assert world.clock.now() - first.created < 86_400 + 7200
    assert await state(world) == "unknown"


async def test_nothing_is_sent_again_a_day_after_the_order():
    """The bank may have forgotten the key by then, and make the payment once more."""
    world = await started(MULTI)
    first = await crashed(world, dedupes=True)
    world.clock.advance(first.created + 86_400 - world.clock.now())
    desk = recovery(world)
    assert await desk.inherit() == 1
    assert await desk.look() == 0
    assert world.bank.calls == []
    assert await state(world) == "unknown"


async def many(world, count) -> list[str]:
    """Leave so many attempts open; return their names."""
    first = await crashed(world, dedupes=True)
    path = first.question.path
    some = [
        msgspec.structs.replace(
            first,
            id=f"{first.id}-{at}",
            question=msgspec.structs.replace(first.question, path=f"{path}-{at}"),
        )
        for at in range(1, count)
    ]
    event = Event(kind=Kind.NODE, time_ms=world.clock.now_ms())
    await world.keeper.commit([Put(one) for one in some], [event])
    return sorted([path, *(one.question.path for one in some)])


async def test_many_are_sent_again_at_once_but_few_and_each_once(autojump_clock):
    world = await started(MULTI)
    paths = await many(world, 30)
    sent, under_way, most = [], set(), 0

    class Hanging:
        async def exchange(self, call):
            nonlocal most
            assert call.path not in under_way
            sent.append(call.path)
            under_way.add(call.path)
            most = max(most, len(under_way))
            await virtual(10)
            under_way.remove(call.path)
            return TIMEOUT

    world.bank = Hanging()
    desk = recovery(world)
    assert await desk.inherit() == 30
    began = trio.current_time()
    assert await desk.look() == 30
    assert trio.current_time() - began == 40
    assert most == 8
    assert sorted(sent) == paths
    assert await desk.look() == 0, "each has its pause"


async def test_a_bank_that_is_down_is_asked_no_more_often_than_the_pauses_say(autojump_clock):
    world = await started(MULTI)
    await many(world, 20)
    world.bank.answer = bank_failure("bank.circuit_open", "not now", sent=False)
    desk = recovery(world)
    await desk.inherit()
    for pause in (2, 5, 15):
        assert await desk.look() == 20
        assert await desk.look() == 0
        world.clock.advance(pause)
    assert len(world.bank.calls) == 60


async def test_what_was_settled_while_others_were_sent_is_not_sent():
    world = await started(MULTI)
    await many(world, 3)
    desk = recovery(world, at_once=1)
    await desk.inherit()
    sent = []

    class Asked:
        async def exchange(self, call):
            sent.append(call.path)
            if len(sent) == 1:
                for one in await attempts(world):
                    if one.question.path != call.path:
                        settled = msgspec.structs.replace(one, state="refused", due=0)
                        event = Event(kind=Kind.NODE, time_ms=world.clock.now_ms())
                        await world.keeper.commit([Put(settled)], [event])
            return TIMEOUT

    desk._bank = Asked()
    assert await desk.look() == 3
    assert len(sent) == 1
    assert sorted(one.state for one in await attempts(world)) == ["refused", "refused", "unknown"]


async def test_an_outcome_unknown_to_the_worker_is_asked_again_too(autojump_clock):
    world = await started(MULTI)
    world.gateway._payments._dedupes = True
    world.bank.answer = TIMEOUT
    assert (await pay(world)).status == 500
    world.bank.answer = answer_of(MADE, 201)
    desk = recovery(world)
    assert await desk.look() == 0
    world.clock.advance(2)
    assert await desk.look() == 1
    assert await state(world) == "made"


async def test_without_the_banks_promise_an_unknown_outcome_is_never_asked_again(autojump_clock):
    world = await started(MULTI)
    world.bank.answer = TIMEOUT
    await pay(world)
    desk = recovery(world)
    world.clock.advance(100_000)
    assert await desk.look() == 0
    assert len(world.bank.calls) == 1


async def test_a_worker_that_was_only_slow_still_writes_what_it_knows():
    world = await started(MULTI)
    payments, desk = world.gateway._payments, recovery(world)

    class Slow:
        async def exchange(self, call):
            world.clock.advance(60)
            assert await desk.look() == 1
            assert await state(world) == "unknown"
            return answer_of(MADE, 201)

    payments._bank = Slow()
    assert (await pay(world)).status == 201
    assert await state(world) == "made"
    assert (await taken(world)).total.number == 1
    kinds = [(e["kind"], e["change"]) for e in await world.events() if e["kind"] == "outcome"]
    assert kinds == [("outcome", "unknown"), ("outcome", "made")]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (409, "Payment.DuplicateInFlight", "refused"),
        (409, "GenericError", "unknown"),
        (409, "GenericRecoverableError", "unknown"),
        (409, "", "unknown"),
        (408, "Payment.DuplicateInFlight", "unknown"),
        (400, "GenericError", "refused"),
        (403, "Consent.AccountTemporarilyBlocked", "refused"),
        (429, "GenericError", "refused"),
        (500, "GenericError", "unknown"),
        (503, "GenericRecoverableError", "unknown"),
        (302, "GenericError", "unknown"),
    ],
)
async def test_what_a_banks_refusal_says_of_the_payment(status, code, expected, autojump_clock):
    world = await started(MULTI)
    world.bank.answer = answer_of({"errorCode": code, "errorMessage": "no"}, status)
    await pay(world)
    assert await state(world) == expected
    assert (await taken(world)).total.number == (expected == "unknown")


@pytest.mark.parametrize("bad", ["", "x" * 41, "p 1", "p\r\nx: y", "p\u00e9", 7, None])
async def test_a_payment_id_that_cannot_stand_in_a_header_is_no_answer(bad, autojump_clock):
    world = await started(MULTI)
    world.bank.answer = answer_of({"data": {**MADE["data"], "id": bad}}, 201)
    assert (await pay(world)).status == 500
    assert await state(world) == "unknown"


# Operators


async def unknown(world) -> Recovery:
    """Leave one payment unknown."""
    world.bank.answer = TIMEOUT
    assert (await pay(world)).status == 500
    return recovery(world)


async def test_two_operators_settle_a_payment_that_was_made():
    world = await started()
    desk = await unknown(world)
    listed = await desk.commands()["payments-unknown"]({})
    [row] = listed["payments"]
    assert (row["consent"], row["amount"], row["idempotency_key"]) == (CONSENT, "10.00", "k-1")
    said = {"outcome": "made", "id": "p-7", "status": "AcceptedSettlementCompleted"}
    assert (await say(world, desk, **said, by="amal"))["settled"] is False
    assert await state(world) == "unknown"
    assert (await say(world, desk, **said, by="badr"))["settled"] is True
    payment, _ = await world.keeper.lookup(Payment, "p-7")
    assert payment.status == "AcceptedSettlementCompleted"
    consent, _ = await world.keeper.lookup(Consent, CONSENT)
    assert str(consent.status) == "Consumed"
    events = await world.events()
    changes = [e["change"] for e in events if e["kind"] == "admin"]
    assert changes == ["proposed:made:amal", "settled:made:amal+badr"]
    assert [e["change"] for e in events if e["kind"] == "consent"] == ["Authorized>Consumed"]


async def test_the_key_of_a_settled_payment_gives_it(autojump_clock):
    world = await started(MULTI)
    desk = await unknown(world)
    for name in ("amal", "badr"):
        await say(world, desk, outcome="made", id="p-7", by=name)
    answer = await pay(world)
    assert answer.status == 201
    assert message_of(answer)["Data"]["PaymentId"] == "p-7"
    assert message_of(answer)["Data"]["Status"] == "Pending"


async def test_two_operators_settle_a_payment_that_never_was():
    world = await started(MULTI)
    desk = await unknown(world)
    for name in ("amal", "badr"):
        await say(world, desk, outcome="never", by=name)
    assert await state(world) == "refused"
    assert (await taken(world)).total.number == 0
    again = await pay(world)
    assert (again.status, error_of(again)) == (400, "GenericError")
    assert len(world.bank.calls) == 1


async def test_one_operator_alone_settles_nothing():
    world = await started(MULTI)
    desk = await unknown(world)
    for _ in range(3):
        refused = await say(world, desk, outcome="never", by="amal")
    assert refused["check"] == "payment.four_eyes"
    assert await state(world) == "unknown"


async def test_operators_who_disagree_settle_nothing():
    world = await started(MULTI)
    desk = await unknown(world)
    await say(world, desk, outcome="never", by="amal")
    assert (await say(world, desk, outcome="made", id="p-7", by="badr"))["settled"] is False
    assert (await say(world, desk, outcome="made", id="p-8", by="amal"))["settled"] is False
    assert await state(world) == "unknown"
    assert (await say(world, desk, outcome="made", id="p-8", by="badr"))["settled"] is True


async def test_a_payment_id_of_the_log_cannot_be_given_again():
    world = await started(MULTI)
    assert (await pay(world, key=b"k-0")).status == 201
    world.bank.answer = TIMEOUT
    await pay(world, key=b"k-1")
    desk = recovery(world)
    [attempt] = [a for a in await attempts(world) if a.state == "unknown"]
    command = desk.commands()["payment-settle"]
    said = {"payment": attempt.id, "outcome": "made", "id": "p-1"}
    await command({**said, "by": "amal"})
    assert (await command({**said, "by": "badr"}))["check"] == "payment.known_id"


@pytest.mark.parametrize(
    "asked",
    [
        {"outcome": "never"},
        {"outcome": "never", "by": ""},
        {"outcome": "never", "by": "x", "id": "p-1"},
        {"outcome": "made", "by": "x"},
        {"outcome": "made", "by": "x", "id": "p" * 41},
        {"outcome": "made", "by": "x", "id": "p 1"},
        {"outcome": "made", "by": "x", "id": "p\r\nx: y"},
        {"outcome": "made", "by": "x", "id": "p\u00e9"},
        {"outcome": "made", "by": "x", "id": "p-1", "status": "Done"},
        {"outcome": "perhaps", "by": "x", "id": "p-1"},
    ],
)
async def test_what_an_operator_says_must_make_sense(asked):
    world = await started(MULTI)
    desk = await unknown(world)
    assert "error" in await say(world, desk, **asked)
    assert await state(world) == "unknown"


async def test_a_payment_whose_outcome_is_known_is_not_settled():
    world = await started(MULTI)
    await pay(world)
    refused = await say(world, recovery(world), outcome="never", by="amal")
    assert refused["check"] == "payment.not_unknown"


async def test_what_a_consent_has_left_is_readable():
    world = await started(MULTI)
    await pay(world)
    left = await recovery(world).commands()["allowance"]({"consent": CONSENT})
    assert left["taken"] == {"number": 1, "value": "10.00"}
    assert left["left"] == {
        "number": 1,
        "value": None,
        "period_number": 8,
        "period_value": None,
    }
    assert left["open"] == 1
    assert "error" in await recovery(world).commands()["allowance"]({"consent": "x"})


async def test_the_log_says_who_settled_nothing_of_the_customer():
    world = await started(MULTI)
    desk = await unknown(world)
    for name in ("amal", "badr"):
        await say(world, desk, outcome="made", id="p-7", by=name)
    leaves = b"".join(await world.keeper.events(0, 1000))
    assert b"10.00" not in leaves
    assert b"u-1" not in leaves
    assert orjson.loads((await world.keeper.events(0, 1))[0])


@pytest.mark.parametrize("dedupes", [True, False])
async def test_an_outcome_that_was_found_later_is_of_the_interaction_of_its_intent(dedupes):
    world = await started(MULTI)
    await crashed(world, dedupes=dedupes)
    desk = recovery(world)
    await desk.inherit()
    if dedupes:
        world.bank.answer = answer_of(MADE, 201)
        await desk.look()
    else:
        for name in ("amal", "badr"):
            await say(world, desk, outcome="never", by=name)
    events = [orjson.loads(leaf) for leaf in await world.keeper.events(0, 1000)]
    mine = [event for event in events if event["kind"] in {"intent", "outcome"}]
    assert [event["kind"] for event in mine] == ["intent", "outcome", "outcome"]
    assert (mine[1]["verdict"], mine[1]["check"]) == ("unknown", "payment.lost")
    assert len({event["interaction_id"] for event in mine}) == 1
