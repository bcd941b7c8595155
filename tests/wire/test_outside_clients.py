"""Unmodified clients of others complete the whole dance: certified ones on Node, and Authlib on trio."""

import json
import subprocess

import pytest

from bench.evidence import append
from tests.outside.authlib_client import AuthlibClient
from tests.wire.world import ROOT, Sandbox, browser, decide, free_base, log_in

pytestmark = pytest.mark.wire
NODE = str(ROOT / ".venv/bin/node")


def run_node(folder, script, sandbox, *arguments):
    """Run one script of the outside clients; return what it printed, one object per line."""
    command = [NODE, script, str(sandbox.folder), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


SCRIPTS = ["openid_client.mjs", "oauth4webapi.mjs"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_certified_clients_complete_the_uae_profile(sandbox, node_clients, script):
    told = run_node(node_clients, script, sandbox, "mtls,dpop")
    assert told == [
        {"mode": "mtls", "token_type": "bearer"},
        {"mode": "dpop", "token_type": "dpop"},
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_certified_clients_complete_mtls_and_dpop_plain_and_jarm(
    general_sandbox, node_clients, script
):
    told = run_node(node_clients, script, general_sandbox, "mtls,dpop,mtls-jarm,dpop-jarm")
    assert [(line["mode"], line["token_type"]) for line in told] == [
        ("mtls", "bearer"),
        ("dpop", "dpop"),
        ("mtls-jarm", "bearer"),
        ("dpop-jarm", "dpop"),
    ]


@pytest.mark.nightly
def test_certified_clients_meet_nonces_jwt_access_tokens_and_encrypted_id_tokens(
    tmp_path, node_clients, monkeypatch
):
    """The short forms of each switch are in tests/authz/test_switches.py."""
    for switch in ("DPOP_NONCE", "JWT_ACCESS_TOKENS", "ENCRYPTED_ID_TOKENS"):
        monkeypatch.setenv(f"HUB__SWITCHES__{switch}", "true")
    world = Sandbox(tmp_path / "sandbox", free_base(), "--profile", "general")
    world.start()
    try:
        modes = "mtls-jwe,dpop-jwe,mtls-jarm-jwe,dpop-jarm-jwe"
        told = run_node(node_clients, "openid_client.mjs", world, modes)
        log = (world.folder / "hub.log").read_text()
    finally:
        world.stop()
    append("clients_and_switches", {"modes": len(told)}, [], told)
    assert [line["token_type"] for line in told] == ["bearer", "dpop"] * 2
    assert "use_dpop_nonce" in log, "the client had to come back with a nonce"


async def test_authlib_on_trio_completes_the_dance(sandbox, tpp):
    person = sandbox.manifest.customers[0]
    async with AuthlibClient(sandbox.folder) as client:
        url = await client.push()
        async with tpp.page() as callbacks, browser(sandbox) as at:
            await decide(at, await log_in(at, url, person), "approve", None)
            query = await callbacks.receive()
        tokens = await client.redeem(query)
        assert tokens["authorization_details"][0]["consent"]["Data"]["Status"] == "Authorized"
        assert len((await client.accounts())["Data"]["Account"]) == len(person.accounts)
        refreshed = await client.refresh(tokens["refresh_token"])
        assert "refresh_token" not in refreshed
        assert (await client.introspect(refreshed["access_token"]))["active"] is True
        await client.revoke(tokens["refresh_token"])
        assert await client.introspect(refreshed["access_token"]) == {"active": False}


async def test_authlib_that_reuses_a_jti_is_refused(sandbox):
    async with AuthlibClient(sandbox.folder) as client:
        first = await client.push_with_stock_assertion()
        assert first.status_code == 201
        again = await client.push_with_stock_assertion()
    assert again.status_code == 401
    assert again.json()["error"] == "invalid_client"
    assert again.json()["error_uri"].endswith("/errors/client_assertion.replay")
