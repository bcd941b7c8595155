"""The sandbox's Trust Framework: documented paths and documents, and what an operator's act changes in them."""

import base64
from urllib.parse import quote

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from joserfc import jws, jwt
from joserfc.jwk import KeySet, RSAKey

from hub.model.clock import FixedClock, SeededDice
from hub.sandbox.directory import DIRECTORY_ID, ApiResource, Directory
from hub.sandbox.pki import Pki, read_certificate
from hub.sandbox.server import SiteRequest

NOW = 1_795_000_000
BANK = "0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1"
ORG = "1a7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a2"
APP = "5d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"
SERVER = "2b7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a3"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """One PKI with its keys, so that each test pays for certificates only once."""
    folder = tmp_path_factory.mktemp("pki")
    pki = Pki.open(folder / "pki", FixedClock(NOW))
    made = {}
    for kind in ("C1", "Sig1", "Enc2"):
        made[kind] = pki.issue(
            kind,
            organisation_id=ORG,
            organisation_name="Rain FZ-LLC",
            client_id=APP,
            folder=folder / "keys",
            name=kind,
        )
    for kind in ("Sig2", "Enc1"):
        made[kind] = pki.issue(
            kind,
            organisation_id=BANK,
            organisation_name="Dune Bank",
            folder=folder / "keys",
            name=kind,
        )
    return pki, made


@pytest.fixture
def clock():
    return FixedClock(NOW)


@pytest.fixture
def opened(tmp_path, clock, keys):
    pki, _made = keys

    def make():
        return Directory.open(
            tmp_path / "directory",
            pki=pki,
            clock=clock,
            dice=SeededDice(),
            public_base="https://localhost:24010",
            api_base="https://localhost:24011",
            pki_base="http://localhost:24012",
        )

    return make


@pytest.fixture
def directory(opened, keys):
    _, made = keys
    made_directory = opened()
    made_directory.add_organisation(
        organisation_id=BANK, name="Dune Bank", size="LFI", roles=["LFI"]
    )
    made_directory.add_organisation(
        organisation_id=ORG, name="Rain FZ-LLC", size="TPP", roles=["BDSP", "BSIP"]
    )
    made_directory.add_application(
        organisation_id=ORG,
        client_id=APP,
        name="Rain",
        roles=["BDSP", "BSIP"],
        redirect_uris=["https://localhost:24030/cb"],
        webhook_uris=["https://localhost:24030/hook"],
    )
    for kind in ("C1", "Sig1", "Enc2"):
        made_directory.add_key(ORG, made[kind], client_id=APP)
    for kind in ("Sig2", "Enc1"):
        made_directory.add_key(BANK, made[kind])
    made_directory.add_server(
        BANK,
        server_id=SERVER,
        name="Dune",
        issuer="https://localhost:24000",
        discovery="https://localhost:24000/.well-known/openid-configuration",
        resources=[
            ApiResource(
                id="3b7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a3",
                family="account-information",
                version="2.1",
                endpoints=("https://x/open-finance/account-information/v2.1/accounts",),
            )
        ],
    )
    yield made_directory
    for kind in made.values():
        made_directory.restore(kind.kid)


def ask(path, method="GET", body=b"", certificate=b"", **headers):
    path, _, query = path.partition("?")
    return SiteRequest(
        method=method,
        path=path,
        query=query,
        headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()),
        body=body,
        certificate=certificate,
    )


async def public(directory, path, **more):
    answer = await directory.public_handler(ask(path, **more))
    return answer.status, orjson.loads(answer.body) if answer.body else None


def header(answer, name):
    return dict(answer.headers)[name]


def der(issued):
    return read_certificate(issued.cert_path).public_bytes(serialization.Encoding.DER)


TOKEN_FORM = f"grant_type=client_credentials&scope=directory:software&client_id={APP}".encode()


async def token(directory, keys, form=TOKEN_FORM, certificate=None):
    certificate = der(keys[1]["C1"]) if certificate is None else certificate
    answer = await directory.api_handler(ask("/token", "POST", form, certificate))
    return answer.status, orjson.loads(answer.body)


async def api(directory, keys, path):
    _, body = await token(directory, keys)
    return await directory.api_handler(
        ask(
            path,
            certificate=der(keys[1]["C1"]),
            authorization=f"Bearer {body['access_token']}",
        )
    )


async def test_participants_lists_the_organisations_that_have_a_server(directory):
    status, body = await public(directory, "/participants")
    assert status == 200
    assert [o["OrganisationId"] for o in body] == [BANK]
    server = body[0]["AuthorisationServers"][0]
    assert server["SupportsDCR"] is False
    assert server["ApiResources"][0]["ApiFamilyType"] == "account-information"


async def test_participants_is_cacheable_and_answers_304_to_its_own_etag(directory):
    first = await directory.public_handler(ask("/participants"))
    assert header(first, "cache-control") == "max-age=900"
    again = await directory.public_handler(
        ask("/participants", if_none_match=header(first, "etag"))
    )
    assert (again.status, again.body) == (304, b"")
    directory.withdraw(BANK)
    changed = await directory.public_handler(
        ask("/participants", if_none_match=header(first, "etag"))
    )
    assert changed.status == 200
    assert orjson.loads(changed.body)[0]["Status"] == "Withdrawn"


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        (f"/{ORG}/{APP}/application.jwks", {"Sig1": "sig", "Enc2": "enc"}),
        (f"/{ORG}/{APP}/transport.jwks", {"C1": "tls"}),
        (f"/{BANK}/application.jwks", {"Sig2": "sig", "Enc1": "enc"}),
        (f"/{BANK}/transport.jwks", {}),
        (f"/{ORG}/{APP}/revoked/application.jwks", {}),
    ],
)
async def test_key_sets_lie_at_the_documented_paths(directory, keys, path, kinds):
    answer = await directory.public_handler(ask(path))
    assert header(answer, "cache-control") == "max-age=300"
    found = {key["kid"]: key["use"] for key in orjson.loads(answer.body)["keys"]}
    assert found == {keys[1][kind].kid: use for kind, use in kinds.items()}


async def test_a_published_key_is_the_certificates_and_says_where_it_is(directory, keys):
    _, body = await public(directory, f"/{ORG}/{APP}/application.jwks")
    jwk = next(k for k in body["keys"] if k["use"] == "sig")
    assert jwk["kid"] == jwk["x5t#S256"] == keys[1]["Sig1"].kid
    private = RSAKey.import_key(keys[1]["Sig1"].key_path.read_text())
    token_text = jws.serialize_compact({"alg": "PS256"}, b"x", private, algorithms=["PS256"])
    key = RSAKey.import_key(jwk)
    assert jws.deserialize_compact(token_text, key, algorithms=["PS256"]).payload == b"x"
    answer = await directory.public_handler(ask(jwk["x5u"].removeprefix("https://localhost:24010")))
    certificate = x509.load_pem_x509_certificate(answer.body)
    assert certificate == read_certificate(keys[1]["Sig1"].cert_path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/{ORG}/other.jwks",
        f"/{APP}/application.jwks",
        f"/{BANK}/{APP}/application.jwks",
        f"/{ORG}/../{BANK}/application.jwks",
        f"/{ORG}/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.pem",
    ],
)
async def test_what_is_not_there_is_404(directory, path):
    assert (await directory.public_handler(ask(path))).status == 404


async def test_a_revoked_key_moves_to_the_revoked_set_and_into_the_revocation_list(directory, keys):
    _pki, made = keys
    directory.revoke(made["Sig1"].kid)
    _, active = await public(directory, f"/{ORG}/{APP}/application.jwks")
    _, revoked = await public(directory, f"/{ORG}/{APP}/revoked/application.jwks")
    assert made["Sig1"].kid not in {k["kid"] for k in active["keys"]}
    assert [k["kid"] for k in revoked["keys"]] == [made["Sig1"].kid]
    answer = await directory.pki_handler(ask("/issuer.crl"))
    serial = read_certificate(made["Sig1"].cert_path).serial_number
    crl = x509.load_der_x509_crl(answer.body)
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None


async def test_an_expired_certificate_leaves_the_key_set(directory, clock):
    clock.advance(398 * 86_400)
    _, body = await public(directory, f"/{ORG}/{APP}/application.jwks")
    assert body["keys"] == []


async def test_the_token_endpoint_knows_its_applications_by_certificate(directory, keys):
    status, body = await token(directory, keys)
    assert (status, body["token_type"], body["scope"]) == (200, "Bearer", "directory:software")


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (TOKEN_FORM.replace(APP.encode(), BANK.encode()), 401, "invalid_client"),
        (
            TOKEN_FORM.replace(b"client_credentials", b"authorization_code"),
            400,
            "unsupported_grant_type",
        ),
        (TOKEN_FORM.replace(b"directory:software", b"openid"), 400, "invalid_scope"),
    ],
)
async def test_the_token_endpoint_refuses_what_it_does_not_offer(
    directory, keys, form, status, error
):
    got, body = await token(directory, keys, form)
    assert (got, body) == (status, {"error": error})


async def test_no_certificate_no_token(directory, keys):
    assert await token(directory, keys, certificate=b"") == (401, {"error": "invalid_client"})


@pytest.mark.parametrize(
    "act",
    [
        lambda d, m: d.suspend(APP),
        lambda d, m: d.withdraw(ORG),
        lambda d, m: d.revoke(m["C1"].kid),
    ],
)
async def test_an_unfit_application_gets_no_token_and_its_old_one_is_dead(directory, keys, act):
    _, body = await token(directory, keys)
    act(directory, keys[1])
    assert (await token(directory, keys))[0] == 401
    answer = await directory.api_handler(
        ask(
            "/organisations",
            certificate=der(keys[1]["C1"]),
            authorization=f"Bearer {body['access_token']}",
        )
    )
    assert answer.status == 401


async def test_a_token_is_worth_nothing_without_its_certificate_or_after_its_time(
    directory, keys, clock
):
    _, body = await token(directory, keys)
    bearer = f"Bearer {body['access_token']}"
    other = await directory.api_handler(
        ask("/organisations", certificate=der(keys[1]["Sig1"]), authorization=bearer)
    )
    assert other.status == 401
    clock.advance(601)
    late = await directory.api_handler(
        ask("/organisations", certificate=der(keys[1]["C1"]), authorization=bearer)
    )
    assert late.status == 401


async def test_organisations_and_their_statements_are_told_with_roles_in_force(directory, keys):
    every = orjson.loads((await api(directory, keys, "/organisations")).body)
    assert {o["OrganisationId"]: o["Size"] for o in every} == {BANK: "LFI", ORG: "TPP"}
    directory.drop_role(ORG, "BSIP")
    path = f"/organisations/{ORG}/softwarestatements"
    listed = orjson.loads((await api(directory, keys, path)).body)
    one = orjson.loads((await api(directory, keys, f"{path}/{APP}")).body)
    assert listed == [one]
    assert one["Roles"] == ["BDSP"]
    assert one["RedirectUri"] == ["https://localhost:24030/cb"]
    assert (await api(directory, keys, f"/organisations/{ORG}")).status == 200
    servers = orjson.loads(
        (await api(directory, keys, f"/organisations/{BANK}/authorisationservers")).body
    )
    assert servers[0]["AuthorisationServerId"] == SERVER
    families = orjson.loads((await api(directory, keys, "/references/apifamilies")).body)
    assert "account-information" in {f["ApiFamilyType"] for f in families}


async def test_a_software_statement_assertion_verifies_with_the_published_key(directory, keys):
    answer = await api(directory, keys, f"/organisations/{ORG}/softwarestatements/{APP}/assertion")
    _, published = await public(directory, "/directory.jwks")
    key_set = KeySet.import_key_set(published)
    decoded = jwt.decode(answer.body.decode(), key_set, algorithms=["PS256"])
    assert decoded.header["typ"] == "JWT"
    assert decoded.claims["SoftwareClientId"] == APP
    assert decoded.claims["OrgStatus"] == "Active"
    roles = decoded.claims["SoftwareAuthorityClaims"]["AuthorisationDomains"][0]["Roles"]
    assert roles == [{"Role": "BDSP", "Status": "Active"}, {"Role": "BSIP", "Status": "Active"}]
    assert DIRECTORY_ID not in directory.register.organisations


@pytest.mark.parametrize("path", [f"/organisations/{APP}", f"/organisations/{ORG}/x", "/nothing"])
async def test_the_api_says_404(directory, keys, path):
    assert (await api(directory, keys, path)).status == 404


async def test_what_was_changed_is_there_after_a_restart_and_adding_again_keeps_it(
    directory, opened
):
    directory.suspend(APP)
    again = opened()
    assert again.register == directory.register
    again.add_application(
        organisation_id=ORG, client_id=APP, name="Rain 2", roles=["BDSP"], redirect_uris=[]
    )
    application = again.register.application(APP)
    assert (application.status, application.name) == ("Suspended", "Rain 2")
    assert len(application.keys) == 3


async def test_keys_made_elsewhere_are_published_without_their_private_part(directory):
    mine = RSAKey.generate_key(2048, {"kid": "mine", "use": "sig"}, private=True)
    directory.add_application(
        organisation_id=ORG,
        client_id=APP,
        name="Rain",
        roles=["BDSP"],
        redirect_uris=[],
        jwks={"keys": [mine.as_dict(private=True)]},
    )
    _, body = await public(directory, f"/{ORG}/{APP}/application.jwks")
    found = next(k for k in body["keys"] if k["kid"] == "mine")
    assert set(found) <= {"kid", "use", "kty", "n", "e"}


async def test_ocsp_is_answered_by_post_and_by_get(directory, keys):
    pki, made = keys

    builder = ocsp.OCSPRequestBuilder().add_certificate(
        read_certificate(made["C1"].cert_path), pki.issuing, hashes.SHA256()
    )
    raw = builder.build().public_bytes(serialization.Encoding.DER)
    posted = await directory.pki_handler(ask("/ocsp", "POST", raw))
    got = await directory.pki_handler(ask("/ocsp/" + base64.b64encode(raw).decode()))
    for answer in (posted, got):
        read = ocsp.load_der_ocsp_response(answer.body)
        assert read.certificate_status is ocsp.OCSPCertStatus.GOOD


def request_for(subject, size=2048):
    key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    names = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    built = x509.CertificateSigningRequestBuilder().subject_name(names).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM)


SUBJECT = (
    (NameOID.COUNTRY_NAME, "AE"),
    (NameOID.ORGANIZATION_NAME, "Rain FZ-LLC"),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, ORG),
    (NameOID.COMMON_NAME, APP),
)
CERTIFICATES = f"/organisations/{ORG}/softwarestatements/{APP}/certificates"


async def write(directory, keys, method, path, body=b"", content_type="application/x-pem-file"):
    _, granted = await token(directory, keys)
    answer = await directory.api_handler(
        ask(
            path,
            method,
            body,
            der(keys[1]["C1"]),
            authorization=f"Bearer {granted['access_token']}",
            content_type=content_type,
        )
    )
    return answer.status, orjson.loads(answer.body)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_certificate_is_issued_from_a_request_and_published(directory, keys, wrapped):
    body, kind = request_for(SUBJECT), "application/x-pem-file"
    if wrapped:
        body, kind = orjson.dumps({"KeyMaterial": quote(body.decode())}), "application/json"
    path = f"{CERTIFICATES}/opf_uae_client_signing"
    status, made = await write(directory, keys, "POST", path, body, kind)
    assert status == 201
    certificate = x509.load_pem_x509_certificate(made["Certificate"].encode())
    certificate.verify_directly_issued_by(directory.pki.issuing)
    _, published = await public(directory, f"/{ORG}/{APP}/application.jwks")
    assert made["kid"] in {key["kid"] for key in published["keys"]}
    _, listed = await write(directory, keys, "GET", CERTIFICATES)
    assert made["kid"] in {row["kid"] for row in listed}


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        (SUBJECT[1:], "countryName"),
        ((*SUBJECT[:1], (NameOID.ORGANIZATION_NAME, "Other"), *SUBJECT[2:]), "organizationName"),
        ((*SUBJECT[:2], (NameOID.ORGANIZATIONAL_UNIT_NAME, BANK), SUBJECT[3]), "organizational"),
        ((*SUBJECT[:3], (NameOID.COMMON_NAME, BANK)), "commonName"),
        ((*SUBJECT, (NameOID.COMMON_NAME, BANK)), "commonName"),
    ],
)
async def test_a_request_with_another_subject_is_refused(directory, keys, subject, why):
    path = f"{CERTIFICATES}/opf_uae_client_transport"
    status, answer = await write(directory, keys, "POST", path, request_for(subject))
    assert status == 400
    assert why in answer["error"]


async def test_short_keys_noise_and_unknown_types_are_refused(directory, keys):
    path = f"{CERTIFICATES}/opf_uae_client_signing"
    short = await write(directory, keys, "POST", path, request_for(SUBJECT, 1024))
    noise = await write(directory, keys, "POST", path, b"noise")
    unknown = await write(directory, keys, "POST", f"{CERTIFICATES}/x", request_for(SUBJECT))
    assert {short[0], noise[0], unknown[0]} == {400}


async def test_a_certificate_is_revoked_through_the_api(directory, keys):
    kid = keys[1]["Sig1"].kid
    body = orjson.dumps({"RevokeReason": "keycompromise"})
    status, row = await write(directory, keys, "PUT", f"{CERTIFICATES}/{kid}", body)
    assert (status, row["Status"], row["RevokeReason"]) == (200, "Revoked", "keyCompromise")
    _, published = await public(directory, f"/{ORG}/{APP}/application.jwks")
    assert kid not in {key["kid"] for key in published["keys"]}


async def test_nobody_touches_the_certificates_of_another_organisation(directory, keys):
    for method, path in (
        ("GET", f"/organisations/{BANK}/certificates"),
        ("POST", f"/organisations/{BANK}/certificates/opf_uae_server_signing"),
        ("PUT", f"/organisations/{BANK}/certificates/{keys[1]['Sig2'].kid}"),
    ):
        assert (await write(directory, keys, method, path))[0] == 403
