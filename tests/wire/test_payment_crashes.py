"""Payments while keeper, workers and bank fail at named places: never twice, never lost, never guessed."""

import os

import pytest
import trio

from bench.evidence import append
from hub.sandbox.tpp.schedules import controls, variable_on_demand
from tests.waiting import until
from tests.wire.crashes import (
    BANK_FAULTS,
    KEEPER_POINTS,
    RECOVERY_POINTS,
    WORKER_POINTS,
    Crowd,
    Doomed,
)
from tests.wire.payer import Payer
from tests.wire.test_payment_crowd import today
from tests.wire.world import actor, moved

pytestmark = pytest.mark.wire
SEED = 6
CLIENTS = int(os.environ.get("PAYMENT_CLIENTS", "200"))


async def storm(doomed: Doomed, crowd: Crowd, points: tuple[str, ...], faults: tuple) -> int:
    """Let clients order while one process after the other dies, and the bank misbehaves in between; return the deaths."""
    deaths = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.run)
        await crowd.more(5)
        for number, point in enumerate(points):
            if point in RECOVERY_POINTS:
                await doomed.die_at(point, reset=True, times=2)
            else:
                await doomed.die_at(point, 1 + number % 3)
            deaths += 1
            await crowd.more(5)
        for fault in faults:
            await doomed.misbehave(**fault)
            await crowd.more(5)
        crowd.stopping = True
    await doomed.ready()
    return deaths


async def judge(doomed: Doomed, crowd: Crowd, *, dedupes: bool) -> dict[str, int]:
    """Hold what every client was told against the Hub and the bank's own book."""
    async with moved(doomed.sandbox, 61):
        found = await settled(doomed, crowd, wait=dedupes)
    unknown = doomed.operator(do="payments-unknown")
    named = {row["idempotency_key"] for row in unknown["payments"]}
    book, again = doomed.book(crowd.payer.consent_id)
    assert crowd.wrong == []
    made = {key for key, answer in crowd.known.items() if answer.status == 201}
    made |= {key for key, status in found.items() if status == 201}
    refused = {key for key, answer in crowd.known.items() if answer.status == 400}
    refused |= {key for key, status in found.items() if status == 400}
    assert {key for key, status in found.items() if status == 409} == named
    assert made <= book.keys(), "what was acknowledged is at the bank"
    assert not refused & book.keys(), "what was refused is not"
    assert book.keys() <= made | named, "nothing was paid that nobody knows of"
    if dedupes:
        assert named == set(), "a bank that de-duplicates leaves nothing unknown"
    else:
        assert again == {}, "nothing was sent twice"
    left = doomed.operator(do="allowance", consent=crowd.payer.consent_id)
    assert left["taken"]["number"] == len(made) + len(named)
    return {"orders": len(crowd.amounts), "made": len(made), "unknown": len(named)}


async def settled(doomed: Doomed, crowd: Crowd, *, wait: bool) -> dict[str, int]:
    """Ask for what was pending until recovery has dealt with it."""
    await until(lambda: not doomed.open_attempts(), 90, "every payment to have an outcome")
    if wait:
        await until(
            lambda: doomed.operator(do="payments-unknown")["total"] == 0,
            90,
            "a bank that de-duplicates to leave no payment unknown",
        )
    return await crowd.ask_again()


async def run(folder, points, faults, *, clients: int, dedupes: bool) -> dict[str, int]:
    with Doomed(folder / "sandbox", dedupes=dedupes) as doomed:
        async with actor(doomed.sandbox) as tpp:
            limit = controls(number=1_000_000, most="999.00")
            schedule = variable_on_demand("Day", today(tpp), limit)
            payer = await (await Payer.at(tpp)).consented(schedule)
            crowd = Crowd(payer, clients, SEED)
            deaths = await storm(doomed, crowd, points, faults)
            return {"deaths": deaths, **await judge(doomed, crowd, dedupes=dedupes)}


async def test_payments_survive_the_death_of_keeper_and_worker_and_a_bank_that_resets(tmp_path):
    points = ("after_forward_before_record", "after_commit_before_ack")
    counts = await run(tmp_path, points, BANK_FAULTS[:1], clients=10, dedupes=True)
    assert counts["deaths"] == 2
    assert counts["made"] >= 20


@pytest.mark.nightly
@pytest.mark.parametrize("dedupes", [True, False])
async def test_payments_survive_every_named_death_and_every_fault_of_the_bank(tmp_path, dedupes):
    points = WORKER_POINTS + KEEPER_POINTS + (RECOVERY_POINTS if dedupes else ())
    counts = await run(tmp_path, points, BANK_FAULTS, clients=CLIENTS, dedupes=dedupes)
    assert len(points) + len(BANK_FAULTS) >= 20
    assert counts["deaths"] == len(points)
    lane = f"payments under crashes, bank {'de-duplicates' if dedupes else 'promises nothing'}"
    append(lane, {"clients": CLIENTS, **counts}, [SEED], "passed")
