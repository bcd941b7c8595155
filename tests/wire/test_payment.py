"""One payment over the wire: consented, ordered, made in the bank's ledger, and never twice under one key."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest
import trio

from hub.sandbox.journey import run_journey
from hub.sandbox.tpp import Refused, Tokens
from hub.sandbox.tpp.schedules import (
    controls,
    dirhams,
    fixed_defined,
    fixed_periodic,
    multi,
    single,
    variable_defined,
    variable_on_demand,
)
from tests.wire.crashes import book_of
from tests.wire.payer import CREDITOR, Payer, bank_keys
from tests.wire.test_payment_crowd import today
from tests.wire.world import ROOT, moved

__all__ = ["CREDITOR", "bank_keys", "consented", "order", "sealed_creditor"]

pytestmark = pytest.mark.wire
AMOUNT = "12.50"


async def consented(tpp) -> tuple[str, Tokens]:
    """Take a payment consent all the way to tokens; return its id and them."""
    payer = await (await Payer.at(tpp)).consented(single(AMOUNT), life=3_600)
    assert payer.tokens is not None
    return payer.consent_id, payer.tokens


async def sealed_creditor(tpp) -> str:
    return (await Payer.at(tpp)).seal(CREDITOR)


async def order(tpp, consent_id: str, tokens: Tokens, key: str, sealed: str, amount: str = AMOUNT):
    """Order the payment, signed anew; return the answer with its message, or the refusal in it."""
    payer = await Payer.at(tpp)
    payer.consent_id, payer.tokens = consent_id, tokens
    return await payer.order(key, amount, sealed)


async def test_a_payment_is_made_once_and_its_consent_is_then_used_up(tpp):
    consent_id, tokens = await consented(tpp)
    sealed = await sealed_creditor(tpp)
    answer, message = await order(tpp, consent_id, tokens, "key-a", sealed)
    assert answer.status == 201, (answer.status, message)
    assert isinstance(message, dict)
    payment_id = message["Data"]["PaymentId"]
    again, repeated = await order(tpp, consent_id, tokens, "key-a", sealed)
    assert again.status == 201, repeated
    assert repeated["Data"]["PaymentId"] == payment_id
    changed, refusal = await order(tpp, consent_id, tokens, "key-a", await sealed_creditor(tpp))
    assert changed.status == 409
    assert isinstance(refusal, Refused)
    other, refusal = await order(tpp, consent_id, tokens, "key-b", sealed)
    assert other.status in {400, 401, 403}
    assert isinstance(refusal, Refused)


async def test_a_payment_over_the_consented_amount_is_refused(tpp):
    consent_id, tokens = await consented(tpp)
    sealed = await sealed_creditor(tpp)
    answer, refusal = await order(tpp, consent_id, tokens, "key-c", sealed, amount="12.51")
    assert answer.status == 400
    assert isinstance(refusal, Refused)
    assert refusal.code == "Consent.FailsControlParameters"


async def test_the_payment_journey_is_told_and_pays_once(sandbox):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, payment=True, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert "POST /payments: payment " in told
    assert "the same payment" in told
    assert lines[-1].startswith("Done: one payment was made")


async def test_the_journey_of_plans_meets_the_limit_of_each_kind(sandbox):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, plans=True, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    for kind in (
        "FixedDefinedSchedule",
        "VariableDefinedSchedule",
        "FixedPeriodicSchedule",
        "VariablePeriodicSchedule",
        "FixedOnDemand",
        "VariableOnDemand",
    ):
        assert f"{kind}: " in told
    assert told.count(": refused with Consent.FailsControlParameters") == 6
    assert told.count(": paid") == 8


def admin(sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hub", "admin", "--config", str(sandbox.folder / "hub.toml")]
    return subprocess.run(
        [*command, "payments", *words], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


async def test_an_operator_sees_what_is_left_and_that_nothing_is_unknown(sandbox, tpp):
    consent_id, tokens = await consented(tpp)
    answer, _ = await order(tpp, consent_id, tokens, "key-z", await sealed_creditor(tpp))
    assert answer.status == 201
    left = await trio.to_thread.run_sync(admin, sandbox, "left", consent_id)
    assert left.returncode == 0, left.stderr
    assert "taken 1 payments, 12.50 AED" in left.stdout
    assert "left of number: 0" in left.stdout
    none = await trio.to_thread.run_sync(admin, sandbox, "unknown")
    assert none.stdout.strip().endswith("0 in all")
    refused = await trio.to_thread.run_sync(
        admin, sandbox, "settle", "nothing", "--never", "--by", "amal"
    )
    assert refused.returncode == 1
    assert "payment.not_unknown" in refused.stderr


def unlawful(day: str, tomorrow: str, yesterday: str) -> dict[str, dict]:
    """Return schedules that no consent may have, each with one thing wrong."""
    one = controls(most="5.00")
    return {
        "no schedule": {},
        "two schedules": single("1.00") | fixed_periodic("Day", day, "1.00", number=1),
        "no amount": single("0.00"),
        "one decimal": single("1.0"),
        "another currency": {
            "SinglePayment": {
                "Type": "SingleInstantPayment",
                "Amount": {"Amount": "1.00", "Currency": "EUR"},
            }
        },
        "a kind of the past": {
            "SinglePayment": {"Type": "SingleFutureDatedPayment", "Amount": dirhams("1.00")}
        },
        "a past start": variable_on_demand("Day", yesterday, one),
        "an unknown period": variable_on_demand("Decade", day, one),
        "no controls": variable_on_demand("Day", day, {}),
        "no number": multi(
            {
                "Type": "FixedPeriodicSchedule",
                "PeriodType": "Day",
                "PeriodStartDate": day,
                "Amount": dirhams("1.00"),
            }
        ),
        "a number of none": fixed_periodic("Day", day, "1.00", number=0),
        "one above its period": variable_on_demand("Day", day, controls(most="5.00", value="4.99")),
        "one above all": variable_on_demand("Day", day, one, value="4.99"),
        "a past date": fixed_defined({yesterday: "1.00", tomorrow: "1.00"}),
        "a sum above all": multi(
            fixed_defined({day: "1.00", tomorrow: "1.00"})["MultiPayment"]["PeriodicSchedule"],
            value="1.99",
        ),
        "dates that end before the consent": variable_defined({day: "1.00"}),
    }


async def test_a_schedule_that_cannot_be_kept_is_refused_at_par(tpp):
    now = tpp.identity.clock.now()
    day, tomorrow, yesterday = (
        datetime.fromtimestamp(now + 4 * 3600 + shift * 86_400, UTC).date().isoformat()
        for shift in (0, 1, -1)
    )
    payer = await Payer.at(tpp)
    for name, schedule in unlawful(day, tomorrow, yesterday).items():
        refused = await payer.push(schedule, life=86_400)
        assert isinstance(refused, Refused), name
        assert (refused.status, refused.code) == (400, "invalid_authorization_details"), name


async def test_what_a_payment_may_not_be_is_refused_before_the_bank_hears_of_it(sandbox, tpp):
    day = today(tpp)
    limit = controls(number=3, value="10.00", most="5.00")
    payer = await (await Payer.at(tpp)).consented(
        variable_on_demand("Week", day, limit, number=9, value="19.98")
    )
    for number, amount in enumerate(("5.01", "0.00", "9999999999999999.99", "-1.00", "1", "1.001")):
        answer, message = await payer.order(f"bad-{number}", amount)
        assert answer.status == 400, (amount, message)
    assert book_of(sandbox, payer.consent_id)[0] == {}
    for number, (amount, status) in enumerate(
        (("5.00", 201), ("4.00", 201), ("1.01", 400), ("0.99", 201), ("0.01", 400))
    ):
        answer, message = await payer.order(f"good-{number}", amount)
        assert answer.status == status, (amount, message)
    async with moved(sandbox, 7 * 86_400):
        refreshed = await tpp.tpp.refresh(tpp.discovery, payer.tokens.refresh_token)
        assert isinstance(refreshed, Tokens)
        payer.tokens = refreshed
        for number, (amount, status) in enumerate(
            (("5.00", 201), ("4.99", 201), ("0.02", 400), ("0.01", 400))
        ):
            answer, message = await payer.order(f"later-{number}", amount, payer.seal(CREDITOR))
            assert answer.status == status, (amount, message)
