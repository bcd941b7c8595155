"""Our own OpenAPI description: served, lawful, true: an outside generator of requests that reads it finds no contradiction."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema_rs
import pytest
import trio

from bench.evidence import append
from hub.config import config_folder
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


def run(schemathesis, sandbox, where, token, operations, *options):
    """Let the generator loose on the operations whose ids match; it signs bodies and reads signed answers."""
    folder, section = sandbox.folder, sandbox.manifest.tpps[0]
    how = [
        "run", str(where), "--url", sandbox.manifest.hub.resource_base,
        "--checks", "all", "--exclude-checks", ",".join(NOT_ASKED), "--seed", str(SEED), "--no-color",
        "--continue-on-failure", "--suppress-health-check", "all",
        "--header", f"Authorization: Bearer {token}",
        "--header", "x-fapi-customer-ip-address: 192.0.2.1",
        "--include-operation-id-regex", operations,
        "--tls-verify", str(folder / sandbox.manifest.ca_bundle),
        "--request-cert", str(folder / section.transport_cert),
        "--request-cert-key", str(folder / section.transport_key),
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
USERS = r"^account-information\."
PAYERS = r"^payment\.(payments|file-payments)\.make$"
"""What only a customer's consent opens; all else is a client's."""
CLIENTS = rf"^(?!account-information\.)(?!{PAYERS[1:-1]})"
SCOPES = {*" ".join(CLIENT_SCOPES).split(), "insurance", "tpp-reports"}


async def fresh_token(sandbox, known, operations):
    async with actor(sandbox) as tpp:
        match operations:
            case _ if operations == USERS:
                return (await account_consent(tpp, EVERY_PERMISSION))[0]
            case _ if operations == PAYERS:
                return (await payment_consents(tpp, known, authorized=True))[1]
        return await client_token(tpp, " ".join(sorted(SCOPES)))


def check(schemathesis, sandbox, known, kind, operations, examples, phases):
    """Run it with a token of the kind that lives as long as the run; return its last line."""
    url = f"{sandbox.manifest.hub.ops_base}/openapi.json"
    token = trio.run(fresh_token, sandbox, known, kind)
    began = time.monotonic()
    options = ("--max-examples", str(examples), "--phases", phases)
    ran = run(schemathesis, sandbox, url, token, operations, *options)
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
    token = trio.run(fresh_token, sandbox, known, CLIENTS)
    options = ("--max-examples", "2", "--phases", "coverage", "--no-shrink")
    ran = run(schemathesis, sandbox, file, token, ".", *options)
    assert ran.returncode == 1
    found = set(re.findall(r"- (ST\d+) ", ran.stdout))
    assert found >= {"ST103", "ST107", "ST108"}, ran.stdout


@pytest.mark.nightly
def test_many_generated_requests_find_no_contradiction(schemathesis, sandbox, known, description):
    """Each operation for itself, so that a token outlives its run; then whole families by way of their links."""
    told, began = {}, time.monotonic()
    for methods in description["paths"].values():
        for name in (operation["operationId"] for operation in methods.values()):
            kind = next(k for k in (USERS, PAYERS, CLIENTS) if re.match(k, name))
            only = f"^{re.escape(name)}$"
            said = check(schemathesis, sandbox, known, kind, only, EXAMPLES, "coverage,fuzzing")
            told[name] = int(re.search(r"(\d+) generated", said)[1])
    for kind in (USERS, CLIENTS):
        said = check(schemathesis, sandbox, known, kind, kind, EXAMPLES, "stateful")
        told[f"links {kind}"] = int(re.search(r"(\d+) generated", said)[1])
    took = round(time.monotonic() - began)
    counts = {"examples_per_operation": EXAMPLES, "operations": len(told) - 2}
    result = {
        "requests": told,
        "contradictions": 0,
        "seconds": took,
        "not_asked": sorted(NOT_ASKED),
    }
    append("schemathesis", counts, [SEED], result)
