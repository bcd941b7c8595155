"""One payment over the wire: consented, ordered, made in the bank's ledger, and never twice under one key."""

import subprocess
import sys

import pytest
import trio

from hub.sandbox.journey import run_journey
from hub.sandbox.tpp import Refused, Tokens
from hub.sandbox.tpp.schedules import single
from tests.wire.payer import CREDITOR, Payer, bank_keys
from tests.wire.world import ROOT

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
