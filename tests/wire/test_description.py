"""Our own OpenAPI description: served, lawful, true: an outside generator of requests that reads it finds no contradiction."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
import trio

from bench.evidence import append
from hub.config import config_folder
from hub.contract.bank_side import read_bank_side
from hub.contract.tables import is_served, read_rows
from tests.separate import interpreter
from tests.wire.operations import (
    CLIENT_SCOPES,
    EVERY_PERMISSION,
    Known,
    account_consent,
    client_token,
    payment_consents,
    prepare,
)
from tests.wire.world import ROOT, actor

pytestmark = pytest.mark.wire
SEED = 7
EXAMPLES = int(os.environ.get("HUB_EXAMPLES", "100"))
"""Of each operation, nightly."""
NOT_ASKED = {
    "positive_data_acceptance": "what is well-formed may be refused: an id that nobody has, a consent in another state, a "
    "file that is not the announced one; the standard wants 400 for these, which the check takes for a contradiction",
    "object_level_authorization": "wants two identities in a file of its own and does nothing without; "
    "test_operations calls every operation for somebody else's resource",
}
"""Checks of the generator that say nothing here; all others are on."""


@pytest.fixture(scope="module")
def known(sandbox) -> Known:
    """Prepare tokens of both kinds."""
    return trio.run(prepare, sandbox)


@pytest.fixture(scope="module")
def description(sandbox) -> dict:
    """Read the description from the ops listener."""
    answer = httpx.get(f"{sandbox.manifest.hub.ops_base}/openapi.json", trust_env=False)
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture(scope="session")
def schemathesis() -> list[str]:
    """Install the locked packages once in an environment of its own; return the command that runs its program."""
    python = interpreter("schemathesis")
    # Not bin/schemathesis: that names the folder it was installed into, which may have moved since.
    return [python, "-m", "schemathesis.cli"]


def test_every_operation_is_described_and_every_schema_is_lawful(description):
    described = {
        operation["operationId"]
        for methods in description["paths"].values()
        for operation in methods.values()
    }
    rows = read_rows(config_folder() / "contract/routes")
    assert described == {row.route.id for row in rows if is_served(row)}
    for name in description["components"]["schemas"]:
        schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
        jsonschema_rs.Draft202012Validator(schema)


class Side(msgspec.Struct, frozen=True):
    """Say who calls the Hub where: a TPP with a token, or the bank without one."""

    base: str
    caller: Any
    token: str = ""

    def headers(self):
        """Return the options that add what the generator does not know."""
        if not self.token:
            return []
        return [
            "--header", f"Authorization: Bearer {self.token}", "--header", "x-fapi-customer-ip-address: 192.0.2.1",
        ]  # fmt: skip


def run(schemathesis, sandbox, where, side, operations, *options):
    """Let the generator loose on the operations whose ids match; it signs bodies and reads signed answers."""
    folder = sandbox.folder
    how = [
        "run", str(where), "--url", side.base,
        "--checks", "all", "--exclude-checks", ",".join(NOT_ASKED), "--seed", str(SEED), "--no-color",
        "--continue-on-failure", "--suppress-health-check", "all",
        *side.headers(),
        "--include-operation-id-regex", operations,
        "--tls-verify", str(folder / sandbox.manifest.ca_bundle),
        "--request-cert", str(folder / side.caller.transport_cert),
        "--request-cert-key", str(folder / side.caller.transport_key),
        "--warnings", "off",
    ]  # fmt: skip
    more = {
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": f"{ROOT / 'tests/outside'}:{ROOT}",
        "SIGNER": shlex.join([sys.executable, "-m", "tests.outside.signer", str(folder)]),
    }
    return subprocess.run(
        [*schemathesis, *how, *options],
        cwd=folder, capture_output=True, text=True, timeout=TOKEN_S, env={**os.environ, **more},
    )  # fmt: skip


TOKEN_S = 600
BANK = r"^(consents|payment-log|account-opening-log|fx-quote-log|insurance-quote-log|heimdall|hello-mtls)"
"""What the bank calls; it has no token."""
USERS = r"^account-information\."
PAYERS = r"^payment\.(payments|file-payments)\.make$"
"""What only a customer's consent opens; all else is a client's."""
CLIENTS = rf"^(?!account-information\.)(?!{PAYERS[1:-1]})"
CONTRACT = config_folder() / "contract"
SERVED = [
    *read_bank_side(CONTRACT),
    *(r.route.id for r in read_rows(CONTRACT / "routes") if is_served(r)),
]
WITHOUT_INPUT = "hello-mtls"
"""There is only one request to make of it."""
LINKED = (BANK, USERS, r"^insurance\.", r"^payment\.(?!(payments|file-payments)\.make$)")
"""The families whose answers link to other operations, but for what only a payer's token opens."""
SCOPES = {*" ".join(CLIENT_SCOPES).split(), "insurance", "tpp-reports"}


async def fresh_token(sandbox, known, operations):
    async with actor(sandbox) as tpp:
        match operations:
            case _ if operations == USERS:
                return (await account_consent(tpp, EVERY_PERMISSION))[0]
            case _ if operations == PAYERS:
                return (await payment_consents(tpp, known, authorized=True))[1]
        return await client_token(tpp, " ".join(sorted(SCOPES)))


def side_of(sandbox, known, kind):
    """Return the side that a kind of operation is called from, a TPP's with a fresh token."""
    manifest = sandbox.manifest
    if kind == BANK:
        return Side(manifest.hub.consent_manager_base, manifest.bank)
    token = trio.run(fresh_token, sandbox, known, kind)
    return Side(manifest.hub.resource_base, manifest.tpps[0], token)


def check(schemathesis, sandbox, known, kind, operations, examples, phases):
    """Run it with a token of the kind that lives as long as the run; return its last line."""
    name = "openapi-bank.json" if kind == BANK else "openapi.json"
    url = f"{sandbox.manifest.hub.ops_base}/{name}"
    side = side_of(sandbox, known, kind)
    began = time.monotonic()
    options = ("--max-examples", str(examples), "--phases", phases)
    ran = run(schemathesis, sandbox, url, side, operations, *options)
    print(ran.stdout[-3000:])
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert time.monotonic() - began < TOKEN_S, "the token was over before the run was"
    return ran.stdout


def test_generated_requests_find_no_contradiction(schemathesis, sandbox, known):
    runs = [
        (CLIENTS, CLIENTS, 2, "fuzzing"),
        (USERS, USERS, 2, "fuzzing,stateful"),
        (PAYERS, PAYERS, 2, "fuzzing"),
        (CLIENTS, r"^atm\.", 2, "coverage"),
        (BANK, BANK, 2, "fuzzing,stateful"),
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda how: check(schemathesis, sandbox, known, *how), runs))


def test_a_description_that_is_not_true_is_noticed(
    schemathesis, sandbox, known, description, tmp_path
):
    """What the generator is asked to look for it finds: a status, a header and a schema that are not the Hub's."""
    path = "/open-finance/atm/v2.1/atms"
    operation = description["paths"][path]["get"]
    untrue = {
        "200": {
            "description": "Done.",
            "headers": {"x-nowhere": {"required": True, "schema": {"type": "string"}}},
            "content": {"application/json": {"schema": {"required": ["Nothing"]}}},
        },
        **{s: a for s, a in operation["responses"].items() if s not in {"200", "400", "405"}},
    }
    paths = {path: {"get": {**operation, "responses": untrue}}}
    file = tmp_path / "untrue.json"
    file.write_text(json.dumps({**description, "paths": paths}))
    side = side_of(sandbox, known, CLIENTS)
    options = ("--max-examples", "2", "--phases", "coverage", "--no-shrink")
    ran = run(schemathesis, sandbox, file, side, ".", *options)
    assert ran.returncode == 1
    found = set(re.findall(r"- (ST\d+) ", ran.stdout))
    assert found >= {"ST103", "ST107", "ST108"}, ran.stdout


def kind_of(operation):
    """Return which of the three kinds of token opens an operation."""
    return next(kind for kind in (BANK, USERS, PAYERS, CLIENTS) if re.match(kind, operation))


@pytest.fixture(scope="module")
def told():
    """Collect how many requests each nightly run made; what began and did not end well is named in the record."""
    begun, began = {}, time.monotonic()
    yield begun
    requests = {name: count for name, count in begun.items() if count}
    if begun:
        links = {name: count for name, count in requests.items() if name in LINKED}
        counts = {
            "examples_per_operation": EXAMPLES,
            "operations": len(requests) - len(links),
            "of_operations": len(SERVED),
            "linked_families": len(links),
            "of_linked_families": len(LINKED),
            "requests": sum(requests.values()),
        }
        took = round(time.monotonic() - began)
        result = {
            "requests": requests,
            "without_end": sorted(begun.keys() - requests.keys()),
            "seconds": took,
            "not_asked": sorted(NOT_ASKED),
        }
        append("schemathesis", counts, [SEED], result)


@pytest.mark.nightly
@pytest.mark.parametrize("operation", SERVED)
def test_many_requests_of_an_operation_find_no_contradiction(
    schemathesis, sandbox, known, told, operation
):
    """Each operation for itself, so that a token outlives its run."""
    only, kind = f"^{re.escape(operation)}$", kind_of(operation)
    told[operation] = 0
    # What a payment makes takes longest: each phase has a token of its own.
    runs = ("coverage", "fuzzing") if kind == PAYERS else ("coverage,fuzzing",)
    said = [check(schemathesis, sandbox, known, kind, only, EXAMPLES, phases) for phases in runs]
    count = sum(map(generated, said))
    assert count >= EXAMPLES or operation == WITHOUT_INPUT
    told[operation] = count


@pytest.mark.nightly
@pytest.mark.parametrize("family", LINKED)
def test_many_walks_along_the_links_of_a_family_find_no_contradiction(
    schemathesis, sandbox, known, told, family
):
    """From operation to operation as the description's links lead."""
    kind = family if family in {USERS, BANK} else CLIENTS
    told[family] = 0
    said = check(schemathesis, sandbox, known, kind, family, EXAMPLES, "stateful")
    count = generated(said)
    assert count >= EXAMPLES
    told[family] = count


def generated(said):
    """Return how many requests a run says that it made."""
    return int(re.search(r"(\d+) generated", said)[1])
