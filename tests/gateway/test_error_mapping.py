"""Every row of the table that maps a bank's answer to a TPP's; and nothing of a bank's internals leaks."""

import msgspec
import orjson
import pytest

from hub.gateway.errors import bank_error
from hub.model.fault import Fault
from hub.upstream.bank import BankAnswer
from hub.upstream.faults import bank_failure
from tests.gateway.world import World, answer_of

INTERNAL = "java.lang.NullPointerException at core.bank.internal:4711"
NEVER_DECLARED = 400
ENUM_400 = (
    "Consent.Invalid", "Consent.BusinessRuleViolation", "Consent.FailsControlParameters", "Consent.InvalidUserIdentifier",
    "JWS.InvalidSignature", "JWS.Malformed", "JWS.InvalidClaim", "JWS.InvalidHeader", "JWE.DecryptionError",
    "JWE.InvalidHeader", "GenericRecoverableError", "GenericError", "Event.UnexpectedEvent", "Body.InvalidFormat",
    "Resource.InvalidFormat", "JWS.InvalidPayload", "AANI.AM04",
)  # fmt: skip
LISTED_403 = (
    "AccessToken.InvalidScope", "Consent.TransientAccountAccessFailure", "Consent.AccountTemporarilyBlocked",
    "Consent.PermanentAccountAccessFailure", "GenericRecoverableError", "GenericError", "LFI.123",
)  # fmt: skip


def said(status, code="", text="told", **headers):
    body = {"errorCode": code, "errorMessage": text, "stack": INTERNAL, "host": INTERNAL}
    answer = answer_of(body, status)
    added = tuple((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())
    return msgspec.structs.replace(answer, headers=answer.headers + added)


TABLE = [
    *[(said(400, code), 400, code, "told") for code in ENUM_400],
    (said(400, "core-77"), 400, "LFI.core77", "told"),
    (said(400, "!!"), 400, "GenericError", "told"),
    (said(400), 400, "GenericError", "told"),
    (said(401, "Whatever.Else"), 500, "GenericError", None),
    *[(said(403, code), 403, code, "told") for code in LISTED_403],
    (said(403, "odd"), 403, "GenericError", "told"),
    (said(405, "Some.Thing"), 400, "GenericError", "told"),
    (said(409, "GenericRecoverableError"), 400, "GenericRecoverableError", "told"),
    (said(409, "Other.Code"), 400, "GenericError", "told"),
    (said(418, "Tea.Pot"), 400, "GenericError", "told"),
    (said(429, retry_after="17"), 429, None, None),
    (said(500, "GenericRecoverableError"), 500, "GenericRecoverableError", None),
    (said(500, "LFI.Core"), 500, "LFI.Core", None),
    (said(500, "no dot"), 500, "GenericError", None),
    (said(502), 500, "GenericRecoverableError", None),
    (said(503), 500, "GenericRecoverableError", None),
    (said(302), 500, "GenericRecoverableError", None),
]


@pytest.mark.parametrize(("given", "status", "code", "text"), TABLE)
async def test_a_row_of_the_table(given, status, code, text):
    world = await World().start()
    world.bank.answer = given
    answer = await world.get("/accounts")
    assert answer.status == status
    if code is None:
        assert answer.body == b""
    else:
        error = orjson.loads(answer.body)["Errors"][0]
        assert error["Code"] == code
        assert error["Message"] == text if text else "told" not in error["Message"]
    everything = repr(answer) + repr(await world.events()) + world.log.getvalue()
    assert INTERNAL not in everything
    assert "core.bank" not in everything


async def test_a_code_of_the_banks_own_is_told_and_not_recorded():
    world = await World().start()
    world.bank.answer = said(400, "LFI.Ayesha1980")
    answer = await world.get("/accounts")
    assert orjson.loads(answer.body)["Errors"][0]["Code"] == "LFI.Ayesha1980"
    assert (await world.events())[-1]["code"] == "LFI.*"
    world.bank.answer = said(400, "Consent.Invalid")
    await world.get("/accounts")
    assert (await world.events())[-1]["code"] == "Consent.Invalid"


async def test_the_banks_404_is_told_only_where_it_is_declared():
    world = await World().start()
    world.bank.answer = said(404)
    declared = await world.get("/accounts/acc-1/direct-debits")
    assert (declared.status, declared.body) == (404, b"")
    other = await world.get("/accounts/acc-1/balances")
    assert other.status == NEVER_DECLARED
    assert orjson.loads(other.body)["Errors"][0]["Code"] == "Resource.InvalidFormat"


@pytest.mark.parametrize(
    ("sent", "passed"), [("17", b"17"), ("", b"1"), ("soon", b"1"), ("9" * 9, b"1"), ("0", b"1")]
)
async def test_retry_after_is_passed_on_where_it_is_a_lawful_number(sent, passed):
    world = await World().start()
    world.bank.answer = said(429, retry_after=sent)
    answer = await world.get("/accounts")
    assert dict(answer.headers)[b"retry-after"] == passed


@pytest.mark.parametrize(
    "check",
    ["bank.unreachable", "bank.tls", "bank.timeout", "bank.reset", "bank.malformed", "bank.circuit_open", "bank.busy"],
)  # fmt: skip
async def test_a_transport_failure_is_recoverable_and_says_nothing(check):
    world = await World().start()
    world.bank.answer = bank_failure(check, INTERNAL, sent=True)
    answer = await world.get("/accounts")
    assert answer.status == 500
    assert orjson.loads(answer.body)["Errors"][0]["Code"] == "GenericRecoverableError"
    assert INTERNAL.encode() not in answer.body
    assert (await world.events())[-1]["check"] == check


@pytest.mark.parametrize("body", [b"<html>" + INTERNAL.encode(), b"[]", b"", b'{"data": 7}'])
async def test_a_success_of_another_shape_is_a_generic_error(body):
    world = await World().start()
    world.bank.answer = BankAnswer(status=200, headers=(), body=body)
    answer = await world.get("/accounts")
    assert answer.status == 500
    assert orjson.loads(answer.body)["Errors"][0]["Code"] == "GenericError"
    assert INTERNAL not in repr(answer) + repr(await world.events()) + world.log.getvalue()


async def test_a_success_with_another_status_of_success_is_taken():
    world = await World().start()
    world.bank.answer = answer_of({"data": []}, 201)
    assert (await world.get("/accounts")).status == 200


async def test_a_broken_schema_is_told_by_pointer_only_and_refused_where_enforced():
    world = await World(response_validation="enforce").start()
    world.bank.answer = answer_of({"data": [{"id": 7, "nickName": INTERNAL}]})
    answer = await world.get("/accounts")
    assert answer.status == 500
    assert orjson.loads(answer.body)["Errors"][0]["Code"] == "GenericError"
    assert INTERNAL not in repr(answer) + repr(await world.events()) + world.log.getvalue()


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (409, "GenericRecoverableError", (409, "GenericRecoverableError")),
        (409, "Other.Code", (409, "Other.Code")),
        (409, "odd", (409, "GenericError")),
        (502, "", (500, "GenericError")),
        (404, "", (400, "Resource.InvalidFormat")),
    ],
)
def test_rows_of_operations_that_pay(status, code, wanted):
    fault = bank_error(said(status, code), payment=True, finds=False)
    assert isinstance(fault, Fault)
    assert (fault.status, fault.code) == wanted
    assert INTERNAL not in repr(fault)


def test_a_message_is_cut_to_what_the_standard_allows_and_nothing_else_goes_on():
    fault = bank_error(said(400, "Consent.Invalid", "x" * 4000), payment=False, finds=False)
    assert len(fault.public) == 500
    assert "x" * 10 not in fault.private
