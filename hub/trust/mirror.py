"""What the Hub knows of the Trust Framework: frozen values, read liberally from its documents.

Theory. The mirror has parts of different age: the index of organisations, one entry per client that matters to this
tenant, and the revocation list. Each part is dated by the moment of its last successful fetch, and replaced whole.
Readers of documents take what they need and survive what they do not know: a missing, misspelt or ill-typed member
makes the entry weaker (no role, not active), never the reader fail.

Sources: trust-framework.md sections 3 and 5; hub-apis.md 2.3 (``decodedSsa``).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

ACTIVE: Final = "Active"
TPP_ROLES: Final = frozenset({"BDSP", "BSIP", "ISP", "IDSP"})
_ALIASES: Final = {"IDSP": "ISP"}
"""The roles page and the dump name the same role differently; the dump's name is ours."""


class Organisation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold one organisation of the index. There are many; none can be part of a cycle."""

    id: str
    name: str
    status: str
    size: str = ""
    roles: tuple[str, ...] = ()


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Hold all organisations by id, with the moment (seconds) they were fetched; 0 for never."""

    organisations: dict[str, Organisation] = {}
    fetched: int = 0


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one application as the framework tells of it.

    Attributes:
        client_id: Its UUID.
        software_statement_id: Mostly the same.
        organisation_id: Whose it is.
        name: Its name.
        status: ``Active`` or not.
        roles: In force at organisation and application.
        redirect_uris: Registered.
        webhook_uris: Registered.
        dpop_bound: Registered for DPoP-bound tokens.
        decoded_ssa: What the bank sees.
        key_set: Its key set, as fetched.
        transport: Key ids of its transport certificates.
        revoked: Key ids that the framework revoked.
        ends: Ends of validity (seconds) of its published certificates by key id, 0 for keys without one; for the radar.
    """

    client_id: str
    software_statement_id: str
    organisation_id: str
    name: str = ""
    status: str = ""
    roles: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    webhook_uris: tuple[str, ...] = ()
    dpop_bound: bool = False
    decoded_ssa: dict[str, Any] = {}
    key_set: bytes = b'{"keys":[]}'
    transport: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    ends: dict[str, int] = {}


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the serial numbers (hex) of the revocation list, with its dates in seconds."""

    serials: frozenset[str] = frozenset()
    fetched: int = 0
    next_update: int = 0


class DocumentFault(msgspec.Struct, frozen=True):
    """Say why a document of the framework cannot be used."""

    why: str


class _Content(msgspec.Struct):
    content: tuple[msgspec.Raw, ...]


_ROWS: Final = msgspec.json.Decoder(tuple[msgspec.Raw, ...])
_CONTENT: Final = msgspec.json.Decoder(_Content)


def split_organisations(document: bytes) -> tuple[msgspec.Raw, ...] | DocumentFault:
    """Split the list of organisations into its rows, unread: an array, or an object with it as ``content``.

    Splitting is quick; reading a row is not, and a large list is read in many small steps by the caller.
    """
    try:
        if document.lstrip()[:1] == b"{":
            return _CONTENT.decode(document).content
        return _ROWS.decode(document)
    except msgspec.DecodeError:
        return DocumentFault("expected a JSON array of organisations")


def read_organisation(raw: msgspec.Raw) -> Organisation | None:
    """Read one row; None where it names no organisation."""
    try:
        return _organisation(orjson.loads(bytes(raw)))
    except orjson.JSONDecodeError:
        return None


def read_organisations(document: bytes, fetched: int) -> Index | DocumentFault:
    """Read the whole list at once."""
    rows = split_organisations(document)
    if isinstance(rows, DocumentFault):
        return rows
    read = (read_organisation(row) for row in rows)
    return Index(organisations={o.id: o for o in read if o is not None}, fetched=fetched)


def _organisation(row: object) -> Organisation | None:
    if not isinstance(row, dict) or not text(row, "OrganisationId"):
        return None
    return Organisation(
        id=text(row, "OrganisationId").lower(),
        name=text(row, "OrganisationName") or text(row, "LegalEntityName"),
        status=text(row, "Status"),
        size=text(row, "Size"),
        roles=_roles(row.get("OrgDomainRoleClaims")),
    )


def _roles(claims: object) -> tuple[str, ...]:
    """Return the roles of a list of claims that are active."""
    if not isinstance(claims, list):
        return ()
    names = [
        _ALIASES.get(text(claim, "Role"), text(claim, "Role"))
        for claim in claims
        if isinstance(claim, dict) and claim.get("Status", ACTIVE) == ACTIVE
    ]
    return tuple(dict.fromkeys(name for name in names if name))


def find_statement(document: bytes, client_id: str) -> str:
    """Return the id of a client's statement in an organisation's list, where it is not the client's; empty for none."""
    try:
        rows = orjson.loads(document)
    except orjson.JSONDecodeError:
        return ""
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and text(row, "ClientId") == client_id:
            return text(row, "SoftwareStatementId")
    return ""


def read_client(
    statement: bytes, claims: Mapping[str, Any], organisation_id: str
) -> Client | DocumentFault:
    """Read an application from its software statement and the verified claims of its assertion.

    What both tell must agree (ids), the assertion wins (roles, redirect URIs), and the statement adds what no
    assertion carries (status, webhook URIs).
    """
    try:
        row = orjson.loads(statement)
    except orjson.JSONDecodeError:
        return DocumentFault("the software statement is not JSON")
    if not isinstance(row, dict):
        return DocumentFault("the software statement is not an object")
    client_id = text(row, "ClientId")
    ids = {client_id, text(claims, "SoftwareClientId")}
    if len(ids) != 1 or not client_id:
        return DocumentFault("statement and assertion name different clients")
    if text(claims, "OrgId") != organisation_id:
        return DocumentFault("the assertion is of another organisation")
    return Client(
        client_id=client_id,
        software_statement_id=text(row, "SoftwareStatementId") or client_id,
        organisation_id=organisation_id,
        name=text(claims, "SoftwareClientName"),
        status=text(row, "Status"),
        roles=_assertion_roles(claims),
        redirect_uris=_texts(claims, "SoftwareRedirectUris"),
        webhook_uris=_texts(row, "ApiWebhookUri"),
        dpop_bound=row.get("DpopBoundAccessTokens") is True,
        decoded_ssa=decoded_ssa(claims),
    )


def _assertion_roles(claims: Mapping[str, Any]) -> tuple[str, ...]:
    authority = claims.get("SoftwareAuthorityClaims")
    domains = authority.get("AuthorisationDomains") if isinstance(authority, dict) else None
    found: list[str] = []
    for domain in domains if isinstance(domains, list) else ():
        if isinstance(domain, dict):
            found += _roles(domain.get("Roles"))
    return tuple(dict.fromkeys(found))


def decoded_ssa(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return a software statement assertion's claims under the names that the bank knows (hub-apis 2.3)."""
    document: dict[str, Any] = {
        "client_id": text(claims, "SoftwareClientId"),
        "client_name": text(claims, "SoftwareClientName"),
        "client_uri": text(claims, "SoftwareClientUri"),
        "logo_uri": text(claims, "SoftwareLogoUri"),
        "jwks_uri": text(claims, "SoftwareJwksUri"),
        "redirect_uris": list(_texts(claims, "SoftwareRedirectUris")),
        "roles": list(_assertion_roles(claims)),
        "application_type": "web",
        "organisation_id": text(claims, "OrgId"),
    }
    return {name: value for name, value in document.items() if value not in ("", [])}


def read_kids(document: bytes) -> tuple[str, ...] | DocumentFault:
    """Return the key ids of a key set."""
    try:
        decoded = orjson.loads(document)
        return tuple(str(key["kid"]) for key in decoded["keys"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return DocumentFault("expected a JWK set")


def text(row: Mapping[str, Any], name: str) -> str:
    """Return a member that is a string; empty for anything else."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = row.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))
