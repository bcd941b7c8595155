"""Our own OpenAPI description: served, lawful, true; and an outside generator of requests that reads it finds no server error."""

import subprocess
import time

import httpx
import jsonschema_rs
import pytest
import trio

from bench.evidence import append
from hub.config import config_folder
from hub.contract.tables import is_served, read_rows
from tests.separate import interpreter
from tests.wire.operations import (
    EVERY_PERMISSION,
    Known,
    account_consent,
    client_token,
    payment_consents,
    prepare,
)
from tests.wire.world import actor

pytestmark = pytest.mark.wire
SEED = 7


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


def run(schemathesis, sandbox, section, description_url, token, operations, *options):
    folder = sandbox.folder
    how = [
        "run", description_url, "--url", sandbox.manifest.hub.resource_base,
        "--checks", "not_a_server_error", "--seed", str(SEED), "--no-color",
        "--continue-on-failure", "--suppress-health-check", "all",
        "--header", f"Authorization: Bearer {token}",
        "--header", "x-fapi-customer-ip-address: 192.0.2.1",
        "--include-operation-id-regex", operations,
        "--tls-verify", str(folder / sandbox.manifest.ca_bundle),
        "--request-cert", str(folder / section.transport_cert),
        "--request-cert-key", str(folder / section.transport_key),
        "--warnings", "off",
    ]  # fmt: skip
    ran = subprocess.run(
        [*schemathesis, *how, *options],
        cwd=folder, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    print(ran.stdout[-3000:])
    return ran


FAMILIES = [
    ("user", r"^account-information\."),
    ("openid payments", r"^payment\."),
    ("confirmation-of-payee", r"^confirmation-of-payee\."),
    ("products", r"^product\."),
    ("atm", r"^atm\."),
]


PAYER = ("payer", r"^payment\.(payments|file-payments)\.make")
"""A token of the other kind for what only a customer's consent opens."""
TOKEN_S = 600


async def fresh_token(sandbox, known, scope):
    async with actor(sandbox) as tpp:
        match scope:
            case "user":
                return (await account_consent(tpp, EVERY_PERMISSION))[0]
            case "payer":
                return (await payment_consents(tpp, known, authorized=True))[1]
        return await client_token(tpp, scope)


def check(schemathesis, sandbox, known, families, examples, phases):
    """Let the outside generator loose on each family, with a token that lives as long as its run."""
    section = sandbox.manifest.tpps[0]
    url = f"{sandbox.manifest.hub.ops_base}/openapi.json"
    told = {}
    for scope, operations in families:
        token = trio.run(fresh_token, sandbox, known, scope)
        options = ("--max-examples", str(examples), "--phases", phases)
        began = time.monotonic()
        ran = run(schemathesis, sandbox, section, url, token, operations, *options)
        took = time.monotonic() - began
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
        assert took < TOKEN_S, f"{scope}: the token was over before the run was"
        told[scope] = ran.stdout.strip().splitlines()[-1].strip("= ")
    return told


def test_generated_requests_find_no_server_error(schemathesis, sandbox, known):
    check(schemathesis, sandbox, known, FAMILIES, 2, "fuzzing")


@pytest.mark.nightly
def test_many_generated_requests_find_no_server_error(schemathesis, sandbox, known):
    families = [*FAMILIES, PAYER]
    told = check(schemathesis, sandbox, known, families, 100, "coverage,fuzzing")
    append("schemathesis", {"examples_per_operation": 100}, [SEED], told)
