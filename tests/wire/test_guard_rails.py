"""Identifiers that a bank patches and that look like a person's: flagged or refused by configuration, over the wire."""

import os
import signal

import httpx
import pytest

from tests.waiting import until
from tests.wire.test_curl_bank import STATUS
from tests.wire.test_revocation import bank_client

pytestmark = pytest.mark.wire
IBAN = "AE070331234567890123456"
NOTE = 'hub_notes_total{name="consent.personal_identifier"}'


async def metrics(sandbox) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{sandbox.manifest.hub.ops_base}/metrics")).text


async def approve(bank, tpp, **who):
    pushed = await tpp.push()
    query = {"client_id": tpp.identity.client_id, "request_uri": pushed.request_uri}
    consent_id = (await bank.get("/auth", params=query)).json()["interaction"]["consentId"]
    patch = {"authorizationChannel": "App", STATUS: "Authorized", **who}
    return await bank.patch(f"/consents/{consent_id}", json=patch)


async def test_a_personal_identifier_is_flagged_and_refused_once_the_tenant_wants_that(
    sandbox, tpp
):
    opaque = {"psuIdentifiers": {"userId": "u-1"}, "accountIds": ["a-1"]}
    personal = opaque | {"accountIds": ["a-1", IBAN]}
    path = next(sandbox.folder.rglob("hub.toml"))
    before = path.read_text()
    async with bank_client(sandbox) as bank:
        assert (await approve(bank, tpp, **personal)).status_code == 204
        assert NOTE in await metrics(sandbox)
        try:
            path.write_text(with_refusal(before))
            os.kill(sandbox.manifest.hub.pids[0], signal.SIGHUP)

            async def refused() -> httpx.Response | None:
                got = await approve(bank, tpp, **personal)
                return None if got.status_code == 204 else got

            answer = await until(refused, 10, "the guard to refuse what it let pass")
            assert answer.status_code == 400
            assert answer.json()["errorCode"] == "Body.InvalidFormat"
            assert "accountIds[1]: looks like an IBAN" in answer.json()["errorMessage"]
            assert IBAN not in answer.text
            assert (await approve(bank, tpp, **opaque)).status_code == 204
        finally:
            path.write_text(before)
            os.kill(sandbox.manifest.hub.pids[0], signal.SIGHUP)

        async def let_pass() -> bool:
            return (await approve(bank, tpp, **personal)).status_code == 204

        await until(let_pass, 10, "the guard to let pass again")


def with_refusal(text: str) -> str:
    line = 'personal_identifiers = "refuse"\n'
    if "[switches]\n" in text:
        return text.replace("[switches]\n", f"[switches]\n{line}")
    return f"{text}\n[switches]\n{line}"
