"""``hub specs use`` and a restart: the documents that were laid over ours are enforced, another version is served beside ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from hub.contract.official import find_documents
from hub.sandbox.tpp import Ask
from tests.wire.operations import LEAD, client_token
from tests.wire.own_hub import OwnHub, copy_state, settings_beside
from tests.wire.world import ROOT, actor, code_of

pytestmark = [pytest.mark.wire, pytest.mark.specs]
SPECS = Path(os.environ.get("HUB_SPECS", ROOT / "../shared/reference/api-specs"))
ACCOUNTS = "/open-finance/account-information/v2.2/accounts"
LEADS = "/open-finance/product/v2.1/leads"


def derived(folder: Path) -> Path:
    """Write two official documents anew: accounts of a version to come, and leads that must say something more."""
    found = find_documents(SPECS)
    accounts = found["uae-account-information-openapi.yaml"].read_text()
    leads = found["uae-product-openapi.yaml"].read_text()
    official = folder / "v9.9"
    official.mkdir(parents=True)
    renamed = accounts.replace("/account-information/v2.1", "/account-information/v2.2")
    (official / "uae-account-information-openapi.yaml").write_text(renamed)
    wanted = leads.replace(" - EmiratesId\n", " - EmiratesId\n            - Nationality\n", 1)
    (official / "uae-product-openapi.yaml").write_text(wanted)
    return official


async def asked(hub, sandbox, tokens):
    """Send a lead, and ask for accounts of the version to come; return both answers."""
    base = f"https://localhost:{hub.port}"
    async with actor(sandbox) as tpp:
        headers = {"accept": "application/json", "x-fapi-customer-ip-address": "192.0.2.17"}
        lead, read = [
            await tpp.tpp.wire.carry(
                Ask(
                    method=method,
                    url=base + path,
                    headers={**headers, "authorization": f"Bearer {token}"},
                    json=body,
                )
            )
            for (method, path, body), token in zip(
                (("POST", LEADS, {"Data": LEAD}), ("GET", ACCOUNTS, None)), tokens, strict=True
            )
        ]
    return lead, read


async def take(sandbox):
    async with actor(sandbox) as tpp:
        return await client_token(tpp, "products"), (await tpp.consented()).access_token


def test_documents_laid_over_ours_are_enforced_after_a_restart(sandbox, tmp_path):
    tokens = trio.run(take, sandbox)
    folder = tmp_path / "hub"
    copy_state(sandbox, folder)
    settings = settings_beside(sandbox, folder)
    hub = OwnHub(folder, settings).start()
    before = trio.run(asked, hub, sandbox, tokens)
    use = [sys.executable, "-m", "hub", "specs", "use", str(derived(tmp_path)), "--config", str(hub.path)]  # fmt: skip
    done = subprocess.run(use, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    unchanged = trio.run(asked, hub, sandbox, tokens)
    assert hub.stop() == 0
    settings["tenant"]["beside"] = ["v2.2"]
    hub.write()
    hub.start()
    lead, read = trio.run(asked, hub, sandbox, tokens)
    assert hub.stop() == 0
    assert "2 documents, " in done.stdout
    assert [a.status for a in before] == [a.status for a in unchanged] == [201, 404]
    assert (lead.status, code_of(lead)) == (400, "Body.InvalidFormat")
    assert b"Nationality" in lead.body
    assert (read.status, code_of(read)) == (403, "AccessToken.InvalidScope"), "of another version"
