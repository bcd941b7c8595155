"""Reads of account information: what goes to the bank, what comes back, what is refused, what is recorded."""

from base64 import b64decode
from typing import Any

import msgspec
import orjson
import pytest
import trio
import trio.testing

from hub.gateway.pipeline import Gateway
from hub.model.clock import SeededDice
from hub.model.consent import Consent, ConsentType, Status
from hub.model.fault import Fault, bank_fault, hub_fault
from hub.model.http import Request
from hub.model.records import AccessToken, Grant
from hub.model.terms import Face
from hub.protocol.jose import PublicKey, parse, verify
from hub.state.cache import Cache
from hub.upstream.bank import BankAnswer
from tests.gateway.world import (
    AIS,
    BASE,
    CLIENT,
    CONSENT,
    INTERACTION,
    KEY,
    NOW,
    PEER,
    World,
    answer_of,
    client_token,
    consent_of,
    contract,
    grant_of,
    refusal,
    token_of,
)

BALANCE = {
    "accountId": "acc-1",
    "creditDebitIndicator": "Credit",
    "balanceType": "InterimAvailable",
    "timestamp": "2026-01-01T00:00:00Z",
    "amount": {"amount": "10.50", "currency": "AED", "secret": "x"},
}


async def test_balances_come_back_in_the_shape_of_the_standard():
    world = await World().start()
    world.bank.answer = answer_of({"data": [BALANCE], "meta": {"totalPages": 1}})
    response = await world.get("/accounts/acc-1/balances")
    assert response.status == 200
    assert orjson.loads(response.body) == {
        "Data": {
            "AccountId": "acc-1",
            "Balance": [
                {
                    "Amount": {"Amount": "10.50", "Currency": "AED"},
                    "CreditDebitIndicator": "Credit",
                    "DateTime": "2026-01-01T00:00:00Z",
                    "Type": "InterimAvailable",
                }
            ],
        },
        "Links": {"Self": f"{BASE}{AIS}/accounts/acc-1/balances"},
        "Meta": {"TotalPages": 1},
    }
    headers = dict(response.headers)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-fapi-interaction-id"] == INTERACTION.encode()
    assert headers[b"cache-control"] == b"no-store"


async def test_the_bank_is_told_who_calls_and_for_whom():
    world = await World().start()
    await world.get(
        "/accounts/acc-1/balances", headers={b"x-fapi-customer-ip-address": b"10.0.0.1"}
    )
    [call] = world.bank.calls
    headers = {k.decode(): v.decode() for k, v in call.headers}
    assert (call.method, call.path, call.query) == (
        "GET",
        "/accounts/acc-1/balances",
        "page=1&page-size=100",
    )
    assert headers["o3-provider-id"] == headers["o3-aspsp-id"] == "BANK1"
    assert headers["o3-caller-client-id"] == CLIENT
    assert headers["o3-api-uri"] == f"{AIS}/accounts/{{AccountId}}/balances"
    assert headers["o3-api-operation"] == "GET"
    assert headers["o3-consent-id"] == CONSENT
    assert orjson.loads(b64decode(headers["o3-psu-identifier"])) == {"userId": "u-1"}
    assert headers["o3-ozone-interaction-id"] == headers["o3-caller-interaction-id"] == INTERACTION
    assert not any(name.startswith("x-") or name == "authorization" for name in headers)
    assert call.scope == "accounts"
    assert call.repeatable


async def test_accounts_are_asked_for_by_the_ids_of_the_consent():
    world = await World().start()
    await world.get("/accounts", "page=2&page-size=7")
    assert world.bank.calls[0].query == "accountIds=acc-1,acc-2&page=2&page-size=7"


@pytest.mark.parametrize(
    ("path", "bank"),
    [
        ("/accounts", "/accounts"),
        ("/accounts/acc-1", "/accounts/acc-1"),
        ("/accounts/acc-1/balances", "/accounts/acc-1/balances"),
        ("/accounts/acc-1/beneficiaries", "/accounts/acc-1/beneficiaries"),
        ("/accounts/acc-1/direct-debits", "/accounts/acc-1/direct-debits"),
        ("/accounts/acc-1/product", "/accounts/acc-1/products"),
        ("/accounts/acc-1/scheduled-payments", "/accounts/acc-1/scheduled-payments"),
        ("/accounts/acc-1/standing-orders", "/accounts/acc-1/standing-orders"),
        ("/accounts/acc-1/transactions", "/accounts/acc-1/transactions"),
        ("/accounts/acc-1/statements", "/accounts/acc-1/statements"),
        ("/accounts/acc-1/parties", "/accounts/acc-1/customer"),
        ("/parties", "/customer"),
    ],
)
async def test_each_read_goes_to_its_operation_at_the_bank(path, bank):
    world = await World().start()
    await world.get(path)
    assert [call.path for call in world.bank.calls] == [bank]


@pytest.mark.parametrize("told", [3, 3.0, "3"])
async def test_pages_become_links(told):
    world = await World().start()
    world.bank.answer = answer_of({"data": [BALANCE], "meta": {"totalPages": told}})
    body = orjson.loads((await world.get("/accounts/acc-1/balances", "page=2")).body)
    url = f"{BASE}{AIS}/accounts/acc-1/balances?page="
    wanted = {"Self": 2, "First": 1, "Prev": 1, "Next": 3, "Last": 3}
    assert body["Links"] == {name: f"{url}{page}" for name, page in wanted.items()}
    assert body["Meta"] == {"TotalPages": 3}


@pytest.mark.parametrize("told", [True, "three", -1, 10**7, None, [3], {}])
async def test_a_number_of_pages_that_is_none_is_one(told):
    world = await World().start()
    world.bank.answer = answer_of({"data": [BALANCE], "meta": {"totalPages": told}})
    body = orjson.loads((await world.get("/accounts/acc-1/balances")).body)
    assert (list(body["Links"]), body["Meta"]) == (["Self"], {"TotalPages": 1})


async def test_a_number_that_is_too_large_to_be_written_is_left_out():
    world = await World().start()
    merchant = {"merchantId": "9" * 20, "merchantName": "A"}
    world.bank.answer = answer_of({"data": [{"transactionId": "t", "merchantDetails": merchant}]})
    response = await world.get("/accounts/acc-1/transactions")
    assert response.status == 200
    [shown] = orjson.loads(response.body)["Data"]["Transaction"]
    assert shown["MerchantDetails"] == {"MerchantName": "A"}


async def test_an_empty_list_is_an_answer():
    world = await World().start()
    body = orjson.loads((await world.get("/accounts/acc-1/direct-debits")).body)
    assert body["Data"] == {"AccountId": "acc-1", "DirectDebit": []}
    assert body["Meta"] == {"TotalPages": 0}


async def test_an_answer_is_signed_where_accept_asks():
    world = await World().start()
    response = await world.get("/accounts", headers={b"accept": b"application/jwt"})
    assert dict(response.headers)[b"content-type"] == b"application/jwt"
    parsed = parse(response.body)
    public = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    assert verify(parsed, public, ("PS256",)) is None
    assert parsed.claims["iss"] == BASE
    assert parsed.claims["aud"] == [CLIENT]
    assert parsed.claims["nbf"] <= NOW < parsed.claims["exp"]
    assert set(parsed.claims["message"]) == {"Data", "Links", "Meta"}


async def test_a_refusal_is_signed_too_where_accept_asks():
    world = await World().start()
    response = await world.get("/accounts/other/balances", headers={b"accept": b"application/jwt"})
    assert response.status == 403
    [error] = parse(response.body).claims["message"]["Errors"]
    assert error["Code"] == "Consent.PermanentAccountAccessFailure"


async def test_accept_of_neither_is_406_without_a_body():
    world = await World().start()
    response = await world.get("/accounts", headers={b"accept": b"text/html"})
    assert (response.status, response.body) == (406, b"")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (b"application/jwt, */*", b"application/jwt"),
        (b"application/jwt;q=0.1, */*", b"application/json"),
        (b"application/jwt;q=0.5, application/*;q=0.9", b"application/json"),
        (b"application/json;q=0, */*;q=0.1", b"application/jwt"),
        (b"application/jwt;q=nan, application/json;q=0.1", b"application/json"),
    ],
)
async def test_the_heavier_media_type_is_chosen(accept, media):
    world = await World().start()
    response = await world.get("/accounts", headers={b"accept": accept})
    assert dict(response.headers)[b"content-type"] == media


async def test_accept_is_one_list_on_however_many_lines_it_comes():
    world = await World().start()
    lines = ((b"accept", b"text/html"), (b"accept", b"application/jwt"))
    headers = ((b"authorization", b"Bearer secret"), *lines)
    request = Request(
        face=Face.TPP, method="GET", authority="hub.example", path=f"{AIS}/accounts", query="", peer=PEER,
        headers=headers,
    )  # fmt: skip
    answer = await world.gateway.respond(request)
    assert dict(answer.headers)[b"content-type"] == b"application/jwt"


async def test_details_are_hidden_from_a_basic_permission():
    account = {
        "id": "acc-1",
        "description": "Savings for a boat",
        "openingDate": "2020-01-01T00:00:00Z",
    }
    for permission, shown in (("ReadAccountsBasic", False), ("ReadAccountsDetail", True)):
        world = await World().start(consent_of(data={"Permissions": [permission]}))
        world.bank.answer = answer_of({"data": [account]})
        [item] = orjson.loads((await world.get("/accounts")).body)["Data"]["Account"]
        assert ("Description" in item, "OpeningDate" in item) == (shown, shown)


async def test_a_tenant_may_switch_the_hiding_off():
    world = await World(strip_detail=False).start(
        consent_of(data={"Permissions": ["ReadAccountsBasic"]})
    )
    world.bank.answer = answer_of({"data": [{"id": "acc-1", "description": "Boat"}]})
    [item] = orjson.loads((await world.get("/accounts")).body)["Data"]["Account"]
    assert item["Description"] == "Boat"


async def test_finance_rates_need_their_permission():
    product = {"AccountId": "acc-1", "FinanceRates": "a.b.c"}
    world = await World().start()
    world.bank.answer = answer_of({"data": [product]})
    body = orjson.loads((await world.get("/accounts/acc-1/product")).body)
    assert body["Data"] == {"AccountId": "acc-1", "Product": [{}]}


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (
            "",
            "fromBookingDateTime=2026-02-01T00%3A00%3A00Z&toBookingDateTime=2026-02-28T23%3A59%3A59Z",
        ),
        (
            "fromBookingDateTime=2026-02-03&toBookingDateTime=2026-02-04T10:00:00Z",
            "fromBookingDateTime=2026-02-03&toBookingDateTime=2026-02-04T10%3A00%3A00Z",
        ),
    ],
)
async def test_dates_are_narrowed_to_the_consent(query, sent):
    world = await World().start(consent_of(data={"FromDate": "2026-02-01", "ToDate": "2026-02-28"}))
    await world.get("/accounts/acc-1/transactions", query)
    assert world.bank.calls[0].query == f"{sent}&page=1&page-size=100"


async def test_dates_upside_down_are_asked_for_as_one_day_whatever_the_consent_says():
    world = await World().start()
    turned = "fromBookingDateTime=2026-03-01&toBookingDateTime=2026-02-01"
    response = await world.get("/accounts/acc-1/transactions", turned)
    assert orjson.loads(response.body)["Data"]["Transaction"] == []
    day = "2026-02-01T00%3A00%3A00Z"
    sent = f"fromBookingDateTime={day}&toBookingDateTime={day}&page=1&page-size=100"
    assert world.bank.calls[0].query == sent


async def test_dates_that_do_not_meet_the_consent_give_an_empty_list():
    world = await World().start(consent_of(data={"FromDate": "2026-02-01"}))
    world.bank.answer = answer_of({"data": [{"transactionId": "t"}]})
    response = await world.get("/accounts/acc-1/transactions", "toBookingDateTime=2025-01-01")
    assert orjson.loads(response.body)["Data"]["Transaction"] == []


async def test_only_foreign_exchange_is_asked_for_where_nothing_else_is_permitted():
    world = await World().start(consent_of(data={"Permissions": ["ReadFXTransactionsBasic"]}))
    await world.get("/accounts/acc-1/transactions")
    assert (b"o3-fx-transactions", b"true") in world.bank.calls[0].headers


CHECKS: list[tuple[str, dict[str, Any], dict[str, Any], int, str, str]] = [
    ("no token", {"headers": {b"authorization": None}}, {}, 401, "", "token.missing"),
    ("other scheme", {"headers": {b"authorization": b"Basic eDp5"}}, {}, 401, "", "token.malformed"),
    ("unknown token", {"headers": {b"authorization": b"Bearer other"}}, {}, 401, "", "token.unknown"),
    ("expired", {}, {"expires": NOW}, 401, "", "token.expired"),
    ("revoked token", {}, {"revoked": NOW}, 401, "", "token.revoked"),
    ("revoked grant", {}, {"grant_id": "g2"}, 401, "", "token.grant_revoked"),
    ("other certificate", {}, {"x5t_s256": "other"}, 401, "", "token.certificate_binding"),
    ("unbound token", {}, {"x5t_s256": ""}, 401, "", "token.certificate_binding"),
    ("DPoP token as bearer", {}, {"jkt": "k"}, 401, "", "token.scheme"),
    ("bearer token as DPoP", {"headers": {b"authorization": b"DPoP secret"}}, {}, 401, "", "token.scheme"),
    ("other approval", {}, {"approved": "of other accounts"}, 401, "", "token.approved"),
    ("other client", {}, {"client_id": "other"}, 401, "", "token.client"),
    ("client token", {}, client_token(), 403, "AccessToken.InvalidScope", "enforce.token_kind"),
    ("other scope", {}, {"scope": "openid payments"}, 403, "AccessToken.InvalidScope", "enforce.scope"),
]  # fmt: skip


CHALLENGES = {"token.missing": b"Bearer"}


@pytest.mark.parametrize(
    ("sent", "token", "status", "code", "check"),
    [c[1:] for c in CHECKS],
    ids=[c[0] for c in CHECKS],
)
async def test_a_token_that_does_not_fit_is_refused(sent, token, status, code, check):
    world = await World().start(**token)
    response = await world.get("/accounts", **sent)
    assert response.status == status
    assert world.bank.calls == []
    [event] = await world.events()
    assert (event["check"], event.get("code", ""), event["verdict"]) == (check, code, "refused")
    if status == 401:
        assert response.body == b""
        challenge = dict(response.headers)[b"www-authenticate"]
        plain, _, explained = challenge.partition(b", error_uri=")
        assert plain == CHALLENGES.get(check, b'Bearer error="invalid_token"')
        assert explained in {b"", f'"{BASE}/errors/{check}"'.encode()}


async def test_a_connection_without_a_certificate_is_refused():
    world = await World().start()
    response = await world.get("/accounts", peer=msgspec.structs.replace(PEER, x5t_s256=""))
    assert response.status == 401


STATES = [
    (Status.AWAITING, 400, "Consent.Invalid"),
    (Status.REJECTED, 400, "Consent.Invalid"),
    (Status.EXPIRED, 400, "Consent.Invalid"),
    (Status.SUSPENDED, 403, "Consent.AccountTemporarilyBlocked"),
    (Status.REVOKED, 401, ""),
]


@pytest.mark.parametrize(("status", "answered", "code"), STATES)
async def test_only_an_authorized_consent_opens_anything(status, answered, code):
    world = await World().start(consent_of(status=status))
    response = await world.get("/accounts")
    assert (response.status, code_of(response.body)) == (answered, code)
    assert world.bank.calls == []


async def test_a_consent_ends_at_its_second():
    world = await World().start(consent_of(expires=NOW + 1))
    assert (await world.get("/accounts")).status == 200
    world.clock.advance(1)
    assert code_of((await world.get("/accounts")).body) == "Consent.Invalid"


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"standard_version": "v1.2"}, "enforce.version"),
        ({"consent_type": ConsentType.INSURANCE}, "enforce.consent_type"),
        ({"data": {"Permissions": ["ReadAccountsBasic"]}}, "enforce.permission"),
        ({"data": {"Permissions": []}}, "enforce.permission"),
    ],
)
async def test_a_consent_that_does_not_cover_the_call_is_refused(changes, check):
    world = await World().start(consent_of(**changes))
    response = await world.get("/accounts/acc-1/balances")
    assert (response.status, code_of(response.body)) == (403, "AccessToken.InvalidScope")
    assert (await world.events())[0]["check"] == check


async def test_an_account_outside_the_consent_is_refused_whether_it_exists_or_not():
    world = await World().start()
    response = await world.get("/accounts/acc-9/balances")
    assert (response.status, code_of(response.body)) == (
        403,
        "Consent.PermanentAccountAccessFailure",
    )
    assert world.bank.calls == []


async def test_a_role_that_was_withdrawn_is_refused():
    world = await World().start()
    world.trust.roles = ("ISP",)
    assert (await world.get("/accounts")).status == 403


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (refusal("trust.certificate_revoked"), 401),
        (refusal("trust.blocked"), 401),
        (refusal("trust.not_activated"), 401),
        (hub_fault(503, "temporarily_unavailable", "stale", check="trust.stale"), 500),
    ],
)
async def test_the_trust_frameworks_word_is_heard(fault, status):
    world = await World().start()
    world.trust.fault = fault
    assert (await world.get("/accounts")).status == status
    assert world.bank.calls == []


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("page=0", {}), ("page=x", {}), ("page-size=1001", {}), ("page=1&page=2", {}),
        ("fromBookingDateTime=yesterday", {}), ("toBookingDateTime=2026-02-30", {}), ("", {b"page": b"-1"}),
        ("", {b"x-fapi-interaction-id": b"not-a-uuid"}),
    ],
)  # fmt: skip
async def test_a_bad_parameter_is_named_and_refused(query, headers):
    world = await World().start()
    response = await world.get("/accounts/acc-1/transactions", query, headers)
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")
    assert world.bank.calls == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("x-fapi-customer-ip-address", "192.0.2.1", "999.1.1.1"),
        ("x-fapi-customer-ip-address", "2001:db8::1893:25c8:1946", ""),
        ("x-fapi-customer-ip-address", "::ffff:192.0.2.1", "192.0.2.1, 192.0.2.2"),
        ("x-fapi-customer-ip-address", "10.0.0.1", "\u0661.1.1.1"),
        ("x-fapi-customer-ip-address", "10.0.0.1", "1" * 5000),
        ("x-fapi-auth-date", "Tue, 11 Sep 2012 19:43:31 GMT", "2012-09-11T19:43:31Z"),
        ("x-fapi-auth-date", "Tue, 11 Sep 2012 19:43:31 UTC", "Tue, 11 Sep 2012 19:43:31 GMT+4"),
    ],
)
async def test_what_headers_say_of_the_customer_is_judged(name, good, bad):
    world = await World().start()
    header = name.encode()
    assert (await world.get("/accounts", headers={header: good.encode()})).status == 200
    response = await world.get("/accounts", headers={header: bad.encode()})
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")
    assert orjson.loads(response.body)["Errors"][0]["Message"].startswith(f"{name}: expected")
    assert len(world.bank.calls) == 1


async def test_a_signed_refusal_of_nobody_known_is_addressed_to_nobody():
    world = await World().start()
    world.trust.fault = hub_fault(503, "GenericError", "", check="trust.stale")
    path = "/open-finance/payment/v2.1/payment-consents"
    response = await world.send("GET", path)
    assert response.status == 500
    assert "aud" not in parse(response.body).claims


async def test_an_undeclared_parameter_is_not_forwarded():
    world = await World().start()
    assert (await world.get("/accounts/acc-1/balances", "accountIds=acc-9&x=1")).status == 200
    assert world.bank.calls[0].query == "page=1&page-size=100"


async def test_an_interaction_id_is_made_where_none_is_sent():
    world = await World().start()
    response = await world.get("/accounts", headers={b"x-fapi-interaction-id": None})
    made = dict(response.headers)[b"x-fapi-interaction-id"].decode()
    assert response.status == 200
    assert made != INTERACTION
    sent = dict(world.bank.calls[0].headers)
    assert sent[b"o3-ozone-interaction-id"].decode() == made
    assert b"o3-caller-interaction-id" not in sent


async def test_a_strict_tenant_refuses_a_missing_interaction_id():
    world = await World(strict_interaction_id=True).start()
    assert (await world.get("/accounts", headers={b"x-fapi-interaction-id": None})).status == 400


async def test_an_unknown_path_is_404_and_another_method_405_without_bodies():
    world = await World().start()
    unknown = await world.get("/nothing")
    other = await world.send("POST", f"{AIS}/accounts")
    assert (unknown.status, unknown.body) == (404, b"")
    assert (other.status, other.body, dict(other.headers)[b"allow"]) == (405, b"", b"GET")


BANK_ERRORS = [
    (400, {"errorCode": "Consent.Invalid", "errorMessage": None}, 400, "Consent.Invalid"),
    (400, {"errorCode": None, "errorMessage": "no"}, 400, "GenericError"),
    (400, {"errorCode": f"A.{'b' * 200}"}, 400, f"LFI.A{'b' * 63}"),
    (403, {"errorCode": f"A.{'b' * 200}"}, 403, "GenericError"),
    (400, {"errorCode": "Consent.FailsControlParameters", "errorMessage": "m"}, 400, "Consent.FailsControlParameters"),
    (400, {"errorCode": "AANI.AM04", "errorMessage": "m"}, 400, "AANI.AM04"),
    (400, {"errorCode": "bad-thing", "errorMessage": "m"}, 400, "LFI.badthing"),
    (400, {}, 400, "GenericError"),
    (401, {}, 500, "GenericError"),
    (403, {"errorCode": "Consent.AccountTemporarilyBlocked"}, 403, "Consent.AccountTemporarilyBlocked"),
    (403, {"errorCode": "what"}, 403, "GenericError"),
    (404, {}, 400, "Resource.InvalidFormat"),
    (409, {"errorCode": "GenericRecoverableError"}, 400, "GenericRecoverableError"),
    (409, {"errorCode": "X.Y"}, 400, "GenericError"),
    (418, {}, 400, "GenericError"),
    (429, {}, 429, ""),
    (500, {"errorCode": "LFI.1"}, 500, "LFI.1"),
    (500, {}, 500, "GenericError"),
    (503, {}, 500, "GenericRecoverableError"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "body", "status", "code"), BANK_ERRORS)
async def test_a_banks_error_is_mapped(given, body, status, code):
    world = await World().start()
    answer = answer_of(body | {"stack": "internal.host"}, given)
    world.bank.answer = msgspec.structs.replace(answer, headers=((b"retry-after", b"7"),))
    response = await world.get("/accounts")
    assert (response.status, code_of(response.body)) == (status, code)
    assert b"internal.host" not in response.body
    if status == 429:
        assert dict(response.headers)[b"retry-after"] == b"7"


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"data": {"a": 1}}', b'{"data": ["x"]}']
)
async def test_nonsense_from_the_bank_is_our_500(body):
    world = await World().start()
    world.bank.answer = BankAnswer(status=200, headers=(), body=body)
    response = await world.get("/accounts")
    assert (response.status, code_of(response.body)) == (500, "GenericError")
    assert (await world.events())[0]["verdict"] == "failed"


async def test_a_bank_out_of_reach_is_told_as_recoverable():
    world = await World().start()
    text = "The bank did not answer."
    world.bank.answer = bank_fault(500, "GenericRecoverableError", text, check="bank.timeout")
    response = await world.get("/accounts")
    assert (response.status, code_of(response.body)) == (500, "GenericRecoverableError")
    assert (await world.events())[0]["check"] == "bank.timeout"


async def test_each_call_leaves_one_event_without_a_payload():
    world = await World().start()
    world.bank.answer = answer_of({"data": [BALANCE]})
    response = await world.get("/accounts/acc-1/balances")
    [event] = await world.events()
    assert event["route"] == "account-information.balances"
    assert (event["client_id"], event["consent_id"], event["status"]) == (CLIENT, CONSENT, 200)
    assert (event["interaction_id"], event["octets_out"]) == (INTERACTION, len(response.body))
    assert response.event is not None
    assert "10.50" not in orjson.dumps(event).decode()


async def test_nothing_is_answered_that_could_not_be_recorded():
    world = await World().start()
    world.bank.answer = answer_of({"data": [BALANCE]})
    world.keeper.refusal = hub_fault(503, "", "disk full", check="store.full")
    response = await world.get("/accounts/acc-1/balances")
    assert (response.status, response.body) == (503, b"")
    assert b"retry-after" in dict(response.headers)


async def test_an_answer_off_schema_is_counted_in_shadow_and_refused_when_enforced():
    bad = answer_of({"data": [{**BALANCE, "balanceType": "Imaginary"}]})
    shadow = await World(response_validation="shadow").start()
    shadow.bank.answer = bad
    async with trio.open_nursery() as nursery:
        assert (await shadow.get("/accounts/acc-1/balances")).status == 200
        nursery.start_soon(shadow.gateway.shadow.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    shadow.observer.close()
    assert "/data/0/balanceType" in shadow.log.getvalue()
    assert "Imaginary" not in shadow.log.getvalue()
    strict = await World(response_validation="enforce").start()
    strict.bank.answer = bad
    assert (await strict.get("/accounts/acc-1/balances")).status == 500


async def test_a_token_dies_with_its_grant():
    world = await World().start()
    await world.keep(grant_of(revoked=NOW))
    assert (await world.get("/accounts")).status == 401


async def test_a_consent_of_another_client_gives_nothing():
    world = await World().start(consent_of(client_id="other"))
    assert (await world.get("/accounts")).status == 401


def test_the_token_is_never_stored():
    assert "secret" not in repr(token_of())


def code_of(body: bytes) -> str:
    """Return the code of the first error, empty for no body or no error."""
    errors = orjson.loads(body).get("Errors") if body else None
    return errors[0]["Code"] if errors else ""


def test_a_fault_is_a_value():
    assert isinstance(refusal("x"), Fault)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"data": {"Permissions": ["ReadAccountsBasic"]}}, 403),
        ({"status": Status.SUSPENDED}, 403),
        ({"status": Status.REVOKED}, 401),
        ({"account_ids": ("acc-2",)}, 403),
        ({"expires": NOW - 1}, 400),
    ],
)
async def test_what_was_permitted_is_refused_once_the_consent_is_another(changed, status):
    world = World()
    cache = Cache(world.keeper, {AccessToken: 10, Grant: 10, Consent: 10})
    world = remembering(world, cache)
    await world.start()
    assert [(await world.get("/accounts/acc-1/balances")).status for _ in range(2)] == [200, 200]
    await world.keep(consent_of(**changed))
    assert (await world.get("/accounts/acc-1/balances")).status == status
    cache.close()


async def test_what_was_permitted_is_refused_once_the_role_is_gone():
    world = World()
    cache = Cache(world.keeper, {AccessToken: 10, Grant: 10, Consent: 10})
    world = remembering(world, cache)
    await world.start()
    assert (await world.get("/accounts/acc-1/balances")).status == 200
    world.trust.roles = ()
    assert (await world.get("/accounts/acc-1/balances")).status == 403
    cache.close()


def remembering(world: World, cache: Cache) -> World:
    """Put a gateway with a worker's cache in the place of the world's."""
    world.gateway = Gateway(
        settings=world.settings, keeper=world.keeper, cache=cache, trust=world.trust, bank=world.bank,
        contract=contract(), signing_keys=(KEY,), clock=world.clock, dice=SeededDice(), observer=world.observer,
    )  # fmt: skip
    world.bank.answer = answer_of({"data": [BALANCE]})
    return world
