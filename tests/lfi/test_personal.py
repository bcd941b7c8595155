"""Identifiers that a bank should not have patched: recognised by their check digits, flagged or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.consent import ConsentType
from hub.model.personal import personal_kind
from tests.lfi.desk import Desk, approval, consent


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("AE070331234567890123456", "an IBAN"),
        ("ae07 0331 2345 6789 0123 456", "an IBAN"),
        ("GB82WEST12345698765432", "an IBAN"),
        ("784-1990-1234567-1", "an Emirates ID"),
        ("784199012345671", "an Emirates ID"),
        ("4111 1111 1111 1111", "a card number"),
        ("aisha@example.com", "an e-mail address"),
    ],
)
def test_what_looks_like_a_person_is_recognised(value, kind):
    assert personal_kind(value) == kind


@pytest.mark.parametrize(
    "value",
    ["AE080331234567890123456", "4111111111111112", "100100000001", "cust-77", "a@b", "", "@"],
)
def test_what_is_opaque_is_not(value):
    assert not personal_kind(value)


def test_a_uuid_whose_check_digits_happen_to_be_an_ibans_is_no_iban():
    assert personal_kind("dd75600a-66e4-b091-fe73-b81e449df33c") == ""


@given(st.uuids().map(str))
def test_a_uuid_is_never_taken_for_a_person(value):
    assert not personal_kind(value)


@pytest.mark.parametrize(("mode", "status"), [("accept", 204), ("flag", 204), ("refuse", 400)])
async def test_the_tenant_decides_what_becomes_of_them(mode, status, tmp_path):
    desk = Desk(tmp_path, switches={"personal_identifiers": mode})
    await desk.put(consent())
    patch = approval(accountIds=["a1", "AE070331234567890123456"])
    answered, body, response = await desk.call("PATCH", "/consents/c1", patch)
    assert answered == status
    assert response.event.check == ("" if mode == "accept" else "consent.personal_identifier")
    noted = b'hub_notes_total{name="consent.personal_identifier"}' in desk.observer.exposition()
    assert noted is (mode == "flag")
    if body is not None:
        assert body["errorMessage"].startswith("accountIds[1]: looks like an IBAN")
        assert "AE07" not in body["errorMessage"]
    desk.observer.close()


async def test_an_authorizer_is_named_opaquely_too(tmp_path):
    desk = Desk(tmp_path, switches={"personal_identifiers": "refuse"})
    await desk.put(consent(kind=ConsentType.SERVICE_INITIATION))
    for name, expected in (("aisha@example.ae", 400), ("u-1", 204)):
        one = {
            "AuthorizerId": name,
            "AuthorizerType": "Manager",
            "AuthorizationDate": "2026-06-01T08:05:00Z",
            "AuthorizationStatus": "Approved",
        }
        shown = {"TotalRequired": 2, "Authorizations": [one]}
        patch = {"authorizationChannel": "App", "consentBody.Meta.MultipleAuthorizers": shown}
        status, body, _ = await desk.call("PATCH", "/consents/c1", patch)
        assert status == expected
        if body is not None:
            where = "consentBody.Meta.MultipleAuthorizers.Authorizations[0].AuthorizerId"
            assert body["errorMessage"].startswith(f"{where}: looks like an e-mail address")
    desk.observer.close()
