"""The description says of each operation what the tables do: media types, headers, links, formats that every reader knows."""

import pytest

from hub.config import config_folder
from hub.contract.answers import beyond_the_last
from hub.contract.description import describe

BASE = "/open-finance"


@pytest.fixture(scope="module")
def paths():
    return describe(config_folder() / "contract", server="https://hub.example", version="1")[
        "paths"
    ]


def test_a_refusal_has_the_media_type_of_the_answer(paths):
    def media(path, method="get", status="400"):
        return set(paths[BASE + path][method]["responses"][status]["content"])

    assert media("/atm/v2.1/atms") == {"application/json"}
    assert media("/payment/v2.1/payments", "post") == {"application/jwt"}
    accounts = "/account-information/v2.1/accounts"
    assert media(accounts) == {"application/json", "application/jwt"}
    assert media("/payment/v2.1/file-payments/{PaymentId}/report") == {"application/jwt"}


def test_what_an_answer_always_carries_is_required(paths):
    answers = paths[f"{BASE}/payment/v2.1/payments"]["post"]["responses"]
    required = {
        s: {n for n, h in a.get("headers", {}).items() if h["required"]} for s, a in answers.items()
    }
    own = {"x-fapi-interaction-id"}
    assert required["201"] == own | {"Location"}
    assert required["401"] == own | {"WWW-Authenticate"}
    assert required["405"] == own | {"Allow"}
    assert required["429"] == own | {"Retry-After"}
    assert required["413"] == required["503"] == set()


def test_links_lead_from_a_list_to_what_is_below_it(paths):
    accounts = paths[f"{BASE}/account-information/v2.1/accounts"]["get"]["responses"]["200"]
    assert accounts["links"]["account-information.balances"] == {
        "operationId": "account-information.balances",
        "parameters": {"AccountId": "$response.body#/Data/Account/0/AccountId"},
    }
    made = paths[f"{BASE}/payment/v2.1/payments"]["post"]["responses"]["201"]
    assert "links" not in made
    where = made["x-links"]["payment.payment"]["parameters"]
    assert where == {"PaymentId": "$response.body#/Data/PaymentId"}


def test_formats_of_our_own_are_spelt_out(paths):
    assert not {"date-or-time", "url"} & set(formats(paths))
    found = paths[f"{BASE}/product/v2.1/products"]["get"]["parameters"]
    schema = next(p["schema"] for p in found if p["name"] == "LastUpdatedDateTime")
    assert schema["anyOf"] == [{"format": "date"}, {"format": "date-time"}]


def formats(value):
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == "format" and isinstance(v, str))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from formats(inner)


def test_a_page_beyond_the_last_may_be_empty():
    rows = {"$list": "str", "$size": "1..7"}
    told = beyond_the_last({"Data!": {"Rows!": rows, "Other": rows}, "Links!": {"Rows": rows}})
    empty = {"$list": "str", "$size": "0..7"}
    assert told == {"Data!": {"Rows!": empty, "Other": empty}, "Links!": {"Rows": rows}}
