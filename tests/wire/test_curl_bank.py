"""A bank's client that nobody wrote: curl, driven by the two official documents, through all of their operations."""

from urllib.parse import parse_qs, urlsplit

import pytest

from hub.sandbox.tpp import Pushed, Refused, Tokens, data_sharing_consent
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE, timestamp
from hub.sandbox.tpp.payment import PAYMENT_SCOPE, PAYMENT_TYPE, PURPOSE, seal
from tests.wire.curl_bank import CurlBank
from tests.wire.test_payment import CREDITOR, bank_keys, consented, order, sealed_creditor
from tests.wire.world import code_of, moved

pytestmark = [pytest.mark.wire, pytest.mark.specs]
INSURANCE_SCOPE = "insurance openid"
STATUS = "consentBody.Data.Status"
AUTHORIZERS = "consentBody.Meta.MultipleAuthorizers"


@pytest.fixture
def bank(sandbox):
    return CurlBank(sandbox)


async def pushed(tpp, detail, scope):
    came = await tpp.tpp.push(tpp.discovery, detail, scope)
    assert isinstance(came, Pushed), came
    return detail["consent"]["ConsentId"], came


def accounts(tpp, **how):
    ids = {"consent_id": tpp.identity.dice.uuid(), "expires": tpp.identity.clock.now() + 86_400}
    return data_sharing_consent(**(ids | how)), DATA_SHARING_SCOPE


async def payment(tpp, **how):
    single = {"Type": "SingleInstantPayment", "Amount": {"Amount": "10.00", "Currency": "AED"}}
    consent = {
        "ConsentId": tpp.identity.dice.uuid(),
        "PersonalIdentifiableInformation": seal(
            tpp.identity, await bank_keys(tpp), {"Creditor": [CREDITOR]}
        ),
        "ControlParameters": {"ConsentSchedule": {"SinglePayment": single}},
        "IsSingleAuthorization": True,
        "ExpirationDateTime": timestamp(tpp.identity.clock.now() + 7_200),
        "PaymentPurposeCode": PURPOSE,
    }
    return {"type": PAYMENT_TYPE, "consent": consent | how}, PAYMENT_SCOPE


def insurance(tpp):
    consent = {
        "ConsentId": tpp.identity.dice.uuid(),
        "ExpirationDateTime": timestamp(tpp.identity.clock.now() + 86_400),
        "Permissions": [{"InsuranceType": "Motor", "Permissions": ["ReadInsurancePolicies"]}],
        "OpenFinanceBilling": {"Purpose": "QuoteComparison"},
    }
    return {
        "type": "urn:openfinanceuae:insurance-consent:v2.1",
        "consent": consent,
    }, INSURANCE_SCOPE


async def interaction(bank, tpp, push):
    told = await bank.call(
        "GET",
        "/auth",
        client_id=tpp.identity.client_id,
        request_uri=push.request_uri,
        response_type="code",
    )
    return told.json()["interaction"]["interactionId"]


def answered(told):
    return {name: values[0] for name, values in parse_qs(urlsplit(told.location).query).items()}


async def confirmed(bank, tpp, push, interaction_id):
    """End the interaction and redeem its code."""
    told = await bank.call(
        "POST",
        "/auth/{interactionId}/doConfirm",
        interactionId=interaction_id,
        body={},
        wanted=303,
    )
    tokens = await tpp.tpp.redeem(tpp.discovery, answered(told)["code"], push)
    assert isinstance(tokens, Tokens), tokens
    return tokens


def approval(user, **more):
    return {
        "authorizationChannel": "App",
        "psuIdentifiers": {"userId": user},
        STATUS: "Authorized",
        **more,
    }


async def patched(bank, consent_id, wanted=204, **change):
    body = {"authorizationChannel": "App", **change}
    return await bank.call(
        "PATCH", "/consents/{consentId}", consentId=consent_id, body=body, wanted=wanted
    )


async def status_of(bank, consent_id):
    told = await bank.call("GET", "/consents/{consentId}", consentId=consent_id)
    return told.json()["data"]["status"]


async def test_curl_drives_every_operation_of_both_documents(bank, tpp):
    user = tpp.identity.dice.uuid()
    first, push = await pushed(tpp, *accounts(tpp))
    at_bank = await interaction(bank, tpp, push)
    await patched(bank, first, **approval(user, accountIds=["a-1", "a-2"]))
    await confirmed(bank, tpp, push, at_bank)

    second, push = await pushed(tpp, *accounts(tpp, base_consent_id=first))
    at_bank = await interaction(bank, tpp, push)
    failed = await bank.call(
        "POST",
        "/auth/{interactionId}/doFail",
        interactionId=at_bank,
        body={"error": "access_denied", "error_description": "user_rejected_consent"},
        wanted=303,
    )
    assert answered(failed)["error"] == "access_denied"

    policies, push = await pushed(tpp, *insurance(tpp))
    at_bank = await interaction(bank, tpp, push)
    await patched(bank, policies, **approval(user, insurancePolicyIds=["p-1"]))
    await confirmed(bank, tpp, push, at_bank)
    await patched(bank, policies, **{STATUS: "Suspended"})
    await patched(bank, policies, **{STATUS: "Authorized"})

    since = 1000 * (tpp.identity.clock.now() - 60)
    for template, given in (
        ("/consents", {"updatedAt": since, "pageSize": 500}),
        ("/consents", {"consentType": "cbuae-insurance-consents", "status": "Authorized"}),
        ("/psu/{userId}/consents", {"userId": user}),
        ("/accounts/{accountId}/consents", {"accountId": "a-2"}),
        ("/accounts/{accountId}/consents", {"accountId": "p-1", "page": 1}),
        ("/consent-groups/{consentGroupId}/consents", {"consentGroupId": first}),
    ):
        told = (await bank.call("GET", template, **given)).json()
        assert told["data"], template
        assert told["meta"]["totalRecords"] >= len(told["data"])
    history = await bank.call("GET", "/consents/{consentId}/audit", consentId=policies)
    assert [e["operation"] for e in history.json()["data"]] == ["create", *["patch"] * 3]

    revoke = {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": {"userId": user}}
    for template, given in (
        ("/consents/{consentId}/action/revoke", {"consentId": policies}),
        ("/consent-groups/{consentGroupId}/consents/action/revoke", {"consentGroupId": first}),
    ):
        await bank.call("POST", template, body=revoke, wanted=204, **given)
    assert await status_of(bank, policies) == await status_of(bank, first) == "Revoked"
    assert await status_of(bank, second) == "AwaitingAuthorization", "it is nobody's yet"

    paid, tokens = await consented(tpp)
    answer, message = await order(tpp, paid, tokens, "curl-key", await sealed_creditor(tpp))
    assert answer.status == 201, message
    [entry] = (await bank.call("GET", "/payment-log", consentId=paid)).json()["data"]
    word = {"paymentResponse.status": "AcceptedSettlementCompleted"}
    await bank.call("PATCH", "/payment-log/{id}", id=entry["paymentId"], body=word, wanted=204)
    assert await status_of(bank, paid) == "Consumed"

    for template, body in (
        ("/account-opening-log/{logId}", {}),
        ("/fx-quote-log/{logId}", {}),
        ("/insurance-quote-log/{logId}", {}),
    ):
        operation = bank.operation("PATCH", template)
        del operation.bodies[
            "request"
        ]  # which body it is does not matter where there is no such entry
        await bank.call("PATCH", template, logId="none", wanted=404)
        assert body == {}
    hello = await bank.call("GET", "/hello-mtls")
    assert hello.json()["mtlsStatus"] == "established"
    await bank.call("GET", "/hello-mtls", prefix="/v2025.32")

    published = {key for document in bank.documents for key in document.operations}
    assert published - bank.called == {("POST", "/consents")}, "the Hub's own"


def progress(*statuses):
    return {
        AUTHORIZERS: {
            "TotalRequired": len(statuses),
            "Authorizations": [
                {"AuthorizerId": f"signatory-{at}", "AuthorizationStatus": status}
                for at, status in enumerate(statuses)
            ],
        }
    }


async def payments_token(tpp):
    own = await tpp.tpp.client_credentials(tpp.discovery, PAYMENT_SCOPE)
    assert isinstance(own, Tokens), own
    return own.access_token


async def shown(tpp, consent_id, token):
    """Return a payment consent as its TPP reads it."""
    url = f"{tpp.sandbox.manifest.hub.resource_base}/open-finance/payment/v2.1/payment-consents"
    message = await tpp.message(f"{url}/{consent_id}", token)
    assert isinstance(message, dict), message
    return message


async def test_several_approvers_are_followed_to_the_last_one(bank, tpp):
    until = timestamp(tpp.identity.clock.now() + 3_600)
    single = {"IsSingleAuthorization": False, "AuthorizationExpirationDateTime": until}
    consent_id, push = await pushed(tpp, *await payment(tpp, **single))
    at_bank = await interaction(bank, tpp, push)
    chosen = {"psuIdentifiers": {"userId": "corp-1"}, "accountIds": ["corp-a"]}
    await patched(bank, consent_id, **chosen, **progress("Approved", "Pending"))
    tokens = await confirmed(bank, tpp, push, at_bank)
    own = await payments_token(tpp)
    seen = await shown(tpp, consent_id, own)
    assert seen["Data"]["Status"] == "AwaitingAuthorization"
    assert seen["Meta"] == {"MultipleAuthorizers": progress("Approved", "Pending")[AUTHORIZERS]}
    answer, refusal = await order(
        tpp, consent_id, tokens, "early", await sealed_creditor(tpp), amount="10.00"
    )
    assert answer.status == 400
    assert isinstance(refusal, Refused)
    assert refusal.code in {"Consent.Invalid", "Consent.BusinessRuleViolation"}
    done = progress("Approved", "Approved") | {STATUS: "Authorized"}
    await patched(bank, consent_id, **done)
    seen = await shown(tpp, consent_id, own)
    assert seen["Data"]["Status"] == "Authorized"
    listed = seen["Meta"]["MultipleAuthorizers"]["Authorizations"]
    assert {one["AuthorizationStatus"] for one in listed} == {"Approved"}


async def test_one_approver_who_rejects_ends_it(bank, tpp):
    consent_id, push = await pushed(tpp, *await payment(tpp, IsSingleAuthorization=False))
    at_bank = await interaction(bank, tpp, push)
    chosen = {"psuIdentifiers": {"userId": "corp-1"}, "accountIds": ["corp-a"]}
    await patched(bank, consent_id, **chosen, **progress("Approved", "Pending"))
    tokens = await confirmed(bank, tpp, push, at_bank)
    ended = progress("Approved", "Rejected") | {STATUS: "Rejected"}
    await patched(bank, consent_id, **ended)
    told = await patched(bank, consent_id, wanted=400, **{STATUS: "Authorized"})
    assert told.json()["errorCode"] == "Consent.BusinessRuleViolation"
    refused = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_grant"


async def test_approvers_who_are_too_late_find_it_rejected(bank, sandbox, tpp):
    until = timestamp(tpp.identity.clock.now() + 600)
    single = {"IsSingleAuthorization": False, "AuthorizationExpirationDateTime": until}
    consent_id, push = await pushed(tpp, *await payment(tpp, **single))
    await interaction(bank, tpp, push)
    chosen = {"psuIdentifiers": {"userId": "corp-1"}, "accountIds": ["corp-a"]}
    await patched(bank, consent_id, **chosen, **progress("Approved", "Pending"))
    async with moved(sandbox, 601):
        assert await status_of(bank, consent_id) == "Rejected"
        late = progress("Approved", "Approved") | {STATUS: "Authorized"}
        await patched(bank, consent_id, wanted=400, **late)
        listed = await bank.call("GET", "/consents", status="Rejected", pageSize=500)
        assert consent_id in {one["id"] for one in listed.json()["data"]}
    assert await status_of(bank, consent_id) == "Rejected", "what is written, no clock undoes"


async def test_a_consent_for_one_approver_is_not_confirmed_before_it_is_authorized(bank, tpp):
    _, push = await pushed(tpp, *await payment(tpp))
    at_bank = await interaction(bank, tpp, push)
    told = await bank.call(
        "POST", "/auth/{interactionId}/doConfirm", interactionId=at_bank, body={}, wanted=303
    )
    assert answered(told)["error"] == "server_error"


async def test_a_consent_runs_out_at_its_second_and_its_tokens_with_it(bank, sandbox, tpp):
    consent_id, push = await pushed(tpp, *accounts(tpp, expires=tpp.identity.clock.now() + 300))
    at_bank = await interaction(bank, tpp, push)
    await patched(bank, consent_id, **approval("cust-x", accountIds=["a-1"]))
    tokens = await confirmed(bank, tpp, push, at_bank)
    async with moved(sandbox, 301):
        assert await status_of(bank, consent_id) == "Expired"
        got = await tpp.get("/accounts", tokens.access_token)
        assert (got.status, code_of(got)) in {(401, ""), (400, "Consent.Invalid")}
        refused = await tpp.tpp.refresh(tpp.discovery, tokens.refresh_token)
        assert isinstance(refused, Refused)


UNLAWFUL = [
    ("Authorized", {"Rejected", "Consumed"}),
    ("Suspended", {"Rejected", "Consumed"}),
    ("Revoked", {"Authorized", "Suspended", "Rejected", "Expired", "Consumed"}),
]


async def test_every_unlawful_transition_is_answered_with_the_standards_error(bank, tpp):
    consent_id, _ = await pushed(tpp, *accounts(tpp))
    for status in ("Suspended", "Consumed"):
        told = await patched(bank, consent_id, wanted=400, **{STATUS: status})
        assert told.json()["errorCode"] == "Consent.BusinessRuleViolation"
    for status, forbidden in UNLAWFUL:
        more = approval("cust-y", accountIds=["a-1"]) if status == "Authorized" else {}
        await patched(bank, consent_id, **{**more, STATUS: status})
        for other in sorted(forbidden):
            told = await patched(bank, consent_id, wanted=400, **{STATUS: other})
            assert told.json()["errorCode"] == "Consent.BusinessRuleViolation"
            assert await status_of(bank, consent_id) == status
    await patched(bank, consent_id, **{STATUS: "Revoked"})


async def test_another_customer_or_other_accounts_are_refused_after_the_approval(bank, tpp):
    consent_id, _ = await pushed(tpp, *accounts(tpp))
    await patched(bank, consent_id, **approval("cust-z", accountIds=["a-1"]))
    for change in ({"psuIdentifiers": {"userId": "thief"}}, {"accountIds": ["a-2"]}):
        told = await patched(bank, consent_id, wanted=400, **change)
        assert told.json()["errorCode"] == "Consent.BusinessRuleViolation"
