"""The model bank's Ozone Connect: who is refused, what is answered, and that it is what the documents say."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from hub.contract.official import find_documents, read_document
from hub.sandbox.bank.people import CUSTOMERS
from tests.sandbox.bank_world import (
    HUB_ORG,
    KEY,
    NOW,
    OTHER_KEY,
    TPP_CERTIFICATE,
    TPP_ORG,
    World,
    bearer,
    code_of,
)

A, B = "100100000001", "100100000002"
IDS = f"accountIds={A},{B}&page=1&page-size=100"
PAGE = "page=1&page-size=100"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.grant("aisha")
    return made


async def test_agreed_certificate_and_bearer_read_the_consented_accounts(world: World) -> None:
    found = await world.data(f"/accounts?{IDS}")
    assert [account["id"] for account in found["data"]] == [A, B]
    assert found["meta"] == {"totalPages": 1, "totalRecords": 2}


async def test_certificate_of_a_tpp_is_refused(world: World) -> None:
    answer = await world.call(f"/accounts?{IDS}", certificate=TPP_CERTIFICATE)
    assert code_of(answer) == (401, "Certificate.NotAccepted")


async def test_no_certificate_is_refused(world: World) -> None:
    assert code_of(await world.call(f"/accounts?{IDS}", certificate=b""))[0] == 401


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "Bearer abc",
        bearer(key=OTHER_KEY),
        bearer(iss="Somebody Else"),
        bearer(sub=TPP_ORG),
        bearer(aud="other-bank"),
        bearer(exp=NOW - 11),
        bearer(iat=NOW + 11, exp=NOW + 30),
        bearer(exp=NOW + 86_400),
        bearer(exp=None),
        bearer(nbf=NOW + 60),
        bearer(header={"alg": "RS256"}),
        bearer(header={"kid": "unknown"}),
    ],
    ids=[
        "missing",
        "not-a-jwt",
        "other-key",
        "issuer",
        "subject",
        "audience",
        "expired",
        "from-the-future",
        "too-long",
        "no-expiry",
        "not-yet",
        "algorithm",
        "unknown-kid",
    ],
)
async def test_bearer_that_is_not_as_agreed_is_refused(world: World, wrong: str) -> None:
    answer = await world.call(f"/accounts?{IDS}", authorization=wrong)
    assert code_of(answer)[0] == 401


@pytest.mark.parametrize("scope", ["products", "", None, "accountsx"])
async def test_bearer_for_another_scope_is_refused(world: World, scope: str | None) -> None:
    answer = await world.call(f"/accounts?{IDS}", authorization=bearer(scope=scope))
    assert code_of(answer) == (403, "AccessToken.InvalidScope")


async def test_keys_are_kept_and_an_unknown_key_is_looked_up_again(world: World) -> None:
    await world.data(f"/accounts?{IDS}")
    await world.data(f"/accounts?{IDS}")
    assert world.fetches == 1
    fresh = type(KEY).generate_key(2048, {"kid": "next", "use": "sig"})
    world.keys["keys"].append(fresh.as_dict(private=False))
    world.clock.advance(11)
    token = bearer(key=fresh, header={"kid": "next"}, exp=NOW + 40)
    await world.data(f"/accounts?{IDS}", authorization=token)
    assert world.fetches == 2


@pytest.mark.parametrize("name", ["o3-caller-org-id", "o3-api-uri", "o3-ozone-interaction-id"])
async def test_missing_header_is_refused(world: World, name: str) -> None:
    answer = await world.call(f"/accounts?{IDS}", **{name: None})
    assert code_of(answer) == (400, "Resource.InvalidFormat")


async def test_call_for_another_provider_is_refused(world: World) -> None:
    answer = await world.call(f"/accounts?{IDS}", **{"o3-provider-id": "other"})
    assert code_of(answer) == (400, "Resource.InvalidFormat")


async def test_account_outside_the_consent_is_refused(world: World) -> None:
    world.grant("aisha", A)
    refusal = (403, "Consent.PermanentAccountAccessFailure")
    assert code_of(await world.call(f"/accounts?{IDS}")) == refusal
    assert code_of(await world.call(f"/accounts/{B}/balances?{PAGE}")) == refusal
    assert code_of(await world.call("/accounts/does-not-exist")) == refusal


async def test_consent_of_another_customer_is_refused(world: World) -> None:
    answer = await world.call(f"/accounts?{IDS}", username="omar")
    assert code_of(answer) == (400, "Consent.Invalid")


async def test_unknown_consent_is_refused(world: World) -> None:
    answer = await world.call(f"/accounts?{IDS}", **{"o3-consent-id": "other"})
    assert code_of(answer) == (400, "Consent.Invalid")


async def test_unreadable_customer_is_refused(world: World) -> None:
    answer = await world.call(f"/accounts?{IDS}", **{"o3-psu-identifier": "%%%"})
    assert code_of(answer) == (400, "Consent.InvalidUserIdentifier")


async def test_suspended_account_shows_its_state_and_nothing_else(world: World) -> None:
    world.grant("hamad")
    suspended = "100500000002"
    found = await world.data(f"/accounts/{suspended}", username="hamad")
    assert found["data"]["status"] == "Suspended"
    answer = await world.call(f"/accounts/{suspended}/balances?{PAGE}", username="hamad")
    assert code_of(answer) == (403, "Consent.AccountTemporarilyBlocked")
    closed = await world.call(f"/accounts/100500000003/transactions?{PAGE}", username="hamad")
    assert code_of(closed) == (403, "Consent.PermanentAccountAccessFailure")


async def test_balance_is_opening_balance_plus_all_transactions(world: World) -> None:
    pages = [
        await world.data(f"/accounts/{A}/transactions?page={page}&page-size=100")
        for page in range(1, 9)
    ]
    lines = [line for page in pages for line in page["data"]]
    assert len(lines) == pages[0]["meta"]["totalRecords"] > 500
    assert pages[0]["meta"]["paginated"] is True
    total = sum(_minor(line["amount"]["amount"], line["creditDebitIndicator"]) for line in lines)
    balances = (await world.data(f"/accounts/{A}/balances?{PAGE}"))["data"]
    now = _minor(balances[0]["amount"]["amount"], balances[0]["creditDebitIndicator"])
    assert now == 1_250_000 + total
    assert lines[0]["balance"]["amount"] == balances[0]["amount"]


def _minor(text: str, indicator: str) -> int:
    value = round(float(text) * 100)
    return value if indicator == "Credit" else -value


async def test_transactions_of_a_span_are_inside_it(world: World) -> None:
    span = "fromBookingDateTime=2026-03-01T00:00:00Z&toBookingDateTime=2026-03-31T23:59:59Z"
    found = await world.data(f"/accounts/{A}/transactions?{span}&{PAGE}")
    times = [line["bookingDateTime"] for line in found["data"]]
    assert times
    assert all("2026-03-01" <= time[:10] <= "2026-03-31" for time in times)
    day = "fromBookingDateTime=2026-03-25&toBookingDateTime=2026-03-25"
    paid = await world.data(f"/accounts/{A}/transactions?{day}&{PAGE}")
    assert any("Payroll" in line.get("flags", []) for line in paid["data"])


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page-size=-1", "page=1&fromBookingDateTime=yesterday"]
)
async def test_parameter_that_makes_no_sense_is_refused(world: World, query: str) -> None:
    answer = await world.call(f"/accounts/{A}/transactions?{query}")
    assert code_of(answer) == (400, "Resource.InvalidFormat")


async def test_page_beyond_the_last_is_empty(world: World) -> None:
    found = await world.data(f"/accounts/{A}/transactions?page=999&page-size=100")
    assert found["data"] == []


async def test_only_foreign_transactions_where_the_consent_is_for_those(world: World) -> None:
    world.grant("layla")
    card = "100600000002"
    path = f"/accounts/{card}/transactions?page=1&page-size=1000"
    every = await world.data(path, username="layla")
    foreign = await world.data(path, username="layla", **{"o3-fx-transactions": "true"})
    assert 0 < len(foreign["data"]) < len(every["data"])
    assert all("currencyExchange" in line for line in foreign["data"])


async def test_statement_balances_follow_from_each_other_and_from_their_summary(
    world: World,
) -> None:
    found = await world.data(f"/accounts/{A}/statements?{PAGE}")
    newest_first = found["data"]["Statements"]
    assert len(newest_first) >= 23
    for later, earlier in itertools.pairwise(newest_first):
        assert later["OpeningBalance"] == earlier["ClosingBalance"]
    for one in newest_first:
        moved = sum(
            _minor(row["Amount"]["Amount"], row["CreditDebitIndicator"]) for row in one["Summary"]
        )
        opening, closing = (
            _minor(one[name]["Amount"]["Amount"], one[name]["CreditDebitIndicator"])
            for name in ("OpeningBalance", "ClosingBalance")
        )
        assert closing == opening + moved


async def test_statements_of_a_span(world: World) -> None:
    span = "fromStatementDate=2026-03-01&toStatementDate=2026-05-01"
    found = await world.data(f"/accounts/{A}/statements?{span}&{PAGE}")
    dates = [one["StatementDate"] for one in found["data"]["Statements"]]
    assert dates == ["2026-05-01", "2026-04-01", "2026-03-01"]


async def test_history_grows_when_the_clock_moves(world: World) -> None:
    path = f"/accounts/{A}/transactions?page=1&page-size=1"
    before = (await world.data(path))["meta"]["totalRecords"]
    world.clock.advance(30 * 86_400)
    after = (await world.data(path))["meta"]["totalRecords"]
    assert after > before + 10
    assert world.book.total() == 0


async def test_payee_query_names_the_holder_of_an_account_of_this_bank(world: World) -> None:
    account = world.book.account(A)
    assert account is not None

    async def ask(iban: str) -> Any:
        wanted = {"schemeName": "IBAN", "identification": iban, "name": {"fullName": "A"}}
        body = json.dumps({"data": {"account": wanted}}).encode()
        return (
            await world.data(
                f"/customers/action/cop-query?{PAGE}",
                method="POST",
                body=body,
                authorization=bearer(scope="confirmation-of-payee"),
            )
        )["data"]

    assert (await ask(account.iban))[0]["verifiedClaims"][0]["claims"]["fullName"] == "Aisha Rahman"
    assert await ask("AE070331234567890123456") == []


async def test_payee_query_without_an_account_is_refused(world: World) -> None:
    answer = await world.call(
        "/customers/action/cop-query",
        method="POST",
        body=b"[]",
        authorization=bearer(scope="payments"),
    )
    assert code_of(answer) == (400, "Body.InvalidFormat")


async def test_health_checks_say_how_far_the_caller_got(world: World) -> None:
    hello = await world.data("/hello", certificate=b"", authorization="")
    assert hello["mtlsStatus"] == "not-checked"
    assert (await world.call("/hello-mtls", certificate=b"")).status == 401
    assert (await world.call("/echo-cert", certificate=TPP_CERTIFICATE)).status == 401
    echoed = await world.data("/echo-cert", authorization="")
    assert HUB_ORG in echoed["clientCertificate"]["subject"]


async def test_unknown_operation_is_refused(world: World) -> None:
    assert (await world.call("/nothing")).status == 404
    assert (await world.call("/customer", method="DELETE")).status == 405


def _documents() -> dict[str, Path]:
    root = os.environ.get("HUB_SPECS", "../shared/reference/api-specs")
    return find_documents(Path(root) / "dist")


READS = (
    "/accounts/{accountId}",
    "/accounts/{accountId}/balances",
    "/accounts/{accountId}/transactions",
    "/accounts/{accountId}/direct-debits",
    "/accounts/{accountId}/scheduled-payments",
    "/accounts/{accountId}/standing-orders",
    "/accounts/{accountId}/customer",
    "/accounts/{accountId}/beneficiaries",
    "/accounts/{accountId}/products",
    "/accounts/{accountId}/statements",
)


@pytest.mark.specs
async def test_every_answer_about_accounts_is_as_the_official_document_says(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    document = read_document(_documents()["uae-ozone-connect-bank-data-sharing-openapi.yaml"])
    schemas = {
        key: jsonschema_rs.validator_for(op.bodies["200"]["application/json"])
        for key, op in document.operations.items()
    }
    assert len(schemas) == 13
    seen: set[tuple[str, str]] = set()

    async def check(template: str, path: str, username: str) -> None:
        found = await world.data(path, username=username)
        schemas["GET", template].validate(found)
        if found["data"]:
            seen.add(("GET", template))

    for customer in CUSTOMERS:
        world.grant(customer.username)
        for account_id in customer.accounts:
            world.book.set_status(account_id, "Active")
            for template in READS:
                path = template.replace("{accountId}", account_id)
                await check(template, f"{path}?page=1&page-size=1000", customer.username)
        ids = ",".join(customer.accounts)
        await check("/accounts", f"/accounts?accountIds={ids}&{PAGE}", customer.username)
        await check("/customer", "/customer", customer.username)
    assert len(seen) == 12


@pytest.mark.specs
async def test_payee_answers_and_refusals_are_as_the_official_document_says(world: World) -> None:
    document = read_document(_documents()["uae-ozone-connect-bank-data-sharing-openapi.yaml"])
    query = document.operations["POST", "/customers/action/cop-query"]
    validator = jsonschema_rs.validator_for(query.bodies["200"]["application/json"])
    for account_id in (A, "200100000001"):
        account = world.book.account(account_id)
        assert account is not None
        wanted = {"schemeName": "IBAN", "identification": account.iban, "name": {"fullName": "A"}}
        found = await world.data(
            f"/customers/action/cop-query?{PAGE}",
            method="POST",
            body=json.dumps({"data": {"account": wanted}}).encode(),
            authorization=bearer(scope="payments"),
        )
        assert found["data"]
        validator.validate(found)
    refusals = document.operations["GET", "/accounts"].bodies
    world.grant("aisha", A)
    for answer in (
        await world.call(f"/accounts?{IDS}"),
        await world.call(f"/accounts?{IDS}", certificate=b""),
        await world.call(f"/accounts?accountIds={A}&page=0"),
    ):
        schema = refusals[str(answer.status)]["application/json"]
        jsonschema_rs.validator_for(schema).validate(json.loads(answer.body))


@pytest.mark.specs
async def test_health_checks_are_as_the_official_document_says(world: World) -> None:
    document = read_document(_documents()["uae-ozone-connect-health-check-openapi.yaml"])
    for path in ("/hello", "/hello-mtls", "/echo-cert"):
        schema = document.operations["GET", path].bodies["200"]["application/json"]
        jsonschema_rs.validator_for(schema).validate(await world.data(path))
