"""Products, leads, ATMs and confirmation of payee."""

import random
import time
from typing import Any

import orjson
import pytest

from hub.gateway.names import best_match, fold, indicator, masked, similarity
from hub.gateway.payee import Endpoints, is_iban
from hub.protocol.jose import PublicKey, parse, sign
from tests.gateway.test_reads import code_of
from tests.gateway.world import BASE, CLIENT, KEY, NOW, World, answer_of, client_token, contract

PRODUCT = "/open-finance/product/v2.1"
PAYEE = "/open-finance/confirmation-of-payee/v2.1"
IP = {b"x-fapi-customer-ip-address": b"192.0.2.1"}
IBAN = "AE070331234567890123456"
LEAD = {
    "Email": "a@example.com", "EmiratesId": "784-1980-1234567-9", "MarketingOptOut": True,
    "Name": {"GivenName": "A", "LastName": "B"}, "ProductCategories": ["Finance"],
}  # fmt: skip


async def client_world(
    scope: str, roles: tuple[str, ...] = ("BDSP", "BSIP"), **switches: Any
) -> World:
    """Start a world with a client-credentials token of that scope."""
    world = await World(**switches).start(scope=scope, **client_token())
    world.trust.roles = roles
    world.trust.keys["sig-1"] = PublicKey(kid="sig-1", use="sig", key=KEY.key.public_key())
    return world


async def test_products_are_asked_for_with_the_customers_address():
    world = await client_world("products")
    query = "IsShariaCompliant=true&LastUpdatedDateTime=2026-01-01"
    response = await world.send("GET", f"{PRODUCT}/products", query, IP)
    assert response.status == 200
    [call] = world.bank.calls
    assert call.family == "products"
    assert call.query == f"{query}&page=1&page-size=100"
    assert (b"x-fapi-customer-ip-address", b"192.0.2.1") in call.headers
    assert b"o3-consent-id" not in dict(call.headers)


@pytest.mark.parametrize(
    "query", ["IsShariaCompliant=maybe", "SortOrder=up", "ProductCategory=Boat"]
)
async def test_a_bad_filter_is_refused(query):
    world = await client_world("products")
    response = await world.send("GET", f"{PRODUCT}/products", query, IP)
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")


async def test_products_without_the_customers_address_are_refused():
    world = await client_world("products")
    response = await world.send("GET", f"{PRODUCT}/products")
    assert (response.status, code_of(response.body)) == (400, "Resource.InvalidFormat")


async def test_products_want_their_scope():
    world = await client_world("openid accounts")
    assert (await world.send("GET", f"{PRODUCT}/products", headers=IP)).status == 403


async def test_a_user_token_is_not_for_products():
    world = await World().start(scope="products")
    assert (await world.send("GET", f"{PRODUCT}/products", headers=IP)).status == 403


async def test_a_lead_reaches_the_bank_in_its_own_envelope():
    world = await client_world("products")
    world.bank.answer = answer_of({"data": {**LEAD, "LeadId": "l-1"}}, 201)
    lead = lead_body()
    response = await world.send(
        "POST", f"{PRODUCT}/leads", headers=IP | {b"content-type": b"application/json"}, body=lead
    )
    assert response.status == 201, response.body
    assert orjson.loads(response.body)["Data"]["LeadId"] == "l-1"
    sent = orjson.loads(world.bank.calls[0].body)
    assert sent == {"data": orjson.loads(lead)["Data"]}
    assert (b"content-type", b"application/json") in world.bank.calls[0].headers
    assert not world.bank.calls[0].repeatable


def lead_body(**changes: Any) -> bytes:
    """Make a lead that the contract accepts."""
    data = {**LEAD, **changes}
    return orjson.dumps({"Data": data})


async def test_a_lead_off_schema_never_reaches_the_bank():
    world = await client_world("products")
    response = await world.send(
        "POST",
        f"{PRODUCT}/leads",
        headers=IP | {b"content-type": b"application/json"},
        body=lead_body(Email="canary"),
    )
    assert (response.status, code_of(response.body)) == (400, "Body.InvalidFormat")
    assert b"$.Data.Email" in response.body
    assert b"canary" not in response.body
    assert world.bank.calls == []


async def test_atms_are_open_to_every_client():
    world = await client_world("atm", roles=("ISP",))
    meta = {"LastUpdatedDateTime": "2026-01-01T00:00:00Z", "TotalRecords": 0}
    world.bank.answer = answer_of({"data": [], "meta": meta})
    response = await world.send("GET", "/open-finance/atm/v2.1/atms")
    assert (response.status, world.bank.calls[0].path) == (200, "/atm")
    assert orjson.loads(response.body)["Meta"] == meta


def question(name: Any, iban: str = IBAN) -> bytes:
    """Sign a payee question."""
    data = {"SchemeName": "IBAN", "Identification": iban, **({"Name": name} if name else {})}
    claims = {"iss": CLIENT, "aud": BASE, "nbf": NOW, "exp": NOW + 60, "message": {"Data": data}}
    return sign(orjson.dumps(claims), KEY).encode()


async def ask(world: World, operation: str, body: bytes):
    """Send a signed question."""
    headers = {b"content-type": b"application/jwt"}
    return await world.send("POST", f"{PAYEE}/{operation}", headers=headers, body=body)


def customers(*names: str) -> Any:
    """Make the bank's customers of these full names."""
    claims = [{"verifiedClaims": [{"claims": {"fullName": n}}], "id": "1"} for n in names]
    return answer_of({"data": claims})


@pytest.mark.parametrize(
    ("held", "word", "mask"),
    [
        ("Ibrahim Ali Saleh", "Yes", None),
        ("Ibrahim Ahmed Saleh", "Partial", "Ib***** Ah*** Sa***"),
        ("Fatima Noor", "No", "Fa**** No**"),
    ],
)
async def test_a_payees_name_is_compared_by_the_hub(held, word, mask):
    world = await client_world("confirmation-of-payee")
    world.bank.answer = customers(held)
    response = await ask(world, "confirmation", question({"FullName": "Mr. IBRAHIM Ali Saleh"}))
    message = parse(response.body).claims["message"]
    assert response.status == 200
    assert message["Data"]["NameMatchIndicator"] == f"ConfirmationOfPayee.{word}"
    assert message["Data"].get("MaskedName") == mask
    assert contract().check_answer("confirmation-of-payee.confirmation", message) is None
    [call] = world.bank.calls
    assert orjson.loads(call.body) == {
        "data": {
            "account": {
                "schemeName": "IBAN",
                "identification": IBAN,
                "name": {"fullName": "Mr. IBRAHIM Ali Saleh"},
            }
        }
    }
    assert b"o3-psu-identifier" not in dict(call.headers)


@pytest.mark.parametrize(("body", "status"), [(question({"FullName": "A B"}), 200), (b"e30", 400)])
async def test_a_signed_answer_about_a_payee_has_its_client_as_one_string(body, status):
    world = await client_world("confirmation-of-payee")
    world.bank.answer = customers("A B")
    response = await ask(world, "confirmation", body)
    assert (response.status, parse(response.body).claims["aud"]) == (status, CLIENT)


async def test_a_payee_is_looked_for_on_the_first_page_whatever_the_tpp_asks():
    world = await client_world("confirmation-of-payee")
    world.bank.answer = customers("A B")
    headers = {b"content-type": b"application/jwt", b"page": b"2", b"page-size": b"1"}
    body = question({"FullName": "A B"})
    path = f"{PAYEE}/confirmation"
    response = await world.send("POST", path, "page=3", headers, body=body)
    assert response.status == 200
    assert world.bank.calls[0].query == "page=1&page-size=100"


async def test_an_account_the_bank_does_not_have_is_204():
    world = await client_world("confirmation-of-payee")
    response = await ask(world, "confirmation", question({"FullName": "A B"}))
    assert (response.status, response.body) == (204, b"")


async def test_a_payee_question_must_be_signed():
    world = await client_world("confirmation-of-payee")
    headers = {b"content-type": b"application/json"}
    response = await world.send("POST", f"{PAYEE}/confirmation", headers=headers, body=b"{}")
    assert response.status == 415


async def test_discovery_knows_a_bank_by_its_code():
    world = await client_world("confirmation-of-payee")
    known = {
        "033": Endpoints(
            "https://bank.example/.well-known/openid-configuration", "https://rs.example"
        )
    }

    async def directory(code):
        return known.get(code)

    world.gateway._directory = directory
    response = await ask(world, "discovery", question(None))
    data = parse(response.body).claims["message"]["Data"]
    assert data["ResourceServerUrl"] == "https://rs.example"
    assert world.bank.calls == []


async def test_discovery_of_an_unknown_bank_is_404():
    world = await client_world("confirmation-of-payee")
    response = await ask(world, "discovery", question(None))
    assert (response.status, response.body) == (404, b"")


@pytest.mark.parametrize("iban", ["AE070331234567890123457", "GB33BUKB20201555555555", "AE07"])
async def test_discovery_of_what_is_no_iban_is_refused(iban):
    world = await client_world("confirmation-of-payee")
    response = await ask(world, "discovery", question(None, iban))
    assert response.status == 400
    assert not is_iban(iban)


@pytest.mark.parametrize(
    ("one", "two", "word"),
    [
        ("Ahmed Ali", "ALI, Ahmed", "Yes"),
        ("José Pérez", "Jose Perez", "Yes"),
        ("Abdul Rahman Saeed", "Abdulrahman Saeed", "Yes"),
        ("محمد أحمد", "محمد احمد", "Yes"),
        ("فاطمة علي", "فاطمه على", "Yes"),
        ("الشيخ محمد بن راشد", "محمد بن راشد", "Yes"),
        ("عبد الرحمن سعيد", "عبدالرحمن سعيد", "Yes"),
        ("فاطمة علي", "ﻓﺎﻃﻤﺔ ﻋﻠﻰ", "Yes"),
        ("كريم يوسف", "کریم یوسف", "Yes"),
        ("Al Maktoum", "Almaktoum", "Yes"),
        ("Mohammed Ahmed", "Mohamed Ahmed", "Yes"),
        ("Acme Trading LLC", "ACME TRADING", "Yes"),
        ("Ahmed Ali Hassan", "Ahmed Hassan", "Partial"),
        ("Sara Khan", "Sarah Kahn", "Partial"),
        ("Sara Khan", "Omar Farouk", "No"),
        ("", "Omar", "No"),
        ("محمد", "Omar", "No"),
    ],
)
def test_names_match_as_people_write_them(one, two, word):
    assert indicator(similarity(one, two)) == f"ConfirmationOfPayee.{word}"
    assert similarity(one, two) == pytest.approx(similarity(two, one))


def test_the_best_of_several_names_counts():
    assert best_match("Ahmed Ali", ["Omar", "Ahmed Ali"]) == (1.0, "Ahmed Ali")
    assert best_match("Ahmed", []) == (0.0, "")


def test_names_made_to_hurt_cost_little():
    squared = "\N{SQUARE KIROGURAMU}\N{SQUARE KIROMEETORU}\N{SQUARE GURAMU}"
    dice = random.Random(7)
    letters = ["".join(dice.choices("ab", k=140)) for _ in range(1000)]
    for given, held in ((squared * 46, [squared[::-1] * 46] * 1000), (letters[0], letters[1:])):
        began = time.thread_time()
        best_match(given, held)
        assert time.thread_time() - began < 2.0


async def test_a_tenant_says_from_where_on_a_name_matches():
    strict = {"payee_yes": 1.0, "payee_partial": 0.99}
    world = await client_world("confirmation-of-payee", **strict)
    world.bank.answer = customers("Mohamed Ahmed")
    response = await ask(world, "confirmation", question({"FullName": "Mohammed Ahmed"}))
    data = parse(response.body).claims["message"]["Data"]
    assert data["NameMatchIndicator"] == "ConfirmationOfPayee.No"
    assert data["MaskedName"] == "Mo***** Ah***"


def test_a_mask_shows_two_letters_of_long_words():
    assert masked("Ibrahim bin Al") == "Ib***** b** A*"


def test_a_name_of_titles_only_is_still_a_name():
    assert fold("Sheikh").words == ("sheikh",)
