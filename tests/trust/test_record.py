"""The tenant's own record, and the checker of anybody's: each known oddity is named, nothing ever raises."""

import copy

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config import Tenant
from hub.trust.mirror import DocumentFault, Index, read_organisations
from hub.trust.record import lint, make_record

TENANT = Tenant(
    provider_id="dune",
    organisation_id="0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1",
    organisation_name="Dune Bank",
    issuer="https://auth1.dune.hub.example",
    resource_base="https://rs1.dune.hub.example",
)
RECORD = make_record(
    TENANT,
    server_id="2b7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a3",
    name="Dune",
    endpoints={
        ("account-information", "2.1"): ["/open-finance/account-information/v2.1/accounts"],
        ("confirmation", "2.1"): ["/open-finance/confirmation-of-payee/v2.1/confirmation"],
    },
    metadata={
        "account-information": {"AccountSubType": ["Savings"]},
        "confirmation": {"DeprecationDate": "2030-01-01"},
    },
)
ORGANISATION = {
    "OrganisationId": TENANT.organisation_id,
    "OrganisationName": "Dune Bank",
    "Status": "Active",
    "AuthorisationServers": [RECORD],
}


def rules(document):
    return {(f.pointer, f.rule) for f in lint(orjson.dumps(document))}


def test_our_own_record_has_no_oddity():
    assert rules(RECORD) == set()
    assert rules([ORGANISATION]) == set()


def test_the_record_says_what_the_configuration_says():
    assert RECORD["OpenIDDiscoveryDocument"] == TENANT.issuer + "/.well-known/openid-configuration"
    endpoint = RECORD["ApiResources"][0]["ApiDiscoveryEndpoints"][0]["ApiEndpoint"]
    assert endpoint == TENANT.resource_base + "/open-finance/account-information/v2.1/accounts"


def test_a_hub_that_takes_notifications_says_where():
    assert "NotificationWebhook" not in RECORD
    told = make_record(
        TENANT,
        server_id=RECORD["AuthorisationServerId"],
        name="Dune",
        endpoints={("product", "2.1"): ["/open-finance/product/v2.1/leads"]},
        metadata={},
        notifications=True,
    )
    assert told["NotificationWebhook"] == TENANT.issuer + "/trust-framework/notifications"
    assert rules(told) == set()


ENDPOINT = "/ApiResources/0/ApiDiscoveryEndpoints/0/ApiEndpoint"
BASE = TENANT.resource_base


@pytest.mark.parametrize(
    ("pointer", "value", "rule"),
    [
        ("/Issuer", "https://auth1.dune.hub.example/", "url"),
        ("/Issuer", "http://auth1.dune.hub.example", "url"),
        ("/Issuer", None, "missing"),
        ("/OpenIDDiscoveryDocument", "https://auth1.dune.hub.example", "discovery"),
        (
            "/OpenIDDiscoveryDocument",
            "https://x.example/.well-known/openid-configuration",
            "discovery",
        ),
        ("/Status", "Working", "status"),
        ("/ApiResources", [], "missing"),
        ("/ApiResources/0/ApiVersion", "1.0.0", "version"),
        ("/ApiResources/0/ApiFamilyType", "accounts", "family"),
        ("/ApiResources/0/ApiMetadata", None, "missing"),
        ("/ApiResources/0/ApiDiscoveryEndpoints", None, "missing"),
        (
            ENDPOINT,
            BASE + "/open-finance/account-information/v2.1//open-finance/account-information/v2.1",
            "doubled_path",
        ),
        (
            ENDPOINT,
            BASE
            + "/.well-known/openid-configuration/open-finance/account-information/v2.1/accounts",
            "discovery_in_path",
        ),
        (ENDPOINT, BASE + "/open-finance/payment/v2.1/accounts", "family"),
        (ENDPOINT, BASE + "/open-finance/account-information/v1.2/accounts", "version"),
        (ENDPOINT, BASE + "/open-finance/v2.1/accounts", "path"),
        (ENDPOINT, "rs1.dune.hub.example/accounts", "url"),
        (ENDPOINT, "https://[broken", "url"),
    ],
)
def test_each_known_oddity_is_named_where_it_stands(pointer, value, rule):
    record = copy.deepcopy(RECORD)
    *steps, last = pointer.strip("/").split("/")
    place = record
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    place[last] = value
    assert (pointer, rule) in rules(record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "OrganisationId",
                    "Status",
                    "AuthorisationServers",
                    "ApiResources",
                    "Issuer",
                    "ApiDiscoveryEndpoints",
                    "ApiEndpoint",
                    "OrgDomainRoleClaims",
                    "Role",
                    "content",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_no_document_makes_the_checker_or_the_mirror_raise(document):
    raw = orjson.dumps(document)
    lint(raw)
    assert isinstance(read_organisations(raw, 1), Index | DocumentFault)


@given(st.binary(max_size=40))
def test_noise_is_not_json(noise):
    assert all(f.rule for f in lint(noise))
    assert isinstance(read_organisations(noise, 1), Index | DocumentFault)
