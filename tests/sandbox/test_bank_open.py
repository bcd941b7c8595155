"""Products, leads, cash machines, and what the Hub asks and tells of consents."""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from hub.contract.official import find_documents, read_document
from hub.sandbox.site import SiteResponse
from tests.sandbox.bank_world import (
    CONSENT,
    World,
    account_access,
    bearer,
    code_of,
    payment_consent,
)

PAGE = "page=1&page-size=100"
IP = {"x-fapi-customer-ip-address": "203.0.113.7"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def products(world: World, query: str = PAGE, **headers: str) -> SiteResponse:
    token = bearer(scope="products")
    return await world.call(f"/products?{query}", authorization=token, **(headers or IP))


def names(answer: SiteResponse) -> list[str]:
    data = json.loads(answer.body)["data"]
    return [product["ProductId"] for row in data for product in row["Products"]]


async def test_products_are_filtered_and_sorted(world: World) -> None:
    assert names(await products(world)) == ["business", "card", "everyday", "saver"]
    assert names(await products(world, "ProductCategory=CreditCard")) == ["card"]
    assert names(await products(world, "IsShariaCompliant=true")) == ["saver"]
    assert names(await products(world, "LastUpdatedDateTime=2026-03-01T00:00:00Z")) == [
        "everyday",
        "saver",
    ]
    assert names(await products(world, "SortOrder=desc&SortField=ProductId"))[0] == "saver"


async def test_products_without_the_customers_address_are_refused(world: World) -> None:
    token = bearer(scope="products")
    answer = await world.call(f"/products?{PAGE}", authorization=token)
    assert code_of(answer) == (400, "Resource.InvalidFormat")


LEAD = {
    "Email": "a@post.example",
    "Name": {"FullName": "A Person"},
    "EmiratesId": "784-1990-0000000-0",
    "MarketingOptOut": True,
    "ProductCategories": ["CreditCard"],
}


async def lead(world: World, data: Any) -> SiteResponse:
    return await world.call(
        "/leads",
        method="POST",
        body=json.dumps({"data": data}).encode(),
        authorization=bearer(scope="products"),
        **IP,
    )


async def test_lead_is_taken_and_gets_an_id(world: World) -> None:
    answer = await lead(world, LEAD)
    assert answer.status == 201
    data = json.loads(answer.body)["data"]
    assert {k: v for k, v in data.items() if k != "LeadId"} == LEAD
    assert code_of(await lead(world, {}))[0] == 400


async def consent_call(world: World, path: str, record: Any) -> SiteResponse:
    return await world.call(
        path,
        method="POST",
        body=json.dumps(record).encode(),
        authorization=bearer(scope="consents"),
    )


async def verdict(world: World, record: Any) -> dict[str, Any]:
    answer = await consent_call(world, "/consent/action/validate", record)
    assert answer.status == 200
    return json.loads(answer.body)["data"]


async def test_consent_that_can_be_served_is_valid(world: World) -> None:
    assert await verdict(world, account_access()) == {"status": "valid"}
    assert await verdict(world, payment_consent()) == {"status": "valid"}


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (account_access(AccountSubType=["Mortgage"]), "Consent.Invalid"),
        ({**account_access(), "standardVersion": "v1.2"}, "Consent.Invalid"),
        ({**account_access(), "consentType": "cbuae-fx-consents"}, "Consent.Invalid"),
        (
            {
                **payment_consent(),
                "request": {"consent": {"PersonalIdentifiableInformation": "a.b.c.d.e"}},
            },
            "JWE.DecryptionError",
        ),
        (
            {**payment_consent(), "request": {"consent": {"CurrencyRequest": {}}}},
            "Consent.Invalid",
        ),
    ],
    ids=["accounts", "version", "kind", "sealed", "currency"],
)
async def test_consent_that_cannot_be_served_is_invalid(
    world: World, record: Any, code: str
) -> None:
    found = await verdict(world, record)
    assert (found["status"], found["code"]) == ("invalid", code)


async def test_events_are_noted(world: World) -> None:
    record = {**account_access(), "status": "Revoked"}
    assert (await consent_call(world, "/consent/event/patch", record)).status == 204
    (event,) = world.bank.consents.events
    assert (event.operation, event.consent_id, event.status) == ("patch", CONSENT, "Revoked")
    assert (await consent_call(world, "/consent/event/other", record)).status == 400


@pytest.mark.specs
async def test_answers_are_as_the_official_documents_say(world: World) -> None:
    root = Path(os.environ.get("HUB_SPECS", "../shared/reference/api-specs")) / "dist"
    documents = find_documents(root)

    def check(document: str, method: str, path: str, answer: SiteResponse) -> None:
        found = read_document(documents[f"uae-ozone-connect-{document}-openapi.yaml"])
        schema = found.operations[method, path].bodies[str(answer.status)]["application/json"]
        jsonschema_rs.validator_for(schema).validate(json.loads(answer.body))

    check("bank-products-data", "GET", "/products", await products(world))
    check("bank-products-data", "POST", "/leads", await lead(world, LEAD))
    atm = await world.call("/atm", authorization=bearer(scope="atm"))
    check("bank-open-data", "GET", "/atm", atm)
    for action in ("validate", "augment"):
        path = f"/consent/action/{action}"
        answer = await consent_call(world, path, account_access())
        check("consent-events-actions", "POST", path, answer)
