"""After a revocation is acknowledged nothing of that consent passes, on either worker, however busy they are."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio

from bench.evidence import append
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Tokens
from tests.wire.test_crowds import held_by, workers_of
from tests.wire.test_revocation import bank_client

pytestmark = pytest.mark.wire
CONNECTIONS = 8
REVOKERS = ("bank", "tpp")


class Race:
    """Trials: a consent under constant use is revoked; what passes after the acknowledgement is an exception."""

    def __init__(self, tpp, bank, lines):
        self.tpp, self.bank, self.lines = tpp, bank, lines
        self.base = (
            f"{tpp.sandbox.manifest.hub.resource_base}/open-finance/account-information/v2.1"
        )
        self.took, self.effect, self.late, self.used = [], [], [], 0

    async def authorized(self):
        """Take a consent to a token with the bank played by the test; return both."""
        pushed = await self.tpp.push()
        query = {"client_id": self.tpp.identity.client_id, "request_uri": pushed.request_uri}
        answer = await self.bank.get("/auth", params=query)
        at_bank = answer.json()["interaction"]
        consent_id = at_bank["consentId"]
        patch = {
            "authorizationChannel": "App",
            "psuIdentifiers": {"userId": "racer"},
            "accountIds": ["100100000001"],
            "status": "Authorized",
        }
        done = await self.bank.patch(f"/consents/{consent_id}", json=patch)
        assert done.status_code == 204, done.text
        done = await self.bank.post(f"/auth/{at_bank['interactionId']}/doConfirm", data={})
        code = parse_qs(urlsplit(done.headers["location"]).query)["code"][0]
        tokens = await self.tpp.tpp.redeem(self.tpp.discovery, code, pushed)
        assert isinstance(tokens, Tokens), tokens
        return consent_id, tokens

    async def revoke(self, by, consent_id, own):
        if by == "bank":
            path = f"/consents/{consent_id}/action/revoke"
            answer = await self.bank.post(path, json={"revokedBy": "LFI"})
        else:
            answer = await self.lines[0].patch(
                f"{self.base}/account-access-consents/{consent_id}",
                headers={"authorization": f"Bearer {own}"},
                json={"Data": {"Status": "Revoked", "RevokedBy": "TPP"}},
            )
        assert answer.status_code == 204, answer.text

    async def trial(self, by, own):
        consent_id, tokens = await self.authorized()
        headers = {"authorization": f"Bearer {tokens.access_token}"}
        read = f"{self.base}/account-access-consents/{consent_id}"
        seen, warm, over, last = [], trio.Event(), trio.Event(), [0]

        async def use(line):
            while not over.is_set():
                started = trio.current_time()
                answer = await line.get(read, headers=headers)
                seen.append((started, answer.status_code))
                if len(seen) >= 2 * CONNECTIONS:
                    warm.set()
                if last[0] and len(seen) >= last[0]:
                    over.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for line in self.lines:
                    nursery.start_soon(use, line)
                await warm.wait()
                called = trio.current_time()
                await self.revoke(by, consent_id, own)
                acknowledged = trio.current_time()
                last[0] = len(seen) + 2 * CONNECTIONS
        assert {status for _, status in seen[:CONNECTIONS]} == {200}
        assert {status for _, status in seen} == {200, 401}
        self.used += len(seen)
        self.late += [consent_id for at, status in seen if at >= acknowledged and status == 200]
        passed = [at for at, status in seen if at >= called and status == 200]
        self.took.append(acknowledged - called)
        self.effect.append(max(passed, default=called) - called)
        refused = await self.tpp.tpp.refresh(self.tpp.discovery, tokens.refresh_token)
        assert refused.code == "invalid_grant"


async def run(sandbox, tpp, trials):
    """Run the trials over both workers; return the race."""
    manifest = sandbox.manifest
    section = manifest.tpps[0]
    context = client_context(
        sandbox.folder / manifest.ca_bundle,
        sandbox.folder / section.transport_cert,
        sandbox.folder / section.transport_key,
    )
    own = await tpp.tpp.client_credentials(tpp.discovery, "openid accounts")
    lines = []
    try:
        port = httpx.URL(manifest.hub.issuer).port
        shares = [0]
        while len(lines) < CONNECTIONS or min(shares) < 2:
            assert len(lines) < 5 * CONNECTIONS, "both workers must take part"
            lines.append(httpx.AsyncClient(verify=context, trust_env=False, timeout=30))
            assert (await lines[-1].get(manifest.hub.discovery)).status_code == 200
            shares = [held_by(pid, port) for pid in workers_of(manifest.hub.pids[0])]
            assert len(shares) == 2
        async with bank_client(sandbox) as bank:
            race = Race(tpp, bank, lines)
            for number in range(trials):
                if number % 50 == 0:
                    own = await tpp.tpp.client_credentials(tpp.discovery, "openid accounts")
                    assert isinstance(own, Tokens), own
                await race.trial(REVOKERS[number % 2], own.access_token)
            return race
    finally:
        for line in lines:
            await line.aclose()


def milliseconds(values, share):
    return round(1000 * sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)


def figures(race):
    """Return what the bench report says: from the call to the acknowledgement, and to the last that still passed."""
    return {
        "late": len(race.late),
        "call_to_acknowledgement_ms": {
            name: milliseconds(race.took, share)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))
        },
        "call_to_effect_ms": {
            name: milliseconds(race.effect, share)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))
        },
    }


async def test_nothing_passes_after_an_acknowledged_revocation(general_sandbox, general_tpp):
    race = await run(general_sandbox, general_tpp, 30)
    assert race.late == [], figures(race)
    assert len(race.took) == 30


@pytest.mark.nightly
async def test_nothing_passes_after_a_thousand_acknowledged_revocations(
    general_sandbox, general_tpp
):
    race = await run(general_sandbox, general_tpp, 1000)
    counts = {"trials": 1000, "workers": 2, "connections": CONNECTIONS, "requests": race.used}
    append("revocation under load", counts, [], figures(race))
    assert race.late == [], figures(race)
