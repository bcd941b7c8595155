"""The tenant's own entry in the participants document: made from its configuration, and any document checked for oddities.

Hand-typed entries are the ecosystem's commonest mistake (doubled paths, wrong families, odd versions), so the Hub makes
its own. ``lint`` reads any participants document without ever raising and names each oddity with the place it stands at.

Sources: trust-framework.md 3.1 to 3.4; hub-behaviour.md 1 and 8; user-asks.md 4.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson

from hub.config import Tenant
from hub.trust.push import PATH

SEGMENTS: Final[Mapping[str, str]] = {
    "account-information": "account-information",
    "payment": "payment",
    "confirmation": "confirmation-of-payee",
    "product": "product",
    "atm": "atm",
    "insurance": "insurance",
    "fx": "fx",
    "onboarding": "onboarding",
    "reporting": "reporting",
    "account-opening": "account-opening",
    "account": "account",
}
"""Path segment by the directory's name of the family; they differ for confirmation of payee."""
_VERSION: Final = re.compile(r"\d+\.\d+")
_PATH: Final = re.compile(r"/open-finance/(?P<family>[a-z-]+)/v(?P<version>\d+\.\d+)(/.*)?")
_STATUSES: Final = frozenset({"Active", "Inactive", "Withdrawn"})
_DISCOVERY: Final = "/.well-known/openid-configuration"
_FINDINGS: Final = 10_000


class Finding(msgspec.Struct, frozen=True):
    """Hold one oddity: where (JSON pointer), which rule, and what was found."""

    pointer: str
    rule: str
    what: str


def make_record(
    tenant: Tenant,
    *,
    server_id: str,
    name: str,
    endpoints: Mapping[tuple[str, str], Sequence[str]],
    metadata: Mapping[str, Mapping[str, Any]],
    notifications: bool = False,
) -> dict[str, Any]:
    """Return the tenant's authorisation server as the framework wants it registered.

    Args:
        tenant: Whose Hub this is.
        server_id: The id that the framework gave the server; empty before.
        name: What customers are shown.
        endpoints: Path templates below the resource base by family and version (``("payment", "2.1")``).
        metadata: ``ApiMetadata`` by family.
        notifications: Whether the Hub takes notifications of the framework.
    """
    record: dict[str, Any] = {
        "OrganisationId": tenant.organisation_id,
        "Status": "Active",
        "AutoRegistrationSupported": True,
        "CustomerFriendlyName": name,
        "Issuer": tenant.issuer,
        "OpenIDDiscoveryDocument": tenant.issuer + _DISCOVERY,
        "SupportsCiba": False,
        "SupportsDCR": False,
        "SupportsRedirect": False,
        "ApiResources": [
            {
                "ApiFamilyType": family,
                "ApiVersion": version,
                "FamilyComplete": True,
                "CertificationStatus": "Self-Certified",
                "Status": "Active",
                "ApiMetadata": dict(metadata.get(family, {})),
                "ApiDiscoveryEndpoints": [
                    {"ApiEndpoint": tenant.resource_base + path} for path in paths
                ],
            }
            for (family, version), paths in sorted(endpoints.items())
        ],
    }
    if notifications:
        record["NotificationWebhook"] = tenant.issuer + PATH
    return {"AuthorisationServerId": server_id} | record if server_id else record


def lint(document: bytes) -> tuple[Finding, ...]:
    """Name each oddity of a participants document: an array of organisations, one of them, or one server."""
    try:
        decoded = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        return (Finding("", "json", f"not JSON: {error}"),)
    found: list[Finding] = []
    for finding in _lint(decoded):
        found.append(finding)
        if len(found) >= _FINDINGS:
            break
    return tuple(found)


def _lint(decoded: object) -> Iterator[Finding]:
    if isinstance(decoded, list):
        for at, row in enumerate(decoded):
            yield from _organisation(row, f"/{at}")
    elif isinstance(decoded, dict) and "ApiResources" in decoded and "Issuer" in decoded:
        yield from _server(decoded, "")
    else:
        yield from _organisation(decoded, "")


def _organisation(row: object, at: str) -> Iterator[Finding]:
    if not isinstance(row, dict):
        yield Finding(at, "shape", "expected an object")
        return
    yield from _missing(row, at, ("OrganisationId", "OrganisationName", "Status"))
    yield from _status(row, at)
    servers = row.get("AuthorisationServers")
    if not isinstance(servers, list) or not servers:
        yield Finding(f"{at}/AuthorisationServers", "missing", "an organisation without a server")
        return
    for index, server in enumerate(servers):
        yield from _server(server, f"{at}/AuthorisationServers/{index}")


def _server(row: object, at: str) -> Iterator[Finding]:
    if not isinstance(row, dict):
        yield Finding(at, "shape", "expected an object")
        return
    yield from _missing(row, at, ("Issuer", "OpenIDDiscoveryDocument", "CustomerFriendlyName"))
    yield from _status(row, at)
    issuer, discovery = _text(row, "Issuer"), _text(row, "OpenIDDiscoveryDocument")
    if issuer:
        yield from _origin(issuer, f"{at}/Issuer")
    if discovery and not discovery.endswith(_DISCOVERY):
        yield Finding(f"{at}/OpenIDDiscoveryDocument", "discovery", f"does not end in {_DISCOVERY}")
    elif discovery and issuer and discovery != issuer + _DISCOVERY:
        yield Finding(f"{at}/OpenIDDiscoveryDocument", "discovery", "is not the issuer's")
    resources = row.get("ApiResources")
    if not isinstance(resources, list) or not resources:
        yield Finding(f"{at}/ApiResources", "missing", "a server without API resources")
        return
    for index, resource in enumerate(resources):
        yield from _resource(resource, f"{at}/ApiResources/{index}")


def _resource(row: object, at: str) -> Iterator[Finding]:
    if not isinstance(row, dict):
        yield Finding(at, "shape", "expected an object")
        return
    yield from _missing(row, at, ("ApiFamilyType", "ApiVersion", "ApiMetadata"))
    family, version = _text(row, "ApiFamilyType"), _text(row, "ApiVersion")
    if family and family not in SEGMENTS:
        yield Finding(f"{at}/ApiFamilyType", "family", f"unknown family {family!r}")
    if version and not _VERSION.fullmatch(version):
        yield Finding(f"{at}/ApiVersion", "version", f"{version!r} is not MAJOR.MINOR")
    endpoints = row.get("ApiDiscoveryEndpoints")
    if not isinstance(endpoints, list) or not endpoints:
        yield Finding(f"{at}/ApiDiscoveryEndpoints", "missing", "an API without endpoints")
        return
    for index, entry in enumerate(endpoints):
        where = f"{at}/ApiDiscoveryEndpoints/{index}/ApiEndpoint"
        endpoint = _text(entry, "ApiEndpoint") if isinstance(entry, dict) else ""
        if not endpoint:
            yield Finding(where, "missing", "no ApiEndpoint")
        else:
            yield from _endpoint(endpoint, family, version, where)


def _endpoint(endpoint: str, family: str, version: str, at: str) -> Iterator[Finding]:
    parts = _split(endpoint)
    if parts is None or parts.scheme != "https" or not parts.hostname:
        yield Finding(at, "url", f"expected an https URL, got {endpoint!r}")
        return
    path = parts.path
    if path.count("/open-finance/") > 1 or "//" in path:
        yield Finding(at, "doubled_path", path)
    if _DISCOVERY in path:
        yield Finding(at, "discovery_in_path", path)
    if parts.query or parts.fragment:
        yield Finding(at, "url", "has a query or fragment")
    found = _PATH.fullmatch(path)
    if found is None:
        yield Finding(at, "path", f"expected /open-finance/FAMILY/vVERSION/…, got {path!r}")
        return
    if family in SEGMENTS and found["family"] != SEGMENTS[family]:
        yield Finding(at, "family", f"{found['family']!r} in the path of family {family!r}")
    if version and found["version"] != version:
        yield Finding(at, "version", f"v{found['version']} in the path of version {version!r}")


def _origin(url: str, at: str) -> Iterator[Finding]:
    parts = _split(url)
    if parts is None or parts.scheme != "https" or not parts.hostname:
        yield Finding(at, "url", f"expected an https URL, got {url!r}")
    elif parts.path or parts.query or parts.fragment:
        yield Finding(at, "url", "expected host and port only, without a trailing slash")


def _split(url: str) -> Any:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _missing(row: Mapping[str, Any], at: str, names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        if row.get(name) in (None, ""):
            yield Finding(f"{at}/{name}", "missing", "required")


def _status(row: Mapping[str, Any], at: str) -> Iterator[Finding]:
    status = row.get("Status")
    if status is not None and (not isinstance(status, str) or status not in _STATUSES):
        yield Finding(f"{at}/Status", "status", f"unknown status {status!r}")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
