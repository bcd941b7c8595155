"""Every answer and every accepted patch of the Consent Manager against the official document, repaired.

The listed differences (config/contract/DIFFERENCES.md) are taken off first: ``StatusUpdateDateTime`` of data consents, and
the level ``MultipleAuthorizers`` in the ``Meta`` of payment consents.
"""

import copy
import os
from pathlib import Path

import jsonschema_rs
import pytest

from hub.contract.official import find_documents, read_document
from hub.model.consent import ConsentType
from tests.lfi.desk import Desk, approval, consent
from tests.lfi.test_payment_log import payment

pytestmark = pytest.mark.specs
NAME = "uae-api-hub-consent-manager-openapi.yaml"
U = "0b7f6d0e-6d0b-4a50-9a53-0c8a3c1f7a0"
TPP = {
    "clientId": "3f1f2b8e-8c1e-4d55-9c7f-0a6f0d0c1b2a",
    "tppId": "t",
    "tppName": "Budget Buddy",
    "softwareStatementId": "s",
    "orgId": "8c5e4f55-6e7a-4c1f-9f0d-2c4d6a0b9e11",
    "decodedSsa": {"client_name": "Budget Buddy", "roles": ["BDSP"]},
}
REQUESTS = {
    ConsentType.ACCOUNT_ACCESS: {
        "Permissions": ["ReadAccountsBasic", "ReadBalances"],
        "OpenFinanceBilling": {"UserType": "Retail", "Purpose": "AccountAggregation"},
    },
    ConsentType.SERVICE_INITIATION: {
        "PaymentPurposeCode": "ACM",
        "IsSingleAuthorization": True,
        "ControlParameters": {
            "ConsentSchedule": {
                "SinglePayment": {
                    "Type": "SingleInstantPayment",
                    "Amount": {"Amount": "10.00", "Currency": "AED"},
                }
            }
        },
    },
    ConsentType.INSURANCE: {
        "Permissions": [{"InsuranceType": "Motor", "Permissions": ["ReadInsurancePolicies"]}],
        "OpenFinanceBilling": {"Purpose": "QuoteComparison"},
    },
}
CHARGES = [
    {
        "ChargeBearer": "BorneByDebtor",
        "Type": "Fees",
        "Amount": {"Amount": "1.00", "Currency": "AED"},
    }
]
MORE = {
    ConsentType.ACCOUNT_ACCESS: {"consentUsage": {"lastDataShared": "2026-06-01T08:00:00Z"}},
    ConsentType.SERVICE_INITIATION: {
        "ConnectToken": "tok",
        "consentBody.Data.Charges": CHARGES,
        "consentBody.Data.ExchangeRate": {
            "UnitCurrency": "USD",
            "ExchangeRate": 3.67,
            "RateType": "Agreed",
        },
        "consentBody.Meta.MultipleAuthorizers": {
            "TotalRequired": 1,
            "Authorizations": [{"AuthorizerId": "u", "AuthorizationStatus": "Approved"}],
        },
    },
    ConsentType.INSURANCE: {"supplementaryInformation": {"x": 1}},
}


@pytest.fixture(scope="module")
def document():
    default = Path(__file__).parents[3] / "shared/reference/api-specs"
    return read_document(find_documents(Path(os.environ.get("HUB_SPECS", default)))[NAME])


def check(document, method, template, status, body):
    schema = document.operations[method, template].bodies[str(status)]["application/json"]
    jsonschema_rs.validator_for(schema).validate(body)


def staged(kind, at):
    made = consent(f"{U}{at}", kind)
    shared = {"ConsentId": made.id, "ExpirationDateTime": "2026-06-02T08:00:00Z", **REQUESTS[kind]}
    detail = dict(shared)
    if kind is ConsentType.SERVICE_INITIATION:
        detail["PersonalIdentifiableInformation"] = "a.b.c.d.e"
    subscription = {"Webhook": {"Url": "https://tpp.example/h", "IsActive": True}}
    data = {
        **shared,
        "Status": str(made.status),
        "CreationDateTime": "2026-06-01T08:00:00Z",
    }
    if kind is ConsentType.SERVICE_INITIATION:
        data.pop("OpenFinanceBilling", None)
    request = {"type": made.rar_type, "consent": detail, "subscription": subscription}
    return consent(
        made.id,
        kind,
        tpp=TPP,
        request=request,
        body={"Data": data, "Subscription": subscription},
    )


def without_differences(record):
    record = copy.deepcopy(record)
    data = record["consentBody"]["Data"]
    if record["consentType"] != "cbuae-service-initiation-consents":
        data.pop("StatusUpdateDateTime", None)
    else:
        meta = record["consentBody"].get("Meta", {})
        if "MultipleAuthorizers" in meta:
            record["consentBody"]["Meta"] = meta["MultipleAuthorizers"]
    return record


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path)
    for at, kind in enumerate(ConsentType):
        await made.put(staged(kind, at))
    await made.put(payment(consent_id=f"{U}1", tpp=TPP))
    yield made
    made.observer.close()


@pytest.mark.parametrize("kind", ConsentType)
async def test_records_and_patches_of_each_kind_are_valid_in_each_state(document, desk, kind):
    consent_id = f"{U}{list(ConsentType).index(kind)}"
    steps = [
        approval(kind, **MORE[kind]),
        {"authorizationChannel": "Web", "status": "Suspended"},
        {"authorizationChannel": "Web", "consentBody.Data.Status": "Authorized"},
        {
            "authorizationChannel": "App",
            "consentBody.Data.OpenFinanceBilling": {"IsLargeCorporate": False},
        },
        {
            "authorizationChannel": "App",
            "consentBody.Data.Status": "Revoked",
            "consentBody.Data.RevokedBy": "LFI",
        },
    ]
    for patch in [None, *steps]:
        if patch is not None:
            check(document, "PATCH", "/consents/{consentId}", "request", patch)
            assert (await desk.call("PATCH", f"/consents/{consent_id}", patch))[0] == 204
        _, body, _ = await desk.call("GET", f"/consents/{consent_id}")
        body["data"] = without_differences(body["data"])
        check(document, "GET", "/consents/{consentId}", 200, body)


async def test_lists_are_valid(document, desk):
    for at, kind in enumerate(ConsentType):
        assert (await desk.call("PATCH", f"/consents/{U}{at}", approval(kind)))[0] == 204
    for template, path in (
        ("/consents", "/consents"),
        ("/psu/{userId}/consents", "/psu/cust-77/consents"),
        ("/accounts/{accountId}/consents", "/accounts/a1/consents"),
        ("/consent-groups/{consentGroupId}/consents", f"/consent-groups/{U}0/consents"),
        ("/consents", "/consents?status=Revoked"),
    ):
        _, body, _ = await desk.call("GET", path)
        body["data"] = [without_differences(record) for record in body["data"]]
        check(document, "GET", template, 200, body)


async def test_the_rest_is_valid(document, desk):
    consent_id = f"{U}0"
    await desk.call("PATCH", f"/consents/{consent_id}", approval())
    _, audit, _ = await desk.call("GET", f"/consents/{consent_id}/audit")
    assert len(audit["data"]) == 2
    check(document, "GET", "/consents/{consentId}/audit", 200, audit)
    _, hello, _ = await desk.call("GET", "/hello-mtls")
    check(document, "GET", "/hello-mtls", 200, hello)
    revoke = {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": {"userId": "u"}}
    check(document, "POST", "/consents/{consentId}/action/revoke", "request", revoke)
    word = {
        "paymentResponse.status": "Rejected",
        "paymentResponse.rejectReasonCode": [{"code": "AANI.X", "message": "m"}],
    }
    check(document, "PATCH", "/payment-log/{id}", "request", word)
    assert (await desk.call("PATCH", "/payment-log/pay-1", word))[0] == 204


async def test_errors_are_valid(document, desk):
    for method, template, path, body in (
        ("GET", "/consents", "/consents?page=0", None),
        ("GET", "/consents/{consentId}", "/consents/none", None),
        ("PATCH", "/consents/{consentId}", f"/consents/{U}0", {}),
        ("POST", "/consents/{consentId}/action/revoke", f"/consents/{U}0/action/revoke", {}),
        ("GET", "/payment-log", "/payment-log", None),
        ("PATCH", "/payment-log/{id}", "/payment-log/pay-1", {}),
    ):
        status, answer, _ = await desk.call(method, path, body)
        assert status in {400, 404}
        check(document, method, template, 400, answer)


def test_every_published_operation_for_the_bank_is_served(document, tmp_path):
    desk = Desk(tmp_path)
    served = set(desk.routes)
    desk.observer.close()
    assert set(document.operations) - served == {("POST", "/consents")}, "the Hub's own"
