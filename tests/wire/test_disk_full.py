"""A full disk over the wire: writes are refused at once, nothing is half done, and it goes on without a restart."""

import resource

import httpx
import pytest
import trio

from hub.sandbox.tpp import Pushed, Refused, data_sharing_consent
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE
from tests.wire.test_revocation import bank_client, consent_of

pytestmark = pytest.mark.wire
SECOND = 1.0


class Full:
    """Let the Hub's process write no file any longer; proc limits are what a test can do without a disk of its own."""

    def __init__(self, sandbox):
        [self._pid] = sandbox.manifest.hub.pids
        self._before = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)

    def __enter__(self):
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (4096, self._before[1]))

    def __exit__(self, *_):
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, self._before)


async def test_a_full_disk_is_503_within_a_second_and_recovers_without_a_restart(sandbox, tpp):
    tokens = await tpp.consented()
    consent_id = consent_of(tokens)
    detail = data_sharing_consent(
        consent_id=tpp.identity.dice.uuid(), expires=tpp.identity.clock.now() + 3600
    )
    suspend = {"authorizationChannel": "App", "status": "Suspended"}
    async with bank_client(sandbox) as bank:
        assert (await bank.get("/hello-mtls")).status_code == 200
        with Full(sandbox):
            for call in (
                lambda: bank.patch(f"/consents/{consent_id}", json=suspend),
                lambda: bank.post(
                    f"/consents/{consent_id}/action/revoke", json={"revokedBy": "LFI"}
                ),
            ):
                with trio.fail_after(SECOND):
                    answer = await call()
                assert answer.status_code == 503, answer.text
                assert answer.json()["errorCode"]
                assert int(answer.headers["retry-after"]) >= 1
            with trio.fail_after(SECOND):
                refused = await tpp.tpp.push(tpp.discovery, detail, DATA_SHARING_SCOPE)
            assert isinstance(refused, Refused)
            assert refused.status == 503
            with trio.fail_after(SECOND):
                got = await tpp.get("/accounts", tokens.access_token)
            assert got.status == 503, "nothing is served that cannot be recorded"
            ops = sandbox.manifest.hub.ops_base
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{ops}/livez")).status_code == 200
        record = (await bank.get(f"/consents/{consent_id}")).json()["data"]
        assert record["status"] == "Authorized"
        lines = (await bank.get(f"/consents/{consent_id}/audit")).json()["data"]
        assert len(lines) == 2, "created and authorized; of what was refused there is no trace"
        pushed = await tpp.tpp.push(tpp.discovery, detail, DATA_SHARING_SCOPE)
        assert isinstance(pushed, Pushed), "the same ConsentId: it was never stored"
        assert (await tpp.get("/accounts", tokens.access_token)).status == 200
        assert (await bank.patch(f"/consents/{consent_id}", json=suspend)).status_code == 204
