"""Sixty-four payments at once, at two gateways over one keeper: exactly as many reach the bank as each limit lets through."""

from contextlib import asynccontextmanager
from datetime import timedelta

import orjson
import pytest
import trio

from bench.evidence import append
from hub.model.clock import FixedClock
from hub.model.consent import ConsentType
from hub.model.limits import Allowance
from hub.model.period import local_date
from hub.model.records import Payment, digest_of
from hub.protocol.jose import PublicKey
from hub.state.keeper import Put, Settle
from hub.state.open import open_keeper
from hub.state.remote import connect_keeper
from hub.state.socket import serve_keeper
from tests.gateway.test_payment_consents import PAYMENT, signed
from tests.gateway.test_payments import MADE, message
from tests.gateway.world import (
    KEY,
    NOW,
    World,
    answer_of,
    consent_of,
    grant_of,
    token_of,
)
from tests.model.test_limits import DUBAI, money
from tests.state.keepers import event, limits

TODAY = local_date(NOW, DUBAI)
AT_ONCE = 64
TRIES = 20


def on_demand(kind="VariableOnDemand", controls=None, **wrapper):
    """Make a plan of payments whenever they are wanted, of 1.00 each."""
    plan = {"Type": kind, "PeriodType": "Month", "PeriodStartDate": TODAY.isoformat()}
    if kind == "FixedOnDemand":
        plan["Amount"] = money("1.00")
        plan["Controls"] = controls or {"MaximumCumulativeNumberOfPaymentsPerPeriod": 99}
    else:
        plan["Controls"] = {"MaximumIndividualAmount": money("1.00"), **(controls or {})}
    return {"MultiPayment": {"PeriodicSchedule": plan, **wrapper}}


def defined(kind, member):
    """Make a plan for today and tomorrow."""
    days = (TODAY, TODAY + timedelta(days=1))
    entries = [{"PaymentExecutionDate": d.isoformat(), member: money("1.00")} for d in days]
    return {"MultiPayment": {"PeriodicSchedule": {"Type": kind, "Schedule": entries}}}


def periodic(kind, member):
    """Make a plan of one payment a week."""
    plan = {"Type": kind, "PeriodType": "Week", "PeriodStartDate": TODAY.isoformat()}
    plan[member] = money("1.00")
    return {"MultiPayment": {"PeriodicSchedule": plan, "MaximumCumulativeNumberOfPayments": 9}}


KINDS = {
    "number": (on_demand(MaximumCumulativeNumberOfPayments=10), 10),
    "value": (on_demand(MaximumCumulativeValueOfPayments=money("10.99")), 10),
    "period number": (on_demand(controls={"MaximumCumulativeNumberOfPaymentsPerPeriod": 10}), 10),
    "period value": (
        on_demand(controls={"MaximumCumulativeValueOfPaymentsPerPeriod": money("10.00")}),
        10,
    ),
    "fixed number": (on_demand("FixedOnDemand", MaximumCumulativeNumberOfPayments=10), 10),
    "single": ({"SinglePayment": {"Type": "SingleInstantPayment", "Amount": money("1.00")}}, 1),
    "fixed defined": (defined("FixedDefinedSchedule", "Amount"), 1),
    "variable defined": (defined("VariableDefinedSchedule", "MaximumIndividualAmount"), 1),
    "fixed periodic": (periodic("FixedPeriodicSchedule", "Amount"), 1),
    "variable periodic": (periodic("VariablePeriodicSchedule", "MaximumIndividualAmount"), 1),
}


class CountingBank:
    """Make every payment, each under an id of its own; count them."""

    def __init__(self) -> None:
        self.made = 0
        self.status = "Pending"

    async def exchange(self, call):
        self.made += 1
        data = {**MADE["data"], "id": f"p-{self.made}", "status": self.status}
        await trio.lowlevel.checkpoint()
        return answer_of({"data": data}, 201)


@asynccontextmanager
async def two_gateways(folder):
    """Run two gateways, each over a socket of its own to one keeper on SQLite."""
    path = folder / "socket"
    clock = FixedClock(NOW)
    async with (
        open_keeper(folder / "state", clock=clock, limits=limits()) as keeper,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(serve_keeper, keeper, path)
        async with connect_keeper(path) as one, connect_keeper(path) as other:
            bank = CountingBank()
            worlds = [World(keeper=one), World(keeper=other)]
            for world in worlds:
                world.gateway._payments._bank = bank
                world.trust.roles = ("BSIP",)
                world.trust.keys["sig-1"] = PublicKey(
                    kid="sig-1", use="sig", key=KEY.key.public_key()
                )
            yield keeper, worlds, bank
        nursery.cancel_scope.cancel()


async def consented(keeper, schedule, number) -> str:
    """Keep a consent with its token; return its id."""
    consent_id = f"33333333-3333-4333-8333-{number:012d}"
    asked = {
        "PaymentPurposeCode": "ACM",
        "ControlParameters": {"ConsentSchedule": schedule},
    }
    consent = consent_of(
        id=consent_id,
        consent_type=ConsentType.SERVICE_INITIATION,
        request={"consent": asked},
        data={"ConsentId": consent_id},
    )
    token = token_of(
        digest=digest_of(f"secret-{number}"), scope="openid payments", consent_id=consent_id
    )
    records = (consent, grant_of(), token)
    assert isinstance(await keeper.commit([Put(r) for r in records], [event()]), tuple)
    return consent_id


async def crowd(worlds, body, number, keys) -> list:
    """Order once under each key, all at once; return the answers.

    Who is told 503 (the store was not in time, on a machine that does other things as well) asks again under the same key.
    """
    answers = []

    async def order(at, key):
        headers = {
            b"authorization": b"Bearer secret-%d" % number,
            b"content-type": b"application/jwt",
            b"x-idempotency-key": key,
        }
        world = worlds[at % len(worlds)]
        for _ in range(TRIES):
            answer = await world.send("POST", f"{PAYMENT}/payments", headers=headers, body=body)
            if answer.status != 503:
                break
        answers.append(answer)

    async with trio.open_nursery() as nursery:
        for at, key in enumerate(keys):
            nursery.start_soon(order, at, key)
    return answers


async def rejected(keeper, consent_id) -> None:
    """Let the bank reject one of the payments that were made."""
    held, _ = await keeper.lookup(Allowance, consent_id)
    settle = Settle(
        consent_id=consent_id,
        payment=next(iter(held.open)),
        status="Rejected",
        now_ms=NOW * 1000,
        day=TODAY,
        line_id="line",
        event=event(),
    )
    assert isinstance(await keeper.commit([settle], [event()]), tuple)


async def once(keeper, worlds, bank, schedule, most, number) -> None:
    """Let a crowd order; hold what came through against the limit; free one share, and let a second crowd order."""
    consent_id = await consented(keeper, schedule, number)
    body = signed(message("1.00", ConsentId=consent_id))
    before = bank.made
    keys = [b"k-%d-%d" % (number, at) for at in range(AT_ONCE)]
    answers = await crowd(worlds, body, number, keys)
    statuses = [answer.status for answer in answers]
    assert (statuses.count(201), statuses.count(400)) == (most, AT_ONCE - most)
    assert bank.made - before == most
    await rejected(keeper, consent_id)
    later = await crowd(worlds, body, number, [b"l-%d-%d" % (number, at) for at in range(8)])
    assert [answer.status for answer in later].count(201) == 1
    assert bank.made - before == most + 1
    held, _ = await keeper.lookup(Allowance, consent_id)
    assert held.total.number == most


@pytest.mark.parametrize("kind", KINDS)
async def test_of_64_payments_at_once_exactly_what_the_limit_allows_reaches_the_bank(
    kind, tmp_path
):
    schedule, most = KINDS[kind]
    async with two_gateways(tmp_path) as (keeper, worlds, bank):
        await once(keeper, worlds, bank, schedule, most, 1)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_so_in_200_repetitions(kind, tmp_path):
    schedule, most = KINDS[kind]
    async with two_gateways(tmp_path) as (keeper, worlds, bank):
        for number in range(200):
            await once(keeper, worlds, bank, schedule, most, number)
    append(f"payments-at-once: {kind}", {"repetitions": 200, "at_once": AT_ONCE}, [], "exact")


async def test_one_key_at_two_gateways_at_once_reaches_the_bank_once(tmp_path):
    async with two_gateways(tmp_path) as (keeper, worlds, bank):
        consent_id = await consented(keeper, KINDS["number"][0], 1)
        body = signed(message("1.00", ConsentId=consent_id))
        answers = await crowd(worlds, body, 1, [b"one-key"] * AT_ONCE)
        assert bank.made == 1
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body for answer in answers}) == 1


async def test_the_last_accepted_payment_of_a_crowd_consumes_the_consent(tmp_path):
    async with two_gateways(tmp_path) as (keeper, worlds, bank):
        schedule, _ = KINDS["number"]
        bank.status = "AcceptedSettlementCompleted"
        consent_id = await consented(keeper, schedule, 1)
        body = signed(message("1.00", ConsentId=consent_id))
        await crowd(worlds, body, 1, [b"k-%d" % at for at in range(AT_ONCE)])
        assert bank.made == 10
        leaves = [orjson.loads(leaf) for leaf in await keeper.events(0, 1000)]
        changes = [leaf["change"] for leaf in leaves if leaf["kind"] == "consent"]
        assert changes == ["Authorized>Consumed"]
        assert (await keeper.lookup(Payment, "p-10")) is not None
