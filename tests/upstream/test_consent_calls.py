"""Validate, augment and events: what the bank is sent, and what becomes of each of its answers."""

import base64

import msgspec
import orjson
import pytest

from hub.model.clock import FixedClock, SeededDice
from hub.model.consent import ConsentType
from hub.model.fault import Fault
from hub.node.build import Given, asked_of
from hub.observe import Observer
from hub.upstream.bank import BankAnswer
from hub.upstream.consent_calls import ConsentCalls
from hub.upstream.faults import bank_failure
from tests.lfi.desk import NOW, consent, settings


class FakeBank:
    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    async def exchange(self, call):
        self.calls.append(call)
        return self.answer


def answer(body, status=200):
    return BankAnswer(status=status, headers=(), body=orjson.dumps(body))


def calls(tmp_path, given, **bank):
    fake = FakeBank(given)
    clock = FixedClock(NOW)
    observer = Observer(clock, log=False)
    made = ConsentCalls(
        bank=fake,
        settings=settings(tmp_path, **bank),
        clock=clock,
        dice=SeededDice(),
        observer=observer,
    )
    observer.close()
    return made, fake


async def test_the_bank_is_asked_with_the_whole_record_before_the_customer_is_known(tmp_path):
    made, fake = calls(tmp_path, answer({"data": {"status": "valid"}}))
    assert await made.validate(consent()) is None
    call = fake.calls[0]
    assert (call.method, call.path, call.family) == ("POST", "/consent/action/validate", "events")
    assert call.deadline_ms == 3000
    assert not call.repeatable
    assert orjson.loads(call.body)["id"] == "c1"
    headers = dict(call.headers)
    assert headers[b"o3-consent-id"] == b"c1"
    assert headers[b"o3-provider-id"] == headers[b"o3-aspsp-id"] == b"LFI1"
    assert headers[b"o3-caller-interaction-id"] == b"i1"
    assert b"o3-psu-identifier" not in headers


async def test_an_invalid_consent_is_told_with_the_banks_reason(tmp_path):
    data = {"status": "invalid", "code": "LFI.Account", "description": 'not "here"\r\n'}
    made, _ = calls(tmp_path, answer({"data": data, "meta": {}}))
    fault = await made.validate(consent())
    assert (fault.status, fault.code) == (400, "invalid_authorization_details")
    assert fault.public == "LFI.Account: not  here   "


@pytest.mark.parametrize(
    "given",
    [
        bank_failure("bank.timeout", "x", sent=True),
        answer({"data": {"status": "valid"}}, 500),
        answer({"data": {"status": "perhaps"}}),
        answer({"status": "valid"}),
        answer([]),
        BankAnswer(status=200, headers=(), body=b"<html>"),
    ],
)
async def test_a_silent_bank_refuses_the_consent_unless_the_tenant_accepts_silence(given, tmp_path):
    made, _ = calls(tmp_path, given)
    fault = await made.validate(consent())
    assert (fault.status, fault.code) == (503, "temporarily_unavailable")
    made, _ = calls(tmp_path, given, validate_silence="accept")
    assert await made.validate(consent()) is None


async def test_charges_are_merged_and_nonsense_is_not(tmp_path):
    charges = [
        {
            "ChargeBearer": "Shared",
            "Type": "VAT",
            "Amount": {"Amount": "0.05", "Currency": "AED"},
        }
    ]
    made, _ = calls(tmp_path, answer({"Charges": charges, "more": 1}))
    merged = await made.augment(consent())
    assert merged.body["Data"]["Charges"] == charges
    assert "more" not in merged.body["Data"]
    made, _ = calls(tmp_path, answer({"Charges": [{}]}))
    assert isinstance(await made.augment(consent()), Fault)


async def test_an_event_names_the_customer_once_known(tmp_path):
    made, fake = calls(tmp_path, answer({}, 204))
    known = msgspec.structs.replace(consent(), psu_identifiers={"userId": "u"})
    await made.tell(known, "patch")
    assert fake.calls[0].path == "/consent/event/patch"
    encoded = dict(fake.calls[0].headers)[b"o3-psu-identifier"]
    assert orjson.loads(base64.b64decode(encoded)) == {"userId": "u"}


@pytest.mark.parametrize("augment", [True, False])
async def test_only_payment_consents_are_augmented_and_only_where_the_tenant_has_it(
    augment, tmp_path
):
    fake = FakeBank(answer({"OpenFinanceBilling": {"IsLargeCorporate": True}}))
    observer = Observer(FixedClock(NOW), log=False)
    given = Given(
        settings=settings(tmp_path, augment=augment),
        keeper=None,
        clock=FixedClock(NOW),
        dice=SeededDice(),
        observer=observer,
    )
    asked = asked_of(given, fake)
    paid = await asked(consent("c1", ConsentType.SERVICE_INITIATION))
    read = await asked(consent("c2"))
    assert ("OpenFinanceBilling" in paid.body["Data"]) is augment
    assert "OpenFinanceBilling" not in read.body["Data"]
    assert [call.path for call in fake.calls] == ["/consent/action/augment"] * augment
    fake.answer = answer({}, 500)
    assert isinstance(await asked(consent("c3", ConsentType.SERVICE_INITIATION)), Fault) is augment
    observer.close()
