"""Payments' shares are decided inside the keeper's commit: no races, no retries, the same on every keeper."""

from datetime import date

import pytest
import trio

from hub.model.consent import Consent, ConsentType, Status
from hub.model.event import Event, Kind
from hub.model.fault import Fault
from hub.model.limits import Allowance, Taken
from hub.model.records import ConsentChange, Setting
from hub.state.keeper import Conflict, Put, Query, Reserve, Settle
from tests.state.keepers import NOW, consent, event

DAY = date(2027, 1, 15)
START = "2027-01-01"


def money(text):
    return {"Amount": text, "Currency": "AED"}


def payment_consent(status=Status.AUTHORIZED, number=10, **controls):
    plan = {
        "Type": "VariableOnDemand",
        "PeriodType": "Month",
        "PeriodStartDate": START,
        "Controls": {"MaximumIndividualAmount": money("9.00"), **controls},
    }
    multi = {"PeriodicSchedule": plan, "MaximumCumulativeNumberOfPayments": number}
    asked = {"ControlParameters": {"ConsentSchedule": {"MultiPayment": multi}}}
    return consent(
        "c",
        status=status,
        consent_type=ConsentType.SERVICE_INITIATION,
        request={"consent": asked},
    )


def reserve(name, amount=100, **more):
    fields = {"consent_id": "c", "currency": "AED", "now_ms": NOW * 1000, "day": DAY}
    return Reserve(payment=name, amount=amount, **(fields | more))


def settle(name, status, **more):
    told = Event(kind=Kind.CONSENT, time_ms=NOW * 1000, consent_id="c", interaction_id="i")
    fields = {"consent_id": "c", "now_ms": NOW * 1000, "day": DAY, "event": told}
    return Settle(payment=name, status=status, line_id=f"line-{name}", **(fields | more))


async def start(keeper, held=None):
    assert await keeper.commit([Put(held or payment_consent())], [event()]) == (0,)


async def allowance(keeper):
    found = await keeper.lookup(Allowance, "c")
    return found[0] if found else Allowance(consent_id="c")


async def status(keeper):
    return (await keeper.lookup(Consent, "c"))[0].status


async def test_of_64_at_once_exactly_ten_are_granted_in_one_attempt_each(keeper):
    await start(keeper)
    answers = []

    async def ask(number):
        answers.append(await keeper.commit([reserve(f"p{number}")], [event()]))

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(ask, number)
    assert sum(isinstance(answer, tuple) for answer in answers) == 10
    refused = [answer for answer in answers if isinstance(answer, Fault)]
    assert {fault.check for fault in refused} == {"limits.number"}
    assert len(refused) == 54
    assert (await allowance(keeper)).total == Taken(10, 1000)
    assert (await keeper.head()).size == 11


async def test_a_refused_share_writes_nothing_of_its_commit(keeper):
    await start(keeper)
    asked = [Put(Setting(name="s", value=b"v")), reserve("p", amount=901)]
    fault = await keeper.commit(asked, [event()])
    assert (fault.status, fault.code) == (400, "Consent.FailsControlParameters")
    assert await keeper.lookup(Setting, "s") is None
    assert await keeper.lookup(Allowance, "c") is None
    assert (await keeper.head()).size == 1


@pytest.mark.parametrize("state", [s for s in Status if s is not Status.AUTHORIZED])
async def test_only_an_authorized_consent_gives_shares(keeper, state):
    await start(keeper, payment_consent(state))
    assert await keeper.commit([Put(Setting(name="s", value=b"v")), reserve("p")], [event()]) == (
        Conflict(1)
    )
    assert await keeper.lookup(Setting, "s") is None


async def test_a_consent_that_ran_out_or_is_not_there_gives_no_shares(keeper):
    assert await keeper.commit([reserve("p")], [event()]) == Conflict(0)
    await start(keeper)
    late = reserve("p", now_ms=(NOW + 1000) * 1000)
    assert await keeper.commit([late], [event()]) == Conflict(0)
    in_time = reserve("p", now_ms=(NOW + 1000) * 1000 - 1)
    assert isinstance(await keeper.commit([in_time], [event()]), tuple)


async def test_a_consent_without_payments_gives_no_shares(keeper):
    await start(keeper, consent("c", status=Status.AUTHORIZED))
    fault = await keeper.commit([reserve("p")], [event()])
    assert (fault.code, fault.check) == ("Consent.Invalid", "limits.terms")


async def test_two_shares_of_one_commit_count_both(keeper):
    await start(keeper, payment_consent(number=2))
    assert isinstance(await keeper.commit([reserve("a"), reserve("b")], [event()]), tuple)
    fault = await keeper.commit([reserve("c")], [event()])
    assert fault.check == "limits.number"


async def test_a_share_is_decided_on_what_an_earlier_change_of_its_commit_wrote(keeper):
    await start(keeper)
    less = Put(payment_consent(number=1))
    assert isinstance(await keeper.commit([less, reserve("a")], [event()]), tuple)
    assert (await keeper.commit([reserve("b")], [event()])).check == "limits.number"


async def test_an_accepted_payment_is_counted_and_shown(keeper):
    await start(keeper)
    await keeper.commit([reserve("a")], [event()])
    await keeper.commit([settle("a", "AcceptedSettlementCompleted")], [event()])
    assert (await allowance(keeper)).open == {}
    held = (await keeper.lookup(Consent, "c"))[0]
    assert held.body["Data"]["PaymentConsumption"] == {
        "CumulativeNumberOfPayments": 1,
        "CumulativeValueOfPayments": money("1.00"),
        "CumulativeNumberOfPaymentsInCurrentPeriod": 1,
        "CumulativeValueOfPaymentsInCurrentPeriod": money("1.00"),
    }
    assert held.status is Status.AUTHORIZED


async def test_a_rejected_payment_gives_its_share_back(keeper):
    await start(keeper, payment_consent(number=1))
    await keeper.commit([reserve("a")], [event()])
    assert (await keeper.commit([reserve("b")], [event()])).check == "limits.number"
    await keeper.commit([settle("a", "Rejected")], [event()])
    assert isinstance(await keeper.commit([reserve("b")], [event()]), tuple)


async def test_a_pending_payment_keeps_its_share(keeper):
    await start(keeper, payment_consent(number=1))
    await keeper.commit([reserve("a")], [event()])
    await keeper.commit([settle("a", "Pending")], [event()])
    assert set((await allowance(keeper)).open) == {"a"}
    assert await status(keeper) is Status.AUTHORIZED


async def test_the_last_accepted_payment_consumes_the_consent_with_its_event_and_history(keeper):
    await start(keeper, payment_consent(number=2))
    await keeper.commit([reserve("a"), reserve("b")], [event()])
    await keeper.commit([settle("a", "AcceptedWithoutPosting")], [event()])
    assert await status(keeper) is Status.AUTHORIZED
    indices = await keeper.commit([settle("b", "AcceptedWithoutPosting")], [event("own")])
    assert indices == (3,), "the indices are those of the commit's own events"
    assert await status(keeper) is Status.CONSUMED
    leaves = await keeper.events(3, 10)
    assert b'"interaction_id":"own"' in leaves[0]
    assert b'"change":"Authorized>Consumed"' in leaves[1]
    assert b'"kind":"consent"' in leaves[1]
    page = await keeper.search(Query(kind="consent_change", where=(("consent", "c"),)))
    lines = [item.record for item in page.items if isinstance(item.record, ConsentChange)]
    assert [(line.id, line.patch) for line in lines] == [
        ("line-b", '{"consentBody.Data.Status":"Consumed"}')
    ]
    assert isinstance(await keeper.commit([reserve("z")], [event()]), Conflict)


async def test_a_revoked_consent_stays_revoked_when_its_last_payment_is_accepted(keeper):
    await start(keeper, payment_consent(number=1))
    await keeper.commit([reserve("a")], [event()])
    await keeper.commit([Put(payment_consent(Status.REVOKED, number=1))], [event()])
    await keeper.commit([settle("a", "AcceptedWithoutPosting")], [event()])
    assert await status(keeper) is Status.REVOKED
    assert (await allowance(keeper)).open == {}


async def test_settling_what_was_never_reserved_changes_nothing(keeper):
    await start(keeper)
    assert isinstance(await keeper.commit([settle("a", "Rejected")], [event()]), tuple)
    assert await keeper.lookup(Allowance, "c") is None


async def test_those_who_cache_the_consent_hear_of_it(keeper):
    await start(keeper, payment_consent(number=1))
    await keeper.commit([reserve("a")], [event()])
    heard = set()
    end = keeper.watch(lambda one: heard.add((one.kind, one.key)))
    await keeper.commit([settle("a", "AcceptedWithoutPosting")], [event()])
    end()
    assert heard >= {("consent", "c"), ("allowance", "c")}


async def test_a_change_that_cannot_be_decided_is_its_askers_fault_alone(keeper):
    """It is decided inside the transaction, beside the works of everybody else."""
    await start(keeper, payment_consent(number=1))
    assert await keeper.commit([reserve("p")], [event()]) == (1,)
    too_long = Event(kind=Kind.CONSENT, time_ms=NOW * 1000, subject="x" * 70_000)
    answers = []

    async def other():
        answers.append(await keeper.commit([], [event()]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with pytest.raises((ValueError, RuntimeError), match="too long for the log"):
            await keeper.commit(
                [settle("p", "AcceptedSettlementCompleted", event=too_long)], [event()]
            )
        nursery.start_soon(other)
    assert sorted(answers) == [(2,), (3,)]
    assert await status(keeper) is Status.AUTHORIZED
