"""The journey over the wire: told, from outside, valid by the official documents, and after a restart."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import httpx
import pytest

from hub.sandbox.journey import run_journey
from hub.sandbox.tpp import Refused, Tokens
from tests.wire.world import ROOT, Sandbox, actor, free_base

pytestmark = pytest.mark.wire


async def test_each_step_of_the_journey_is_told(sandbox):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    for step in ("Discovery", "Pushed authorization request", "logs in", "approves", "comes back"):
        assert step in told
    for step in ("Code turned into tokens", "GET /accounts", "GET balances", "GET transactions"):
        assert step in told
    assert "The receipt of GET /accounts holds: entry " in told
    assert "verify.py" in told
    assert lines[-1].startswith("Done")


async def test_a_declined_journey_ends_well_and_without_data(sandbox):
    lines: list[str] = []
    assert await run_journey(sandbox.folder, decline=True, tell=lines.append) == 0
    assert "declines" in "\n".join(lines)
    assert "GET /accounts" not in "\n".join(lines)


async def test_every_customer_can_travel(sandbox):
    for person in sandbox.manifest.customers:
        lines: list[str] = []
        status = await run_journey(sandbox.folder, customer=person.username, tell=lines.append)
        assert status == 0, "\n".join(lines)


async def test_shown_exchanges_hide_every_secret(sandbox):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, show_http=True, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert "POST" in told
    assert "client_assertion = " in told
    assert sandbox.manifest.customers[0].password not in told
    secrets = [word for word in told.split() if word.count(".") == 2 and len(word) > 200]
    assert secrets == []


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """Make a virtual environment that has the client's packages but not ours; return its interpreter."""
    folder = tmp_path_factory.mktemp("outside") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    # A path line adds the packages of this environment, but not what its own .pth files add: not ours.
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def test_a_client_from_outside_completes_the_journey_from_the_manifest_alone(
    sandbox, stranger, tmp_path
):
    environment = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    known = subprocess.run(
        [stranger, "-c", "import hub"], cwd=tmp_path, env=environment, capture_output=True
    )
    assert b"No module named 'hub'" in known.stderr
    done = subprocess.run(
        [stranger, ROOT / "tests/outside/client.py", sandbox.folder],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["callback"] == ["code", "iss", "state"]
    assert answers["accounts"]["Data"]["Account"]
    assert answers["balances"]["Data"]["Balance"]
    assert answers["transactions"]["Data"]["Transaction"]


def test_the_command_line_tells_the_journey_and_ends_with_its_result(sandbox):
    tell = [sys.executable, "-m", "hub", "tpp", "journey", "--sandbox", str(sandbox.folder)]
    done = subprocess.run(tell, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done" in done.stdout
    assert "\x1b[" not in done.stdout
    unknown = subprocess.run(
        [*tell, "--customer", "nobody"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert unknown.returncode != 0
    assert "no customer 'nobody' at the bank; there are:" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


async def test_state_is_there_after_a_restart(tmp_path):
    world = Sandbox(tmp_path / "s", free_base())
    world.start()
    try:
        async with actor(world) as tpp:
            tokens = await tpp.consented()
            before = (await tpp.get("/accounts", tokens.access_token)).json()
        assert world.stop() == 0
        world.start()
        async with actor(world) as tpp:
            again = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
            assert isinstance(again, Tokens), again
            after = await tpp.get("/accounts", again.access_token)
            assert after.status == 200
            assert after.json()["Data"] == before["Data"]
            # The access token of before lives on too: state is in the store, not in a process.
            assert (await tpp.get("/accounts", tokens.access_token)).status == 200
            forged = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token + "x")
            assert isinstance(forged, Refused)
    finally:
        world.stop()


async def test_each_answer_carries_the_callers_interaction_id(tpp):
    tokens = await tpp.consented()
    url = f"{tpp.sandbox.manifest.hub.resource_base}/open-finance/account-information/v2.1/accounts"
    mine = tpp.identity.dice.uuid()
    headers = {"authorization": f"Bearer {tokens.access_token}", "x-fapi-interaction-id": mine}
    async with httpx.AsyncClient(verify=tpp.identity.tls(), trust_env=False) as client:
        answer = await client.get(url, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-fapi-interaction-id"] == mine
