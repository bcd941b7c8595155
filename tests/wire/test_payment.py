"""One payment over the wire: consented, ordered, made in the bank's ledger, and never twice under one key."""

import msgspec
import pytest

from hub.sandbox.journey import run_journey
from hub.sandbox.tpp import Ask, Callback, Pushed, Refused, Tokens
from hub.sandbox.tpp.payment import (
    PAYMENT_SCOPE,
    creditor,
    payment_consent,
    read_signed,
    request_payment,
    seal,
)

pytestmark = pytest.mark.wire
AMOUNT = "12.50"
CREDITOR = creditor("AE460261001234567891234", "Shop LLC")


async def document(tpp, url: str) -> dict:
    answer = await tpp.tpp.wire.carry(Ask(method="GET", url=url))
    assert answer.status == 200
    return msgspec.json.decode(answer.body)


async def bank_keys(tpp) -> dict:
    """Find the bank's key set by way of the participants: whose server is this issuer?"""
    directory = tpp.sandbox.manifest.directory
    for organisation in await document(tpp, directory.participants):
        for server in organisation["AuthorisationServers"]:
            if server.get("OpenIDDiscoveryDocument", "").startswith(tpp.discovery.issuer):
                base = f"{directory.keystore_base}/{organisation['OrganisationId']}"
                return await document(tpp, f"{base}/application.jwks")
    raise AssertionError("no participant has this issuer")


async def consented(tpp) -> tuple[str, Tokens]:
    """Take a payment consent all the way to tokens; return its id and them."""
    sealed = seal(tpp.identity, await bank_keys(tpp), {"Creditor": [CREDITOR]})
    assert isinstance(sealed, str), sealed
    consent_id = tpp.identity.dice.uuid()
    detail = payment_consent(
        consent_id=consent_id,
        expires=tpp.identity.clock.now() + 3_600,
        amount=AMOUNT,
        sealed=sealed,
    )
    pushed = await tpp.tpp.push(tpp.discovery, detail, PAYMENT_SCOPE)
    assert isinstance(pushed, Pushed), pushed
    person = tpp.sandbox.manifest.customers[0]
    came = await tpp.callback(pushed, customer=person, accounts=person.accounts[:1])
    assert isinstance(came, Callback), came
    tokens = await tpp.tpp.redeem(tpp.discovery, came.code, pushed)
    assert isinstance(tokens, Tokens), tokens
    return consent_id, tokens


async def sealed_creditor(tpp) -> str:
    sealed = seal(tpp.identity, await bank_keys(tpp), CREDITOR)
    assert isinstance(sealed, str), sealed
    return sealed


async def order(tpp, consent_id: str, tokens: Tokens, key: str, sealed: str, amount: str = AMOUNT):
    """Order the payment, signed anew; return the answer with its message, or the refusal in it."""
    ask = request_payment(
        tpp.identity,
        f"{tpp.sandbox.manifest.hub.resource_base}/open-finance/payment/v2.1/payments",
        audience=tpp.discovery.issuer,
        access_token=tokens.access_token,
        key=key,
        consent_id=consent_id,
        amount=amount,
        sealed=sealed,
    )
    answer = await tpp.tpp.wire.carry(ask)
    keys = await document(tpp, tpp.discovery.jwks_uri)
    return answer, read_signed(answer, keys, tpp.discovery.issuer)


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
