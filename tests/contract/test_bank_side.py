"""The description of the bank's side: every operation that is served, and lawful schemas."""

import jsonschema_rs
import pytest

from hub.config import config_folder
from hub.contract.bank_side import describe_bank_side, read_bank_side
from tests.lfi.desk import Desk

FOLDER = config_folder() / "contract"
HEIMDALL = {
    ("GET", "/auth"),
    ("POST", "/auth/{interactionId}/doConfirm"),
    ("POST", "/auth/{interactionId}/doFail"),
}


@pytest.fixture(scope="module")
def document():
    return describe_bank_side(FOLDER, server="https://hub.example", version="1")


def test_every_operation_of_the_bank_is_described(tmp_path):
    desk = Desk(tmp_path)
    served = set(desk.routes)
    desk.observer.close()
    described = {(o.method, o.path) for o in read_bank_side(FOLDER).values()}
    assert described == served | HEIMDALL


def test_every_schema_is_lawful(document):
    schemas = document["components"]["schemas"]
    assert schemas
    for name, schema in schemas.items():
        assert jsonschema_rs.meta.is_valid(schema), name
        # Raises where a reference leads nowhere.
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole)


def test_a_link_leads_to_an_operation_that_has_the_parameter(document):
    operations = {o["operationId"]: o for p in document["paths"].values() for o in p.values()}
    led = set()
    for operation in operations.values():
        for link in operation["responses"].get("200", {}).get("links", {}).values():
            names = {p["name"] for p in operations[link["operationId"]]["parameters"]}
            assert set(link["parameters"]) <= names
            led.add(link["operationId"])
    assert len(led) == 10


def test_only_an_operation_that_hands_the_customer_back_redirects(document):
    redirecting = {
        path for path, item in document["paths"].items() for o in item.values() if "303" in o["responses"]
    }  # fmt: skip
    assert redirecting == {path for _, path in HEIMDALL}
