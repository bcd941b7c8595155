"""The sandbox's certification authority: the documented profile, reuse, renewal, revocation."""

import datetime as dt
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from hub.model.clock import FixedClock
from hub.protocol.peer import read_peer
from hub.sandbox.pki import KEY_TYPES, Kind, Pki, read_certificate, x5t_s256

NOW = 1_795_000_000
ORGANISATION = "0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1"
CLIENT = "5d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"


@pytest.fixture
def clock():
    return FixedClock(NOW)


@pytest.fixture
def pki(tmp_path, clock):
    return Pki.open(tmp_path / "pki", clock, base="http://localhost:24012")


def issue(pki, kind, name=None, **more):
    given = {
        "organisation_id": ORGANISATION,
        "organisation_name": "Rain, FZ-LLC",
        "client_id": CLIENT if KEY_TYPES[Kind(kind)].startswith("OPF UAE CLIENT") else "",
        "folder": pki.folder.parent / "keys",
        "name": name or str(kind),
    }
    return pki.issue(kind, **(given | more))


def test_the_authorities_carry_the_documented_names(pki):
    base = "C=AE,O=API Hub Project,OU=API Hub Sandbox Trust Framework,"
    names = [c.subject.rfc4514_string({}) for c in (pki.root, pki.issuing)]
    turned = [",".join(reversed(name.split(","))) for name in names]
    assert turned == [
        base + "CN=API Hub Sandbox Trust Framework Root CA - G1",
        base + "CN=API Hub Sandbox Trust Framework Issuing CA - G1",
    ]
    assert pki.issuing.signature_algorithm_oid._name == "sha512WithRSAEncryption"


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_of_the_key_map_is_issued_with_a_key_readable_by_its_owner_only(pki, kind):
    issued = issue(pki, kind)
    assert stat.S_IMODE(issued.key_path.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(issued.key_path.read_bytes(), None)
    assert key.key_size == 2048
    if kind is Kind.ENC1:
        assert issued.cert_path.read_bytes().startswith(b"-----BEGIN PUBLIC KEY")
        return
    certificate = read_certificate(issued.cert_path)
    assert issued.kid == x5t_s256(certificate)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    certificate.verify_directly_issued_by(pki.issuing)
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [a.value for a in common] == (
        [CLIENT] if issued.key_type.startswith("OPF UAE CLIENT") else []
    )


def test_a_client_transport_certificate_passes_an_independent_path_validation(pki):
    certificate = read_certificate(issue(pki, "C1").cert_path)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    peer = read_peer(
        certificate.public_bytes(serialization.Encoding.DER), address="::1", tls_version="TLSv1.3"
    )
    assert (peer.organisation_id, peer.organisation_name, peer.client_id) == (
        ORGANISATION,
        "Rain, FZ-LLC",
        CLIENT,
    )


def test_a_server_certificate_is_valid_for_the_sandbox_hosts(pki):
    certificate = read_certificate(issue(pki, "S1", dns=("bank.example",)).cert_path)
    for host in ("localhost", "auth1.hub.localhost", "bank.example"):
        verifier = (
            PolicyBuilder()
            .store(Store([pki.root]))
            .time(dt.datetime.fromtimestamp(NOW, dt.UTC))
            .build_server_verifier(x509.DNSName(host))
        )
        assert len(verifier.verify(certificate, [pki.issuing])) == 3


def test_openssl_loads_what_was_issued(pki):
    issued = issue(pki, "S1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_path, issued.key_path)
    context.load_verify_locations(pki.ca_bundle)
    assert len(context.get_ca_certs()) == 2


def test_a_second_run_reuses_authorities_keys_and_certificates(pki, clock):
    first = issue(pki, "C1")
    again = Pki.open(pki.folder, clock)
    assert again.root == pki.root
    assert issue(again, "C1") == first


def test_an_expired_certificate_is_issued_anew_with_the_same_key(pki, clock):
    first = issue(pki, "C1")
    key = first.key_path.read_bytes()
    clock.advance(398 * 86_400)
    second = issue(pki, "C1")
    assert second.kid != first.kid
    assert second.key_path.read_bytes() == key


@pytest.mark.parametrize("change", [{"renew": True}, {"organisation_name": "Other"}])
def test_another_subject_or_a_renewal_gives_another_certificate(pki, change):
    assert issue(pki, "C1").kid != issue(pki, "C1", **change).kid


def test_certificates_can_be_made_expired_or_not_yet_valid(pki):
    certificate = read_certificate(
        issue(pki, "C1", not_before=NOW - 20, not_after=NOW - 10).cert_path
    )
    assert certificate.not_valid_after_utc.timestamp() == NOW - 10


def test_a_revoked_certificate_stands_in_the_list_and_is_not_used_again(pki, clock):
    issued = issue(pki, "C1")
    serial = read_certificate(issued.cert_path).serial_number
    pki.revoke(serial, "keyCompromise")
    reopened = Pki.open(pki.folder, clock)
    crl = x509.load_der_x509_crl(reopened.crl())
    assert crl.is_signature_valid(pki.issuing.public_key())
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None
    assert issue(reopened, "C1").kid != issued.kid
    reopened.restore(serial)
    assert not list(x509.load_der_x509_crl(reopened.crl()))


def ask(pki, certificate, issuer=None):
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        certificate, issuer or pki.issuing, hashes.SHA256()
    )
    der = builder.build().public_bytes(serialization.Encoding.DER)
    return ocsp.load_der_ocsp_response(pki.ocsp(der))


def test_the_responder_vouches_and_refuses(pki):
    certificate = read_certificate(issue(pki, "C1").cert_path)
    assert ask(pki, certificate).certificate_status is ocsp.OCSPCertStatus.GOOD
    pki.revoke(certificate.serial_number)
    answer = ask(pki, certificate)
    assert answer.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert (
        answer.responder_key_hash
        == x509.SubjectKeyIdentifier.from_public_key(pki.issuing.public_key()).digest
    )


def test_the_responder_answers_neither_noise_nor_for_another_authority(pki, tmp_path, clock):
    other = Pki.open(tmp_path / "other", clock)
    certificate = read_certificate(issue(pki, "C1").cert_path)
    assert ask(pki, certificate, other.issuing).response_status is (
        ocsp.OCSPResponseStatus.UNAUTHORIZED
    )
    noise = ocsp.load_der_ocsp_response(pki.ocsp(b"noise"))
    assert noise.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
