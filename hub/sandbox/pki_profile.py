"""The profile of the sandbox's certificates: the twelve kinds of the key map, their usages, subjects and names."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_DNS: Final = ("localhost", "*.hub.localhost")


class Kind(StrEnum):
    """Enumerate the twelve kinds of the key map, by their ids there."""

    S1 = "S1"
    S3 = "S3"
    S4 = "S4"
    C1 = "C1"
    C3 = "C3"
    C4 = "C4"
    SIG1 = "Sig1"
    SIG2 = "Sig2"
    SIG3 = "Sig3"
    SIG4 = "Sig4"
    ENC1 = "Enc1"
    ENC2 = "Enc2"


class KeyType(StrEnum):
    """Enumerate the framework's labels of certificate types."""

    CLIENT_TRANSPORT = "OPF UAE CLIENT TRANSPORT"
    SERVER_TRANSPORT = "OPF UAE SERVER TRANSPORT"
    CLIENT_SIGNING = "OPF UAE CLIENT SIGNING"
    SERVER_SIGNING = "OPF UAE SERVER SIGNING"
    CLIENT_ENCRYPTION = "OPF UAE CLIENT ENCRYPTION"
    SERVER_ENCKEY = "SERVER ENCKEY"


KEY_TYPES: Final = {
    Kind.S1: KeyType.SERVER_TRANSPORT,
    Kind.S3: KeyType.SERVER_TRANSPORT,
    Kind.S4: KeyType.SERVER_TRANSPORT,
    Kind.C1: KeyType.CLIENT_TRANSPORT,
    Kind.C3: KeyType.CLIENT_TRANSPORT,
    Kind.C4: KeyType.CLIENT_TRANSPORT,
    Kind.SIG1: KeyType.CLIENT_SIGNING,
    Kind.SIG2: KeyType.SERVER_SIGNING,
    Kind.SIG3: KeyType.CLIENT_SIGNING,
    Kind.SIG4: KeyType.CLIENT_SIGNING,
    Kind.ENC1: KeyType.SERVER_ENCKEY,
    Kind.ENC2: KeyType.CLIENT_ENCRYPTION,
}


def subject_of(organisation_name: str, organisation_id: str, client_id: str) -> x509.Name:
    """Return the documented subject; empty parts are left out."""
    names = [
        (NameOID.COUNTRY_NAME, "AE"),
        (NameOID.ORGANIZATION_NAME, organisation_name),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, organisation_id),
        (NameOID.COMMON_NAME, client_id),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in names if value])


def usage_of(key_type: KeyType) -> x509.KeyUsage:
    """Return the key usage of a type."""
    if key_type is KeyType.CLIENT_ENCRYPTION:
        return key_usage("key_encipherment")
    if key_type in {KeyType.CLIENT_SIGNING, KeyType.SERVER_SIGNING}:
        return key_usage("digital_signature", "content_commitment")
    return key_usage("digital_signature", "key_encipherment")


def key_usage(*names: str) -> x509.KeyUsage:
    """Return a key usage with exactly these bits."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def transport_extensions(key_type: KeyType, dns: Sequence[str]) -> list[x509.ExtensionType]:
    """Return extended key usage and alternative names of the transport types; nothing for others."""
    if key_type is KeyType.CLIENT_TRANSPORT:
        return [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
    if key_type is not KeyType.SERVER_TRANSPORT:
        return []
    names: list[x509.GeneralName] = [
        x509.DNSName(name) for name in dict.fromkeys((*DEFAULT_DNS, *dns))
    ]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return [
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName(names),
    ]


def authority_id(key: rsa.RSAPrivateKey) -> x509.AuthorityKeyIdentifier:
    """Return the identifier of a signer."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def moment(seconds: int) -> dt.datetime:
    """Return seconds since 1970 as an aware datetime."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def pem_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)
