"""Who is at the other end: subjects of every shape are read right, ambiguous ones are refused."""

import base64
import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.caller import Peer
from hub.model.fault import Fault
from hub.protocol.peer import CERTIFICATE_LIMIT, read_peer

KEY = ec.generate_private_key(ec.SECP256R1())
OU, ORG, CN = NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
ORGANISATION = "0f7f2ffa-3af2-4b5a-9f54-4d30a3a1f1a1"
CLIENT = "5d0b9a2c-5a3c-4c7e-8a66-1c2d3e4f5a6b"
END = dt.datetime(2040, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def attribute(oid, value):
    return x509.NameAttribute(oid, value, _validate=False)


def certificate(subject, issuer=None, serial=0xABCDEF):
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or x509.Name([attribute(CN, "Issuing CA")]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(END)
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def read(der):
    return read_peer(der, address="203.0.113.7", tls_version="TLSv1.3")


def flat(*pairs):
    return x509.Name([attribute(oid, value) for oid, value in pairs])


WHOLE = certificate(flat((ORG, "Rain"), (OU, ORGANISATION), (CN, CLIENT)))


def test_the_documented_subject_is_read():
    der = certificate(
        flat((NameOID.COUNTRY_NAME, "AE"), (ORG, "Rain FZ-LLC"), (OU, ORGANISATION), (CN, CLIENT))
    )
    peer = read(der)
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert peer == Peer(
        address="203.0.113.7",
        tls_version="TLSv1.3",
        x5t_s256=digest,
        organisation_id=ORGANISATION,
        organisation_name="Rain FZ-LLC",
        client_id=CLIENT,
        serial="abcdef",
        issuer="CN=Issuing CA",
        not_after=int(END.timestamp()),
        certificate=der,
    )
    assert peer.present


def test_no_certificate_is_nobody_with_an_address():
    assert read(b"") == Peer(address="203.0.113.7", tls_version="TLSv1.3")
    assert not read(b"").present


TEXT = st.text(
    st.one_of(
        st.sampled_from(",+\"\\<>;=# /'éشركة中文😀"),
        st.characters(categories=["L", "N", "P", "S"]),
    ),
    min_size=1,
    max_size=60,
).filter(lambda text: len(text.encode()) <= 64)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, TEXT, st.permutations([0, 1, 2]), st.sampled_from(["1,1,1", "2,1", "1,2", "3"]))
def test_any_value_in_any_order_and_grouping_comes_back_as_it_went_in(
    name, organisation, client, order, grouping
):
    attributes = [attribute(ORG, name), attribute(OU, organisation), attribute(CN, client)]
    attributes = [attributes[i] for i in order]
    rdns, at = [], 0
    for size in map(int, grouping.split(",")):
        rdns.append(x509.RelativeDistinguishedName(attributes[at : at + size]))
        at += size
    peer = read(certificate(x509.Name(rdns)))
    assert isinstance(peer, Peer)
    assert (peer.organisation_name, peer.organisation_id, peer.client_id) == (
        name,
        organisation,
        client,
    )


@settings(max_examples=40, deadline=None)
@given(TEXT)
def test_a_value_cannot_pretend_to_be_another_attribute(text):
    peer = read(certificate(flat((ORG, f"{text},OU={ORGANISATION}+CN={CLIENT}"), (CN, "x"))))
    assert isinstance(peer, Peer)
    assert peer.organisation_id == ""
    assert peer.client_id == "x"


@settings(max_examples=40, deadline=None)
@given(TEXT)
def test_the_issuer_is_written_as_rfc_4514_wants_it(text):
    issuer = flat((NameOID.COUNTRY_NAME, "AE"), (CN, text))
    peer = read(certificate(flat((CN, "x")), issuer=issuer))
    assert isinstance(peer, Peer)
    assert x509.Name.from_rfc4514_string(peer.issuer) == issuer


def test_a_legal_name_of_more_than_64_octets_is_read():
    name = "شركة" * 12
    peer = read(certificate(flat((ORG, name), (OU, ORGANISATION), (CN, CLIENT))))
    assert isinstance(peer, Peer)
    assert peer.organisation_name == name


@pytest.mark.parametrize("oid", [ORG, OU, CN])
def test_a_subject_that_names_an_attribute_twice_is_refused(oid):
    fault = read(certificate(flat((oid, "one"), (NameOID.COUNTRY_NAME, "AE"), (oid, "two"))))
    assert isinstance(fault, Fault)
    assert (fault.status, fault.code, fault.check) == (401, "invalid_client", "peer.subject")


@pytest.mark.parametrize("mark", ["\x00", "\n", "\r", "\x7f", "\u202e"])
@pytest.mark.parametrize("oid", [ORG, OU, CN])
def test_control_characters_in_a_subject_are_refused(oid, mark):
    fault = read(certificate(flat((oid, f"one{mark}two"))))
    assert isinstance(fault, Fault)
    assert fault.check == "peer.subject"


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_bytes_that_are_no_certificate_are_refused_without_an_exception(noise):
    assert isinstance(read(noise), Fault)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_certificate_never_raises(data):
    der = bytearray(WHOLE)
    der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    assert isinstance(read(bytes(der)), Peer | Fault)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_serial_number_that_is_not_positive_is_refused():
    at = WHOLE.index(b"\x02\x04\x00\xab\xcd\xef")
    fault = read(WHOLE[: at + 2] + b"\x80" + WHOLE[at + 3 :])
    assert isinstance(fault, Fault)
    assert fault.check == "peer.malformed"


def test_an_oversize_certificate_is_refused():
    fault = read(b"\x30" + bytes(CERTIFICATE_LIMIT))
    assert isinstance(fault, Fault)
    assert fault.check == "peer.malformed"


def test_a_refusal_says_nothing_of_the_certificate():
    fault = read(certificate(flat((CN, "secret-one"), (CN, "secret-two"))))
    assert isinstance(fault, Fault)
    assert "secret" not in fault.public + fault.private
