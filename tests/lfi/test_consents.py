"""The Consent Manager's operations on consents: what the bank reads, changes, revokes, and is refused."""

import json
from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest

from hub.model.consent import ConsentType, Status
from hub.model.consent_change import approved_digest
from hub.model.consent_history import history_line
from hub.model.consent_record import consent_record
from hub.model.records import AccessToken, Grant, RefreshToken
from tests.lfi.desk import NOBODY, NOW, OTHER, Desk, approval, consent


@pytest.fixture
async def desk(tmp_path):
    made = Desk(tmp_path)
    await made.put(consent())
    yield made
    made.observer.close()


async def test_a_consent_is_read_as_its_record_with_and_without_the_version_prefix(desk):
    for prefix in ("", "/v2025.32", "/v2024.46"):
        status, body, _ = await desk.call("GET", f"{prefix}/consents/c1")
        assert status == 200
        assert body["meta"] == {}
        assert body["data"]["id"] == "c1"
        assert body["data"]["status"] == "AwaitingAuthorization"
        assert body["data"]["consentBody"]["Data"]["Status"] == "AwaitingAuthorization"
        assert "accountIds" not in body["data"]
        assert "ConnectToken" not in body["data"]


async def test_an_unknown_consent_is_404_in_the_declared_shape(desk):
    for method, path in (
        ("GET", "/consents/no"),
        ("PATCH", "/consents/no"),
        ("GET", "/consents/no/audit"),
        ("POST", "/consents/no/action/revoke"),
        ("POST", "/consent-groups/no/consents/action/revoke"),
    ):
        status, body, _ = await desk.call(method, path, {"revokedBy": "LFI"})
        assert status == 404
        assert body["errorCode"] == "Resource.InvalidFormat"
        assert set(body) == {"errorCode", "errorMessage"}


async def test_an_approval_authorizes_and_is_seen_at_once(desk):
    status, body, response = await desk.call("PATCH", "/consents/c1", approval())
    assert (status, body) == (204, None)
    assert response.event.change == "AwaitingAuthorization>Authorized"
    stored = await desk.stored()
    assert stored.status is Status.AUTHORIZED
    assert stored.account_ids == ("a1", "a2")
    assert stored.digest
    record = (await desk.call("GET", "/consents/c1"))[1]["data"]
    assert record["status"] == record["consentBody"]["Data"]["Status"] == "Authorized"
    assert record["psuIdentifiers"] == {"userId": "cust-77"}
    assert record["authorizationChannel"] == "App"


@pytest.mark.parametrize(
    "spelling",
    [
        {"status": "Authorized"},
        {"consentBody.Data.Status": "Authorized"},
        {"status": "Authorized", "consentBody.Data.Status": "Authorized"},
        {"consentBody": {"Data": {"Status": "Authorized"}}},
        {"consentBody.Data": {"Status": "Authorized"}},
        {"consentBody": {"Data.Status": "Authorized"}},
    ],
)
async def test_every_spelling_of_the_status_is_understood(desk, spelling):
    patch = approval()
    del patch["consentBody.Data.Status"]
    assert (await desk.call("PATCH", "/consents/c1", patch | spelling))[0] == 204
    assert (await desk.stored()).status is Status.AUTHORIZED


WRONG = [
    ({"authorizationChannel": None}, "authorizationChannel"),
    ({"authorizationChannel": "Phone"}, "authorizationChannel"),
    ({"psuIdentifiers": {}}, "psuIdentifiers.userId"),
    ({"accountIds": []}, "accountIds"),
    ({"accountIds": ["x" * 41]}, "accountIds[0]"),
    ({"accountIds": "a1"}, "accountIds"),
    ({"status": "Rejected"}, "status"),
    ({"consentBody.Data.Status": "AwaitingAuthorization"}, "consentBody.Data.Status"),
    ({"ConnectToken": "x"}, "ConnectToken"),
    ({"insurancePolicyIds": ["p"]}, "insurancePolicyIds"),
    ({"consentBody": {"Data": {"Permissions": []}}}, "consentBody.Data.Permissions"),
    ({"consentBody.Data.RevokedBy": "LFI"}, "consentBody.Data.RevokedBy"),
    ({"consentBody.Data.OpenFinanceBilling": {}}, "OpenFinanceBilling.IsLargeCorporate"),
    ({"consentUsage": {"lastDataShared": "yesterday"}}, "consentUsage.lastDataShared"),
    ({"id": "c2"}, "id"),
]


@pytest.mark.parametrize(("change", "named"), WRONG)
async def test_a_wrong_patch_is_refused_naming_the_member_and_changes_nothing(desk, change, named):
    before = await desk.stored()
    patch = {k: v for k, v in (approval() | change).items() if v is not None}
    status, body, response = await desk.call("PATCH", "/consents/c1", patch)
    assert status == 400
    assert body["errorCode"] == "Body.InvalidFormat"
    assert named in body["errorMessage"]
    assert response.event.check == "consent.patch_format"
    assert await desk.stored() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(desk, body):
    status, answer, _ = await desk.call("PATCH", "/consents/c1", body)
    assert (status, answer["errorCode"]) == (400, "Body.InvalidFormat")


@pytest.mark.parametrize("member", ["supplementaryInformation", "psuIdentifiers"])
@pytest.mark.parametrize(("levels", "expected"), [(62, 204), (63, 400), (300, 400), (1000, 400)])
async def test_what_is_kept_of_a_patch_can_always_be_shown_again(desk, member, levels, expected):
    deep = b"[" * levels + b"]" * levels
    body = b'{"authorizationChannel":"App","%s":{"userId":"u","more":%s}}' % (member.encode(), deep)
    status, answer, _ = await desk.call("PATCH", "/consents/c1", body)
    assert status == expected
    if expected == 400:
        assert (answer["errorCode"], "64 levels" in answer["errorMessage"]) == (
            "Body.InvalidFormat",
            True,
        )
    assert (await desk.call("GET", "/consents/c1"))[0] == 200
    assert (await desk.call("GET", "/consents"))[0] == 200


async def test_an_authorization_needs_a_customer_and_accounts(desk):
    for lacking in ("psuIdentifiers", "accountIds"):
        patch = approval()
        del patch[lacking]
        status, body, _ = await desk.call("PATCH", "/consents/c1", patch)
        assert status == 400
        assert body["errorMessage"].startswith(lacking)


async def test_a_payment_has_one_account_and_may_carry_a_connect_token(desk):
    kind = ConsentType.SERVICE_INITIATION
    await desk.put(consent("p1", kind))
    two = approval(kind, accountIds=["a", "b"])
    assert (await desk.call("PATCH", "/consents/p1", two))[0] == 400
    charges = [
        {
            "ChargeBearer": "Shared",
            "Type": "Fees",
            "Amount": {"Amount": "1.00", "Currency": "AED"},
        }
    ]
    patch = approval(kind, **{"ConnectToken": "tok", "consentBody.Data.Charges": charges})
    assert (await desk.call("PATCH", "/consents/p1", patch))[0] == 204
    record = (await desk.call("GET", "/consents/p1"))[1]["data"]
    assert record["ConnectToken"] == "tok"
    assert record["consentBody"]["Data"]["Charges"] == charges
    audit = (await desk.call("GET", "/consents/p1/audit"))[1]["data"]
    assert "tok" not in audit[1]["patch"]
    assert "cust-77" not in audit[1]["patch"]


async def test_several_approvers_are_shown_while_the_consent_waits(desk):
    kind = ConsentType.SERVICE_INITIATION
    await desk.put(consent("p1", kind))
    authorizers = {
        "TotalRequired": 2,
        "Authorizations": [{"AuthorizerId": "u1", "AuthorizationStatus": "Approved"}],
    }
    patch = {
        "authorizationChannel": "Web",
        "psuIdentifiers": {"userId": "u"},
        "accountIds": ["a1"],
        "consentBody": {"Meta": {"MultipleAuthorizers": authorizers}},
    }
    assert (await desk.call("PATCH", "/consents/p1", patch))[0] == 204
    record = (await desk.call("GET", "/consents/p1"))[1]["data"]
    assert record["consentBody"]["Meta"] == {"MultipleAuthorizers": authorizers}
    assert record["status"] == "AwaitingAuthorization"
    last = {"authorizationChannel": "Web", "status": "Authorized"}
    assert (await desk.call("PATCH", "/consents/p1", last))[0] == 204


async def test_policies_of_an_insurance_consent_are_mirrored_as_accounts(desk):
    await desk.put(consent("i1", ConsentType.INSURANCE))
    await desk.call("PATCH", "/consents/i1", approval(ConsentType.INSURANCE))
    record = (await desk.call("GET", "/consents/i1"))[1]["data"]
    assert record["insurancePolicyIds"] == record["accountIds"] == ["p1"]
    assert [c["id"] for c in (await desk.call("GET", "/accounts/p1/consents"))[1]["data"]] == ["i1"]


async def test_a_final_consent_changes_no_more_but_its_state_may_be_repeated(desk):
    reject = {"authorizationChannel": "App", "status": "Rejected"}
    assert (await desk.call("PATCH", "/consents/c1", reject))[0] == 204
    before = await desk.stored()
    assert (await desk.call("PATCH", "/consents/c1", reject))[0] == 204
    assert await desk.stored() == before
    status, body, response = await desk.call("PATCH", "/consents/c1", approval())
    assert (status, body["errorCode"]) == (400, "Consent.BusinessRuleViolation")
    assert response.event.check == "consent.transition"
    revoke = await desk.call("POST", "/consents/c1/action/revoke", {"revokedBy": "LFI"})
    assert (revoke[0], revoke[1]["errorCode"]) == (400, "Consent.BusinessRuleViolation")


async def test_what_the_customer_approved_does_not_change_afterwards(desk):
    await desk.call("PATCH", "/consents/c1", approval())
    for other in ({"accountIds": ["a9"]}, {"psuIdentifiers": {"userId": "someone"}}):
        patch = {"authorizationChannel": "App", **other}
        status, body, _ = await desk.call("PATCH", "/consents/c1", patch)
        assert (status, body["errorCode"]) == (400, "Consent.BusinessRuleViolation")
    suspend = {"authorizationChannel": "App", "status": "Suspended", "accountIds": ["a1", "a2"]}
    assert (await desk.call("PATCH", "/consents/c1", suspend))[0] == 204


async def test_accounts_have_no_order_and_stay_as_they_were_approved(desk):
    await desk.call("PATCH", "/consents/c1", approval())
    turned = {"authorizationChannel": "App", "status": "Suspended", "accountIds": ["a2", "a1"]}
    assert (await desk.call("PATCH", "/consents/c1", turned))[0] == 204
    held = await desk.stored()
    assert (held.status, held.account_ids) == (Status.SUSPENDED, ("a1", "a2"))
    assert held.digest == approved_digest(held)


async def test_a_revocation_kills_grants_and_tokens_in_the_same_commit(desk):
    await desk.call("PATCH", "/consents/c1", approval())
    common = {"client_id": "tpp-client", "consent_id": "c1"}
    grant = Grant(id="g", created=NOW, **common)
    token = {"grant_id": "g", "scope": "accounts", "issued": NOW, "expires": NOW + 600, **common}
    access = AccessToken(digest="d", x5t_s256="t", **token)
    refresh = RefreshToken(digest="r", **token)
    await desk.put(grant, access, refresh)
    body = {"revokedBy": "LFI.InitiatedByUser", "revokedByPsu": {"userId": "cust-77"}}
    status, _, response = await desk.call("POST", "/consents/c1/action/revoke", body)
    assert status == 204
    assert response.event.change == "Authorized>Revoked"
    for kind, key in ((Grant, "g"), (AccessToken, "d"), (RefreshToken, "r")):
        assert (await desk.keeper.lookup(kind, key))[0].revoked == NOW
    record = (await desk.call("GET", "/consents/c1"))[1]["data"]
    assert record["consentBody"]["Data"]["RevokedBy"] == "LFI.InitiatedByUser"
    assert (await desk.call("POST", "/consents/c1/action/revoke", body))[0] == 204


@pytest.mark.parametrize("body", [{}, {"revokedBy": "Nobody"}, {"revokedBy": "LFI", "x": 1}, []])
async def test_a_revocation_says_by_whom(desk, body):
    status, answer, _ = await desk.call("POST", "/consents/c1/action/revoke", body)
    assert (status, answer["errorCode"]) == (400, "Body.InvalidFormat")


async def test_a_group_is_revoked_without_its_final_members(desk):
    await desk.put(
        consent("b1", group_id="base", status=Status.AUTHORIZED),
        consent("b2", group_id="base", status=Status.REJECTED),
        consent("b3", group_id="base", status=Status.SUSPENDED),
        consent("x", group_id="other", status=Status.AUTHORIZED),
    )
    path = "/consent-groups/base/consents"
    assert (await desk.call("POST", f"{path}/action/revoke", {"revokedBy": "LFI"}))[0] == 204
    listed = (await desk.call("GET", path))[1]["data"]
    states = {record["id"]: record["status"] for record in listed}
    assert states == {"b1": "Revoked", "b2": "Rejected", "b3": "Revoked"}
    assert (await desk.stored("x")).status is Status.AUTHORIZED
    changed = [e for e in await desk.events() if e.get("route") == "consents.revoke-group"]
    assert {e["consent_id"] for e in changed if e["kind"] == "consent"} == {"b1", "b3"}


async def test_lists_filter_page_and_count(desk):
    for at in range(7):
        kind = ConsentType.SERVICE_INITIATION if at % 2 else ConsentType.ACCOUNT_ACCESS
        await desk.put(
            consent(f"n{at}", kind, updated_ms=(NOW + at) * 1000, psu_identifiers={"userId": "u 1"})
        )
    first = (await desk.call("GET", "/psu/u%201/consents?page=1&pageSize=3"))[1]
    assert first["meta"] == {"pageNumber": 1, "pageSize": 3, "totalPages": 3, "totalRecords": 7}
    last = (await desk.call("GET", "/psu/u%201/consents?page=3&pageSize=3"))[1]
    assert [record["id"] for record in last["data"]] == ["n6"]
    typed = "/psu/u%201/consents?consentType=cbuae-service-initiation-consents"
    assert len((await desk.call("GET", typed))[1]["data"]) == 3
    assert (await desk.call("GET", "/psu/nobody/consents"))[1]["data"] == []
    for moment in (NOW + 4, (NOW + 4) * 1000, float(NOW + 4)):
        changed = (await desk.call("GET", f"/consents?updatedAt={moment}"))[1]["data"]
        assert [record["id"] for record in changed] == ["n5", "n6"]
    assert (await desk.call("GET", "/consents?status=Revoked"))[1]["data"] == []


@pytest.mark.parametrize(
    "query",
    ["page=0", "pageSize=x", "updatedAt=now", "status=Gone", "consentType=x", "page=1&page=2"],
)
async def test_a_wrong_filter_is_refused_naming_the_parameter(desk, query):
    status, body, _ = await desk.call("GET", f"/consents?{query}")
    assert (status, body["errorCode"]) == (400, "Resource.InvalidFormat")
    assert body["errorMessage"].startswith(query.split("=", maxsplit=1)[0])


async def test_a_consent_runs_out_at_the_exact_second_in_reads_lists_and_events(desk):
    await desk.put(
        consent("w", authorization_expires=NOW + 60),
        consent("e", status=Status.AUTHORIZED, expires=NOW + 60),
    )
    desk.clock.advance(59.999)
    assert (await desk.call("GET", "/consents/w"))[1]["data"]["status"] == "AwaitingAuthorization"
    assert len((await desk.call("GET", "/consents?status=Authorized"))[1]["data"]) == 1
    desk.clock.advance(0.001)
    assert (await desk.call("GET", "/consents/w"))[1]["data"]["status"] == "Rejected"
    assert (await desk.call("GET", "/consents?status=Authorized"))[1]["data"] == []
    assert [c["id"] for c in (await desk.call("GET", "/consents?status=Expired"))[1]["data"]] == [
        "e"
    ]
    changes = {e["consent_id"]: e["change"] for e in await desk.events() if e["kind"] == "consent"}
    assert changes == {"w": "AwaitingAuthorization>Rejected", "e": "Authorized>Expired"}
    audit = (await desk.call("GET", "/consents/e/audit"))[1]["data"]
    assert [line["operation"] for line in audit] == ["create", "patch"]


async def test_a_patch_of_a_consent_that_ran_out_is_refused_though_no_sweep_came(desk):
    desk.clock.advance(86400)
    status, body, _ = await desk.call("PATCH", "/consents/c1", approval())
    assert (status, body["errorCode"]) == (400, "Consent.BusinessRuleViolation")


async def test_the_history_names_who_did_what(desk):
    interaction = b"11111111-2222-4333-8444-555555555555"
    await desk.call(
        "PATCH", "/consents/c1", approval(), headers=[(b"x-fapi-interaction-id", interaction)]
    )
    _, body, _ = await desk.call("GET", "/consents/c1/audit")
    created, patched = body["data"]
    assert created["operation"] == "create"
    assert created["callerDetails"]["callerClientId"] == "tpp-client"
    assert patched["operation"] == "patch"
    assert patched["ozoneInteractionId"] == interaction.decode()
    assert patched["callerDetails"] == {"callerOrgId": "org-bank", "callerClientId": "bank-client"}
    assert patched["providerId"] == "LFI1"
    assert isinstance(patched["timestamp"], int)
    assert "Authorized" in patched["patch"]


async def test_the_newest_changes_are_always_in_the_history(desk):
    held = await desk.stored()
    lines = [
        history_line(
            held, line_id=f"l-{at:04d}", time_ms=NOW * 1000 + at, interaction_id="i", patch={}
        )
        for at in range(1100)
    ]
    await desk.put(*lines[:600])
    await desk.put(*lines[600:])
    shown = [line["id"] for line in (await desk.call("GET", "/consents/c1/audit"))[1]["data"]]
    assert shown == ["c1", *(line.id for line in lines[100:])]


async def test_the_history_keeps_no_secret_no_customer_and_no_free_text(desk):
    patch = approval(supplementaryInformation={"note": "born 1990-01-01"})
    await desk.call("PATCH", "/consents/c1", patch)
    _, body, _ = await desk.call("GET", "/consents/c1/audit")
    assert "cust-77" not in body["data"][1]["patch"]
    assert "born" not in body["data"][1]["patch"]


async def test_a_change_between_reading_and_writing_is_decided_again(desk):
    lookup = desk.keeper.lookup
    raced = []

    async def racing(kind, key):
        found = await lookup(kind, key)
        if not raced:
            raced.append(key)
            rejected = consent(status=Status.REJECTED)
            await desk.put(rejected)
        return found

    desk.keeper.lookup = racing
    status, body, _ = await desk.call("PATCH", "/consents/c1", approval())
    assert raced
    assert (status, body["errorCode"]) == (400, "Consent.BusinessRuleViolation")


async def test_only_the_banks_own_clients_pass(desk):
    status, body, response = await desk.call("GET", "/consents", peer=OTHER)
    assert status == 403
    assert body["errorMessage"] == "this certificate is not the bank's"
    assert response.event.check == "lfi.organisation"
    for _ in range(5):
        assert (await desk.call("GET", "/consents/c1", peer=NOBODY))[0] == 401
    refusals = [e for e in await desk.events() if e["kind"] == "refused"]
    assert len(refusals) == 1, "a flood of strangers is one event a minute"
    desk.clock.advance(61)
    await desk.call("GET", "/consents/c1", peer=NOBODY)
    assert [e["count"] for e in await desk.events() if e["kind"] == "refused"] == [1, 5]


async def test_every_request_leaves_exactly_one_event_of_its_own(desk):
    before = (await desk.keeper.head()).size
    await desk.call("GET", "/consents/c1")
    await desk.call("PATCH", "/consents/c1", approval())
    await desk.call("PATCH", "/consents/c1", {})
    assert (await desk.keeper.head()).size == before + 3
    events = await desk.events()
    assert [e["route"] for e in events[-3:]] == [
        "consents.read",
        "consents.patch",
        "consents.patch",
    ]
    assert events[-1]["verdict"] == "refused"
    assert "cust-77" not in str(events)


async def test_the_hello_operation_shows_the_callers_certificate(desk):
    status, body, _ = await desk.call("GET", "/v2025.32/hello-mtls")
    assert status == 200
    assert body["mtlsStatus"] == "established"
    assert body["clientCertificate"] == {
        "subject": "CN=bank-client,OU=org-bank,O=Bank",
        "issuer": "CN=CA",
    }


def test_the_record_leaves_out_what_nobody_set():
    record = consent_record(consent(), NOW)
    assert not {"psuIdentifiers", "accountIds", "ConnectToken", "consentUsage"} & set(record)
    assert record["updatedAt"] == NOW * 1000


def owned(consent_id, user, **over):
    return consent(
        consent_id,
        group_id="base",
        status=Status.AUTHORIZED,
        psu_identifiers={"userId": user},
        **over,
    )


async def test_a_group_is_listed_and_revoked_in_either_case_of_its_name(desk):
    first = "abcdef00-0000-4000-8000-000000000000"
    for name in (first, "b2"):
        await desk.put(consent(name, group_id=first, status=Status.AUTHORIZED))
    path = f"/consent-groups/{first.upper()}/consents"
    assert len((await desk.call("GET", path))[1]["data"]) == 2
    assert (await desk.call("POST", f"{path}/action/revoke", {"revokedBy": "LFI"}))[0] == 204
    for name in (first, "b2"):
        assert (await desk.stored(name)).status is Status.REVOKED


async def test_a_group_whose_first_consent_is_not_known_is_found_in_either_case_too(desk):
    unknown = "abcdef00-0000-4000-8000-000000000000"
    await desk.put(*(consent(name, group_id=unknown.upper()) for name in ("b1", "b2")))
    for spelt in (unknown, unknown.upper()):
        path = f"/consent-groups/{spelt}/consents"
        assert len((await desk.call("GET", path))[1]["data"]) == 2


async def test_a_revocation_takes_the_identifiers_that_the_consent_shows(desk):
    body = {
        "revokedBy": "LFI.InitiatedByUser",
        "revokedByPsu": {"userId": "cust-77", "branch": "7"},
    }
    assert (await desk.call("POST", "/consents/c1/action/revoke", body))[0] == 204
    body["revokedByPsu"] = {"userid": "cust-77"}
    status, answer, _ = await desk.call("POST", "/consents/c1/action/revoke", body)
    assert (status, answer["errorMessage"]) == (400, "revokedByPsu.userid: is not one of userId")


async def test_a_group_of_several_customers_is_revoked_for_one_of_them_alone(desk):
    await desk.put(owned("b1", "u-1"), owned("b2", "u-2"), consent("b3", group_id="base"))
    path = "/consent-groups/base/consents"
    revoke = {"revokedBy": "LFI.InitiatedByUser"}
    status, answer, _ = await desk.call("POST", f"{path}/action/revoke", revoke)
    assert (status, answer["errorCode"]) == (400, "Consent.BusinessRuleViolation")
    assert answer["errorMessage"].startswith("revokedByPsu.userId")
    named = revoke | {"revokedByPsu": {"userId": "u-1"}}
    assert (await desk.call("POST", f"{path}/action/revoke", named))[0] == 204
    listed = (await desk.call("GET", path))[1]["data"]
    assert {one["id"]: one["status"] for one in listed} == {
        "b1": "Revoked",
        "b2": "Authorized",
        "b3": "AwaitingAuthorization",
    }
    shown = (await desk.call("GET", f"{path}?userId=u-2"))[1]
    assert [one["id"] for one in shown["data"]] == ["b2"]
    assert (await desk.call("POST", f"{path}/action/revoke", {"revokedBy": "LFI"}))[0] == 204
    assert (await desk.stored("b2")).status is Status.REVOKED


async def test_a_group_is_of_the_organisation_that_its_first_consent_belongs_to(desk):
    await desk.put(
        owned("base", "u-1"),
        owned("b2", "u-1"),
        owned("stranger", "u-1", organisation_id="other-org"),
    )
    path = "/consent-groups/base/consents"
    listed = (await desk.call("GET", path))[1]["data"]
    assert {one["id"] for one in listed} == {"base", "b2"}
    revoke = {"revokedBy": "LFI", "revokedByPsu": {"userId": "u-1"}}
    assert (await desk.call("POST", f"{path}/action/revoke", revoke))[0] == 204
    assert (await desk.stored("stranger")).status is Status.AUTHORIZED


async def test_what_the_customer_approved_is_named_by_its_digest_in_the_event(desk):
    event = (await desk.call("PATCH", "/consents/c1", approval()))[2].event
    stored = await desk.stored()
    content = {
        "ConsentId": "c1",
        "request": stored.request["consent"],
        "psuIdentifiers": {"userId": "cust-77"},
        "accountIds": ["a1", "a2"],
        "insurancePolicyIds": [],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    digest = urlsafe_b64encode(sha256(canonical).digest()).rstrip(b"=").decode()
    assert event.approved == stored.digest == digest
    later = {"authorizationChannel": "Web", "status": "Suspended"}
    assert (await desk.call("PATCH", "/consents/c1", later))[2].event.approved == ""
    assert (await desk.stored()).digest == digest
