"""Files of payments at the gateway: one that the bank has not taken is not paid."""

from base64 import b64encode
from hashlib import sha256

import msgspec
import trio

from hub.gateway.files import FILE_PAYMENT
from hub.model.clock import FixedClock
from hub.model.consent import Consent, Status
from hub.model.payment_file import file_note
from hub.model.records import Payment
from hub.state.memory import MemoryKeeper
from hub.upstream.bank import BankAnswer
from tests.gateway.test_payment_consents import PAYMENT, signed
from tests.gateway.test_payments import MADE, error_of, started
from tests.gateway.world import CLIENT, CONSENT, NOW, World, answer_of, client_token, token_of

FILE = b"10.00,AE070331234567890123456\n"
ASKED = {
    "ControlParameters": {
        "ConsentSchedule": {
            "FilePayment": {
                "FileType": "Payroll",
                "FileHash": b64encode(sha256(FILE).digest()).decode(),
                "NumberOfTransactions": 1,
                "ControlSum": "10.00",
            }
        }
    }
}


async def order(world, key):
    """Order the payment of the file with the customer's token."""
    await world.keep(token_of(scope="openid payments"))
    world.bank.answer = answer_of(MADE, 201)
    headers = {b"content-type": b"application/jwt", b"x-idempotency-key": key}
    body = signed({"Data": {"ConsentId": CONSENT, "PaymentPurposeCode": "ACM"}})
    return await world.send("POST", f"{PAYMENT}/file-payments", headers=headers, body=body)


async def upload(world, status=204):
    """Upload the file with the client's token; the bank answers with that status."""
    await world.keep(token_of(scope="openid payments", **client_token()))
    world.bank.answer = answer_of({}, status)
    headers = {b"content-type": b"text/csv", b"x-idempotency-key": b"u-1"}
    path = f"{PAYMENT}/payment-consents/{CONSENT}/file"
    return await world.send("POST", path, headers=headers, body=FILE)


async def asked_for(**changes):
    """Start a world with a consent to a file that is awaited."""
    world = await started(ASKED, **changes)
    held, _ = await world.keeper.lookup(Consent, CONSENT)
    await world.keep(file_note(held, taken=False))
    return world


async def authorized(world):
    """Let the customer approve."""
    held, _ = await world.keeper.lookup(Consent, CONSENT)
    await world.keep(msgspec.structs.replace(held, status=Status.AUTHORIZED))


async def test_a_file_that_was_never_uploaded_is_not_paid():
    world = await asked_for()
    refused = await order(world, b"k-1")
    assert (refused.status, error_of(refused)) == (400, "Consent.FailsControlParameters")
    assert world.bank.calls == []


async def test_a_file_is_paid_once_it_was_uploaded_whoever_was_faster():
    world = await asked_for(status=Status.AWAITING)
    exchange = world.bank.exchange

    async def meanwhile(asked):
        await authorized(world)
        return await exchange(asked)

    world.bank.exchange = meanwhile
    assert (await upload(world)).status == 200
    world.bank.exchange = exchange
    made = await order(world, b"k-1")
    assert made.status == 201, error_of(made)
    assert [call.path for call in world.bank.calls] == [
        f"/payment-consents/{CONSENT}/file",
        "/payments",
    ]


async def test_a_file_that_the_bank_refused_is_not_paid():
    world = await asked_for(status=Status.AWAITING)
    assert (await upload(world, status=400)).status == 400
    await authorized(world)
    assert (await order(world, b"k-1")).status == 400


async def test_a_file_of_a_consent_that_is_older_than_the_note_of_it_is_the_banks_to_judge():
    world = await started(ASKED)
    assert (await order(world, b"k-1")).status == 201


class Report:
    """A long answer of the bank's."""

    def __init__(self):
        self.closed = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration

    def close(self):
        self.closed = True


class Slow:
    """A keeper that does not come to writing."""

    def __init__(self, keeper):
        self.keeper = keeper
        self.waits = False

    def __getattr__(self, name):
        return getattr(self.keeper, name)

    async def commit(self, changes, events):
        if self.waits:
            await trio.sleep_forever()
        return await self.keeper.commit(changes, events)


async def test_a_report_whose_caller_leaves_before_its_event_is_durable_is_ended(autojump_clock):
    world = World(keeper=Slow(MemoryKeeper(clock=FixedClock(NOW))))
    world.trust.roles = ("BSIP",)
    payment = Payment(
        id="p-1", consent_id=CONSENT, client_id=CLIENT, organisation_id="o", payment_type=FILE_PAYMENT,
        idempotency_key="k", created_ms=0, updated_ms=0,
    )  # fmt: skip
    await world.keep(payment, token_of(scope="openid payments", **client_token()))
    report = Report()
    world.bank.answer = BankAnswer(status=200, headers=(), stream=report)
    world.keeper.waits = True
    with trio.move_on_after(1) as scope:
        await world.send("GET", f"{PAYMENT}/file-payments/p-1/report")
    assert len(world.bank.calls) == 1
    assert scope.cancelled_caught
    assert report.closed
