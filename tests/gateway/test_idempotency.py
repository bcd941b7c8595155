"""One key, one payment: in flight, after a failure, a day later; and nothing readable at rest."""

import msgspec
import orjson
import pytest
import trio
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hub.gateway.idempotency import _INFO, Stored, Use
from hub.model.clock import SeededDice
from hub.model.consent import Consent, Status
from hub.model.limits import Allowance
from hub.model.records import Attempt, Payment
from hub.state.entry import put_entry
from hub.state.keeper import Put
from hub.upstream.faults import bank_failure
from tests.gateway.test_payments import MADE, MULTI, error_of, message, pay, started, taken
from tests.gateway.world import CONSENT, NOW, answer_of, consent_of
from tests.waiting import virtual


async def attempts(world) -> list[Attempt]:
    """Return every use of a key that is kept."""
    return [row.read().record for name, row in world.keeper._rows.items() if name[0] == "attempt"]


class SlowBank:
    """Answer when it is told to; remember the calls."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = trio.Event()
        self.go = trio.Event()
        self.calls = []
        self.later = []

    async def exchange(self, call):
        self.calls.append(call)
        self.asked.set()
        await self.go.wait()
        return self.later.pop() if len(self.calls) > 1 and self.later else self.answer


def slow(world, answer=None) -> SlowBank:
    bank = SlowBank(answer or answer_of(MADE, 201))
    world.gateway._payments._bank = bank
    return bank


async def test_a_repetition_gets_the_first_answer_byte_for_byte():
    world = await started(MULTI)
    first = await pay(world)
    world.clock.advance(7)
    second = await pay(world)
    assert (second.status, second.body) == (first.status, first.body)
    assert dict(second.headers) == dict(first.headers)
    assert second.event.verdict == "allowed"


async def test_the_answer_of_the_payment_that_used_its_consent_up_is_repeated():
    world = await started()
    data = {**MADE["data"], "status": "AcceptedSettlementCompleted"}
    world.bank.answer = answer_of({"data": data}, 201)
    first = await pay(world)
    assert (await world.keeper.lookup(Consent, CONSENT))[0].status is Status.CONSUMED
    again = await pay(world)
    assert (again.status, again.body) == (201, first.body)
    anew = await pay(world, key=b"k-2")
    assert (anew.status, error_of(anew)) == (400, "Consent.Invalid")
    other = await pay(world, message(PaymentPurposeCode="TKT"))
    assert (other.status, error_of(other)) == (409, "GenericError")
    assert len(world.bank.calls) == 1


@pytest.mark.parametrize("changes", [{"status": Status.SUSPENDED}, {"expires": NOW + 5}])
async def test_an_answer_is_repeated_whatever_became_of_its_consent_meanwhile(changes):
    world = await started(MULTI)
    first = await pay(world)
    held, _ = await world.keeper.lookup(Consent, CONSENT)
    await world.keep(msgspec.structs.replace(held, **changes))
    world.clock.advance(10)
    again = await pay(world)
    assert (again.status, again.body) == (201, first.body)
    assert (await pay(world, key=b"k-2")).status in {400, 403}
    assert len(world.bank.calls) == 1


async def test_an_answer_is_repeated_after_the_bank_withdrew_the_key_the_order_is_sealed_for():
    world = await started(MULTI)
    first = await pay(world)

    async def withdrawn(_kid):
        return False

    world.gateway._sealing = withdrawn
    again = await pay(world)
    assert (again.status, again.body) == (201, first.body)
    anew = await pay(world, key=b"k-2")
    assert (anew.status, error_of(anew)) == (400, "JWE.InvalidHeader")


async def test_a_refusal_is_repeated_byte_for_byte_too():
    world = await started(MULTI)
    world.bank.answer = answer_of({"errorCode": "AANI.AM04", "errorMessage": "no"}, 400)
    first, second = await pay(world), await pay(world)
    assert (second.status, second.body) == (first.status, first.body)
    assert first.status == 400
    assert second.event.verdict == "refused"
    assert len(world.bank.calls) == 1


async def test_the_interaction_id_of_a_repetition_is_its_own():
    world = await started(MULTI)
    await pay(world)
    own = b"66666666-6666-4666-8666-666666666666"
    again = await pay(world, x_fapi_interaction_id=own)
    values = [value for name, value in again.headers if name == b"x-fapi-interaction-id"]
    assert values == [own]


async def test_a_second_request_waits_for_the_first_and_gets_its_answer(autojump_clock):
    world = await started(MULTI)
    bank, answers = slow(world), []

    async def order():
        answers.append(await pay(world))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await bank.asked.wait()
        nursery.start_soon(order)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        bank.go.set()
    assert len(bank.calls) == 1
    assert answers[0].body == answers[1].body
    assert (await taken(world)).total.number == 1


async def test_a_second_request_is_told_to_come_back_when_the_first_takes_too_long(autojump_clock):
    world = await started(MULTI)
    bank, first = slow(world), []

    async def order():
        first.append(await pay(world))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await bank.asked.wait()
        began = trio.current_time()
        second = await pay(world)
        assert (second.status, error_of(second)) == (409, "GenericRecoverableError")
        assert trio.current_time() - began == pytest.approx(10)
        bank.go.set()
    assert first[0].status == 201
    assert len(bank.calls) == 1


async def test_a_second_request_with_another_body_does_not_wait(autojump_clock):
    world = await started(MULTI)
    bank = slow(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pay, world)
        await bank.asked.wait()
        began = trio.current_time()
        other = await pay(world, message(DebtorReference="other"))
        assert (other.status, error_of(other)) == (409, "GenericError")
        assert trio.current_time() == began
        bank.go.set()
    assert len(bank.calls) == 1


async def test_a_waiting_request_takes_the_place_of_a_first_that_was_never_sent(autojump_clock):
    world = await started(MULTI)
    bank, answers = slow(world, bank_failure("bank.unreachable", "refused", sent=False)), []

    async def order():
        answers.append((await pay(world)).status)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await bank.asked.wait()
        nursery.start_soon(order)
        await trio.testing.wait_all_tasks_blocked()
        bank.later.append(answer_of(MADE, 201))
        bank.go.set()
    assert answers == [500, 201]
    assert len(bank.calls) == 2


async def test_many_repetitions_at_once_reach_the_bank_once():
    world = await started(MULTI)
    answers = []

    async def order():
        answers.append(await pay(world))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(order)
    assert len(world.bank.calls) == 1
    assert {answer.body for answer in answers} == {answers[0].body}
    assert (await taken(world)).total.number == 1


async def test_a_key_is_not_for_another_consent_even_with_the_same_message():
    world = await started(MULTI)
    await pay(world)
    [attempt] = await attempts(world)
    await world.keep(msgspec.structs.replace(attempt, consent_id="another"))
    again = await pay(world)
    assert (again.status, error_of(again)) == (409, "GenericError")


async def test_a_refusal_of_ours_does_not_use_the_key_up():
    world = await started(MULTI)
    refused = await pay(world, message("11.00"))
    assert error_of(refused) == "Consent.FailsControlParameters"
    assert await attempts(world) == []
    assert (await pay(world)).status == 201


async def test_a_key_whose_outcome_is_unknown_is_never_free(autojump_clock):
    world = await started(MULTI, expires=1_900_000_000)
    world.bank.answer = bank_failure("bank.timeout", "no answer", sent=True)
    await pay(world)
    [attempt] = await attempts(world)
    assert attempt.state == "unknown"
    assert attempt.purge_at() is None
    old = msgspec.structs.replace(attempt, created=attempt.created - 10 * 86_400)
    await world.keep(old)
    again = await pay(world)
    assert (again.status, error_of(again)) == (409, "GenericRecoverableError")
    assert len(world.bank.calls) == 1


@pytest.mark.parametrize(("dedupes", "held_s"), [(True, 10), (False, 0)])
async def test_an_unknown_outcome_is_waited_for_only_where_the_bank_is_asked_again(
    dedupes, held_s, autojump_clock
):
    world = await started(MULTI)
    world.gateway._payments._dedupes = dedupes
    world.bank.answer = bank_failure("bank.timeout", "no answer", sent=True)
    await pay(world)
    began = trio.current_time()
    assert (await pay(world)).status == 409
    assert trio.current_time() - began == pytest.approx(held_s, abs=0.1)


async def test_a_bank_that_gives_an_id_twice_is_not_believed():
    world = await started(MULTI)
    assert (await pay(world, key=b"k-1")).status == 201
    second = await pay(world, key=b"k-2")
    assert (second.status, error_of(second)) == (500, "GenericError")
    states = {attempt.state for attempt in await attempts(world)}
    assert states == {"made", "unknown"}
    assert len((await taken(world)).open) == 2


async def test_nothing_readable_of_message_key_or_answer_is_kept_with_the_attempt():
    world = await started(MULTI)
    response = await pay(world, key=b"a-very-secret-key")
    [attempt] = await attempts(world)
    kept = put_entry(Put(attempt)).body
    for secret in (b"a-very-secret-key", b"10.00", b"PersonalIdentifiable", b"PaymentId"):
        assert secret not in kept
    assert response.body not in kept
    assert (attempt.draft, attempt.question) == (None, None)


USE = Use("name", "key", b"m" * 32)
STORED = Stored(201, ((b"a", b"b"),), b"body")


def test_what_is_sealed_is_unsealed_by_the_same_request_only():
    sealed = USE.seal(STORED, SeededDice())
    assert USE.unseal(sealed) == STORED
    assert Use("name", "kez", b"m" * 32).unseal(sealed) is None
    assert Use("name", "key", b"n" * 32).unseal(sealed) is None
    assert Use("nome", "key", b"m" * 32).unseal(sealed) is None
    assert USE.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1])) is None
    assert USE.unseal(b"") is None


def test_the_key_of_a_seal_is_derived_as_rfc_5869_says():
    derive = HKDF(algorithm=SHA256(), length=32, salt=USE.message, info=_INFO)
    assert USE._derived() == derive.derive(USE.key.encode())


def test_two_sealings_differ():
    dice = SeededDice()
    assert USE.seal(STORED, dice) != USE.seal(STORED, dice)


async def test_the_store_that_takes_no_intent_lets_nothing_through():
    world = await started(MULTI)
    assert (await pay(world, key=b"k-0")).status == 201
    world.keeper.refusal = bank_failure("x", "x", sent=False)
    world.keeper.refusal = msgspec.structs.replace(
        world.keeper.refusal, source="hub", status=503, check="keeper.disk"
    )
    assert (await pay(world, key=b"k-1")).status == 503
    assert len(world.bank.calls) == 1
    world.keeper.refusal = None
    world.bank.answer = answer_of({"data": {**MADE["data"], "id": "p-2"}}, 201)
    assert (await pay(world, key=b"k-1")).status == 201


async def test_an_outcome_waits_for_a_keeper_that_comes_back(autojump_clock):
    world = await started(MULTI)
    bank = slow(world)
    away = msgspec.structs.replace(
        bank_failure("keeper.connection", "away", sent=False), source="hub", status=503
    )
    answers = []

    async def order():
        answers.append(await pay(world))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await bank.asked.wait()
        world.keeper.refusal = away
        bank.go.set()
        await virtual(3)
        assert answers == []
        world.keeper.refusal = None
    assert answers[0].status == 201
    assert (await world.keeper.lookup(Payment, "p-1")) is not None


async def test_an_outcome_that_cannot_be_written_is_not_told(autojump_clock):
    world = await started(MULTI)
    bank, answers = slow(world), []
    full = msgspec.structs.replace(
        bank_failure("keeper.disk", "full", sent=False), source="hub", status=503
    )

    async def order():
        answers.append(await pay(world))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(order)
        await bank.asked.wait()
        world.keeper.refusal = full
        bank.go.set()
        began = trio.current_time()
    assert answers[0].status == 503
    assert trio.current_time() - began < 1
    world.keeper.refusal = None
    [attempt] = await attempts(world)
    assert attempt.state == "open"
    assert (await world.keeper.lookup(Allowance, CONSENT))[0].total.number == 1


async def test_a_consent_revoked_after_it_was_read_gives_no_share():
    world = await started(MULTI)
    consent = consent_of(status="Revoked", data={"Status": "Revoked"})
    keeper = world.keeper

    async def revoked_meanwhile(changes, events):
        await world.keep(msgspec.structs.replace(consent, request={}))
        return await keeper.commit(changes, events)

    wrapped = world.gateway._payments._keeper = _With(keeper, keeper.lookup)
    wrapped.commit = revoked_meanwhile
    response = await pay(world)
    assert response.status == 401
    assert world.bank.calls == []


class _With:
    """A keeper with another ``lookup``."""

    def __init__(self, keeper, lookup) -> None:
        self._keeper = keeper
        self.lookup = lookup

    def __getattr__(self, name):
        return getattr(self._keeper, name)


async def test_an_outcome_that_was_written_before_its_answer_got_lost_is_told_once():
    """The commit succeeds, its acknowledgement does not come: the second try finds it written."""
    world = await started(MULTI)
    keeper = world.keeper
    payments = world.gateway._payments
    lost = []

    async def commit(changes, events):
        done = await keeper.commit(changes, events)
        outcome = any(event.kind == "outcome" for event in events)
        if outcome and not lost:
            lost.append(done)
            return msgspec.structs.replace(
                bank_failure("keeper.connection", "lost", sent=False), source="hub", status=503
            )
        return done

    wrapped = _With(keeper, keeper.lookup)
    wrapped.commit = commit
    payments._keeper = wrapped
    assert (await pay(world)).status == 201
    assert lost
    kinds = [orjson.loads(leaf)["kind"] for leaf in await keeper.events(0, 100)]
    assert kinds.count("outcome") == 1
    assert kinds.count("call") == 1
