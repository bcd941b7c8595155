"""Each operation of the gateway over the wire: the lawful call, and everything that must be refused; from the contract's rows."""

import os
from pathlib import Path

import jsonschema_rs
import pytest
import trio

from hub.config import config_folder
from hub.contract.official import Document, find_documents, plain_body, read_document
from hub.contract.tables import Row, read_rows
from hub.model.route import Signing, TokenKind
from tests.wire.operations import CASES, Known, call, code_in, message_of, prepare
from tests.wire.world import ROOT

pytestmark = [pytest.mark.wire, pytest.mark.specs]
SPECS = Path(os.environ.get("HUB_SPECS", ROOT / "../shared/reference/api-specs"))
DOCUMENTS = {
    "account-information": "uae-account-information-openapi.yaml",
    "payment": "uae-bank-initiation-openapi.yaml",
    "product": "uae-product-openapi.yaml",
    "atm": "uae-atm-openapi.yaml",
    "confirmation-of-payee": "uae-confirmation-of-payee-openapi.yaml",
}
ROWS = {
    row.route.id: row
    for row in read_rows(config_folder() / "contract/routes")
    if row.route.family in DOCUMENTS
}
RAW = {"payment.file-payment.report": "text/csv"}
EMPTY = {
    "account-information.account-access-consent.patch",
    "payment.payment-consent.patch",
    "payment.file",
}


@pytest.fixture(scope="module")
def known(sandbox) -> Known:
    """Prepare consents, tokens and one payment."""
    return trio.run(prepare, sandbox)


@pytest.fixture(scope="module")
def documents() -> dict[str, Document]:
    """Read the official documents of the families, repaired."""
    found = find_documents(SPECS / "dist/standards")
    return {family: read_document(found[name]) for family, name in DOCUMENTS.items()}


def problems(documents, row: Row, key: str, value) -> list[str]:
    """Return what the official document says against a body."""
    operation = documents[row.route.family].operations[row.route.method, row.template]
    schema = plain_body(operation, key)
    assert schema is not None, f"{row.route.id} declares no body for {key}"
    validator = jsonschema_rs.Draft7Validator(schema, validate_formats=True)
    return [f"{list(e.instance_path)}: {e.message[-300:]}" for e in validator.iter_errors(value)]


async def lawful(tpp, known, row: Row, **changes):
    """Send the lawful call with some of its parts changed."""
    case, route = CASES[row.route.id], row.route
    path = route.path
    for name, value in changes.pop("path", case.path(known)).items():
        path = path.replace("{" + name + "}", value)
    sent = {
        "query": case.query(known),
        "headers": case.headers(known),
        "body": case.body(known, tpp) if case.body is not None else None,
        "signed": route.request_signing is not Signing.NEVER,
        "content": case.content,
    }
    token = changes.pop("token", None) or case.token(known)
    return await call(tpp, route.method, path, token, **{**sent, **changes})


def some(wanted) -> list:
    return [pytest.param(row, id=name) for name, row in ROWS.items() if wanted(row, CASES[name])]


def test_every_operation_has_a_case():
    assert CASES.keys() == ROWS.keys()


def refusal(documents, known, row, answer, status: int, code: str) -> None:
    """Expect one refusal, with a body as the official document has it, or without one."""
    assert (answer.status, code_in(answer, known)) == (status, code), message_of(answer, known)
    if status in {400, 403, 409}:
        assert problems(documents, row, str(status), message_of(answer, known)) == []
    else:
        assert answer.body == b""


@pytest.mark.parametrize("row", some(lambda r, _c: r.route.token is not TokenKind.EITHER))
async def test_the_wrong_kind_of_token_is_refused(tpp, known, documents, row):
    scope = "openid payments" if row.route.family == "payment" else "openid accounts"
    wrong = known.clients[scope] if row.route.token is TokenKind.USER else known.user
    answer = await lawful(tpp, known, row, token=wrong)
    refusal(documents, known, row, answer, 403, "AccessToken.InvalidScope")


@pytest.mark.parametrize("row", some(lambda _r, _c: True))
async def test_a_token_without_the_scope_is_refused(tpp, known, documents, row):
    if row.route.token is TokenKind.USER:
        wrong = known.user if row.route.family == "payment" else known.payable[1]
    else:
        wrong = known.clients["products" if row.route.family == "atm" else "atm"]
    answer = await lawful(tpp, known, row, token=wrong)
    refusal(documents, known, row, answer, 403, "AccessToken.InvalidScope")


@pytest.mark.parametrize("row", some(lambda _r, c: c.poor is not None))
async def test_a_consent_without_the_permission_is_refused(tpp, known, documents, row):
    token, path = CASES[row.route.id].poor(known)
    answer = await lawful(tpp, known, row, token=token, path=path)
    refusal(documents, known, row, answer, 403, "AccessToken.InvalidScope")


def test_every_permission_is_withheld_once():
    told = {name for name, row in ROWS.items() if row.route.permissions}
    assert {name for name, case in CASES.items() if case.poor} == told


@pytest.mark.parametrize("row", some(lambda _r, c: c.foreign is not None))
async def test_what_belongs_to_somebody_else_is_refused_like_what_does_not_exist(
    tpp, other_tpp, known, documents, row
):
    case = CASES[row.route.id]
    token, path = case.foreign(known)
    actor = other_tpp if token in known.foreign.values() else tpp
    answer = await lawful(actor, known, row, token=token, path=path)
    status, code = case.refused
    if status == 200:
        message = message_of(answer, known)
        assert (answer.status, message) == (200, [])
        return
    refusal(documents, known, row, answer, status, code)
    if "ConsentId" not in path:
        return
    absent = dict.fromkeys(path, "6f9619ff-8b86-4011-b42d-00c04fc964ff")
    unknown = await lawful(actor, known, row, token=token, path=absent)
    assert (unknown.status, code_in(unknown, known)) == (status, code)


@pytest.mark.parametrize("row", some(lambda _r, _c: True))
async def test_a_malformed_interaction_id_is_refused(tpp, known, documents, row):
    headers = {**CASES[row.route.id].headers(known), "x-fapi-interaction-id": "not-a-uuid"}
    answer = await lawful(tpp, known, row, headers=headers)
    refusal(documents, known, row, answer, 400, "Resource.InvalidFormat")


@pytest.mark.parametrize(
    "row", some(lambda r, c: (r.route.paged and r.route.method == "GET") or c.bad_query)
)
async def test_a_bad_parameter_is_refused(tpp, known, documents, row):
    bad = CASES[row.route.id].bad_query or {"page": "0"}
    answer = await lawful(tpp, known, row, query=bad)
    refusal(documents, known, row, answer, 400, "Resource.InvalidFormat")


@pytest.mark.parametrize("row", some(lambda r, _c: r.route.idempotent))
async def test_a_missing_idempotency_key_is_refused(tpp, known, documents, row):
    answer = await lawful(tpp, known, row, headers={})
    refusal(documents, known, row, answer, 400, "Resource.InvalidFormat")


@pytest.mark.parametrize("row", some(lambda _r, c: c.broken is not None))
async def test_a_bad_body_is_refused(tpp, known, documents, row):
    case = CASES[row.route.id]
    body = case.broken(case.body(known, tpp))
    assert problems(documents, row, "request", body) != []
    answer = await lawful(tpp, known, row, body=body)
    refusal(documents, known, row, answer, 400, "Body.InvalidFormat")
    typed = {**case.headers(known), "content-type": "text/plain"}
    answer = await lawful(tpp, known, row, headers=typed)
    refusal(documents, known, row, answer, 415, "")
    signed = row.route.request_signing is Signing.ALWAYS
    typed["content-type"] = "application/jwt" if signed else "application/json"
    answer = await lawful(tpp, known, row, headers=typed, body=None, content="{nonsense")
    malformed = "JWS.Malformed" if signed else "Body.InvalidFormat"
    refusal(documents, known, row, answer, 400, malformed)


async def test_discovery_of_a_bank_that_has_left_or_never_joined_finds_nothing(tpp, known):
    row = ROWS["confirmation-of-payee.discovery"]
    for iban in ("AE029910000100100000001", "AE070331234567890123456"):
        body = {"Data": {"SchemeName": "IBAN", "Identification": iban}}
        answer = await lawful(tpp, known, row, body=body)
        assert (answer.status, answer.body) == (404, b""), iban


@pytest.mark.parametrize("row", some(lambda _r, _c: True))
async def test_a_lawful_call_is_answered_as_the_official_document_wants(tpp, known, documents, row):
    """Runs last: it uses up and revokes what the refusals stood on."""
    case = CASES[row.route.id]
    if case.body is not None:
        assert problems(documents, row, "request", case.body(known, tpp)) == []
    answer = await lawful(tpp, known, row)
    assert answer.status == row.route.success, (answer.status, answer.body[:600])
    assert answer.headers["x-fapi-interaction-id"]
    if row.route.id in EMPTY:
        assert answer.body == b""
        return
    if row.route.id in RAW:
        assert answer.headers["content-type"] == RAW[row.route.id]
        assert known.file_payment_id.encode() in answer.body
        return
    always = row.route.response_signing is Signing.ALWAYS
    assert answer.headers["content-type"].startswith("application/jwt") is always
    assert problems(documents, row, str(answer.status), message_of(answer, known)) == []
