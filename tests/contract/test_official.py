"""Our contract against the official documents, judged by an independent validator."""

import os

import jsonschema_rs
import msgspec
import pytest

from hub.contract import Context
from hub.contract.official import find_documents, read_document
from hub.contract.validators import is_uuid
from hub.gateway.payment_view import as_file
from hub.model.fault import Fault
from tests.contract.instances import Maker, UnmakeableError

pytestmark = pytest.mark.specs
COUNT = int(os.environ.get("HUB_INSTANCES", "50"))


def test_every_mapped_answer_is_lawful_for_the_tpp(official, contract):
    """A lawful bank answer becomes a lawful TPP answer, or is refused because it cannot become one."""
    mapped, unlawful = 0, []
    for row in contract.rows:
        if not row.route.mapper:
            continue
        given = official[row.bank_schemas].get(f"{row.bank_site} 200")
        given = given or official[row.bank_schemas][f"{row.bank_site} 201"]
        wanted = official[row.schemas][f"{row.site} {row.route.success}"]
        judge_answer = jsonschema_rs.Draft7Validator(wanted, validate_formats=True)
        judge_given = jsonschema_rs.Draft7Validator(given, validate_formats=True)
        passed = 0
        for number in range(COUNT):
            value = Maker(number).make(given, full=(0, 0.5, 1)[number % 3])
            if not judge_given.is_valid(value):
                continue
            if "file-payment" in row.route.id:
                value = {**value, "data": as_file(value["data"])}
            context = context_of(row.route, value)
            answer = contract.mapper(row.route.mapper)(value, context)
            if isinstance(answer, Fault):
                assert answer.check == "bank.unmappable"
                continue
            passed += 1
            errors = [e.message for e in judge_answer.iter_errors(answer)]
            unlawful += [(row.route.id, e[-100:]) for e in errors if e != EMPTY_BALANCES]
        assert passed > 0, row.route.id
        mapped += passed
    print(f"{mapped} answers mapped")
    assert set(unlawful) == set()


def context_of(route, value):
    """Return what the gateway knows of a call and the bank does not say."""
    if route.handler.startswith("payment.") and "file-payment" not in route.id:
        if isinstance(value.get("data", {}).get("currencyRequest"), dict):
            value["data"]["currencyRequest"].setdefault("extendedPurpose", "from the request")
        extra = {
            "ConsentId": "c",
            "Instruction": {"Amount": {"Amount": "1.00", "Currency": "AED"}},
            "OpenFinanceBilling": {"Type": "PushP2P"},
        }
        return msgspec.structs.replace(CONTEXT, extra=extra, related="https://hub.example/y")
    if "file-payment" in route.id:
        file = {"FileType": "t", "FileHash": "h", "NumberOfTransactions": 1, "ControlSum": "1.00"}
        extra = {"ConsentId": "c", "Instruction": file}
        return msgspec.structs.replace(CONTEXT, extra=extra, related="https://hub.example/y")
    extra = {"ConsentId": "c"} if route.consent_parameter else {}
    return msgspec.structs.replace(CONTEXT, extra=extra)


CONTEXT = Context(
    url="https://hub.example/x",
    account_id="acc-1",
    extra={},
    related=[],
)
EMPTY_BALANCES = "[] has less than 1 item"
"""The one listed difference: an account without balances is answered with an empty list (DIFFERENCES.md)."""


def test_the_newest_erratum_of_a_document_wins(specs):
    documents = find_documents(specs)
    assert documents["uae-account-information-openapi.yaml"].parent.name == "v2.1-errata2"
    assert documents["uae-product-openapi.yaml"].parent.name == "v2.1"


def test_what_no_instance_could_satisfy_is_repaired_and_reported(specs):
    document = read_document(find_documents(specs)["uae-account-information-openapi.yaml"])
    assert len(document.repairs) == 13
    assert all("application/jwt" in repair for repair in document.repairs)


def test_the_answer_to_a_refresh_fits_two_alternatives_of_the_official_schema(official):
    """The listed difference: as published, no answer to a refresh is lawful."""
    schema = official["authorization"]["POST /token 200"]
    alternatives = [jsonschema_rs.Draft7Validator(inner) for inner in schema["oneOf"]]
    full = Maker(1).make(schema["oneOf"][1], full=1)
    refreshed = {name: value for name, value in full.items() if name != "refresh_token"}
    assert [a.is_valid(refreshed) for a in alternatives] == [True, True, False]
    assert not jsonschema_rs.Draft7Validator(schema).is_valid(refreshed)


def test_the_makers_patterns_cover_what_the_documents_use(official):
    missing = set()
    for sites in official.values():
        for schema in sites.values():
            try:
                Maker(0).make(schema, full=1)
            except UnmakeableError as error:
                missing.add(str(error))
    assert missing == set()


def test_a_uuid_is_judged():
    assert is_uuid("6f9619ff-8b86-4011-b42d-00c04fc964ff")
    assert not is_uuid("6f9619ff8b864011b42d00c04fc964ff")
