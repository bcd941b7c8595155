"""What was given can be taken back: by the TPP, by the bank, by the Trust Framework; over the wire."""

import httpx
import pytest

from hub.sandbox.control import ask
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import Ask, Refused, Tokens
from tests.wire.world import code_of

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
