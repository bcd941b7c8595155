"""What was given can be taken back: by the TPP, by the bank, by the Trust Framework; over the wire."""

import httpx
import pytest

from hub.sandbox.control import ask
from hub.sandbox.journey import run_journey
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Ask, Refused, Tokens
from tests.wire.world import browser, code_of, log_in

pytestmark = pytest.mark.wire


def consent_of(tokens: Tokens) -> str:
    return tokens.authorization_details[0]["consent"]["Data"]["ConsentId"]


def bank_client(sandbox) -> httpx.AsyncClient:
    """Call the Hub as the bank does: with its own certificate."""
    folder, bank = sandbox.folder, sandbox.manifest.bank
    context = client_context(
        folder / sandbox.manifest.ca_bundle,
        folder / bank.transport_cert,
        folder / bank.transport_key,
    )
    base = sandbox.manifest.hub.consent_manager_base
    return httpx.AsyncClient(verify=context, base_url=base, trust_env=False)


async def assert_dead(tpp, tokens: Tokens) -> None:
    assert (await tpp.get("/accounts", tokens.access_token)).status == 401
    refused = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_grant"


async def test_a_tpp_revokes_its_consent_and_every_token_dies(tpp):
    tokens = await tpp.consented()
    own = await tpp.tpp.client_credentials(tpp.discovery, "openid accounts")
    assert isinstance(own, Tokens), own
    base = tpp.sandbox.manifest.hub.resource_base
    path = "/open-finance/account-information/v2.1/account-access-consents/"
    revoke = Ask(
        method="PATCH",
        url=base + path + consent_of(tokens),
        headers={"authorization": f"Bearer {own.access_token}"},
        json={"Data": {"Status": "Revoked", "RevokedBy": "TPP"}},
    )
    answer = await tpp.tpp.wire.carry(revoke)
    assert answer.status == 204, answer.body
    await assert_dead(tpp, tokens)
    shown = await tpp.get(f"/account-access-consents/{consent_of(tokens)}", own.access_token)
    assert shown.json()["Data"]["Status"] == "Revoked"


async def test_another_tpps_consent_cannot_be_seen_or_revoked(tpp, other_tpp):
    tokens = await tpp.consented()
    other = await other_tpp.tpp.client_credentials(other_tpp.discovery, "openid accounts")
    assert isinstance(other, Tokens), other
    seen = await other_tpp.get(f"/account-access-consents/{consent_of(tokens)}", other.access_token)
    assert seen.status in {400, 404}
    assert consent_of(tokens).encode() not in seen.body
    assert (await tpp.get("/accounts", tokens.access_token)).status == 200


async def test_the_bank_revokes_a_consent_and_every_token_dies(sandbox, tpp):
    tokens = await tpp.consented()
    async with bank_client(sandbox) as bank:
        answer = await bank.post(
            f"/consents/{consent_of(tokens)}/action/revoke",
            json={"revokedBy": "LFI.InitiatedByUser"},
        )
        assert answer.status_code == 204, answer.text
        shown = (await bank.get(f"/consents/{consent_of(tokens)}")).json()
    assert shown["data"]["status"] == "Revoked"
    await assert_dead(tpp, tokens)


async def test_a_suspended_consent_is_refused_until_the_bank_lifts_it(sandbox, tpp):
    tokens = await tpp.consented()
    path = f"/consents/{consent_of(tokens)}"
    async with bank_client(sandbox) as bank:
        for status, expected in (("Suspended", 403), ("Authorized", 200)):
            change = {"authorizationChannel": "Web", "consentBody.Data.Status": status}
            answer = await bank.patch(path, json=change)
            assert answer.status_code == 204, answer.text
            got = await tpp.get("/accounts", tokens.access_token)
            assert got.status == expected
            if expected == 403:
                assert code_of(got) == "Consent.AccountTemporarilyBlocked"


async def test_the_bank_that_answers_nonsense_is_told_apart_from_the_hub(sandbox, tpp):
    tokens = await tpp.consented()
    for plan in ({"status": 500}, {"half_answer": True}):
        fault = {"do": "fault", "at": "bank", "plan": {"path": "/accounts", **plan}}
        assert (await ask(sandbox.folder, fault))["ok"]
        try:
            got = await tpp.get("/accounts", tokens.access_token)
        finally:
            await ask(sandbox.folder, {"do": "fault", "at": "bank", "plan": None})
        assert got.status == 500, plan
        assert code_of(got) in {"GenericError", "GenericRecoverableError"}, plan
    assert (await tpp.get("/accounts", tokens.access_token)).status == 200


async def test_the_revocation_journey_is_told_from_both_sides(sandbox):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, revoke=True, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert "the TPP gives the consent back" in told
    assert "stops the consent at the bank's page" in told
    assert lines[-1].startswith("Done: what was given was taken back")


async def own_page(at, sandbox, person):
    """Log a customer in at the page of one's own consents."""
    url = f"{sandbox.manifest.bank.authorization_endpoint}/consents"
    return await log_in(at, url, person)


async def test_a_customer_sees_and_stops_only_consents_of_their_own_at_the_bank(sandbox, tpp):
    aisha, omar = sandbox.manifest.customers[:2]
    tokens = await tpp.consented(customer=aisha)
    async with browser(sandbox) as at:
        assert consent_of(tokens) not in (await own_page(at, sandbox, omar)).text
    async with browser(sandbox) as at:
        page = await own_page(at, sandbox, aisha)
        assert tpp.identity.name in page.text
        [form] = [f for f in page.forms if ("consent", consent_of(tokens)) in f.preset]
        assert (await tpp.get("/accounts", tokens.access_token)).status == 200
        page = await at.submit(form, {"decision": "revoke"})
        assert "has no access any more" in page.text
        await assert_dead(tpp, tokens)
        [form] = [f for f in page.forms if ("consent", consent_of(tokens)) in f.preset]
        assert "revoke" not in form.offers.get("decision", ())
        assert "not possible" in (await at.submit(form, {"decision": "revoke"})).text


async def test_the_bank_finds_who_revoked_in_the_history_and_the_record(sandbox, tpp):
    tokens = await tpp.consented()
    own = await tpp.tpp.client_credentials(tpp.discovery, "openid accounts")
    base = tpp.sandbox.manifest.hub.resource_base
    path = "/open-finance/account-information/v2.1/account-access-consents/"
    body = {"Data": {"Status": "Revoked", "RevokedBy": "TPP.InitiatedByUser"}}
    headers = {"authorization": f"Bearer {own.access_token}"}
    revoke = Ask(method="PATCH", url=base + path + consent_of(tokens), headers=headers, json=body)
    assert (await tpp.tpp.wire.carry(revoke)).status == 204
    async with bank_client(sandbox) as bank:
        record = (await bank.get(f"/consents/{consent_of(tokens)}")).json()["data"]
        lines = (await bank.get(f"/consents/{consent_of(tokens)}/audit")).json()["data"]
    assert record["consentBody"]["Data"]["RevokedBy"] == "TPP.InitiatedByUser"
    assert [line["operation"] for line in lines] == ["create", "patch", "patch"]
    assert lines[-1]["callerDetails"]["callerClientId"] == tpp.identity.client_id
    assert "TPP.InitiatedByUser" in lines[-1]["patch"]


@pytest.mark.parametrize("decline", [False, True])
async def test_the_journey_past_two_signatories_is_told(sandbox, decline):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, approvers=True, decline=decline, tell=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert "AwaitingAuthorization (Approved, Pending)" in told
    assert "POST /payments is refused" in told
    assert lines[-1] == (
        "Done: it was never paid." if decline else "Done: it was paid after both had approved."
    )
