"""The Trust Framework's documents, made from the register: participants, statements, key sets (trust-framework.md 3 to 5)."""

import datetime as dt
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.sandbox.directory.register import (
    ACTIVE,
    REVOKED,
    ApiResource,
    Application,
    Key,
    Organisation,
    Server,
)

AUTHORITY: Final = "Sandbox Authority"
DOMAIN: Final = "API Hub Sandbox"
SCOPES: Final = {
    "BDSP": ("openid", "accounts", "products"),
    "BSIP": ("openid", "payments", "confirmation-of-payee", "products"),
    "ISP": ("openid", "insurance"),
    "LFI": (),
}
DETAIL_TYPES: Final = {
    "BDSP": "urn:openfinanceuae:account-access-consent:*",
    "BSIP": "urn:openfinanceuae:service-initiation-consent:*",
    "ISP": "urn:openfinanceuae:insurance-consent:*",
}
GRANTS: Final = ("client_credentials", "authorization_code", "refresh_token")
_TRANSPORT: Final = frozenset({"OPF UAE CLIENT TRANSPORT", "OPF UAE SERVER TRANSPORT"})
_ENCRYPTION: Final = frozenset({"OPF UAE CLIENT ENCRYPTION", "SERVER ENCKEY"})


class Bases(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the directory's own addresses, without trailing slash: public documents, API (mTLS), CRL and OCSP."""

    public: str
    api: str
    pki: str


def iso(seconds: int) -> str:
    """Return a moment as the framework writes it."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def organisation_document(organisation: Organisation) -> dict[str, Any]:
    """Return an organisation as the API lists it."""
    return {
        "OrganisationId": organisation.id,
        "Status": organisation.status,
        "OrganisationName": organisation.name,
        "LegalEntityName": organisation.name,
        "RegisteredName": organisation.name,
        "CreatedOn": iso(organisation.created),
        "CountryOfRegistration": "AE",
        "Country": "AE",
        "Size": organisation.size,
        "Tags": [],
        "Flags": {},
        "OrgDomainClaims": [_domain_claim(organisation)],
        "OrgDomainRoleClaims": [_role_claim(organisation, role) for role in organisation.roles],
    }


def _domain_claim(organisation: Organisation) -> dict[str, Any]:
    return {
        "AuthorisationDomainName": DOMAIN,
        "AuthorityName": AUTHORITY,
        "RegistrationId": organisation.id,
        "Status": ACTIVE,
    }


def _role_claim(organisation: Organisation, role: str) -> dict[str, Any]:
    metadata = [("scope", scope) for scope in SCOPES.get(role, ())]
    if role in DETAIL_TYPES:
        metadata += [("grant_type", grant) for grant in GRANTS]
        metadata.append(("authorization_details_types", DETAIL_TYPES[role]))
    return {
        "AuthorisationDomain": DOMAIN,
        "Role": role,
        "RoleType": "Federation",
        "RegistrationId": organisation.id,
        "Status": ACTIVE,
        "Exclusive": False,
        "Authorisations": [],
        "Metadata": [
            {"DomainRoleName": role, "Type": kind, "Name": name, "Status": ACTIVE}
            for kind, name in metadata
        ],
    }


def participants_document(organisations: Iterable[Organisation]) -> list[dict[str, Any]]:
    """Return the participants: every organisation with at least one authorisation server."""
    return [
        organisation_document(organisation)
        | {"AuthorisationServers": [server_document(organisation, s) for s in servers]}
        for organisation in organisations
        if (servers := list(organisation.servers.values()))
    ]


def server_document(organisation: Organisation, server: Server) -> dict[str, Any]:
    """Return one authorisation server with its API resources."""
    return {
        "AuthorisationServerId": server.id,
        "OrganisationId": organisation.id,
        "Status": server.status,
        "AutoRegistrationSupported": True,
        "CustomerFriendlyName": server.name,
        "CustomerFriendlyDescription": server.name,
        "CustomerFriendlyLogoUri": server.logo_uri or None,
        "Issuer": server.issuer,
        "OpenIDDiscoveryDocument": server.discovery,
        "SupportsCiba": False,
        "SupportsDCR": False,
        "SupportsRedirect": False,
        "AuthorisationServerCertifications": [],
        "CreatedAt": iso(server.created),
        "Flags": server.flags,
        "ApiResources": [_resource_document(resource) for resource in server.resources],
    }


def _resource_document(resource: ApiResource) -> dict[str, Any]:
    return {
        "ApiResourceId": resource.id,
        "ApiFamilyType": resource.family,
        "ApiVersion": resource.version,
        "FamilyComplete": True,
        "CertificationStatus": "Self-Certified",
        "Status": resource.status,
        "ApiMetadata": resource.metadata,
        "ApiDiscoveryEndpoints": [
            {"ApiDiscoveryId": f"{resource.id}-{at}", "ApiEndpoint": endpoint}
            for at, endpoint in enumerate(resource.endpoints)
        ],
    }


def roles_in_force(organisation: Organisation, application: Application) -> tuple[str, ...]:
    """Return the application's roles that its organisation holds."""
    return tuple(role for role in application.roles if role in organisation.roles)


def statement_document(
    organisation: Organisation, application: Application, bases: Bases
) -> dict[str, Any]:
    """Return a software statement as the API lists it."""
    home = keys_base(bases, application)
    return {
        "OrganisationId": organisation.id,
        "SoftwareStatementId": application.software_statement_id,
        "ClientId": application.client_id,
        "ClientName": application.name,
        "Description": application.description or application.name,
        "Environment": "Sandbox",
        "Mode": "Live",
        "Status": application.status,
        "Version": 1,
        "RedirectUri": list(application.redirect_uris),
        "ApiWebhookUri": list(application.webhook_uris),
        "ClientUri": application.client_uri,
        "LogoUri": application.logo_uri,
        "PolicyUri": application.policy_uri,
        "TermsOfServiceUri": application.terms_uri,
        "Roles": list(roles_in_force(organisation, application)),
        "TokenEndpointAuthMethod": "private_key_jwt",
        "TlsClientCertificateBoundAccessTokens": True,
        "DpopBoundAccessTokens": application.dpop_bound,
        "RequireSignedRequestObject": True,
        "IdTokenSignedResponseAlgorithm": "PS256",
        "JwksUri": f"{home}/application.jwks",
        "JwksRevokedUri": f"{home}/revoked/application.jwks",
    }


def assertion_claims(
    organisation: Organisation, application: Application, bases: Bases, *, now: int, jti: str
) -> dict[str, Any]:
    """Return the claims of a software statement assertion (trust-framework.md 5)."""
    roles = [
        {"Role": r, "Status": ACTIVE if r in organisation.roles else "Inactive"}
        for r in application.roles
    ]
    home = keys_base(bases, application)
    return {
        "iss": DOMAIN,
        "iat": now,
        "jti": jti,
        "SoftwareId": application.software_statement_id,
        "SoftwareClientId": application.client_id,
        "SoftwareClientName": application.name,
        "SoftwareClientDescription": application.description or application.name,
        "SoftwareClientUri": application.client_uri,
        "SoftwareVersion": "1",
        "SoftwareEnvironment": "Sandbox",
        "SoftwareMode": "Live",
        "SoftwareJwksUri": f"{home}/application.jwks",
        "SoftwareJwksRevokedUri": f"{home}/revoked/application.jwks",
        "SoftwareLogoUri": application.logo_uri,
        "SoftwarePolicyUri": application.policy_uri,
        "SoftwareTosUri": application.terms_uri,
        "SoftwareRedirectUris": list(application.redirect_uris),
        "SoftwareAuthorityClaims": {
            "AuthorisationDomains": [{"AuthorisationDomain": DOMAIN, "Roles": roles}]
        },
        "OrganisationAuthorityClaims": [_domain_claim(organisation)],
        "OrgId": organisation.id,
        "OrgName": organisation.name,
        "OrgStatus": organisation.status,
        "OrgContacts": [],
        "OrgJwksUri": f"{bases.public}/{organisation.id}/application.jwks",
        "OrgJwksRevokedUri": f"{bases.public}/{organisation.id}/revoked/application.jwks",
    }


def keys_base(bases: Bases, application: Application) -> str:
    """Return where the key sets of an application lie."""
    return f"{bases.public}/{application.organisation_id}/{application.software_statement_id}"


def key_set(
    keys: Sequence[Key],
    *,
    transport: bool,
    revoked: bool,
    organisation_id: str,
    bases: Bases,
    now: int,
) -> dict[str, Any]:
    """Return one JWK set: of transport keys or the others, of revoked ones or those in force."""
    chosen = [
        key
        for key in keys
        if (key.key_type in _TRANSPORT) is transport
        and (key.status == REVOKED) is revoked
        and (revoked or _in_force(key, now))
    ]
    return {
        "keys": [_jwk(key, f"{bases.public}/{organisation_id}/{key.kid}.pem") for key in chosen]
    }


def _in_force(key: Key, now: int) -> bool:
    return not key.pem or now < facts_of(key.pem).not_after


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what is read out of a certificate or public key once."""

    n: str
    e: str
    x5t_s256: str = ""
    subject: str = ""
    serial: int = 0
    not_before: int = 0
    not_after: int = 2**62


@lru_cache(4096)
def facts_of(pem: str) -> KeyFacts:
    """Read a certificate or a bare public key in PEM; RSA only."""
    if "CERTIFICATE" not in pem:
        key = serialization.load_pem_public_key(pem.encode())
        return KeyFacts(n=_number(_rsa(key).n), e=_number(_rsa(key).e))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    numbers = _rsa(certificate.public_key())
    return KeyFacts(
        n=_number(numbers.n),
        e=_number(numbers.e),
        x5t_s256=_base64url(certificate.fingerprint(hashes.SHA256())),
        subject=certificate.subject.rfc4514_string(),
        serial=certificate.serial_number,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
    )


def _rsa(key: object) -> rsa.RSAPublicNumbers:
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("expected an RSA key")
    return key.public_numbers()


def _jwk(key: Key, x5u: str) -> dict[str, Any]:
    if key.jwk:
        return key.jwk
    facts = facts_of(key.pem)
    use = "tls" if key.key_type in _TRANSPORT else "enc" if key.key_type in _ENCRYPTION else "sig"
    document = {"kty": "RSA", "use": use, "kid": key.kid, "n": facts.n, "e": facts.e}
    if facts.x5t_s256:
        document |= {"x5u": x5u, "x5t#S256": facts.x5t_s256, "x5dn": facts.subject}
    return document


def _number(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
