"""Certificates from requests (CSR): the framework's rules on subject and key, the issue, and the certificate document."""

from typing import Any, Final
from urllib.parse import unquote

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from hub.sandbox.directory.documents import facts_of, iso
from hub.sandbox.directory.register import Application, Key, Organisation
from hub.sandbox.pki import KEY_TYPES, KeyType, Pki, x5t_s256

LEAF_SECONDS: Final = 397 * 86_400
_PAST: Final = 300
_CLIENT: Final = "OPF UAE CLIENT"
_BY_NAME: Final = {kind.value.lower().replace(" ", "_"): kind for kind in KeyType}
"""Types as the API names them (``opf_uae_client_transport``)."""


class RequestRefused(msgspec.Struct, frozen=True):
    """Say which rule a certificate request breaks."""

    why: str


def key_type_of(name: str) -> KeyType | None:
    """Return a certificate type by its name in the API, or None."""
    return _BY_NAME.get(name.lower())


def pem_in(body: bytes, content_type: str) -> bytes:
    """Return the request's PEM: the body itself, or ``KeyMaterial`` of a JSON body (PEM, URL-encoded)."""
    if "json" not in content_type:
        return body
    try:
        material = msgspec.json.decode(body, type=dict[str, Any]).get("KeyMaterial", "")
    except msgspec.DecodeError:
        return b""
    text = material if isinstance(material, str) else ""
    return (text if "-----BEGIN" in text and "%" not in text else unquote(text)).encode()


def issue_for(
    pki: Pki,
    pem: bytes,
    key_type: KeyType,
    organisation: Organisation,
    application: Application | None,
    now: int,
) -> Key | RequestRefused:
    """Check a certificate request against the framework's rules and issue what it asks for.

    Rules (trust-framework.md 2): signed by its own key, RSA of 2048 bits or more, ``C=AE``, O the legal name, OU the
    organisation's id, CN the client id for client types of an application.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        if not request.is_signature_valid:
            return RequestRefused("the request is not signed by its key")
    except ValueError:
        return RequestRefused("expected a certificate signing request in PEM")
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < 2048:
        return RequestRefused("expected an RSA key of 2048 bits or more")
    wanted = {
        NameOID.COUNTRY_NAME: "AE",
        NameOID.ORGANIZATION_NAME: organisation.name,
        NameOID.ORGANIZATIONAL_UNIT_NAME: organisation.id,
    }
    if key_type.startswith(_CLIENT) and application is not None:
        wanted[NameOID.COMMON_NAME] = application.client_id
    for oid, value in wanted.items():
        found = [a.value for a in request.subject.get_attributes_for_oid(oid)]
        if found != [value]:
            return RequestRefused(f"subject: expected {oid._name}={value}")  # noqa: SLF001 - its only name
    certificate = pki.certify(
        next(kind for kind, held in KEY_TYPES.items() if held is key_type),
        key,
        subject=request.subject,
        dns=_names(request),
        not_before=now - _PAST,
        not_after=now + LEAF_SECONDS,
    )
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Key(kid=x5t_s256(certificate), key_type=key_type, pem=text, created=now)


def _names(request: x509.CertificateSigningRequest) -> list[str]:
    try:
        extension = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def certificate_document(
    organisation: Organisation, application: Application | None, key: Key, base: str
) -> dict[str, Any]:
    """Return a certificate as the API tells of it (trust-framework.md 2)."""
    document: dict[str, Any] = {
        "OrganisationId": organisation.id,
        "SoftwareStatementIds": [application.software_statement_id] if application else [],
        "ClientName": application.name if application else organisation.name,
        "Status": key.status,
        "keyType": key.key_type,
        "kid": key.kid,
        "kty": "RSA",
        "x5u": f"{base}/{organisation.id}/{key.kid}.pem",
    }
    if key.revoked:
        document["RevokedDateTime"] = iso(key.revoked)
        document["RevokeReason"] = key.reason
    if key.pem:
        facts = facts_of(key.pem)
        document |= {"n": facts.n, "e": facts.e, "x5t#S256": facts.x5t_s256}
        if facts.x5t_s256:
            document["ValidFromDateTime"] = iso(facts.not_before)
            document["ExpiryDateTime"] = iso(facts.not_after)
    return document
